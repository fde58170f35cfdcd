"""Dead letters are sent again or deleted in one step, and only what fits the application as it is now."""

from __future__ import annotations

from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from single_core import cells_of, core_of, put, record_of, run_all, waiting_of

from shardfun import App, Context, State, Value, value
from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.core.shard import ShardCore
from shardfun.errors import ConfigurationError
from shardfun.model.address import Address
from shardfun.model.keyspace import owner_of, slot_of
from shardfun.model.letters import LetterName, letter_of, name_of_key, parse_letter_name


class Flat(msgspec.Struct, frozen=True, rename={"number": "n"}):
    number: int
    text: str = ""


class Nested(msgspec.Struct, frozen=True):
    flat: Flat


class Mutable(msgspec.Struct):
    items: list[int]


class Tally(State):
    seen: Value[list[str]] = value(default_factory=list)


class Bug:
    """Whether functions raise."""

    on = True


VALUES = [Flat(3, "ä"), Nested(Flat(1)), Mutable([1, 2]), 7, "text", None, b"\xff", {"a": [1]}]


def app_with(
    bug: Bug, accepts: Any = Flat | Nested | Mutable | int | str | None | bytes | dict[str, Any], name: str = "test/worker"
) -> App:
    app = App("letters")

    def work(ctx: Context[Tally], message: Any) -> None:
        if bug.on:
            raise ValueError
        ctx.state.seen = [*ctx.state.seen, f"{message!r} from {ctx.caller}"]

    work.__annotations__["message"] = accepts
    app.function(name)(work)

    @app.on_end(name)
    def end(ctx: Context[Tally]) -> None:
        if bug.on:
            raise ValueError
        ctx.state.seen = [*ctx.state.seen, "end"]

    return app


def keys_of(core: ShardCore) -> list[bytes]:
    return [key for key, raw in cells_of(core).items() if key[2:3] == DEAD_LETTER_KIND and raw is not None]


def test_every_kind_of_payload_comes_back() -> None:
    bug = Bug()
    core = core_of(app_with(bug))
    sender = Address("test/x", "1")
    for message in VALUES:
        put(core, "test/worker", ("a", message), sender=sender)
    core.dispatcher.send_end("test/worker", ["a"])
    run_all(core)
    keys = keys_of(core)
    assert len(keys) == core.dispatcher.letters.count == len(VALUES) + 1
    bug.on, core.changed = False, False
    assert core.change_letters("replay", keys) == [""] * len(keys)
    assert core.changed
    assert (keys_of(core), core.dispatcher.letters.count) == ([], 0)
    run_all(core)
    assert record_of(core, "test/worker", "a").seen == [f"{message!r} from test/x:1" for message in VALUES] + ["end"]
    assert core.change_letters("replay", keys) == ["missing"] * len(keys), "once only"
    run_all(core)
    assert len(record_of(core, "test/worker", "a").seen) == len(VALUES) + 1


def test_one_that_fails_again_is_another_letter() -> None:
    core = core_of(app_with(Bug()))
    put(core, "test/worker", ("a", 1))
    run_all(core)
    (first,) = keys_of(core)
    core.change_letters("replay", [first])
    run_all(core)
    (second,) = keys_of(core)
    assert name_of_key(second) == name_of_key(first)._replace(number=2)
    assert core.dispatcher.letters.count == 1


def test_drop_deletes() -> None:
    core = core_of(app_with(Bug()))
    put(core, "test/worker", ("a", 1), ("b", 2))
    run_all(core)
    one, other = keys_of(core)
    assert core.change_letters("drop", [one, b"\0\0d" + bytes(14), b"\0\0s" + bytes(14)]) == ["", "missing", "missing"]
    assert keys_of(core) == [other]
    assert core.dispatcher.letters.count == 1
    assert waiting_of(core, 0) == []


def stored_letter(**changes: Any) -> bytes:
    letter = {
        "payload_type": "int",
        "payload": 1,
        "target": ["test/worker", "a"],
        "sender": None,
        "reason": "r",
        "traceback": "",
        "attempts": 1,
        "checkpoint": 0,
        "time": 0.0,
    }
    return cbor2.dumps(letter | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target": ["test/gone", "a"]}, "unknown function type 'test/gone'"),
        ({"payload_type": "float", "payload": 1.5}, "test/worker does not take float (any more)"),
        ({"payload": "no number"}, "not a int"),
        (
            {"payload_type": "ingress record", "target": ["ingress/events", "line 3"]},
            "ingress record that never became a message",
        ),
        ({"lossy": True}, "no encoding"),
        ({"target": ["test/worker", ""]}, "id: expected a text"),
    ],
)
def test_what_has_no_place_stays(changes: dict[str, Any], reason: str) -> None:
    key = b"\0\0d" + LetterName(1, 1, 0).encode()
    stored = {key: stored_letter(**changes)}
    core = core_of(app_with(Bug(), accepts=int), stored=stored)
    core.dispatcher.letters.count = 1
    (outcome,) = core.change_letters("replay", [key])
    assert reason in outcome
    assert cells_of(core) == {}
    assert waiting_of(core, 0) == []
    assert core.change_letters("drop", [key]) == [""]
    assert cells_of(core) == {key: None}


def test_what_has_no_encoding_was_kept_as_a_description() -> None:
    core = core_of(app_with(Bug(), accepts=Flat | str))
    put(core, "test/worker", ("a", Flat(object())))  # type: ignore[arg-type]
    run_all(core)
    (key,) = keys_of(core)
    assert "no encoding" in core.change_letters("replay", [key])[0]
    assert keys_of(core) == [key]


def test_a_message_for_another_shard_leaves_from_here() -> None:
    far = next(f"f{i}" for i in range(100) if owner_of(f"f{i}", 2) == 1)
    key = b"\0\0d" + LetterName(1, 1, 0).encode()
    core = core_of(app_with(Bug()), shards=2, stored={key: stored_letter(target=["test/worker", far], sender=["test/x", "s"])})
    core.dispatcher.letters.count = 1
    assert core.change_letters("replay", [key]) == [""]
    assert waiting_of(core, 1) == [("test/worker", far, Address("test/x", "s"), 1)]


@given(st.builds(LetterName, st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1), st.integers(0, 63)))
def test_names_are_read_back(name: LetterName) -> None:
    assert parse_letter_name(str(name)) == name
    key = slot_of("x").to_bytes(2, "big") + DEAD_LETTER_KIND + name.encode()
    assert name_of_key(key) == name
    assert letter_of(key, stored_letter()).key == str(name)


def test_names_look_like_checkpoints() -> None:
    assert str(LetterName((1 << 32) | 17, 3, 0)) == "1.17-3-0"


@pytest.mark.parametrize(
    "text", ["", "1.17", "1.17-3", "1.17-3-0-1", "a.b-c-d", "1.17-3-70000", "4294967296.1-1-1", "1.17-3-0\n"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"such as 1\.17-3-0"):
        parse_letter_name(text)
