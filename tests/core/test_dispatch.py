"""Routing: order per sender and target, names that do not exist, and what comes in from outside."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_core import DictStore, cells_of, core_of, letters_of, program_of, put, record_of, run_all, waiting_of

from shardfun import Address, App, Context, Message, State, Value, value
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import IngressRoute, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.errors import BacklogLimitError, ContextClosedError, PayloadTypeError, UnknownTargetError
from shardfun.model.columns import Batch, encode_block
from shardfun.model.doors import IngressBatch, Reject
from shardfun.model.frames import decode_frame
from shardfun.model.keyspace import owner_of
from shardfun.model.payload import Payloads, payload_types


class Item(msgspec.Struct, frozen=True):
    number: int


class Seen(State):
    log: Value[tuple[int, ...]] = value(())


def application() -> App:
    app = App("routes")

    @app.function("t/first")
    def first(ctx: Context[Seen], message: int | str | Item) -> None:
        ctx.state.log += (message,) if isinstance(message, int) else ()

    @app.function("t/second")
    def second(ctx: Context[Seen], message: list[int]) -> None:
        for number in message:
            ctx.send("t/first", ctx.self.id, number)

    @app.router("in")
    def route(record: Any) -> Any:
        for number in record["numbers"]:
            if number < 0:
                raise SystemExit(number)
            yield Message("t/first", record["id"], number)

    return app


def test_types_take_turns_and_a_chunk_bounds_a_run() -> None:
    core = core_of(application())
    put(core, "t/first", *[("a", number) for number in range(100)])
    put(core, "t/second", *[("a", []) for _ in range(100)])
    core.dispatcher.types["t/first"].chunk = 7
    ran = [core.run(50).typename for _ in range(4)]
    assert sorted(ran[:2]) == sorted(ran[2:]) == ["t/first", "t/second"]
    assert core.dispatcher.invocations == 2 * (7 + 50)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_order_between_one_sender_and_one_target(sends: list[tuple[int, int, int]]) -> None:
    app = App("order")

    @app.function("t/from")
    def sender(ctx: Context, message: tuple[int, int, int]) -> None:
        to, first, count = message
        for number in range(first, first + count):
            ctx.send("t/to", f"to{to}", number)

    @app.function("t/to")
    def target(ctx: Context[Seen], message: int) -> None:
        assert ctx.caller is not None
        ctx.state.log += (1000 * int(ctx.caller.id[4:]) + message,)

    core = core_of(app)
    counts: dict[tuple[int, int], int] = {}
    for number, (source, to, count) in enumerate(sends):
        first = counts.get((source, to), 0)
        counts[source, to] = first + count
        put(core, "t/from", (f"from{source}", (to, first, count)))
        if number % 3 == 0:
            core.run(2)
    run_all(core)
    for (source, to), total in counts.items():
        log = record_of(core, "t/to", f"to{to}").log
        assert [number % 1000 for number in log if number // 1000 == source] == list(range(total))


def test_messages_go_to_the_owner_of_their_id() -> None:
    core = core_of(application(), shards=3, shard=1)
    ids = [f"id{number}" for number in range(30)]
    core.dispatcher.ingest_messages([("t/first", id, 1) for id in ids])
    core.dispatcher.route()
    for shard in range(3):
        assert [id for _, id, _, _ in waiting_of(core, shard)] == [id for id in ids if owner_of(id, 3) == shard]


def test_the_owner_cache_is_bounded() -> None:
    core = core_of(application(), shards=2, limits=Limits(owner_cache=3))
    core.dispatcher.ingest_messages([("t/first", str(number), number) for number in range(10)])
    core.dispatcher.route()
    assert len(core.dispatcher.owners) <= 3
    assert sum(len(waiting_of(core, shard)) for shard in (0, 1)) == 10


@pytest.mark.parametrize(
    ("typename", "hint"), [("t/frist", "; did you mean 't/first'\\?"), ("zzz", "; known: t/first, t/second")]
)
def test_an_unknown_target_is_named_with_the_nearest(typename: str, hint: str) -> None:
    core = core_of(application())
    with pytest.raises(UnknownTargetError, match=f"^unknown function type '{typename}'{hint}$"):
        core.dispatcher.ingest_messages([(typename, "a", 1)])


@pytest.mark.parametrize("id", ["", 5, None, b"a", "x" * 4097, "ü" * 2049, ["a"]])
def test_ids_that_are_none(id: Any) -> None:
    errors: list[BaseException] = []
    app = App("ids")

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None:
        try:
            ctx.send("t/f", id, 1)
        except BaseException as error:
            errors.append(error)
            raise

    core = core_of(app)
    put(core, "t/f", ("a", 1), ("b", 1))
    run_all(core)
    assert core.dispatcher.letters.count == 2
    assert waiting_of(core, 0) == []
    if id != ["a"]:
        assert all(isinstance(error, PayloadTypeError) for error in errors)


def test_the_context_refuses_what_is_not_declared() -> None:
    app = App("context")
    seen: list[str] = []

    @app.function("t/f")
    def f(ctx: Context, message: int | Item) -> None:
        for attempt in (
            lambda: ctx.send("t/g", "a", 1),
            lambda: ctx.send("t/f", "a", "text"),
            lambda: ctx.send("t/f", "a", True),
            lambda: ctx.send("t/f", "a", Item("text")),  # type: ignore[arg-type]
            lambda: ctx.emit("outt", 1),
            lambda: ctx.emit("out", object()),
        ):
            try:
                attempt()
            except (UnknownTargetError, PayloadTypeError) as error:
                seen.append(str(error))

    core = core_of(app, limits=Limits(validate_sends=True))
    put(core, "t/f", ("a", 1))
    run_all(core)
    assert core.dispatcher.letters.count == 0
    assert [text.partition(":")[0] for text in seen] == [
        "unknown function type 't/g'; did you mean 't/f'?",
        "t/f accepts int | test_dispatch.Item, not str",
        "t/f accepts int | test_dispatch.Item, not bool",
        "stored or received value is not a test_dispatch.Item",
        "unknown egress 'outt'; did you mean 'out'?",
        "egress 'out'",
    ]
    assert waiting_of(core, 0) == []


def test_a_context_that_was_kept_raises() -> None:
    app = App("kept")
    kept: list[Context[Seen]] = []

    @app.function("t/f")
    def f(ctx: Context[Seen], message: int) -> None:
        assert ctx.self == Address("t/f", "a")
        kept.append(ctx)

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    run_all(core)
    (ctx,) = kept
    for use in (
        lambda: ctx.send("t/f", "a", 1),
        lambda: ctx.emit("out", 1),
        lambda: ctx.self,
        lambda: ctx.caller,
    ):
        with pytest.raises(ContextClosedError, match="only inside the function"):
            use()
    with pytest.raises(AttributeError):
        _ = ctx.state.log
    assert core.dispatcher.effects == []


# ---- from outside --------------------------------------------------------------------------------------------------------
def restored(block: list[Any]) -> ShardCore:
    queues = msgspec.structs.replace(EMPTY_QUEUES, mailbox=[block], dead_letters=3)
    return core_of(application(), start=StartPoint(2, 7, b"d", queues))


def test_restored_messages_of_a_function_that_is_gone_become_letters() -> None:
    payloads = Payloads(payload_types(int | str | Item | list, ""), "")
    values = [1, "a\0b", Item(7), payloads.prepare([1])]
    block = encode_block("old/gone", payloads, Batch(list("abcd"), [Address("s/s", "p")] * 4, None, values))
    core = restored(block)
    letters = letters_of(cells_of(core))
    assert [letter["target"] for letter in letters] == [["old/gone", id] for id in "abcd"]
    assert [letter["payload"] for letter in letters] == [1, "a\0b", {"number": 7}, b"\x81\x01"]
    assert [letter["sender"] for letter in letters] == [["s/s", "p"]] * 4
    assert all("the function old/gone does not exist any more" in letter["reason"] for letter in letters)
    assert core.dispatcher.letters.count == 7
    assert core.dispatcher.waiting == 0


def test_restored_messages_of_a_type_that_is_gone_become_letters_the_others_run() -> None:
    core = restored(["t/first", "a\0b", None, None, [["int", [1]], ["old.Type", {"x": "text"}]], b"\0\1"])
    (letter,) = letters_of(cells_of(core))
    assert (letter["target"], letter["payload"], letter["payload_type"]) == (["t/first", "b"], {"x": "text"}, "old.Type")
    assert [id for _, id, _, _ in waiting_of(core, 0)] == ["a"]


def test_letters_of_one_cut_have_keys_of_their_own() -> None:
    core = core_of(application())
    for _ in range(3):
        core.dispatcher.letters.park_ingress("in", "1", "reason", b"")
    core.dispatcher.letters.begin_cut(9)
    core.dispatcher.letters.park_ingress("in", "1", "reason", b"")
    assert len(cells_of(core)) == 4
    assert [letter["checkpoint"] for letter in letters_of(cells_of(core))] == [0, 0, 0, 9]


# ---- ingress -------------------------------------------------------------------------------------------------------------
ROUTED = {"in": IngressRoute(routers=application().routers("in"))}


def test_the_position_moves_with_the_messages() -> None:
    core = core_of(application(), routes=ROUTED)
    core.changed = False
    core.ingest("in", IngressBatch(7, [{"id": "a", "numbers": [1, 2]}, {"id": "b", "numbers": []}]))
    assert core.positions == {"in": 7}
    assert core.records_in == 2
    assert core.changed
    assert waiting_of(core, 0) == [("t/first", "a", None, 1), ("t/first", "a", None, 2)]


def test_a_record_whose_router_raises_is_parked_as_a_whole_and_the_position_moves() -> None:
    core = core_of(application(), routes=ROUTED)
    records = [{"id": "a", "numbers": [1, 2, -3]}, {"id": ["no"], "numbers": [1]}, {}, {"id": "b", "numbers": [4]}]
    core.ingest("in", IngressBatch({"at": 4}, records, rejects=[Reject("line 9", "no JSON", b"{")]))
    assert waiting_of(core, 0) == [("t/first", "b", None, 4)]
    letters = letters_of(cells_of(core))
    assert [letter["reason"].partition(":")[0] for letter in letters] == ["SystemExit", "TypeError", "KeyError", "no JSON"]
    assert [letter["target"][0] for letter in letters] == ["ingress/in"] * 4
    assert "{'at': 4}" in letters[0]["target"][1]
    assert len({letter["target"][1] for letter in letters}) == 4
    assert letters[0]["payload"] == repr(records[0]).encode()
    assert "in route" in letters[0]["traceback"]
    assert (core.positions, core.records_in) == ({"in": {"at": 4}}, 5)


@pytest.mark.parametrize("shards", [1, 3])
def test_ready_columns_go_to_a_target(shards: int) -> None:
    core = core_of(application(), shards=shards, routes={"in": IngressRoute(target="t/first", id_field="id")})
    ids = [f"id{number}" for number in range(20)]
    core.ingest("in", IngressBatch(20, ids=ids, values=list(range(20))))
    found = sorted((value, id) for shard in range(shards) for _, id, _, value in waiting_of(core, shard))
    assert found == list(enumerate(ids))


def test_columns_of_a_mutable_type_are_encoded() -> None:
    core = core_of(application(), routes={"in": IngressRoute(target="t/second", id_field="id")})
    core.ingest("in", IngressBatch(1, ids=["a"], values=[[1, 2]]))
    run_all(core)
    assert record_of(core, "t/first", "a").log == (1, 2)


def test_columns_without_a_target_pass_the_router() -> None:
    seen: list[Any] = []
    core = core_of(application(), routes={"in": IngressRoute(routers=(lambda record: seen.append(record) or (),))})
    core.ingest("in", IngressBatch(1, ids=["a"], values=[5]))
    assert seen == [{"id": "a", "value": 5}]


def test_records_go_to_a_target_by_a_field() -> None:
    core = core_of(application(), routes={"in": IngressRoute(target="t/first", id_field="key")})
    core.ingest("in", IngressBatch(2, [{"key": 5}, {"other": 5}]))
    assert [letter["reason"].partition(":")[0] for letter in letters_of(cells_of(core))] == ["PayloadTypeError", "KeyError"]


def test_the_backlog_limit_names_the_fullest_targets() -> None:
    core = core_of(application(), limits=Limits(backlog_limit=5))
    put(core, "t/first", *[("a", 1)] * 6)
    core.check_backlog(5)
    with pytest.raises(BacklogLimitError, match=r"6 messages wait .* most for: t/first \(6\)"):
        core.check_backlog(core.backlog)


def test_a_program_needs_a_runner_per_function() -> None:
    program = program_of(application())
    broken = type(program)(program.functions, program.runners[:1], {}, {}, program.context)
    with pytest.raises(ValueError, match="zip"):
        ShardCore(ShardIdentity("j", 0, 1), StartPoint(1, 0, b"", EMPTY_QUEUES), broken, Limits(), DictStore({}))


# ---- frames --------------------------------------------------------------------------------------------------------------
def carried(sizes: list[int], limits: Limits) -> tuple[list[str], list[dict[str, Any]], list[int]]:
    """Texts of these sizes from shard 0 to shard 1: what arrived, what was parked, the messages of each frame."""
    app = App("sizes")

    @app.function("t/f")
    def f(ctx: Context, message: str) -> None: ...

    left, right = (core_of(app, shards=2, shard=shard, limits=limits) for shard in (0, 1))
    id = next(id for id in "abcdef" if owner_of(id, 2) == 1)
    texts = [f"{number}:".ljust(size, "x") for number, size in enumerate(sizes)]
    left.dispatcher.ingest_messages([("t/f", id, text) for text in texts])
    left.dispatcher.route()
    frames: list[int] = []
    while (raw := left.next_frame(1, flush=True)) is not None:
        assert len(raw) <= limits.frame_bytes_max
        frames.append(decode_frame(raw).body.messages)  # type: ignore[union-attr]
        right.receive(0, raw)
        right.fill_mailboxes()
        while (credit := right.next_frame(0, flush=True)) is not None:
            left.receive(1, credit)
    assert left.backlog == 0
    return [value for _, _, _, value in waiting_of(right, 1)], letters_of(cells_of(left)), frames


@given(st.lists(st.sampled_from([1, 50, 300, 800, 1500]), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_frame_is_too_large_and_only_what_never_fits_is_parked(sizes: list[int]) -> None:
    limits = Limits(frame_messages=8, window_frames=2, mailbox_refill=1000, frame_bytes=500, frame_bytes_max=1000, retries=0)
    arrived, letters, _ = carried(sizes, limits)
    assert [int(text.partition(":")[0]) for text in arrived] == [n for n, size in enumerate(sizes) if size < 1000]
    assert [int(letter["payload"].partition(":")[0]) for letter in letters] == [
        n for n, size in enumerate(sizes) if size > 1000
    ]
    assert all("at most 1000" in letter["reason"] for letter in letters)


def test_frames_follow_the_size_of_their_messages() -> None:
    limits = Limits(frame_messages=16, window_frames=2, mailbox_refill=1000, frame_bytes=1000, frame_bytes_max=100_000)
    _, _, frames = carried([400] * 40 + [4] * 60, limits)
    assert frames[0] == 16
    assert min(frames[:-1]) <= 2
    assert max(frames[-4:]) == 16, "small ones share frames again"
