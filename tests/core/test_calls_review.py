"""What a hostile reader tried with calls, retries, operations and working copies: each test stands for something that went wrong."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from single_core import cells_of, core_of, letters_of, put, record_of, run_all
from test_calls import CALLER, Wait, calls_of, finish, restored

from shardfun import App, Context, Map, OperationResult, State, Value, after_write, dead_letter, mapping, retry, value
from shardfun.core.careful import Breadcrumb
from shardfun.core.dispatch import Dispatcher
from shardfun.core.function_type import FunctionType
from shardfun.core.limits import Limits
from shardfun.core.records import RecordTable
from shardfun.core.shard import ShardCore
from shardfun.errors import InvocationError, PayloadTypeError, StorageError
from shardfun.model.crumbs import Crumb

CORE = (Dispatcher, FunctionType, RecordTable)


class Crumbs:
    """Breadcrumbs that are not cleared."""

    def __init__(self) -> None:
        self.put_so_far: list[Crumb] = []
        self.lying: dict[int, Crumb] = {}

    def put(self, crumb: Crumb) -> int:
        self.put_so_far.append(crumb)
        self.lying[len(self.put_so_far)] = crumb
        return len(self.put_so_far)

    def clear(self, slot: int) -> None:
        del self.lying[slot]


# ---- state --------------------------------------------------------------------------------------------------------------
class Pair(State):
    number: Value[int] = value(0)
    items: Value[list[int]] = value(default_factory=list)
    prices: Map[str, int] = mapping()


def test_a_value_that_does_not_fit_inside_leaves_nothing_behind() -> None:
    app = App("inside")

    @app.function("t/f", on_failure=dead_letter())
    def f(ctx: Context[Pair], number: int) -> None:
        ctx.state.number += number
        if number < 0:
            ctx.state.items.append("x")  # type: ignore[arg-type]
        else:
            ctx.state.items.append(number)

    core = core_of(app)
    put(core, "t/f", ("a", 1), ("a", -5), ("a", 2))
    run_all(core)
    assert len(letters_of(cells_of(core))) == 1
    record = record_of(core, "t/f", "a")
    assert (record.number, record.items) == (3, [1, 2])


class Failing:
    """A store that cannot be read any more."""

    def __init__(self, below: Any) -> None:
        self.below = below

    def get(self, key: bytes) -> bytes | None:
        raise StorageError("cannot be read")

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Any:
        return self.below.scan(prefix, start)


def test_a_store_that_cannot_be_read_at_the_end_of_a_call_is_no_failure_of_its_message() -> None:
    app = App("unreadable")

    @app.function("t/f", on_failure=dead_letter())
    async def f(ctx: Context[Pair], number: int) -> None:
        ctx.state.number = number

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    run_all(core)
    (call,) = calls_of(core)
    core.dispatcher.types["t/f"].records.young.clear()
    core.table._read = Failing(None).get
    with pytest.raises(StorageError):
        finish(core, call)
    assert core.dispatcher.letters.count == 0


class Fading(State):
    entries: Map[str, int] = mapping(expire=after_write(seconds=10))


def test_a_call_sees_what_was_alive_when_it_began_to_its_end() -> None:
    app = App("fading")
    seen: list[Any] = []

    @app.function("t/f", on_failure=dead_letter())
    async def f(ctx: Context[Fading], number: int) -> None:
        if number == 0:
            ctx.state.entries["k"] = 7
            return
        seen.append("k" in ctx.state.entries)
        await Wait()
        seen.append(ctx.state.entries["k"])

    core = core_of(app, limits=Limits(retries=0, expiry_round_ms=1000))
    core.advance(100.0)
    put(core, "t/f", ("a", 0))
    run_all(core)
    finish(core, calls_of(core)[0])
    core.table.freeze()
    for keys, values in core.table.encode_frozen(100):
        core.table.cells._store.stored.update(dict(zip(keys, values, strict=True)))  # type: ignore[attr-defined]
    core.table.encoding_done()
    core.table.drop_frozen()
    core.advance(109.0)
    core.expire()
    put(core, "t/f", ("a", 1))
    run_all(core)
    (call,) = calls_of(core)
    coroutine = call.run()
    coroutine.send(None)
    for second in range(1090, 1200):
        core.advance(second / 10 + 2)
        core.expire()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    core.call_done(call.number, None, None)
    assert seen == [True, 7]


# ---- operations ---------------------------------------------------------------------------------------------------------
class Told(State):
    seen: Value[tuple[str, ...]] = value(())


def operating(result_type: Any, operation: Any, metadata: Any = None) -> App:
    app = App("operating")

    def f(ctx: Context[Told], message: Any) -> None:
        if isinstance(message, int):
            ctx.start_operation(operation, metadata=metadata)
        else:
            text = f"{message.status.name} {message.metadata!r} {message.value!r} {message.error!r}"
            ctx.state.seen += (text.encode(errors="replace").decode(),)

    f.__annotations__ = {"ctx": Context[Told], "message": int | result_type}
    app.function("t/f", on_failure=dead_letter())(f)
    return app


def told(app: App) -> tuple[str, ...]:
    core = core_of(app)
    put(core, "t/f", ("a", 1))
    run_all(core)
    (call,) = calls_of(core)
    finish(core, call)
    run_all(core)
    assert letters_of(cells_of(core)) == []
    return record_of(core, "t/f", "a").seen  # type: ignore[no-any-return]


def raise_surrogate() -> None:
    raise ValueError("\ud800")


@pytest.mark.parametrize(
    ("result_type", "operation", "said"),
    [
        (OperationResult[None, list[str]], lambda: ["\ud800"], "does not fit"),
        (OperationResult[None, list[str]], raise_surrogate, "ValueError: "),
        (OperationResult[None, str], raise_surrogate, "ValueError: "),
        (OperationResult[None, Any], object, "does not fit"),
        (OperationResult[None, Any], lambda: 1 << 70, "SUCCESS"),
        (OperationResult[None, dict[str, Any]], lambda: {"x": object()}, "does not fit"),
    ],
    ids=["surrogate", "text of an error", "text of an error, immutable", "anything", "a large number", "inside"],
)
def test_a_result_that_has_no_encoding_is_a_failure_of_the_operation(result_type: Any, operation: Any, said: str) -> None:
    (text,) = told(operating(result_type, operation))
    assert said in text
    text.encode()


@pytest.mark.parametrize("result_type", [OperationResult[list[int], list[int]], OperationResult[tuple[int, ...], int]])
def test_an_unknown_result_of_a_mutable_type_comes_too(result_type: Any) -> None:
    metadata: Any = [1, 2] if "list" in str(result_type) else (1, 2)
    core = core_of(operating(result_type, lambda: 1, metadata))
    put(core, "t/f", ("a", 1), sender=CALLER)
    run_all(core)
    again = restored(core, operating(result_type, lambda: 1, metadata))
    run_all(again)
    assert letters_of(cells_of(again)) == []
    assert record_of(again, "t/f", "a").seen == (f"UNKNOWN {metadata!r} None None",)


# ---- retries ------------------------------------------------------------------------------------------------------------
def test_a_retry_of_a_type_at_its_limit_is_not_overtaken_for_ever() -> None:
    app = App("starved")
    order: list[int] = []

    @app.function("t/f", concurrency=1, on_failure=retry(attempts=2, backoff=1.0, backoff_max=1.0))
    async def f(ctx: Context, number: int) -> None:
        order.append(number)
        if number < 0 and order.count(number) == 1:
            raise ValueError(number)

    core = core_of(app)
    core.advance(100.0)
    put(core, "t/f", ("a", -1), *((f"b{number}", number) for number in range(100)))
    now = 100.0
    for _ in range(20):
        now += 0.0005
        core.advance(now)
        run_all(core)
        (call,) = calls_of(core)
        now += 0.3
        core.advance(now)
        assert calls_of(core) == []
        finish(core, call)
    assert -1 in order[1:8]


def test_retries_that_wait_for_room_cost_nothing_meanwhile() -> None:
    app = App("polling")

    @app.function("t/f", concurrency=1, on_failure=retry(attempts=9, backoff=0.001, backoff_max=0.001))
    async def f(ctx: Context, number: int) -> None:
        raise ValueError(number)

    core = core_of(app)
    core.advance(100.0)
    put(core, "t/f", ("a", 1), ("b", 2))
    run_all(core)
    finish(core, calls_of(core)[0])
    run_all(core)
    (call,) = calls_of(core)
    assert call.what == "t/f:b"
    core.advance(101.0)
    core.changed = False
    core.advance(102.0)
    assert not core.changed
    assert core.wake_at_ms is None
    finish(core, call)
    assert [call.what for call in calls_of(core)] == ["t/f:a"]


def test_an_attempt_after_a_pause_is_seen_by_the_heartbeat() -> None:
    app = App("watched")
    seen: list[str] = []
    cores: list[ShardCore] = []

    @app.function("t/f", on_failure=retry(attempts=2, backoff=1.0))
    def f(ctx: Context, number: int) -> None:
        running = cores[0].dispatcher.running
        seen.append("" if running is None else running.typename)
        if len(seen) == 1:
            raise ValueError

    cores.append(core_of(app))
    core = cores[0]
    core.advance(1.0)
    put(core, "t/f", ("a", 1))
    run_all(core)
    core.advance(3.0)
    assert seen == ["t/f", "t/f"]
    assert core.dispatcher.running is None


# ---- careful mode -------------------------------------------------------------------------------------------------------
def test_an_attempt_after_a_pause_leaves_a_breadcrumb() -> None:
    app = App("crumbs")
    crumbs = Crumbs()
    lying: list[int] = []

    @app.function("t/f", on_failure=retry(attempts=2, backoff=1.0))
    def f(ctx: Context, number: int) -> None:
        lying.append(len(crumbs.lying))
        if len(lying) == 1:
            raise ValueError

    core = core_of(app, breadcrumb=Breadcrumb(crumbs))
    core.advance(1.0)
    put(core, "t/f", ("a", 1))
    run_all(core)
    core.advance(3.0)
    assert lying == [1, 1]
    assert crumbs.lying == {}


def test_a_payload_that_cannot_be_decoded_leaves_no_breadcrumb() -> None:
    app = App("undecodable")
    crumbs = Crumbs()

    @app.function("t/f", on_failure=dead_letter())
    async def f(ctx: Context, message: list[int]) -> None: ...

    from shardfun.model.payload import Encoded

    core = core_of(app, breadcrumb=Breadcrumb(crumbs))
    target = core.dispatcher.types["t/f"]
    target.mailbox.rows.append((target, "a", None, Encoded(target.payloads.by_class[list], b"\x61x")))
    run_all(core)
    assert len(letters_of(cells_of(core))) == 1
    assert len(crumbs.put_so_far) == 1
    assert crumbs.lying == {}


def test_careful_mode_lasts_until_those_are_done_that_were_there_at_its_start() -> None:
    def application() -> App:
        app = App("waiting")

        @app.function("t/old")
        async def old(ctx: Context, number: int) -> None: ...

        @app.function("t/new")
        async def new(ctx: Context, number: int) -> None: ...

        return app

    core = core_of(application())
    put(core, "t/old", ("a", 1), ("a", 2))
    run_all(core)
    again = restored(core, application(), breadcrumb=Breadcrumb(Crumbs()))
    run_all(again)
    (old,) = calls_of(again)
    for number in range(5):
        put(again, "t/new", ("x", number))
        run_all(again)
        finish(again, calls_of(again)[0])
    put(again, "t/old", ("b", 3))
    run_all(again)
    finish(again, calls_of(again)[0])
    assert again.take_cut(9).suspects
    finish(again, old)
    assert again.take_cut(10).suspects
    finish(again, calls_of(again)[0])
    assert not again.take_cut(11).suspects


def test_the_end_of_careful_mode_lets_others_begin_at_once() -> None:
    app = App("alone")

    @app.function("t/f")
    async def f(ctx: Context, number: int) -> None: ...

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    crumbs = Crumbs()
    first = core_of(app, breadcrumb=Breadcrumb(crumbs))
    put(first, "t/f", ("b", 2))
    run_all(first)
    (key,) = [crumb.key for crumb in crumbs.lying.values()]

    core = core_of(app, breadcrumb=Breadcrumb(Crumbs(), suspects=[key]))
    put(core, "t/f", ("a", 1), ("b", 2), ("c", 3))
    run_all(core)
    assert [call.what for call in calls_of(core)] == ["t/f:a"]
    core.dispatcher.end_careful_mode()
    run_all(core)
    assert [call.what for call in calls_of(core)] == ["t/f:b", "t/f:c"]


# ---- other threads ------------------------------------------------------------------------------------------------------
def test_two_threads_that_meet_a_name_at_once_make_one_function_type() -> None:
    app = App("names")

    @app.function("w/*")
    def f(ctx: Context, number: int) -> None: ...

    core = core_of(app)
    dispatcher = core.dispatcher
    resolve, meeting, found = dispatcher.namespaces.resolve, threading.Barrier(2), []

    class Slow:
        declared = dispatcher.namespaces.declared

        def resolve(self, *arguments: Any) -> Any:
            with suppress(threading.BrokenBarrierError):
                meeting.wait(0.2)
            return resolve(*arguments)

    dispatcher.namespaces = Slow()  # type: ignore[assignment]
    threads = [threading.Thread(target=lambda: found.append(dispatcher.resolve("w/x"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]
    assert [target.typename for target in dispatcher.order] == ["w/x"]


def test_a_heartbeat_may_still_look_at_a_core_that_has_just_been_retired() -> None:
    app = App("late")

    @app.function("t/f")
    async def f(ctx: Context, number: int) -> None: ...

    core = core_of(app)
    core.retire()
    assert core.backlog == 0


# ---- memory -------------------------------------------------------------------------------------------------------------
def test_a_core_with_calls_under_way_is_free_at_once_when_it_retires() -> None:
    app = App("free")

    @app.function("t/f", concurrency=1)
    async def f(ctx: Context, number: int) -> None:
        await Wait()

    @app.function("t/retry", on_failure=retry(attempts=2, backoff=1.0))
    def again(ctx: Context, number: int) -> None:
        raise ValueError

    @app.function("t/fails", on_failure=retry(attempts=3))
    def fails(ctx: Context, number: int) -> None:
        raise ValueError

    core = core_of(app)
    put(core, "t/f", ("a", 1), ("b", 1))
    put(core, "t/retry", ("a", 1))
    put(core, "t/fails", ("a", 1))
    run_all(core)
    calls = calls_of(core)
    coroutine = calls[0].run()
    coroutine.send(None)
    core.dispatcher.types["t/fails"].mailbox.rows.append((core.dispatcher.types["t/fails"], "b", None, 1))
    gone = [weakref.ref(core.dispatcher), weakref.ref(core.dispatcher.calls)]
    gc.collect()
    gc.disable()
    others = {id(found) for found in gc.get_objects() if isinstance(found, CORE)}
    own = {id(core.dispatcher), id(core.table), *map(id, core.dispatcher.order)}
    assert own <= others
    try:
        core.retire()
        coroutine.close()
        del core, calls, coroutine
        assert [ref() for ref in gone] == [None, None]
        assert not own & {id(found) for found in gc.get_objects() if isinstance(found, CORE)}
    finally:
        gc.enable()


# ---- timers -------------------------------------------------------------------------------------------------------------
def test_messages_of_a_stalled_type_do_not_keep_timers_of_others_from_firing() -> None:
    app = App("stalled")
    fired: list[int] = []

    @app.function("t/slow", concurrency=1)
    async def slow(ctx: Context, number: int) -> None: ...

    @app.function("t/f")
    def f(ctx: Context, number: int) -> None:
        if number == 0:
            ctx.send_after(timedelta(seconds=1), *ctx.self, 5)
        else:
            fired.append(number)

    core = core_of(app, limits=Limits(mailbox_refill=50))
    core.advance(10.0)
    put(core, "t/f", ("a", 0))
    put(core, "t/slow", *((f"id{number}", number) for number in range(200)))
    run_all(core)
    core.advance(12.0)
    run_all(core)
    assert fired == [5]


# ---- what cannot be told ------------------------------------------------------------------------------------------------
def test_an_error_whose_text_raises_is_described_nevertheless() -> None:
    app = App("rude")

    class RudeError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    @app.function("t/f", on_failure=dead_letter())
    def f(ctx: Context, number: int) -> None:
        raise RudeError

    core = core_of(app)
    put(core, "t/f", ("a", 1))
    run_all(core)
    (letter,) = letters_of(cells_of(core))
    assert letter["reason"].endswith("RudeError: <SystemExit in str()>")


def test_an_id_with_a_lone_surrogate_is_no_id() -> None:
    app = App("ids")

    @app.function("t/f")
    def f(ctx: Context, number: int) -> None: ...

    with pytest.raises(PayloadTypeError, match="id: expected a text of 1 to 4096 bytes"):
        core_of(app, shards=2).dispatcher.ingest_columns("t/f", ["\ud800"], [1])


@pytest.mark.parametrize("number", [object(), "1", None, [1]])
def test_a_metric_is_a_number(number: Any) -> None:
    from shardfun.core.metrics import Metrics

    metrics = Metrics().of("t/f")
    with pytest.raises(InvocationError, match="expected a number"):
        metrics.gauge("a").set(number)
    with pytest.raises(InvocationError, match="expected a number"):
        metrics.counter("b").increment(number)
    with pytest.raises(InvocationError, match="expected a number"):
        metrics.histogram("c").observe(number)
