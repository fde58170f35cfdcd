"""Delayed messages between two shards, through checkpoints, aborts and recoveries: each fires once, none early."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from two_cores import LIMITS, Counts, TwoCores

from shardfun import App, Context
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.model.control import Prepared
from shardfun.model.keyspace import owner_of

START = [(f"id{number}", 25) for number in range(12)]


def delay_ms(left: int) -> int:
    return left * 7 % 40


def next_id(id: str, left: int) -> str:
    return f"id{(int(id[2:]) * 7 + left) % 12}"


def application() -> App:
    """Each message is passed on to another id with one less, later, until 0."""
    app = App("balls")

    @app.function("ball/hop")
    def hop(ctx: Context[Counts], message: tuple[int, int]) -> None:
        left, due = message
        now = round(ctx.now().timestamp() * 1000)
        ctx.state.runs += 1
        ctx.state.total += left
        ctx.state.ended += now < due
        ctx.emit("out", (ctx.self.id, left))
        if left:
            later = delay_ms(left)
            ctx.send_after(later / 1000, "ball/hop", next_id(ctx.self.id, left), (left - 1, now + later))
            ctx.send_after(10, "ball/hop", ctx.self.id, (1000, 0), token=f"never {left}", replace=True)
            ctx.cancel(f"never {left}")

    return app


def started() -> TwoCores:
    world = TwoCores(application, replace(LIMITS, timers_near=3, timers_load=2, timers_fire=2))
    world.advance()
    for shard, core in enumerate(world.cores):
        core.dispatcher.ingest_messages(("ball/hop", id, (left, 0)) for id, left in START if owner_of(id, 2) == shard)
        core.dispatcher.route()
    return world


def outcome() -> tuple[dict[str, dict[str, int]], Counter[bytes]]:
    """Of the plain program."""
    counts: dict[str, dict[str, int]] = {}
    records: Counter[bytes] = Counter()
    for id, left in START:
        for now in range(left, -1, -1):
            state = counts.setdefault(id, {"runs": 0, "total": 0, "ended": 0})
            state["runs"] += 1
            state["total"] += now
            records[repr((id, now)).encode()] += 1
            id = next_id(id, now)
    return counts, records


def end(world: TwoCores) -> list[Prepared]:
    world.advance()
    while any(core.dispatcher.timers.count for core in world.cores) or any(core.backlog for core in world.cores):
        world.settle()
        if not world.advance():
            world.advance(0.001)
    world.settle()
    prepared = world.checkpoint()
    world.settle()
    return prepared


def check(world: TwoCores) -> None:
    end(world)
    counts, records = outcome()
    assert world.counts() == counts
    assert Counter(world.sinks[0] + world.sinks[1]) == records
    assert not any(key.startswith(TIMER_PREFIX) for store in world.stores for key in store)


def test_undisturbed() -> None:
    check(started())


@pytest.mark.parametrize("seed", range(12))
def test_any_interleaving_with_aborts_and_recoveries(seed: int) -> None:
    chance = random.Random(seed)
    world = started()
    world.checkpoint()  # the beginning has to be in one
    checkpoint = 0
    for _ in range(900):
        if chance.random() < 0.3:
            world.advance(chance.choice((0, 0.001, 0.01)))
        world.random_step(chance)
        if checkpoint == 0:
            if chance.random() < 0.05:
                checkpoint = world.trigger(*chance.choice(((0,), (1,), (0, 1), (1, 0))))
        elif len(world.prepared(checkpoint)) == 2:
            world.decide(checkpoint)
            checkpoint = 0
        elif chance.random() < 0.01:
            world.abort(checkpoint)
            checkpoint = 0
        if chance.random() < 0.005:
            world.restart(survivors=chance.random() < 0.5)
            checkpoint = 0
    if checkpoint:
        world.abort(checkpoint)
    check(world)


def test_pending_timers_do_not_keep_a_checkpoint_from_being_quiet_unless_they_are_awaited() -> None:
    world = started()
    world.settle()
    assert any(core.dispatcher.timers.count for core in world.cores)
    assert all(prepared.quiet for prepared in world.checkpoint())
