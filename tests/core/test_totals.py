"""What a shard counts by function type: compared with what the test itself knows has happened."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_core import core_of, encode_record, program_of, put, record_of, run_all
from two_cores import TwoCores

from shardfun import App, Context, OperationResult, State, Value, retry, value
from shardfun.core import totals as core_totals
from shardfun.core.effects import StartCall
from shardfun.core.figures import egress_figures, function_figures, ingress_figures
from shardfun.core.function import state_key
from shardfun.core.limits import Limits
from shardfun.core.shard import IngressRoute, ShardCore
from shardfun.core.totals import OTHERS, FunctionTotals, Totals
from shardfun.model.doors import IngressBatch, Reject
from shardfun.model.keyspace import owner_of
from shardfun.model.status import FunctionStatus


class Count(State):
    runs: Value[int] = value(0)
    text: Value[str] = value("")


def figures(core: ShardCore, typename: str) -> FunctionStatus:
    return next(found for found in function_figures(core) if found.function == typename)


def relaying() -> App:
    """``t/relay`` does what a message says: sends to the ids, emits as often."""
    app = App("relaying")

    @app.function("t/relay")
    def relay(ctx: Context[Count], message: list[int]) -> None:
        ctx.state.runs += 1
        emits, *ids = message
        for number in range(emits):
            ctx.emit("out", number)
        for id in ids:
            ctx.send("t/sink", f"id{id}", id)

    @app.function("t/sink")
    def sink(ctx: Context[Count], message: int) -> None:
        ctx.state.runs += 1
        if message % 3 == 0 and message:
            ctx.send("t/sink", f"id{message // 3}", message // 3)

    return app


def owner(id: str) -> int:
    return owner_of(id, 2)


# ---- in and out ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("many", [1, 5, 40], ids=["one", "few", "many"])
@pytest.mark.parametrize("shards", [1, 2])
def test_what_is_sent_is_counted_by_where_it_goes(many: int, shards: int) -> None:
    core = core_of(relaying(), shards=shards)
    mine = next(f"m{i}" for i in range(100) if owner(f"m{i}") == 0)
    targets = list(range(many))
    put(core, "t/relay", (mine, [2, *targets]), (mine, [0]), (mine, [1, *targets]))
    core.run(1000)
    remote = 0 if shards == 1 else 2 * sum(owner(f"id{i}") for i in targets)
    relay = figures(core, "t/relay")
    assert (relay.messages_in, relay.invocations) == (3, 3)
    assert (relay.out_local, relay.out_remote, relay.out_egress) == (2 * many - remote, remote, 3)
    assert figures(core, "t/sink").backlog == 2 * many
    assert figures(core, "t/sink").messages_in == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 60), max_size=30)), min_size=1, max_size=12))
def test_between_two_shards_every_message_that_goes_out_comes_in(work: list[tuple[int, list[int]]]) -> None:
    cores = TwoCores(relaying, Limits(retries=0, frame_messages=7, window_frames=3))
    for number, (emits, ids) in enumerate(work):
        id = f"r{number}"
        put(cores.cores[owner(id)], "t/relay", (id, [emits, *ids]))
    cores.settle()
    shards = [{name: figures(core, name) for name in ("t/relay", "t/sink")} for core in cores.cores]
    sums = Counter[str]()
    local, remote = Counter[str](), Counter[str]()
    for number, (_, ids) in enumerate(work):
        for id in ids:
            (local if owner(f"r{number}") == owner(f"id{id}") else remote)["t/relay"] += 1
            while id and id % 3 == 0:
                (local if owner(f"id{id}") == owner(f"id{id // 3}") else remote)["t/sink"] += 1
                id //= 3
    for found in shards:
        for name, row in found.items():
            sums[f"{name} in"] += row.messages_in
            sums[f"{name} local"] += row.out_local
            sums[f"{name} remote"] += row.out_remote
            sums[f"{name} egress"] += row.out_egress
            assert (row.backlog, row.blocked, row.failures, row.invocations) == (0, 0, 0, row.messages_in)
    for name in ("t/relay", "t/sink"):
        assert (sums[f"{name} local"], sums[f"{name} remote"]) == (local[name], remote[name])
    assert sums["t/relay egress"] == sum(emits for emits, _ in work)
    assert sums["t/relay in"] == len(work)
    assert sums["t/sink in"] == local.total() + remote.total()


def test_a_delayed_message_counts_as_sent_when_it_is_due() -> None:
    app = App("delayed")

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None:
        for number in range(message):
            ctx.send_after(timedelta(seconds=number), "t/f", f"id{number}", 0)

    core = core_of(app, shards=2)
    core.advance(1000.0)
    put(core, "t/f", ("a", 20))
    run_all(core)
    assert (figures(core, "t/f").out_local, figures(core, "t/f").out_remote) == (0, 0)
    for second in range(10):
        core.advance(1000.5 + second)
    found = figures(core, "t/f")
    remote = sum(owner(f"id{number}") for number in range(10))
    assert (found.out_local, found.out_remote) == (10 - remote, remote)


# ---- failures ------------------------------------------------------------------------------------------------------------
def failing(policy: Any = None) -> App:
    """Fails ``message`` times, then not any more."""
    app = App("failing")
    failed: Counter[str] = Counter()

    @app.function("t/f", on_failure=policy)
    def f(ctx: Context[Count], message: int) -> None:
        ctx.emit("out", 1)
        if failed[ctx.self.id] < message:
            failed[ctx.self.id] += 1
            raise ValueError(message)

    return app


def test_attempts_in_place() -> None:
    core = core_of(failing(), limits=Limits(retries=2))
    put(core, "t/f", ("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 99))
    run_all(core)
    found = figures(core, "t/f")
    assert (found.messages_in, found.failures, found.retries, found.dead_letters) == (5, 9, 7, 2)
    assert found.invocations == found.messages_in + found.retries
    assert found.out_egress == 3


def test_attempts_after_a_pause_hold_back_the_address_and_count_its_messages_once() -> None:
    core = core_of(failing(retry(attempts=3, backoff=timedelta(seconds=1))))
    core.advance(1000.0)
    put(core, "t/f", ("a", 99), ("a", 0), ("b", 0), ("a", 0))
    put(core, "t/f", ("a", 0))
    run_all(core)
    found = figures(core, "t/f")
    assert (found.messages_in, found.invocations, found.blocked, found.backlog) == (2, 2, 1, 4)
    for second in range(1, 20):
        core.advance(1000.0 + second)
        run_all(core)
    found = figures(core, "t/f")
    assert (found.messages_in, found.failures, found.retries, found.dead_letters) == (5, 3, 2, 1)
    assert found.invocations == found.messages_in + found.retries
    assert (found.blocked, found.backlog) == (0, 0)


def test_a_message_whose_state_cannot_be_read_is_parked_unseen() -> None:
    app = App("unreadable")

    @app.function("t/f")
    def f(ctx: Context[Count], message: int) -> None:
        ctx.state.runs += message

    core = core_of(app, stored={state_key("t/f", "a"): cbor2.dumps({"runs": "many"})})
    put(core, "t/f", ("a", 1), ("b", 1))
    run_all(core)
    found = figures(core, "t/f")
    assert (found.messages_in, found.invocations, found.dead_letters, found.failures) == (2, 1, 1, 0)


def test_records_that_cannot_be_routed_count_for_their_ingress() -> None:
    app = relaying()
    core = core_of(app, routes={"in": IngressRoute((lambda record: [("t/sink", record["id"], 1)],)), "idle": IngressRoute()})
    batch = IngressBatch(3, [{"id": "a"}, {"no": 1}, {"id": "b"}], rejects=[Reject("line 4", "not JSON", b"{")])
    core.ingest("in", batch)
    assert [(one.ingress, one.records, one.rejected) for one in ingress_figures(core)] == [("in", 4, 2), ("idle", 0, 0)]
    assert OTHERS not in core.totals.functions


# ---- calls ---------------------------------------------------------------------------------------------------------------
class Wait:
    def __await__(self) -> Any:
        yield self


async def fetch(number: int) -> int:
    await Wait()
    return number


def calling() -> App:
    app = App("calling")

    @app.function("t/slow", on_failure=retry(attempts=2, backoff=timedelta(seconds=1)), concurrency=2)
    async def slow(ctx: Context[Count], message: int) -> None:
        await Wait()
        if message < 0:
            raise ValueError(message)
        for number in range(message):
            ctx.send("t/op", f"id{number}", number)
        ctx.emit("out", message)

    @app.function("t/op")
    def op(ctx: Context[Count], message: int | OperationResult[None, int]) -> None:
        if isinstance(message, int):
            ctx.start_operation(fetch, message)

    return app


def finish(core: ShardCore, call: StartCall) -> None:
    result, error = call.run(), None
    try:
        while True:
            result.send(None)
    except StopIteration as stop:
        result = stop.value
    except ValueError as raised:
        error = raised
    core.call_done(call.number, result, error)


def calls_of(core: ShardCore) -> list[StartCall]:
    return [effect for effect in core.take_effects() if isinstance(effect, StartCall)]


def test_calls_count_when_they_begin_and_their_effects_when_they_end() -> None:
    core = core_of(calling(), shards=2)
    core.advance(1000.0)
    put(core, "t/slow", ("a", 12), ("a", 1), ("b", -1), ("c", 1))
    run_all(core)
    found = figures(core, "t/slow")
    assert (found.messages_in, found.invocations, found.calls, found.blocked, found.backlog) == (2, 2, 2, 2, 4)
    first, second = calls_of(core)
    finish(core, first)
    found = figures(core, "t/slow")
    remote = sum(owner(f"id{number}") for number in range(12))
    assert (found.out_local, found.out_remote, found.out_egress) == (12 - remote, remote, 1)
    finish(core, second)
    for second_number in range(1, 10):
        core.advance(1000.0 + second_number)
        run_all(core)
        for call in calls_of(core):
            if call.what.startswith("t/slow"):
                finish(core, call)
    found = figures(core, "t/slow")
    assert (found.messages_in, found.invocations, found.failures, found.retries) == (4, 5, 2, 1)
    assert (found.dead_letters, found.calls, found.blocked, found.backlog) == (1, 0, 0, 0)


def test_operations_are_under_way_until_their_result_is_in_the_mailbox() -> None:
    core = core_of(calling())
    put(core, "t/op", ("a", 1), ("b", 2))
    run_all(core)
    assert figures(core, "t/op").operations == 2
    first, second = calls_of(core)
    finish(core, first)
    assert (figures(core, "t/op").operations, figures(core, "t/op").backlog) == (1, 1)
    finish(core, second)
    run_all(core)
    found = figures(core, "t/op")
    assert (found.operations, found.messages_in, found.out_local) == (0, 4, 0)


# ---- the life of a process -----------------------------------------------------------------------------------------------
COUNTERS = ("messages_in", "out_local", "out_remote", "out_egress", "invocations", "failures", "retries", "dead_letters")


def counters(core: ShardCore) -> dict[tuple[str, str], int]:
    return {(found.function, name): getattr(found, name) for found in function_figures(core) for name in COUNTERS}


def test_a_recovery_never_takes_a_counter_back_and_a_new_process_begins_anew() -> None:
    cores = TwoCores(relaying)
    put(cores.cores[owner("r")], "t/relay", ("r", [3, 9, 10, 11]))
    cores.settle()
    before = [counters(core) for core in cores.cores]
    invocations = [core.dispatcher.invocations for core in cores.cores]
    metrics = cores.cores[0].dispatcher.metrics
    cores.restart(survivors=True)
    assert sum(core.dispatcher.invocations for core in cores.cores) < sum(invocations)
    for core, known in zip(cores.cores, before, strict=True):
        assert counters(core) == known
    assert cores.cores[0].dispatcher.metrics is metrics
    put(cores.cores[owner("r")], "t/relay", ("r", [3, 9, 10, 11]))
    cores.settle()
    for core, known in zip(cores.cores, before, strict=True):
        assert counters(core) == {name: 2 * count for name, count in known.items()}
    cores.restart()
    assert not any(count for core in cores.cores for count in counters(core).values())


def test_records_that_a_sink_had_already_are_not_published_again() -> None:
    core = core_of(relaying())
    put(core, "t/relay", ("a", [5]))
    run_all(core)
    core.egress["out"].commit(5)
    core.found_published("out", 2)
    core.published("out", 2)
    (found,) = egress_figures(core)
    assert (found.egress, found.published, found.pending, found.pending_bytes) == ("out", 2, 1, len(encode_record(4)))


# ---- bounds --------------------------------------------------------------------------------------------------------------
def test_names_of_a_namespace_behind_the_limit_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_totals, "TYPES_MAX", 3)
    app = App("namespace")

    @app.function("w/*")
    def every(ctx: Context[Count], message: int) -> None:
        ctx.state.runs += 1
        if message:
            ctx.send(f"w/n{message - 1}", ctx.self.id, message - 1)

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None:
        ctx.send(f"w/n{message}", "a", message)

    core = core_of(app)
    put(core, "t/f", ("a", 6))
    core.run(10)
    core.run(10)
    assert {found.function: found.messages_in for found in function_figures(core)} == {"t/f": 1, "w/n6": 1, "w/n5": 0}
    core.run(10)
    core.run(10)
    assert figures(core, OTHERS).backlog == 1
    run_all(core)
    assert {found.function: found.messages_in for found in function_figures(core)} == {
        "t/f": 1,
        "w/n6": 1,
        "w/n5": 1,
        OTHERS: 5,
    }
    assert figures(core, OTHERS).out_local == 4


def test_made_up_names_do_not_use_up_the_limit() -> None:
    totals = Totals()
    totals.of("t/f")
    totals.known("made/up").dead_letters += 1
    totals.known("made/up2").dead_letters += 1
    assert list(totals.functions) == ["t/f", OTHERS]
    assert totals.functions[OTHERS].dead_letters == 2


def test_two_threads_that_meet_a_name_get_the_same_totals() -> None:
    totals, found = Totals(), list[FunctionTotals]()
    barrier = threading.Barrier(4)

    def meet() -> None:
        barrier.wait()
        found.extend(totals.of(f"t/n{number}") for number in range(100))

    threads = [threading.Thread(target=meet) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 100


def test_the_generated_runner_knows_nothing_of_counting() -> None:
    runner = program_of(relaying()).runners[1]
    assert not {"totals", "messages", "attempts", "passed_over"} & set(runner.__code__.co_names + runner.__code__.co_varnames)
    core = core_of(relaying())
    put(core, "t/sink", ("a", 1))
    run_all(core)
    assert record_of(core, "t/sink", "a").runs == 1
