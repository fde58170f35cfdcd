"""The generated runner does what the specification does, and an invocation happens as a whole or not at all."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_core import cells_of, core_of, dirty_of, letters_of, put, record_of, run_all, waiting_of

from shardfun import Address, App, Context, State, Value, value
from shardfun.core.function import state_key
from shardfun.core.limits import Limits
from shardfun.core.shard import ShardCore
from shardfun.errors import PayloadTypeError, UnknownTargetError
from shardfun.model.columns import Batch
from shardfun.model.keyspace import owner_of
from shardfun.model.payload import END

OWN = [id for id in "abcdefghijklmnop" if owner_of(id, 2) == 0][:3]
OTHER = [id for id in "abcdefghijklmnop" if owner_of(id, 2) == 1][:2]


class Item(msgspec.Struct, frozen=True):
    number: int


class Everything(State):
    n: Value[int] = value(0)
    word: Value[str | None] = value(None)
    item: Value[Item] = value(Item(0))
    items: Value[list[int]] = value(default_factory=list)
    any: Value[Any] = value(0)


class Number(State):
    n: Value[int] = value(0)


def perform(ctx: Context[Any], steps: Any, failures: Counter[str]) -> None:
    state = ctx.state
    for step in steps:
        match step.split(":"):
            case ["count"]:
                state.n += 1
            case ["large"]:
                state.n = state.n + 10**20
            case ["same"]:
                state.n = int(str(state.n))  # equal; another object for all but small numbers
            case ["n-wrong"]:
                state.n = "text"
            case ["n-true"]:
                state.n = True
            case ["del", name]:
                delattr(state, name)
            case ["del-empty"]:
                ctx.delete_instance()
            case ["in"]:
                ctx.emit("out", [name for name in ("n", "word", "item", "items", "any") if name in state])
            case ["in-wrong"]:
                repr("wrod" in state)
            case ["word", text]:
                state.word = text or None
            case ["word-wrong"]:
                state.word = 5
            case ["item"]:
                state.item = Item(state.n)
            case ["item-wrong"]:
                state.item = (state.n,)
            case ["append"]:
                state.items.append(state.n)
            case ["items-wrong"]:
                state.items = (1, 2)
            case ["items-unencodable"]:
                state.items.append(object())
            case ["any"]:
                state.any = {"n": [state.n]}
            case ["read"]:
                repr(state.n)
            case ["send", id]:
                ctx.send("t/number", id, state.n)
            case ["send-list", id]:
                ctx.send("t/lists", id, ["count", "append"])
            case ["send-caller"]:
                if ctx.caller is not None:
                    ctx.send("t/number", ctx.caller.id, 1)
            case ["send-wrong"]:
                ctx.send("t/number", "x", "text")
            case ["send-wrong-but-caught"]:
                with pytest.raises(UnknownTargetError):
                    ctx.send("t/numbre", "x", 1)
            case ["emit"]:
                ctx.emit("out", (ctx.self, state.n, ctx.caller))
            case ["emit-wrong"]:
                ctx.emit("out", object())
            case ["raise"]:
                raise ValueError(state.n)
            case ["exit"]:
                raise SystemExit(3)
            case ["flaky", times]:
                failures[ctx.self.id] += 1
                if failures[ctx.self.id] % (int(times) + 1):
                    raise OSError
            case _:
                raise AssertionError(step)


def application() -> App:
    app = App("runners")
    failures: Counter[str] = Counter()

    @app.function("t/tuples")
    def tuples(ctx: Context[Everything], steps: tuple[str, ...]) -> None:
        perform(ctx, steps, failures)

    @app.function("t/lists")
    def lists(ctx: Context[Everything], steps: list[str]) -> None:
        taken = steps[:]
        steps.clear()  # must not be seen by a retry
        perform(ctx, taken, failures)

    @app.function("t/number")
    def number(ctx: Context[Number], add: int) -> None:
        ctx.state.n += add
        if ctx.state.n % 5 == 3:
            raise RuntimeError

    @app.function("t/none")
    def none(ctx: Context, message: Any) -> None:
        ctx.emit("out", message)

    @app.on_end("t/tuples")
    def end(ctx: Context[Everything]) -> None:
        ctx.emit("out", ("end", ctx.state.n))
        ctx.state.word = "end"

    return app


STEPS = ["count", "large", "same", "n-wrong", "n-true", "del:n", "del:items", "del:any",
         "del-empty", "in", "in-wrong", "word:x", "word:", "word-wrong", "item", "item-wrong", "append",
         "items-wrong", "items-unencodable", "any", "read", f"send:{OWN[0]}", f"send:{OTHER[0]}", f"send-list:{OWN[1]}",
         "send-caller", "send-wrong", "send-wrong-but-caught", "emit", "emit-wrong", "raise", "exit", "flaky:1", "flaky:2"]  # fmt: skip

likely = st.lists(st.sampled_from(STEPS), max_size=4)
typed = st.one_of(
    st.tuples(st.just("t/tuples"), likely.map(tuple)),
    st.tuples(st.just("t/tuples"), st.just(END)),
    st.tuples(st.just("t/lists"), likely),
    st.tuples(st.just("t/number"), st.integers(0, 4)),
    st.tuples(st.just("t/none"), st.integers() | st.lists(st.integers())),
)
senders = st.sampled_from([None, Address("t/tuples", OWN[0]), Address("t/number", OTHER[1])])
message = st.tuples(st.sampled_from(OWN), senders, typed)
batches = st.lists(message, min_size=1, max_size=5)
actions = st.lists(
    batches | st.sampled_from(["cut", "encode", "encoded", "applied", "abort"]) | st.integers(1, 4), min_size=1, max_size=8
)


def act(core: ShardCore, action: Any) -> None:
    """One action of a program; those that do not fit now do nothing."""
    table = core.table
    if isinstance(action, int):
        core.run(action)
    elif isinstance(action, list):
        for id, sender, (typename, payload) in action:
            target = core.dispatcher.types[typename]
            ready = payload if payload is END or type(payload) in target.shared else target.payloads.prepare(payload)
            target.mailbox.append(Batch([id], [sender], None, [ready]))
    elif action == "cut":
        if table.frozen is None:
            table.freeze()
    elif table.frozen is not None:
        match action:
            case "encode":
                next(table.encode_frozen(1), None)
            case "encoded":
                list(table.encode_frozen(1000))
                table.encoding_done()
            case "applied" if table.frozen.encoded:
                table.drop_frozen()
            case "abort":
                table.merge_frozen()


def everything(core: ShardCore) -> dict[str, Any]:
    table = core.table
    frozen = table.frozen
    return {
        "states": {
            (typename, id): generation.function.values_of(record)
            for typename, generation in table.generations.items()
            for id, record in sorted(generation.young.items())
        },
        "objects": {
            (typename, id): [repr(getattr(record, field.name)) for field in generation.function.spec.fields]
            for typename, generation in table.generations.items()
            for id, record in sorted(generation.young.items())
        },
        "dirty": dirty_of(core),
        "frozen": frozen and [tuple(record._address) for record in frozen.records],
        "pre-images": frozen and frozen.pre_images,
        "queues": [waiting_of(core, shard) for shard in range(core.identity.shards)],
        "egress": core.egress["out"].pending[:],
        "letters": [
            {key: item for key, item in letter.items() if key != "traceback"} for letter in letters_of(cells_of(table))
        ],
        "invocations": core.dispatcher.invocations,
        "effects": core.dispatcher.effects[:],
    }


@given(actions, st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_generated_and_plain_runner_agree(program: list[Any], retries: int) -> None:
    cores = [core_of(application(), plain=plain, shards=2, limits=Limits(retries=retries)) for plain in (False, True)]
    for action in [*program, 4, 4]:
        for core in cores:
            act(core, action)
        generated, plain = map(everything, cores)
        assert generated == plain
    for core in cores:
        run_all(core)
    generated, plain = map(everything, cores)
    assert generated == plain


@pytest.fixture(params=[False, True], ids=["generated", "plain"])
def core(request: pytest.FixtureRequest) -> ShardCore:
    return core_of(application(), plain=request.param)


def run_type(core: ShardCore, typename: str) -> None:
    target = core.dispatcher.types[typename]
    core.dispatcher._execute(target, target.mailbox.take(10))
    core._collect()


@pytest.mark.parametrize("typename", ["t/tuples", "t/lists"])
def test_a_deleted_field_is_at_its_default_at_once_and_afterwards(core: ShardCore, typename: str) -> None:
    made = ["count", "word:x", "item", "append", "any"]
    deleted = ["del:n", "del:items", "in", "count", "append", "in", "del:item", "del:any", "del:word"]
    for steps in (made, deleted, ["in"]):
        put(core, typename, ("x", tuple(steps) if typename == "t/tuples" else list(steps)))
        run_type(core, typename)
    assert not letters_of(cells_of(core)), "not even the first time in a process"
    record = record_of(core, typename, "x")
    assert (record.n, record.word, record.item, record.items, record.any) == (1, None, Item(0), [1], 0)
    emitted = [str(raw) for raw in core.egress["out"].pending]
    assert ["item" in text for text in emitted] == [True, True, True]
    assert emitted[-1] == str(repr(["n", "items"]).encode())
    assert dirty_of(core) == [(typename, "x")]


@pytest.mark.parametrize("typename", ["t/tuples", "t/lists"])
def test_a_deleted_instance_is_not_stored(core: ShardCore, typename: str) -> None:
    for steps in (["count", "word:x", "append", "any", "item"], ["del-empty", "in"]):
        put(core, typename, ("x", tuple(steps) if typename == "t/tuples" else steps))
        run_type(core, typename)
    core.table.freeze()
    (piece,) = core.table.encode_frozen(10)
    assert piece == ([record_of(core, typename, "x")._key], [None])
    assert core.egress["out"].pending == [b"[]"]


FAILING = [step for step in STEPS if step in {"n-wrong", "n-true", "in-wrong", "word-wrong", "item-wrong", "items-wrong",
           "items-unencodable", "send-wrong", "emit-wrong", "raise", "exit"}]  # fmt: skip


@pytest.mark.parametrize("typename", ["t/tuples", "t/lists"])
@pytest.mark.parametrize("failing", FAILING)
def test_a_failed_invocation_leaves_no_trace(core: ShardCore, typename: str, failing: str) -> None:
    steps = ["count", "word:x", "item", "append", "any", "send:a", "send-list:b", "emit"]
    put(core, typename, ("x", tuple(steps) if typename == "t/tuples" else steps))
    run_type(core, typename)
    core.table.freeze()
    core.table.encoding_done()
    core.table.drop_frozen()
    for queue in (target.mailbox for target in core.dispatcher.order if len(target.mailbox)):
        queue.take(10)
    before = everything(core)
    assert before["states"][typename, "x"][0] == 1
    put(core, typename, ("x", (*steps, failing) if typename == "t/tuples" else [*steps, failing]))
    run_type(core, typename)
    after = everything(core)
    (letter,) = after.pop("letters")
    assert letter["target"] == [typename, "x"]
    assert letter["attempts"] == 1
    assert letter["payload"] == [*steps, failing]
    before.pop("letters")
    before["invocations"] += 1
    assert after == before
    assert dirty_of(core) == []


def test_a_failure_in_a_later_field_does_not_make_the_record_dirty(core: ShardCore) -> None:
    put(core, "t/tuples", ("new", ("count", "word-wrong")))
    run_all(core)
    assert dirty_of(core) == []
    assert record_of(core, "t/tuples", "new").n == 0


def test_a_record_is_dirty_once_and_only_when_it_changed(core: ShardCore) -> None:
    put(
        core, "t/tuples", ("a", ("read",)), ("b", ("count",)), ("b", ("count", "word:x")), ("c", ("append",)), ("d", ("word:",))
    )
    run_all(core)
    assert dirty_of(core) == [("t/tuples", "b"), ("t/tuples", "c")]


def test_mutated_lists_are_seen_and_defaults_are_not_shared(core: ShardCore) -> None:
    put(core, "t/tuples", ("a", ("append",)), ("a", ("count", "append")), ("b", ("read",)))
    run_all(core)
    assert record_of(core, "t/tuples", "a").items == [0, 1]
    assert record_of(core, "t/tuples", "b").items == []


def recording(retries: int, *, plain: bool) -> tuple[ShardCore, list[str]]:
    app = App("retries")
    log: list[str] = []

    @app.function("t/f")
    def f(ctx: Context[Number], message: str) -> None:
        log.append(f"{ctx.self.id}:{message}:{ctx.state.n}")
        ctx.state.n += 1
        ctx.emit("out", message)
        if message == "fails" or (message == "flaky" and log.count(log[-1]) < 3):
            raise ValueError(message)

    return core_of(app, plain=plain, limits=Limits(retries=retries)), log


@pytest.mark.parametrize("plain", [False, True])
def test_retries_happen_in_place_before_anything_else(*, plain: bool) -> None:
    core, log = recording(2, plain=plain)
    put(core, "t/f", ("a", "flaky"), ("a", "next"), ("b", "fails"), ("a", "last"))
    run_all(core)
    assert log == ["a:flaky:0"] * 3 + ["a:next:1"] + ["b:fails:0"] * 3 + ["a:last:2"]
    assert core.egress["out"].pending == [b"'flaky'", b"'next'", b"'last'"]
    (letter,) = letters_of(cells_of(core))
    assert (letter["target"], letter["attempts"], letter["reason"]) == (["t/f", "b"], 3, "ValueError: fails")
    assert core.dispatcher.letters.count == 1


def test_the_caller_of_what_follows_a_failure_is_its_own() -> None:
    """A retry sets the context anew: the batch's sender type has to be back for the next message."""
    app = App("callers")
    seen: list[Any] = []

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None:
        seen.append(ctx.caller)
        if message == 0:
            raise ValueError

    core = core_of(app, limits=Limits(retries=1))
    core.dispatcher.types["t/f"].mailbox.append(Batch(["x"] * 3, ["p", "q", "r"], "s/s", [0, 1, 0]))
    run_all(core)
    assert seen == [Address("s/s", id) for id in "ppqrr"]


class Odd(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), Odd(), ValueError("\udc80"), RecursionError()]
)
def test_nothing_that_a_function_raises_takes_the_shard_down(error: BaseException, *, plain: bool) -> None:
    app = App("exits")

    @app.function("t/f")
    def f(ctx: Context[Number], message: int) -> None:
        ctx.state.n += message
        if message == 2:
            raise error

    core = core_of(app, plain=plain)
    put(core, "t/f", ("a", 1), ("a", 2), ("a", 4))
    run_all(core)
    assert record_of(core, "t/f", "a").n == 5
    (letter,) = letters_of(cells_of(core))
    assert letter["reason"].startswith(type(error).__name__)
    assert "in f" in letter["traceback"]


@pytest.mark.parametrize("plain", [False, True])
def test_a_payload_that_cannot_be_encoded_still_gives_a_letter(*, plain: bool) -> None:
    app = App("payloads")

    @app.function("t/f")
    def f(ctx: Context, message: Item | str) -> None:
        raise ValueError

    core = core_of(app, plain=plain)
    put(core, "t/f", ("a", Item(object())), ("a", "\udc80"))  # type: ignore[arg-type]
    run_all(core)
    letters = letters_of(cells_of(core))
    assert [letter["payload"][:5] for letter in letters] == ["Item(", "'\\udc"]
    assert all("cannot be encoded" in letter["reason"] for letter in letters)


def test_the_traceback_shows_the_generated_source() -> None:
    app = App("sources")

    @app.function("t/f")
    def f(ctx: Context[Number], message: int) -> None:
        ctx.state.n = "text"  # type: ignore[assignment]

    core = core_of(app)
    target = core.dispatcher.types["t/f"]
    caught: list[str] = []
    core.dispatcher.failed = lambda *args: caught.append("".join(traceback.format_exception(args[-1])))  # type: ignore[method-assign]
    put(core, "t/f", ("a", 1))
    run_all(core)
    assert "<runner of t/f>" in caught[0]
    assert "raise mismatch_n(record.n)" in caught[0]
    assert "expected int, got str: 'text'" in caught[0]
    assert target.run.__code__.co_filename == "<runner of t/f>"


def test_state_that_no_longer_fits_parks_the_message_and_keeps_the_state() -> None:
    app = App("fits")

    @app.function("t/f")
    def f(ctx: Context[Number], message: int) -> None:
        raise AssertionError

    core = core_of(app, stored={state_key("t/f", "a"): b"\xa1\x61n\x61x"})  # {"n": "x"}
    put(core, "t/f", ("a", 1), sender=Address("s/s", "p"))
    run_all(core)
    (letter,) = letters_of(cells_of(core))
    assert letter["attempts"] == 0
    assert letter["sender"] == ["s/s", "p"]
    assert "state field 'n'" in letter["reason"]
    assert dirty_of(core) == []


def test_wrong_values_name_field_and_type() -> None:
    field = application().compile()[0].spec.fields[1]
    assert str(field.mismatch(5)) == "state field 'word': expected str | NoneType, got int: 5"
    with pytest.raises(PayloadTypeError, match="cannot be encoded"):
        application().compile()[0].spec.fields[3].encode([object()])
