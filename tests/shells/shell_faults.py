"""What is done to a world while it runs: one coroutine for each kind of trouble, all drawn from the world's chance."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from shell_process import Killed, SimProcess
from shell_world import Options, World

from shardfun.errors import StorageError, UnavailableError, UnknownTargetError
from shardfun.failpoints import Point
from shardfun.model.questions import (
    CheckpointQuestion,
    LettersAnswer,
    LettersQuestion,
    ListQuestion,
    Question,
    StateQuestion,
)

Disturbance = Callable[[World], Awaitable[None]]

OF_SUPERVISOR: Final = (
    Point.TRIGGER_SENT,
    Point.MANIFEST_WRITTEN,
    Point.MANIFEST_SYNCED,
    Point.MANIFEST_RENAMED,
    Point.MANIFEST_DURABLE,
    Point.COMPLETE_SENT,
    Point.INCARNATION_RAISED,
    Point.ASSIGN_SENT,
    Point.RESET_SENT,
    Point.START_SENT,
)
OFTEN: Final = 5.0
"""Troubles come so many times more often than their pauses say: short runs shall have many."""
FREEZE_MAX_S: Final = 12.0
ANSWER_S: Final = 130.0  # of a desk: it refuses by itself before


async def pause(world: World, mean_s: float) -> None:
    """Until something happens again."""
    await trio.sleep(world.chance.expovariate(OFTEN / mean_s))


def victim(world: World) -> SimProcess | None:
    """Any living process; mostly one that serves a shard."""
    alive = world.serving() if world.chance.random() < 0.8 else [process for process in world.processes if process.alive]
    return world.chance.choice(alive) if alive else None


async def kills(world: World) -> None:
    """SIGKILL, sometimes to several at once, sometimes again during the recovery."""
    while True:
        await pause(world, 4.0)
        for _ in range(world.chance.choice((1, 1, 1, 2, 3))):
            process = victim(world)
            if process is not None:
                world.fault("kill", process=process)
                process.kill()
            await trio.sleep(world.chance.choice((0.0, 0.01, 0.3)))


async def freezes(world: World) -> None:
    """SIGSTOP, for an instant or beyond every limit; then SIGCONT, if it still lives."""
    while True:
        await pause(world, 5.0)
        process = victim(world)
        if process is not None:
            world.fault("freeze", process=process)
            process.stop(world.chance.choice((0.05, 0.5, FREEZE_MAX_S)) * world.chance.random())


async def points(world: World) -> None:
    """Kill or stop a process at a named step of its own, or of the supervisor."""
    while True:
        await pause(world, 3.0)
        wanted = world.chance.choice(list(Point))
        passes = world.chance.choice((0, 0, 1, 5))
        freeze_s = world.chance.choice((0.0, 0.0, FREEZE_MAX_S * world.chance.random()))
        done = trio.Event()

        def at(
            point: Point,
            process: SimProcess | None,
            wanted: Point = wanted,
            freeze_s: float = freeze_s,
            done: trio.Event = done,
        ) -> None:
            nonlocal passes
            if point is not wanted or done.is_set():
                return
            passes -= 1
            if passes >= 0:
                return
            done.set()
            found = victim(world) if process is None else process
            if found is None:
                return
            world.fault(f"at {point}", process=found, freeze_s=round(freeze_s, 2))
            if freeze_s:
                found.stop(freeze_s)
            else:
                found.kill()

        await reached(world, at, done)


async def reached(world: World, at: Callable[[Point, SimProcess | None], None], done: trio.Event) -> None:
    """Wait until something is done at a named step; for a while. Others may wait for theirs meanwhile."""
    world.at_points.append(at)
    with trio.move_on_after(5):
        await done.wait()
    if at in world.at_points:
        world.at_points.remove(at)


async def network(world: World) -> None:
    """Connections of the mesh are cut: with notice, with late notice, without any."""
    while True:
        await pause(world, 4.0)
        pipes = world.net.mesh_pipes()
        if pipes:
            notice = world.chance.choice((0.0, 0.0, world.chance.random() * 3, None))
            world.fault("cut", notice=notice)
            world.chance.choice(pipes).cut(notice)


async def late_control(world: World) -> None:
    """Control messages are late, heartbeats too; frames of the mesh as well."""
    while True:
        await pause(world, 3.0)
        world.fault("late")
        world.net.weather.control_latency_s = world.chance.choice((0.1, 0.5, 2.0))
        world.net.weather.latency_s = world.chance.choice((0.001, 0.02, 0.2))
        await pause(world, 3.0)
        world.net.weather.control_latency_s = world.net.weather.latency_s = 0.001


async def spares(world: World) -> None:
    """Spares die, and new processes need long until they are warm; meanwhile shards die."""
    while True:
        await pause(world, 5.0)
        world.slow_imports(world.chance.randint(0, 2))
        for process in [process for process in world.processes if process.alive and process.shard is None]:
            world.fault("spare killed", process=process)
            process.kill()
        await trio.sleep(world.chance.choice((0.0, 0.05)))
        process = victim(world)
        if process is not None:
            world.fault("kill", process=process)
            process.kill()


async def full_disk(world: World) -> None:
    """The disk is full for minutes: for shards, for the supervisor, for both."""
    while True:
        await pause(world, 5.0)
        world.disk.full = world.chance.random() < 0.7
        world.disk.supervisor_full = not world.disk.full or world.chance.random() < 0.5
        world.fault("disk full", shards=world.disk.full, supervisor=world.disk.supervisor_full)
        await pause(world, 60.0 if world.chance.random() < 0.3 else 3.0)
        world.disk.full = world.disk.supervisor_full = False


async def bad_disk(world: World) -> None:
    """Some writes of shards fail."""
    while True:
        await pause(world, 4.0)
        world.disk.broken = world.chance.randint(1, 4)
        world.fault("EIO", times=world.disk.broken)


async def supervisors(world: World) -> None:
    """The supervisor is cancelled at any moment; starts again."""
    while True:
        await pause(world, 5.0)
        world.fault("supervisor cancelled")
        world.end_supervisor()


async def supervisor_dies(world: World) -> None:
    """The supervisor dies at a named step."""
    while True:
        await pause(world, 5.0)
        wanted = world.chance.choice(OF_SUPERVISOR)
        done = trio.Event()

        def at(point: Point, process: SimProcess | None, wanted: Point = wanted, done: trio.Event = done) -> None:
            if point is wanted and process is None and not done.is_set():
                done.set()
                world.fault(f"supervisor dies at {point}")
                raise Killed

        await reached(world, at, done)


async def stops(world: World) -> None:
    """The node is asked to stop, whatever is going on; sometimes it is ended at once. It starts again."""
    while True:
        await pause(world, 5.0)
        if world.node is not None:
            world.fault("stop")
            world.node.request_stop()
            if world.chance.random() < 0.3:
                await pause(world, 1.0)
                world.node.stop_now()


async def long_functions(world: World) -> None:
    """Some functions run for longer than heartbeats may be silent, and some for longer than an invocation may."""
    for number in world.chance.sample(range(1, 2000), 600):
        world.slow_numbers[number] = world.chance.choice((20, 100, 400, 4000))
    world.fault("long functions")
    await trio.sleep_forever()


async def clock_jumps(world: World) -> None:
    """Somebody sets the clock."""
    while True:
        await pause(world, 3.0)
        world.wall_ahead_s += world.chance.choice((-3600.0, -1.0, 0.5, 30.0))
        world.fault("clock", ahead=round(world.wall_ahead_s, 1))


async def letters(world: World) -> None:
    """Dead letters are listed and sent again all the time. A question is answered or refused, in time."""
    while True:
        await pause(world, 0.5)
        found = await ask(world, LettersQuestion(action="list"))
        world.faults["letters listed"] += isinstance(found, LettersAnswer)
        if isinstance(found, LettersAnswer) and found.letters:
            some = world.chance.sample(found.letters, min(3, len(found.letters)))
            await ask(world, LettersQuestion(action="replay", keys=[letter.key for letter in some]))


async def queries(world: World) -> None:
    """State is looked at, ids are listed, checkpoints are asked for, all the time."""
    while True:
        await pause(world, 0.2)
        id = f"a{world.chance.randrange(8)}"
        at = world.chance.choice(("live", "checkpoint"))
        choice: list[Question] = [
            StateQuestion(target="shells/plain", id=id, at=at),
            ListQuestion(typename="shells/plain"),
            CheckpointQuestion(),
        ]
        world.faults["state looked at"] += await ask(world, world.chance.choice(choice)) is not None


async def ask(world: World, question: Question) -> object:
    """Put a question to the node; ``None`` if it is refused."""
    node = world.node
    if node is None:
        return None
    answer = None
    with trio.fail_after(ANSWER_S):
        try:
            answer = await node.answer(question)
        except UnavailableError:
            world.faults["question refused"] += 1
        except UnknownTargetError:
            assert "shell_app" not in world.config.app, "only another application has no such function"
        except StorageError:
            world.faults["question met a failing disk"] += 1
    world.faults["question answered"] += answer is not None
    return answer


ALL: Final[tuple[Disturbance, ...]] = (
    kills,
    freezes,
    points,
    network,
    late_control,
    spares,
    full_disk,
    bad_disk,
    supervisors,
    supervisor_dies,
    stops,
    long_functions,
    clock_jumps,
    letters,
    queries,
)


COUNTED: Final[dict[Disturbance, str]] = {
    kills: "kill",
    freezes: "freeze",
    points: "at ",
    network: "cut",
    late_control: "late",
    spares: "spare killed",
    full_disk: "disk full",
    bad_disk: "EIO",
    supervisors: "supervisor cancelled",
    supervisor_dies: "supervisor dies at ",
    stops: "stop",
    long_functions: "long functions",
    clock_jumps: "clock",
    letters: "letters listed",
    queries: "state looked at",
}
"""How what each kind does is counted: the beginning of a name."""


def times(kind: Disturbance, world: World) -> int:
    """How often a kind of trouble has come."""
    return sum(count for name, count in world.faults.items() if name.startswith(COUNTED[kind]))


def together(*some: Disturbance) -> Disturbance:
    """All of them at the same time."""

    async def disturb(world: World) -> None:
        async with trio.open_nursery() as nursery:
            for one in some:
                nursery.start_soon(one, world)

    return disturb


def drawn(seed: int) -> tuple[Options, list[Disturbance]]:
    """The options of a seed, and some kinds of trouble."""
    chance = random.Random(seed ^ 0x5E11)
    heartbeat = chance.choice(("heartbeat_interval = '50 ms'\nheartbeat_timeout = '1 s'", ""))
    config = f"""
[checkpoint]
interval = "{chance.choice((50, 200, 500))} ms"
timeout = "{chance.choice((1, 5, 30))} s"
[mesh]
frame_messages = {chance.choice((1, 3, 1000))}
window_frames = {chance.choice((1, 24))}
[failure]
retries = 1
[supervision]
spares = {chance.choice((0, 1, 1, 2))}
restarts_without_checkpoint = 10000
invocation_timeout = "{chance.choice((5, 30, 300))} s"
start_timeout = "{chance.choice((15, 60))} s"
stop_timeout = "{chance.choice((2, 30))} s"
{heartbeat}
"""
    options = Options(
        shards=chance.choice((1, 2, 2, 3, 4)),
        import_s=chance.choice((0.3, 2.0)),
        disk_s=chance.choice((0.002, 0.02, 0.2)),
        faults_s=chance.choice((5.0, 15.0, 30.0)),
        config=config,
    )
    return options, chance.sample(ALL, chance.choice((1, 2, 3, 5)))
