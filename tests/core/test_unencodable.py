"""Values that constructors let pass and that have no encoding: one message or one invocation fails, never the shard."""

from __future__ import annotations

import cbor2
import msgspec
from single_core import cells_of, core_of, put

from shardfun import App, Context, State, Value, value
from shardfun.core.snapshot import decode_queues, encode_queues
from shardfun.model.keyspace import owner_of

OTHER = next(id for id in "abcdef" if owner_of(id, 2) == 1)
SURROGATE = "\udc80"


class Inner(msgspec.Struct, frozen=True):
    n: int


class Word(State):
    text: Value[str] = value("")


app = App("unencodable")


@app.function("t/f")
def function(ctx: Context[Word], message: Inner | str | int) -> None:
    if message == 1:
        ctx.send("t/f", OTHER, "before")
        ctx.send("t/f", OTHER, SURROGATE)
        ctx.send("t/f", OTHER, Inner(object()))  # type: ignore[arg-type]
        ctx.send("t/f", OTHER, "after")
    if message == 2:
        ctx.state.text = SURROGATE
    if message == 3:
        ctx.state.text = "grün"


def letters(core: object) -> list[dict]:
    return [cbor2.loads(raw) for raw in cells_of(core).values()]  # type: ignore[attr-defined]


def test_messages_that_cannot_leave_are_parked_and_their_neighbours_sent() -> None:
    core = core_of(app, shards=2)
    put(core, "t/f", ("x", 1))
    core.run(10)
    raw = core.next_frame(1, flush=True)
    assert raw is not None
    assert [block[4][0][1] for block in cbor2.loads(raw)[3]] == ["before", "after"]
    assert core.next_frame(1, flush=True) is None
    assert [letter["reason"].split(":")[0] for letter in letters(core)] == ["the payload cannot be encoded"] * 2


def test_in_a_checkpoint_they_are_kept_as_what_will_be_a_dead_letter() -> None:
    core = core_of(app, shards=2)
    put(core, "t/f", ("x", 1))
    core.run(10)
    queues = decode_queues(list(encode_queues(core.take_cut(5)))[-1])  # type: ignore[arg-type]
    assert [block[4][0][0].partition(" (")[0] for block in queues.outboxes[1]] == [
        "str",
        "a payload without encoding",
        "a payload without encoding",
        "str",
    ]


def test_state_that_could_not_be_stored_fails_the_invocation() -> None:
    core = core_of(app, shards=1)
    put(core, "t/f", ("x", 3), ("y", 2))
    core.run(10)
    assert core.table.generations["t/f"].young["x"].text == "grün"
    assert core.table.generations["t/f"].young["y"].text == ""
    assert "UnicodeEncodeError" in letters(core)[0]["reason"]
