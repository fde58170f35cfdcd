"""What a seed decides before the run begins.

Limits are drawn small: with windows of one frame, frames of one message and caches of five records, a few thousand messages meet
what production meets in days. Each seed mixes its own dose of every fault (swarm testing): an average of everything would hide
what only shows when one thing happens often and another never.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

from shardfun.core.coordinator import Timing
from shardfun.core.limits import Limits

WORKLOADS = ("pairs", "bank", "ring", "trees")
DELIVERED_MIN = 1000  # of 4,600 on average; one of three thousand runs had fewer than 2,000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Chances of faults, per step of the world unless said otherwise.

    Args:
        crash: kill a shard; ``supervisor`` kills that; ``power``: everything stops, and what was not fsynced may be gone.
        point: kill who just reached a named point (per point).
        recovery_factor: all of these are so many times more likely during a recovery: double faults.
        drop: break a pipe and lose its tail; ``unnoticed``: the share of these that nobody is told of.
        misjudge: a live shard is declared dead; it goes on until it is killed.
        pause: a shard stands still for a while.
        freeze: a shard or the supervisor is stopped (SIGSTOP), perhaps for longer than it may be silent.
        stuck: a function runs for seconds; the process gives signs of life meanwhile.
        cursed: one certain shard dies at a step of its start (per step).
        clock: the wall clock is set; ``backwards``: the share of these that go back.
        jump: while a checkpoint is undecided, the clock jumps past its time-out.
        rush: a checkpoint is triggered as soon as the last one ended (per look at the clock).
        refuse: the disk refuses a delta (per delta); ``unsynced``: the share of these that fail in the last fsync.
        stall: applying or recovering fails half-way and is tried again (per attempt).
        disk: a step of any other storage job of a real store fails (per job); ``slow``: a job takes a while (per job).
        read: a read fails, of a running shard or for somebody who asks (per piece of work).
        outage: the power fails while a disk job is under way (per job); ``flip``: a bit of a stored file flips (per step).
        sink: a sink does not take records (per attempt).
        sink_error: a sink says that it has failed, and has written all, some or none of them (per attempt).
        down: a sink takes nothing for a while.
        shut: a sink cannot be opened (per attempt).
        door: the door is killed.
        log: a step on the disk of the intake log fails (per write).
        late: a control message arrives once more, later (per message).
        stale: what is in a pipe survives the end of its process.
    """

    crash: float
    supervisor: float
    power: float
    point: float
    recovery_factor: int
    drop: float
    unnoticed: float
    misjudge: float
    pause: float
    freeze: float
    stuck: float
    cursed: float
    clock: float
    backwards: float
    jump: float
    rush: float
    refuse: float
    unsynced: float
    stall: float
    sink: float
    sink_error: float
    down: float
    door: float
    log: float
    late: float
    stale: float
    shut: float = 0.0
    disk: float = 0.0
    slow: float = 0.0
    read: float = 0.0
    outage: float = 0.0
    flip: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run.

    Args:
        plain_runners: run functions by the specification instead of by generated code.
        encoded_deltas: write deltas as bytes, as on a disk, instead of keeping objects.
        files: run the real code of stores and manifests on a simulated disk.
        pipe_frames: frames that a pipe between two shards holds.
        records: of the main ingress, over all partitions; ``batch``: read at once at most.
        backlog_high: messages waiting in a shard at which its ingress stops; it goes on at ``backlog_low``.
        run_messages: executed in one piece of work at most.
        pace: by kind of work, how eagerly it is picked (see ``world``).
        speeds: by shard, how often it has a turn in the safety phase.
        faulty_steps: length of the safety phase.
        sink_counts: sinks know how much they hold; otherwise records are repeated after a crash.
        ping_pong: messages that are sent to and fro for ever, inside a shard and between two.
        faults: names of the faults that strike (see ``faults``), of a run that was shrunk; ``None``: those that are drawn.
        hot: almost all of the work is for one address (in ``bank``).
        rounded_ms: what is sent later is due at multiples of this, many at once (in ``trees``); 0: when it likes.
        operator: somebody looks at dead letters and states, and sends letters again or deletes them.
        orders: that clients send through the door.
        careful: a death is taken for one that a message may have caused, so that the next process runs in careful mode; otherwise all
            are explained.
        silence_s: after so much time without a sign of life a process counts as dead.
        messages_min: a run with fewer messages would prove too little.
        schedule: with another number the same faults meet another order of events (see ``shrink``).
    """

    seed: int
    workload: str
    shards: int
    limits: Limits
    timing: Timing
    rates: Rates
    plain_runners: bool
    encoded_deltas: bool
    pipe_frames: int
    records: int
    batch: int
    backlog_high: int
    backlog_low: int
    run_messages: int
    pace: dict[str, float]
    speeds: tuple[int, ...]
    faulty_steps: int
    sink_counts: bool
    ping_pong: bool
    silence_s: float
    orders: int = 0
    operator: bool = False
    hot: bool = False
    rounded_ms: int = 0
    faults: tuple[str, ...] | None = None
    messages_min: int = DELIVERED_MIN
    schedule: int = 0
    files: bool = False
    careful: bool = False


RECORDS = {"pairs": 300, "bank": 1696, "ring": 72, "trees": 440}
"""Enough for 2,000 messages in the surviving history of every run."""

CAREFUL_SHARE = 0.5
FILES_SHARE = 0.3
FLIPS_SHARE = 0.35
"""Of the runs with files, those in which bits flip: they may end early, with a refusal."""

SLOW_FACTOR = 100
PACES = ("control", "mesh", "run", "checkpoint", "storage", "ingress", "egress", "supervisor", "calls")


def draw(seed: int, workload: str | None = None) -> Options:
    """The options of a seed.

    Args:
        workload: one of ``WORKLOADS`` instead of the one that the seed would pick; the rest stays the same.
    """
    chance = random.Random(seed * 1_000_003 + 17)
    more = random.Random(seed * 1_000_003 + 18)  # for what was added later: what was drawn before stays as it is
    last = random.Random(f"{seed} last")  # for what was added behind that
    drawn = chance.choice(WORKLOADS)
    shards = chance.choice((1, 2, 2, 3, 3, 4, 5))
    window = chance.choice((1, 1, 2, 3, 4))
    high = chance.choice((12, 40, 120))
    chosen = workload or drawn
    speeds = _speeds(chance, shards)
    slow = max(speeds) >= SLOW_FACTOR
    options = Options(
        seed=seed,
        workload=chosen,
        shards=shards,
        limits=_limits(chance, window),
        timing=Timing(
            interval=chance.choice((0.02, 0.1, 0.4)),
            timeout=40.0 if slow else 8.0,
            idle_interval=chance.choice((1.0, 4.0)),
            repeat=chance.choice((0.2, 1.5)),
        ),
        rates=_rates(chance, more, last),
        plain_runners=chance.random() < 0.3,
        encoded_deltas=chance.random() < 0.15,
        pipe_frames=window + chance.choice((1, 2, 6)),
        records=RECORDS[chosen],
        batch=chance.choice((1, 5, 20)),
        backlog_high=high,
        backlog_low=high // 4,
        run_messages=chance.choice((1, 3, 10, 40)),
        pace={kind: chance.choice((0.2, 1.0, 1.0, 3.0)) for kind in PACES},
        speeds=speeds,
        faulty_steps=chance.choice((4_000, 8_000)),
        sink_counts=chance.random() < 0.5,
        ping_pong=chance.random() < 0.2,
        silence_s=chance.choice((0.3, 1.0)),
        orders=more.choice((0, 0, 0, 30, 60)),
        operator=more.random() < 0.5,
        hot=more.random() < 0.25,
        rounded_ms=more.choice((0, 0, 0, 700)),
        careful=last.random() < CAREFUL_SHARE,
    )
    return _on_files(options, random.Random(f"{seed} files"))


def _on_files(options: Options, chance: random.Random) -> Options:
    """In a share of the seeds the disk is simulated. A source of chance of its own: the rest stays as it is."""
    if chance.random() >= FILES_SHARE:
        return options
    rates = dataclasses.replace(
        options.rates,
        power=max(options.rates.power, chance.choice((5e-5, 2e-4, 5e-4))),
        disk=chance.choice((0.0, 0.01, 0.05)),
        slow=chance.choice((0.0, 0.05, 0.3)),
        flip=chance.choice((2e-4, 1e-3)) if chance.random() < FLIPS_SHARE else 0.0,
        outage=chance.choice((0.0, 2e-3, 1e-2)),
        read=chance.choice((0.0, 3e-4, 1e-3)),
    )
    return dataclasses.replace(options, rates=rates, files=True)


def _speeds(chance: random.Random, shards: int) -> tuple[int, ...]:
    """Mostly all alike; sometimes unlike, and sometimes one is a hundred times slower than the rest."""
    kind = chance.random()
    if kind < 0.4 or shards == 1:
        return (1,) * shards
    if kind < 0.8:
        return tuple(chance.choice((1, 3, 10)) for _ in range(shards))
    slow = chance.randrange(shards)
    return tuple(1 if shard == slow else SLOW_FACTOR for shard in range(shards))


def _limits(chance: random.Random, window: int) -> Limits:
    soft, hard = chance.choice(((8_000, 25_000), (1 << 20, 2 << 20), (1 << 20, 2 << 20)))
    return Limits(
        frame_messages=chance.choice((1, 2, 5, 12)),
        frame_bytes=chance.choice((150, 1 << 20)),
        window_frames=window,
        mailbox_refill=chance.choice((1, 4, 15, 60)),
        cache_bytes=chance.choice((2_500, 20_000, 1 << 20)),
        dirty_soft_bytes=soft,
        dirty_hard_bytes=hard,
        retries=chance.randint(0, 3),
        backlog_limit=5_000,
        owner_cache=chance.choice((3, 1_000)),
        encode_records=chance.choice((1, 1, 3, 30)),
        traceback_bytes=300,
        egress_pending_bytes=chance.choice((600, 1 << 20)),
        validate_sends=chance.random() < 0.3,
        calls=chance.choice((1, 4, 1_000)),
        calls_per_type=chance.choice((1, 2, 1_000)),
        blocking_calls_per_type=chance.choice((1, 4)),
        timers_near=chance.choice((1, 3, 20, 10_000)),
        timers_load=chance.choice((1, 3, 500)),
        timers_fire=chance.choice((1, 5, 200)),
        expiry_keys=chance.choice((5, 200)),
        timers_at_end=chance.choice(("keep", "wait", "fire")),
    )


def _rates(chance: random.Random, more: random.Random, last: random.Random) -> Rates:
    return Rates(
        crash=chance.choice((2e-4, 4e-4, 8e-4)),
        supervisor=chance.choice((0.0, 1e-4, 2e-4)),
        power=chance.choice((0.0, 5e-5, 2e-4)),
        point=chance.choice((3e-4, 1e-3, 3e-3)),
        recovery_factor=chance.choice((1, 3, 10)),
        drop=chance.choice((1e-4, 3e-4)),
        unnoticed=chance.choice((0.3, 0.8)),
        misjudge=chance.choice((0.0, 1e-4)),
        pause=chance.choice((0.0, 3e-4)),
        freeze=chance.choice((0.0, 2e-4, 5e-4)),
        stuck=chance.choice((0.0, 2e-4)),
        cursed=chance.choice((0.0, 0.0, 0.0, 0.0, 0.15)),
        clock=chance.choice((0.0, 3e-4, 1e-3)),
        backwards=chance.choice((0.0, 0.5)),
        jump=chance.choice((0.0, 5e-4, 3e-3)),
        rush=chance.choice((0.0, 0.05, 0.5)),
        refuse=chance.choice((0.02, 0.1, 0.3)),
        unsynced=0.5,
        stall=chance.choice((0.0, 0.2)),
        sink=chance.choice((0.02, 0.4)),
        sink_error=more.choice((0.0, 0.02, 0.2)),
        down=more.choice((0.0, 2e-4, 6e-4)),
        door=more.choice((2e-4, 1e-3)),
        log=more.choice((0.0, 0.05, 0.2)),
        late=chance.choice((0.02, 0.1, 0.3)),
        stale=chance.choice((0.4, 0.9)),
        shut=last.choice((0.0, 0.0, 0.02)),
    )
