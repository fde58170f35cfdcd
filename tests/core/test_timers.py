"""Delayed messages: when they are sent, what tokens do, what a failed invocation leaves, how much of them is in memory."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import cbor2
import msgspec
import pytest
from single_core import cells_of, core_of, letters_of, put, run_all, waiting_of

from shardfun import App, Context, State, Value, value
from shardfun.core.limits import Limits
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES, Queues, decode_queues, encode_queues
from shardfun.core.timer_index import TIMER_PREFIX, due_of
from shardfun.errors import InvocationError, PayloadTypeError, TokenPendingError, UnknownTargetError
from shardfun.model.address import Address
from shardfun.model.doors import IngressBatch

NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1000


class Order(msgspec.Struct, frozen=True):
    name: str
    count: int = 1


class Heard(State):
    messages: Value[list[Any]] = value(default_factory=list)


def application(script: dict[int, Any] | None = None) -> App:
    """``t/do`` runs the step of the script that its message names; ``t/hear`` and ``t/other`` remember what comes."""
    app = App("timers")
    steps = script or {}

    @app.function("t/do")
    def do(ctx: Context[State], step: int) -> None:
        steps[step](ctx)

    @app.function("t/hear")
    def hear(
        ctx: Context[Heard], message: int | str | bytes | Order | list[int] | tuple[int, ...] | dt.datetime | None
    ) -> None:
        ctx.state.messages = [*ctx.state.messages, repr(message), str(ctx.caller)]

    @app.function("t/other")
    def other(ctx: Context[State], step: int) -> None:
        steps[step](ctx)

    return app


def core_with(script: dict[int, Any] | None = None, *, now_s: float = NOW_S, **arguments: Any) -> ShardCore:
    core = core_of(application(script), **arguments)
    core.advance(now_s)
    return core


def do(core: ShardCore, *steps: int, id: str = "a", typename: str = "t/do") -> None:
    put(core, typename, *((id, step) for step in steps))
    run_all(core)


def fired(core: ShardCore, ms: int) -> list[tuple[str, str, Any, Any]]:
    """What one ``advance`` to so many milliseconds after the beginning has put into the mailbox, taken out of it."""
    core.advance((NOW_MS + ms) / 1000)
    found = waiting_of(core, core.identity.shard)
    for target in core.dispatcher.order:
        while len(target.mailbox):
            target.mailbox.take(1000)
    return found


def later(delay: float, message: Any, **arguments: Any) -> Any:
    return lambda ctx: ctx.send_after(delay, "t/hear", "h", message, **arguments)


# ---- when --------------------------------------------------------------------------------------------------------------
def test_a_message_is_sent_when_its_delay_is_over_and_never_earlier() -> None:
    core = core_with({1: later(0.25, 7)})
    do(core, 1)
    assert fired(core, 249) == []
    assert core.wake_at_ms == NOW_MS + 250
    assert fired(core, 250) == [("t/hear", "h", Address("t/do", "a"), 7)]
    assert fired(core, 10_000) == []
    assert core.wake_at_ms is None


@pytest.mark.parametrize(("delay", "due"), [(dt.timedelta(hours=1), 3_600_000), (2, 2000), (0.0001, 1), (0, 0)])
def test_a_delay_is_a_timedelta_or_seconds_and_is_rounded_up_to_milliseconds(delay: Any, due: int) -> None:
    core = core_with({1: later(delay, 7)})
    do(core, 1)
    assert core.wake_at_ms == NOW_MS + due


def test_timers_fire_in_order_of_time_and_equal_ones_in_the_order_in_which_they_were_made() -> None:
    core = core_with({n: later(0.001 * (n % 3), n) for n in range(9)})
    do(core, *range(9))
    assert [row[3] for row in fired(core, 5)] == [0, 3, 6, 1, 4, 7, 2, 5, 8]


@pytest.mark.parametrize(
    "message", [1, "text", b"\x01", Order("tea", 2), [1, 2], (3, 4), dt.datetime(2020, 1, 2, tzinfo=dt.UTC), None]
)
def test_any_payload_arrives_as_it_was_sent(message: Any) -> None:
    core = core_with({1: later(1, message)})
    do(core, 1)
    core.advance(NOW_S + 1)
    run_all(core)
    record = core.table.generations["t/hear"].young["h"]
    assert record.messages == [repr(message), "t/do:a"]


def test_a_mutable_payload_is_encoded_at_the_call() -> None:
    def step(ctx: Context[State]) -> None:
        numbers = [1]
        ctx.send_after(1, "t/hear", "h", numbers)
        numbers.append(2)

    core = core_with({1: step})
    do(core, 1)
    assert [row[3] for row in fired(core, 1000)] == [[1]]


def test_a_timer_for_another_shard_goes_into_its_outbox() -> None:
    core = core_with({1: lambda ctx: [ctx.send_after(1, "t/hear", f"id{n}", n) for n in range(20)]}, shards=2)
    do(core, 1, id="a")
    core.advance(NOW_S + 1)
    assert {row[3] for row in waiting_of(core, 0)} | {row[3] for row in waiting_of(core, 1)} == set(range(20))
    assert core.dispatcher.outgoing(1)


def test_now_and_random_are_those_of_the_runtime() -> None:
    seen: list[Any] = []
    core = core_with({1: lambda ctx: seen.extend((ctx.now(), ctx.random.random()))}, now_s=NOW_S + 0.25)
    do(core, 1)
    assert seen == [dt.datetime.fromtimestamp(NOW_S, dt.UTC) + dt.timedelta(milliseconds=250), random.Random(0).random()]


def test_reply_goes_to_the_caller_and_needs_one() -> None:
    core = core_with({1: lambda ctx: ctx.reply(5)})
    put(core, "t/do", ("a", 1), sender=Address("t/hear", "asker"))
    assert core.run(1) is not None
    assert waiting_of(core, 0) == [("t/hear", "asker", Address("t/do", "a"), 5)]
    do(core, 1)
    (letter,) = letters_of(cells_of(core))
    assert "no caller to reply to" in letter["reason"]


def timer_cells(core: ShardCore) -> dict[bytes, bytes]:
    """Of the present, by suffix."""
    return dict(core.table.cells.scan(TIMER_PREFIX))


def all_cells(core: ShardCore) -> int:
    """Cells that are there: timers and tokens."""
    return sum(raw is not None for raw in cells_of(core).values())


# ---- errors at the call -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda ctx: ctx.send_after(-1, "t/hear", "h", 1), InvocationError, "delay: expected 0 to"),
        (lambda ctx: ctx.send_after(float("nan"), "t/hear", "h", 1), InvocationError, "delay: expected 0 to"),
        (lambda ctx: ctx.send_after(dt.timedelta.max, "t/hear", "h", 1), InvocationError, "delay: expected 0 to"),
        (lambda ctx: ctx.send_after("1", "t/hear", "h", 1), InvocationError, "expected a timedelta or seconds"),
        (lambda ctx: ctx.send_after(1, "t/heer", "h", 1), UnknownTargetError, "t/hear"),
        (lambda ctx: ctx.send_after(1, "t/hear", "h", 1.5), PayloadTypeError, "not float"),
        (lambda ctx: ctx.send_after(1, "t/hear", "h", "\ud800"), PayloadTypeError, "cannot be encoded"),
        (lambda ctx: ctx.send_after(1, "t/hear", "", 1), PayloadTypeError, "id: expected"),
        (lambda ctx: ctx.send_after(1, "t/hear", "h", 1, token="x" * 5000), InvocationError, "token: expected"),
        (lambda ctx: ctx.send_after(1, "t/hear", "h", 1, token=7), InvocationError, "token: expected"),
        (lambda ctx: ctx.cancel(""), InvocationError, "token: expected"),
        (lambda ctx: ctx.cancel("\ud800"), InvocationError, "token: expected"),
    ],
)
def test_what_is_wrong_is_said_at_the_call(call: Any, error: type[Exception], words: str) -> None:
    raised: list[BaseException] = []

    def step(ctx: Context[State]) -> None:
        try:
            call(ctx)
        except Exception as caught:
            raised.append(caught)

    core = core_with({1: step})
    do(core, 1)
    assert [type(caught) for caught in raised] == [error]
    assert words in str(raised[0])
    assert core.dispatcher.timers.count == 0


@pytest.mark.parametrize(
    "use", [lambda ctx: ctx.send_after(1, "t/hear", "h", 1), lambda ctx: ctx.cancel("t"), lambda ctx: ctx.now()]
)
def test_a_context_that_was_kept_raises(use: Any) -> None:
    kept: list[Any] = []
    core = core_with({1: kept.append})
    do(core, 1)
    with pytest.raises(InvocationError, match="outside of its invocation"):
        use(kept[0])


def test_timers_of_a_failed_invocation_are_not_made() -> None:
    def fail(ctx: Context[State]) -> None:
        ctx.send_after(1, "t/hear", "h", 1, token="t")
        msg = "no"
        raise ValueError(msg)

    core = core_with({1: fail, 2: later(2, 2)})
    do(core, 2, 1, 2)
    assert [row[3] for row in fired(core, 60_000)] == [2, 2]
    assert all_cells(core) == 1  # the dead letter


# ---- tokens -------------------------------------------------------------------------------------------------------------
def outcomes(*calls: Any) -> tuple[dict[int, Any], list[str]]:
    """Steps that each make one call and write down how it ended."""
    said: list[str] = []

    def step(call: Any) -> Any:
        def run(ctx: Context[State]) -> None:
            try:
                call(ctx)
                said.append("ok")
            except TokenPendingError:
                said.append("pending")

        return run

    return {number: step(call) for number, call in enumerate(calls, 1)}, said


@pytest.mark.parametrize("at_once", [True, False], ids=["one batch", "one by one"])
def test_a_pending_token_cannot_be_used_again_until_it_is_cancelled_or_has_fired(*, at_once: bool) -> None:
    script, said = outcomes(later(1, 1, token="t"), later(1, 2, token="t"), lambda ctx: ctx.cancel("t"), later(1, 4, token="t"))
    core = core_with(script)
    for steps in [(1, 2, 3, 4)] if at_once else [(1,), (2,), (3,), (4,)]:
        do(core, *steps)
    assert said == ["ok", "pending", "ok", "ok"]
    assert [row[3] for row in fired(core, 1000)] == [4]
    do(core, 2)
    assert said[4:] == ["ok"]
    assert [row[3] for row in fired(core, 2000)] == [2]
    assert all_cells(core) == 0


def test_tokens_are_seen_within_one_invocation() -> None:
    def step(ctx: Context[State]) -> None:
        ctx.cancel("t")
        ctx.send_after(1, "t/hear", "h", 1, token="t")
        with pytest.raises(TokenPendingError, match="'t' of id 'a'"):
            ctx.send_after(1, "t/hear", "h", 2, token="t")
        ctx.send_after(1, "t/hear", "h", 3, token="t", replace=True)
        ctx.cancel("t")
        ctx.send_after(1, "t/hear", "h", 4, token="t")

    core = core_with({1: step})
    do(core, 1)
    assert [row[3] for row in fired(core, 1000)] == [4]


def test_replace_takes_the_place_of_the_pending_message() -> None:
    core = core_with({1: later(1, 1, token="t", replace=True), 2: later(5, 2, token="t", replace=True)})
    do(core, 1)
    do(core, 2)
    assert fired(core, 1000) == []
    assert [row[3] for row in fired(core, 5000)] == [2]


def test_a_token_belongs_to_the_id_over_all_types_and_to_no_other_id() -> None:
    script, said = outcomes(later(1, 1, token="t"), lambda ctx: ctx.cancel("t"), later(1, 3, token="t"))
    core = core_with(script)
    do(core, 1, id="a")
    do(core, 3, id="b")
    do(core, 3, id="a", typename="t/other")
    assert said == ["ok", "ok", "pending"]
    do(core, 2, id="aa")
    do(core, 2, id="a", typename="t/other")
    assert [(row[2].id, row[3]) for row in fired(core, 1000)] == [("b", 3)]


def test_cancelling_what_is_not_there_or_has_fired_does_nothing() -> None:
    core = core_with({1: lambda ctx: ctx.cancel("t"), 2: later(1, 2, token="t")})
    do(core, 1, 2)
    assert len(fired(core, 1000)) == 1
    do(core, 1)
    assert (core.dispatcher.timers.count, core.dispatcher.letters.count, all_cells(core)) == (0, 0, 0)


@pytest.mark.parametrize("plain", [True, False])
def test_what_a_failed_invocation_did_with_a_token_is_forgotten(*, plain: bool) -> None:
    attempts: list[int] = []

    def fail(ctx: Context[State]) -> None:
        attempts.append(1)
        ctx.send("t/hear", "h", 1)  # another row in the place of the one before
        ctx.send_after(1, "t/hear", "h", 1, token="t")
        msg = "no"
        raise ValueError(msg)

    def cancel_and_fail(ctx: Context[State]) -> None:
        ctx.cancel("u")
        msg = "no"
        raise ValueError(msg)

    others, said = outcomes(
        later(1, 1, token="t"), later(1, 2, token="u"), later(1, 3, token="u"), lambda ctx: ctx.send("t/hear", "h", 9)
    )
    core = core_with({**others, 5: fail, 6: cancel_and_fail}, plain=plain, limits=Limits(retries=2))
    do(core, 5, 4, 4, 4, 1, 5, 2, 6, 3)
    assert len(attempts) == 6
    assert said == ["ok", "ok", "ok", "ok", "ok", "pending"]
    assert core.dispatcher.timers.count == 2


def test_requests_recorded_apart_are_checked_when_they_take_effect() -> None:
    core = core_with({1: later(1, 1, token="t")})
    timers, target = core.dispatcher.timers, core.dispatcher.types["t/hear"]
    sender = Address("t/do", "a")
    rows: list[Any] = []
    rows.append(timers.request(rows, sender, NOW_MS + 5, target, "h", 2, "t", replace=False))
    with pytest.raises(TokenPendingError):
        timers.request(rows, sender, NOW_MS + 5, target, "h", 2, "t", replace=False)
    timers.check(rows)
    do(core, 1)
    with pytest.raises(TokenPendingError):
        timers.check(rows)
    timers.check([timers.cancellation([], sender, "t"), *rows])
    with pytest.raises(TokenPendingError):
        timers.check([timers.cancellation([], sender, "t"), *rows, *rows])
    timers.check([timers.request([], sender, NOW_MS, target, "h", 3, "t", replace=True)])


# ---- what cannot be delivered -------------------------------------------------------------------------------------------
def restored(core: ShardCore, app: App, limits: Limits | None = None) -> ShardCore:
    """Another incarnation, from a checkpoint of everything."""
    core.table.freeze()
    cut = core.take_cut(1)
    (queues,) = [piece for piece in encode_queues(cut) if piece is not None]
    stored = {
        key: raw
        for keys, values in core.table.encode_frozen(100)
        for key, raw in zip(keys, values, strict=True)
        if raw is not None
    }
    again = core_of(app, stored=stored, start=StartPoint(2, 1, b"", decode_queues(queues)), limits=limits)
    again.advance(NOW_S)
    return again


def test_timers_survive_a_checkpoint_and_overdue_ones_fire_at_once_in_order() -> None:
    core = core_with({n: later(n, n, token=f"t{n}") for n in range(1, 6)})
    do(core, 5, 3, 1, 2, 4)
    again = restored(core, application())
    assert again.dispatcher.timers.pending == {"t/hear": 5}
    assert [row[3] for row in fired(again, 3500)] == [1, 2, 3]
    assert again.wake_at_ms == NOW_MS + 4000
    assert again.dispatcher.timers.pending == {"t/hear": 2}


def test_the_order_of_equal_times_goes_on_over_a_checkpoint() -> None:
    core = core_with({1: later(1, 1), 2: later(1, 2)})
    do(core, 2)
    again = restored(core, application({1: later(1, 1)}))
    do(again, 1)
    assert [row[3] for row in fired(again, 1000)] == [2, 1]


def test_timers_for_a_type_that_is_gone_are_parked_at_start() -> None:
    core = core_with({1: later(1, 1, token="t"), 2: lambda ctx: ctx.send_after(1, "t/other", "o", 2)})
    do(core, 1, 2, 1)
    app = App("timers")

    @app.function("t/other")
    def other(ctx: Context[State], step: int) -> None: ...

    again = restored(core, app)
    assert again.dispatcher.letters.count == 2  # one is of the second use of the token, before the checkpoint
    (letter,) = [letter for letter in letters_of(cells_of(again)) if letter["target"] == ["t/hear", "h"]]
    assert (letter["payload"], letter["sender"]) == (1, ["t/do", "a"])
    assert len(again.notes) == 1
    assert "t/hear" in again.notes[0]
    assert [row[:2] for row in fired(again, 1000)] == [("t/other", "o")]
    assert again.dispatcher.timers.count == 0


def test_a_timer_whose_payload_no_longer_fits_is_parked_when_it_fires() -> None:
    core = core_with({1: later(1, Order("tea")), 2: later(1, 2)})
    do(core, 1, 2)
    app = App("timers")

    @app.function("t/hear")
    def hear(ctx: Context[State], message: int) -> None: ...

    again = restored(core, app)
    assert [row[3] for row in fired(again, 1000)] == [2]
    (letter,) = letters_of(cells_of(again))
    assert "Order does not exist any more" in letter["reason"]


def test_a_checkpoint_without_timers_can_be_read() -> None:
    plain = {
        "format": 1,
        "checkpoint": 1,
        "mailbox": [],
        "inbox": [],
        "logs": {},
        "outboxes": {},
        "positions": {},
        "egress": {},
    }
    plain |= {"ended": False, "dead_letters": 0, "records_in": 0, "invocations": 0}
    queues: Queues = decode_queues(cbor2.dumps(plain))
    assert (queues.timers_made, queues.timers_pending) == (0, {})
    assert EMPTY_QUEUES.timers_pending == {}


# ---- many ---------------------------------------------------------------------------------------------------------------
def test_due_timers_fire_in_pieces_and_only_while_there_is_room() -> None:
    limits = Limits(retries=0, timers_fire=3, mailbox_refill=5)
    core = core_with({1: lambda ctx: [ctx.send_after(1, "t/hear", "h", n) for n in range(10)]}, limits=limits)
    do(core, 1)
    assert core.advance(NOW_S + 1)
    assert core.dispatcher.waiting == 3
    assert core.advance(NOW_S + 1)
    assert core.dispatcher.waiting == 5
    assert not core.advance(NOW_S + 1)
    assert core.wake_at_ms is None  # whatever makes room wakes the loop
    assert core.run(1) is not None
    assert core.wake_at_ms == NOW_MS + 1000


def test_a_shard_whose_queues_are_always_full_fires_some_nevertheless() -> None:
    limits = Limits(retries=0, timers_fire=1, mailbox_refill=10)
    again = {2: lambda ctx: ctx.send("t/do", "a", 2)}
    core = core_with({1: lambda ctx: [later(0.001, n)(ctx) for n in range(3)], **again}, limits=limits)
    do(core, 1)
    put(core, "t/do", *(("a", 2) for _ in range(15)))
    for _ in range(40):
        core.advance(NOW_S + 1)
        core.run(1)
    assert core.dispatcher.timers.count == 0


def test_nothing_fires_while_too_many_changes_wait_for_a_checkpoint() -> None:
    core = core_with({1: later(1, 1)}, limits=Limits(retries=0, dirty_hard_bytes=1))
    put(core, "t/do", ("a", 1))
    core.run(1)
    assert not core.may_execute
    assert not core.advance(NOW_S + 2)
    assert core.wake_at_ms is None


def held(core: ShardCore) -> int:
    return len(core.dispatcher.timers._index._near)


def test_memory_holds_the_near_ones_only() -> None:
    limits = Limits(retries=0, timers_near=10, timers_load=4, timers_fire=7)
    delays = [((n * 7919) % 1000) / 1000 for n in range(1000)]
    core = core_with(
        {1: lambda ctx: [ctx.send_after(delay, "t/hear", "h", n) for n, delay in enumerate(delays)]}, limits=limits
    )
    do(core, 1)
    assert held(core) <= 20
    again = restored(core, application(), limits)
    assert held(again) <= 10
    seen: list[int] = []
    for ms in range(1001):
        while rows := fired(again, ms):
            assert held(again) <= 20
            seen += [row[3] for row in rows]
        assert len(seen) == sum(delay * 1000 <= ms + 1e-6 for delay in delays)
    assert seen == sorted(range(1000), key=lambda n: (delays[n], n))
    assert timer_cells(again) == {}


def test_the_due_time_can_be_read_from_the_key() -> None:
    core = core_with({1: later(1.5, 1)})
    do(core, 1)
    (suffix,) = timer_cells(core)
    assert (due_of(suffix), len(suffix)) == (NOW_MS + 1500, 18)


# ---- the end of a bounded run --------------------------------------------------------------------------------------------
def bounded(at_end: Any) -> ShardCore:
    """A core whose only ingress is at its end, with two timers pending."""
    from shardfun.core.shard import IngressRoute

    core = core_with(
        {1: later(1, 1), 2: later(2, 2)},
        limits=Limits(retries=0, timers_at_end=at_end),
        routes={"in": IngressRoute((lambda r: r,))},
    )
    core.ingest("in", IngressBatch(1, [[("t/do", "a", 2), ("t/do", "a", 1)]]))
    run_all(core)
    core.ingress_finished("in")
    return core


def quiet(core: ShardCore, checkpoint: int) -> bool:
    core.table.freeze()
    found = core.take_cut(checkpoint).quiet
    core.table.merge_frozen()
    return found


def test_timers_are_kept_at_the_end_and_fire_no_more() -> None:
    core = bounded("keep")
    assert quiet(core, 1)
    assert [row[3] for row in fired(core, 1000)] == [1]
    core.ended = True
    assert (fired(core, 5000), core.wake_at_ms) == ([], None)
    assert core.dispatcher.timers.count == 1


def test_the_end_waits_for_timers() -> None:
    core = bounded("wait")
    assert not quiet(core, 1)
    assert fired(core, 999) == []
    assert [row[3] for row in fired(core, 2000)] == [1, 2]
    assert quiet(core, 2)


def test_at_the_end_timers_fire_at_once_in_order() -> None:
    core = bounded("fire")
    assert not quiet(core, 1)
    assert core.wake_at_ms == 0
    assert [row[3] for row in fired(core, 0)] == [1, 2]
    assert quiet(core, 2)
    core.ended = True
    do(core, 1)
    assert [row[3] for row in fired(core, 0)] == [1]
