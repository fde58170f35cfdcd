"""Calls beside the loop: who waits for whom, what a cut holds meanwhile, and what the end of a call means."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from single_core import cells_of, core_of, letters_of, put, record_of, run_all

from shardfun import (
    Address,
    App,
    Context,
    OperationResult,
    OperationStatus,
    State,
    Value,
    dead_letter,
    restart,
    retry,
    value,
)
from shardfun.core.effects import StartCall
from shardfun.core.limits import Limits
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import decode_queues, encode_queues
from shardfun.errors import ContextClosedError, FunctionRestartError, PayloadTypeError

CALLER = Address("t/caller", "who")


class Seen(State):
    numbers: Value[tuple[int, ...]] = value(())
    items: Value[list[int]] = value(default_factory=list)


class Wait:
    """An awaitable that yields once."""

    def __await__(self) -> Any:
        yield self


def application() -> App:
    app = App("calls")

    @app.function("t/slow", on_failure=dead_letter())
    async def slow(ctx: Context[Seen], number: int) -> None:
        ctx.state.numbers += (number,)
        ctx.state.items.append(number)
        ctx.send("t/plain", "sum", number)
        await Wait()
        if number < 0:
            raise ValueError(number)
        ctx.state.numbers += (-number,)
        ctx.emit("out", (ctx.self.id, number, ctx.caller and ctx.caller.id))

    @app.function("t/thread", blocking=True, concurrency=1)
    def thread(ctx: Context[Seen], number: int) -> None:
        ctx.state.numbers += (number,)

    @app.function("t/plain")
    def plain(ctx: Context[Seen], number: int) -> None:
        ctx.state.numbers += (number,)

    @app.on_end("t/slow")
    def end(ctx: Context[Seen]) -> None:
        ctx.emit("out", ("end", ctx.self.id))

    return app


def calls_of(core: ShardCore) -> list[StartCall]:
    return [effect for effect in core.take_effects() if isinstance(effect, StartCall)]


def finish(core: ShardCore, call: StartCall) -> None:
    """Run a call to its end, as a driver does."""
    result, error = None, None
    try:
        result = call.run()
        if hasattr(result, "send"):
            coroutine = result
            while True:
                coroutine.send(None)
    except StopIteration as stop:
        result = stop.value
    except BaseException as raised:
        error = raised
    core.call_done(call.number, result, error)


def restored(core: ShardCore, app: App, **kwargs: Any) -> ShardCore:
    """A new incarnation from a cut taken now."""
    *_, raw = encode_queues(core.take_cut(7))
    assert raw is not None
    stored = {key: encoded for key, encoded in cells_of(core).items() if encoded is not None}
    return core_of(app, start=StartPoint(2, 7, b"", decode_queues(raw)), stored=stored, **kwargs)


def test_an_address_is_busy_while_its_function_awaits_and_others_go_on() -> None:
    core = core_of(application())
    put(core, "t/slow", ("a", 1), ("a", 2), ("b", 3), sender=CALLER)
    put(core, "t/plain", ("a", 9))
    run_all(core)
    first, other = calls_of(core)
    assert (first.what, other.what) == ("t/slow:a", "t/slow:b")
    assert record_of(core, "t/plain", "a").numbers == (9,)
    assert core.backlog == 3
    finish(core, other)
    assert record_of(core, "t/slow", "b").numbers == (3, -3)
    assert calls_of(core) == []
    finish(core, first)
    (second,) = calls_of(core)
    finish(core, second)
    run_all(core)
    record = record_of(core, "t/slow", "a")
    assert (record.numbers, record.items) == ((1, -1, 2, -2), [1, 2])
    assert sorted(record_of(core, "t/plain", "sum").numbers) == [1, 2, 3]
    assert core.backlog == 0


def test_nothing_of_a_call_is_visible_before_it_returns() -> None:
    core = core_of(application())
    put(core, "t/slow", ("a", 1), ("a", 2))
    run_all(core)
    (call,) = calls_of(core)
    coroutine = call.run()
    coroutine.send(None)
    record = record_of(core, "t/slow", "a")
    assert (record.numbers, record.items, core.dispatcher.effects, core.table.dirty) == ((), [], [], [])
    again = restored(core, application())
    assert [again.dispatcher.types["t/slow"].mailbox.take(9).values] == [[1, 2]]
    with pytest.raises(StopIteration):
        coroutine.send(None)
    core.call_done(call.number, None, None)
    assert record_of(core, "t/slow", "a").numbers == (1, -1)


def test_messages_of_a_busy_address_stand_before_the_mailbox_in_a_cut() -> None:
    core = core_of(application())
    put(core, "t/slow", ("a", 1), ("b", 5), ("a", 2), sender=CALLER)
    run_all(core)
    put(core, "t/slow", ("a", 3), ("c", 4))
    again = restored(core, application())
    target = again.dispatcher.types["t/slow"]
    batch = target.mailbox.take(9)
    assert list(zip(batch.ids, batch.values, strict=True)) == [("a", 1), ("a", 2), ("b", 5)]
    assert target.mailbox.take(9).values == [3, 4]


def test_a_failed_call_leaves_no_trace_and_is_parked() -> None:
    core = core_of(application())
    put(core, "t/slow", ("a", -1), ("a", 2), sender=CALLER)
    run_all(core)
    finish(core, calls_of(core)[0])
    (letter,) = letters_of(cells_of(core))
    assert (letter["payload"], letter["sender"], letter["attempts"]) == (-1, list(CALLER), 1)
    assert letter["reason"] == "ValueError: -1"
    finish(core, calls_of(core)[0])
    assert record_of(core, "t/slow", "a").numbers == (2, -2)


def test_a_context_of_a_call_is_closed_when_it_returns() -> None:
    app = App("kept")
    kept: list[Context[Any]] = []

    @app.function("t/f")
    async def f(ctx: Context, message: int) -> None:
        kept.append(ctx)

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    run_all(core)
    finish(core, calls_of(core)[0])
    with pytest.raises(ContextClosedError):
        kept[0].send("t/f", "a", 1)


def test_a_type_at_its_limit_is_stalled_and_shuts_out_nobody() -> None:
    core = core_of(application())
    put(core, "t/thread", ("a", 1), ("b", 2), ("a", 3), ("c", 4))
    put(core, "t/plain", ("x", 1))
    run_all(core)
    assert record_of(core, "t/plain", "x").numbers == (1,)
    assert core.dispatcher.waiting == 0, "frames from peers still have room"
    assert core.backlog == 4
    seen = []
    while calls := calls_of(core):
        (call,) = calls
        assert call.style == "blocking"
        seen.append(call.what)
        finish(core, call)
        run_all(core)
    assert seen == ["t/thread:a", "t/thread:b", "t/thread:a", "t/thread:c"]
    assert record_of(core, "t/thread", "a").numbers == (1, 3)


def test_the_limit_of_a_shard() -> None:
    core = core_of(application(), limits=Limits(calls=2, retries=0))
    put(core, "t/slow", *((f"id{number}", number) for number in range(1, 6)))
    put(core, "t/thread", ("x", 1))
    count = 0
    run_all(core)
    while calls := calls_of(core):
        assert core.dispatcher.calls.running <= 2
        count += len(calls)
        for call in calls:
            finish(core, call)
        run_all(core)
    assert count == 6
    assert core.backlog == 0


def test_a_record_that_was_forgotten_meanwhile_is_loaded_again() -> None:
    core = core_of(application())
    put(core, "t/slow", ("a", 1))
    run_all(core)
    (call,) = calls_of(core)
    target = core.dispatcher.types["t/slow"]
    target.records.young.clear()
    finish(core, call)
    assert record_of(core, "t/slow", "a").numbers == (1, -1)
    assert core.table.dirty == [record_of(core, "t/slow", "a")]


def test_an_unreadable_state_parks_every_message_of_a_busy_address() -> None:
    from shardfun.core.function import state_key

    core = core_of(application(), stored={state_key("t/slow", "a"): cbor2.dumps({"numbers": "x"})})
    put(core, "t/slow", *[("a", number) for number in range(3000)])
    run_all(core)
    assert calls_of(core) == []
    assert core.dispatcher.letters.count == 3000
    assert core.backlog == 0


def test_on_end_waits_for_a_busy_address_too() -> None:
    core = core_of(application())
    from shardfun.model.columns import Batch
    from shardfun.model.payload import END

    put(core, "t/slow", ("a", 1))
    run_all(core)
    (call,) = calls_of(core)
    core.dispatcher.types["t/slow"].mailbox.append(Batch(["a"], None, None, [END]))
    run_all(core)
    finish(core, call)
    (end,) = calls_of(core)
    finish(core, end)
    assert [record.decode() for record in core.egress["out"].pending] == ["('a', 1, None)", "('end', 'a')"]


# ---- retries -------------------------------------------------------------------------------------------------------------
def flaky(made: dict[int, int], **policy: Any) -> App:
    app = App("flaky")

    @app.function("t/f", on_failure=retry(**policy))
    def f(ctx: Context[Seen], number: int) -> None:
        ctx.state.numbers += (number,)
        ctx.send("t/log", "all", number)
        made[number] = made.get(number, 0) + 1
        if number < 0 and made[number] < -number:
            raise ValueError(number)

    @app.function("t/async", on_failure=retry(**policy))
    async def g(ctx: Context[Seen], number: int) -> None:
        f(ctx, number)

    @app.function("t/log")
    def log(ctx: Context[Seen], number: int) -> None:
        ctx.state.numbers += (number,)

    return app


@pytest.mark.parametrize("typename", ["t/f", "t/async"])
def test_a_pause_blocks_the_address_keeps_the_order_and_doubles(typename: str) -> None:
    attempts: dict[int, int] = {}
    core = core_of(flaky(attempts, attempts=5, backoff=1.0, backoff_max=3.0))
    core.advance(100.0)
    put(core, typename, ("a", 1), ("a", -4), ("a", 2), ("b", 3))
    times = []

    def work() -> None:
        run_all(core)
        while calls := calls_of(core):
            for call in calls:
                finish(core, call)
            run_all(core)

    work()
    put(core, typename, ("a", 5))
    work()
    assert record_of(core, typename, "b").numbers == (3,)
    while (due := core.wake_at_ms) is not None:
        times.append(due)
        core.advance(due / 1000 - 0.001)
        work()
        assert attempts[-4] == len(times), "not before its time"
        core.advance(due / 1000)
        work()
    assert times == [101_000, 103_000, 106_000]
    assert record_of(core, typename, "a").numbers == (1, -4, 2, 5)
    assert sorted(record_of(core, "t/log", "all").numbers) == [-4, 1, 2, 3, 5], "no effects of failed attempts"
    assert core.backlog == 0
    assert core.dispatcher.letters.count == 0


def test_a_message_that_waits_for_its_retry_is_in_the_cut_with_those_behind_it() -> None:
    core = core_of(flaky({}, attempts=3, backoff=1.0))
    put(core, "t/f", ("a", 1), ("a", -9), ("a", 2))
    run_all(core)
    again = restored(core, flaky({}, attempts=3, backoff=1.0))
    assert again.dispatcher.types["t/f"].mailbox.take(9).values == [-9, 2]


def test_the_last_attempt_parks_the_message() -> None:
    core = core_of(flaky({}, attempts=2, backoff=1.0))
    core.advance(1.0)
    put(core, "t/f", ("a", -9), ("a", 2))
    run_all(core)
    core.advance(3.0)
    run_all(core)
    assert [letter["attempts"] for letter in letters_of(cells_of(core))] == [2]
    assert record_of(core, "t/f", "a").numbers == (2,)


def test_changes_before_a_pause_are_kept_although_the_record_leaves_the_table() -> None:
    core = core_of(flaky({}, attempts=3, backoff=1.0))
    put(core, "t/f", ("a", 1), ("a", -9))
    run_all(core)
    core.table.freeze()
    (piece,) = list(core.table.encode_frozen(100))
    assert [cbor2.loads(raw)["numbers"] for key, raw in zip(*piece, strict=True) if b"t/f" in key and raw is not None] == [[1]]


@pytest.mark.parametrize("style", ["plain", "async"])
def test_restart_ends_the_incarnation(style: str) -> None:
    app = App("restart")
    if style == "plain":

        @app.function("t/f", on_failure=restart())
        def f(ctx: Context, message: int) -> None:
            raise KeyError(message)

    else:

        @app.function("t/f", on_failure=restart())
        async def g(ctx: Context, message: int) -> None:
            raise KeyError(message)

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    with pytest.raises(FunctionRestartError, match=r"t/f:a has failed \(attempts: 1\).*KeyError: 1"):
        run_all(core)
        finish(core, calls_of(core)[0])
    assert core.dispatcher.letters.count == 0


# ---- operations ----------------------------------------------------------------------------------------------------------
class Results(State):
    seen: Value[tuple[str, ...]] = value(())


async def fetch(number: int) -> int:
    await Wait()
    if number < 0:
        raise OSError(number)
    return number * 2


def compute(number: int) -> str:
    return "not an int"


def operating() -> App:
    app = App("operations")

    @app.function("t/f")
    def f(ctx: Context[Results], message: int | OperationResult[str, int]) -> None:
        if isinstance(message, int):
            ctx.state.seen += (f"start {message}",)
            ctx.start_operation(fetch if message < 100 else compute, message, metadata=f"m{message}")
        else:
            who = None if ctx.caller is None else ctx.caller.id
            text = f"{message.metadata} {message.status.name} {message.value} {message.error} {who}"
            ctx.state.seen += (text,)

    @app.function("t/none")
    def none(ctx: Context, message: int) -> None:
        ctx.start_operation(fetch, 1)

    return app


def test_the_result_of_an_operation_comes_as_a_message() -> None:
    core = core_of(operating())
    put(core, "t/f", ("a", 1), ("a", -2), sender=CALLER)
    put(core, "t/f", ("a", 100))
    run_all(core)
    calls = calls_of(core)
    assert [call.style for call in calls] == ["async", "async", "blocking"]
    assert len([key for key in cells_of(core) if key.startswith(b"\x80o")]) == 3
    for call in reversed(calls):
        finish(core, call)
    run_all(core)
    seen = record_of(core, "t/f", "a").seen
    assert letters_of(cells_of(core)) == []
    assert seen[:3] == ("start 1", "start -2", "start 100")
    assert seen[3].startswith("m100 FAILURE None the operation has succeeded, but its result does not fit: ")
    assert seen[4:] == ("m-2 FAILURE None OSError: -2 who", "m1 SUCCESS 2 None who")
    assert not [key for key, raw in cells_of(core).items() if key.startswith(b"\x80o") and raw is not None]


def test_after_a_recovery_the_result_is_unknown_and_comes_before_anything_else() -> None:
    core = core_of(operating())
    put(core, "t/f", ("a", 1), ("b", 2), sender=CALLER)
    run_all(core)
    put(core, "t/f", ("a", 7))
    assert core.take_cut(5).quiet is False
    again = restored(core, operating())
    run_all(again)
    assert record_of(again, "t/f", "a").seen == ("m1 UNKNOWN None None who", "start 7")
    assert record_of(again, "t/f", "b").seen == ("m2 UNKNOWN None None who",)
    (call,) = calls_of(again)
    finish(again, call)
    cut = again.take_cut(9)
    assert cut.operations_pending == 0
    assert not cut.quiet, "the result waits in the mailbox"
    assert cut.operations_created == 3


def test_an_operation_of_a_failed_invocation_does_not_begin() -> None:
    app = App("failed")

    @app.function("t/f", on_failure=dead_letter())
    def f(ctx: Context, message: int | OperationResult[None, int]) -> None:
        ctx.start_operation(fetch, 1)
        raise ValueError

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    run_all(core)
    assert calls_of(core) == []
    assert core.take_cut(1).operations_pending == 0


def test_metadata_is_checked_where_the_operation_is_started() -> None:
    app = App("metadata")
    errors: list[PayloadTypeError] = []

    @app.function("t/f")
    def f(ctx: Context, message: int | OperationResult[str, int]) -> None:
        with pytest.raises(PayloadTypeError) as caught:
            ctx.start_operation(fetch, 1, metadata=5)
        errors.append(caught.value)

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    run_all(core)
    assert "Expected `str`, got `int`" in str(errors[0])


def test_a_function_that_takes_no_results_cannot_start_operations() -> None:
    core = core_of(operating())
    put(core, "t/none", ("a", 1))
    run_all(core)
    (letter,) = letters_of(cells_of(core))
    assert "expected 'OperationResult[...]' among the types it accepts" in letter["reason"]


def test_an_unknown_result_whose_function_is_gone_is_parked() -> None:
    core = core_of(operating())
    put(core, "t/f", ("a", 1))
    run_all(core)
    again = restored(core, application())
    (letter,) = letters_of(cells_of(again))
    assert "the function does not exist (any more)" in letter["reason"]
    assert letter["payload"]["metadata"] == "m1"
    assert letter["payload"]["status"] == OperationStatus.UNKNOWN.value


def test_an_unknown_result_comes_to_a_function_of_a_namespace() -> None:
    def namespace() -> App:
        app = App("namespace")

        @app.function("w/*")
        def f(ctx: Context[Results], message: int | OperationResult[None, int]) -> None:
            if isinstance(message, int):
                ctx.start_operation(fetch, message)
            else:
                ctx.state.seen += (message.status.name,)

        return app

    core = core_of(namespace())
    core.dispatcher.ingest_messages([("w/x", "a", 1)])
    core.dispatcher.route()
    run_all(core)
    again = restored(core, namespace())
    run_all(again)
    assert record_of(again, "w/x", "a").seen == ("UNKNOWN",)
