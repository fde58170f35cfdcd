"""The world of a run: one node with its supervisor and shard processes, real code in simulated processes, under a seed.

A run has a phase in which things fail, and one in which the world is well and everything has to come to its end. Then what was
published is compared with what an undisturbed computation gives, and nothing may be left.
"""

from __future__ import annotations

import errno
import gc
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
from shell_channels import Net, Weather
from shell_order import run_virtually
from shell_process import Killed, SimProcess, failpoints, here
from shell_trace import Trace, who

from shardfun.config.loader import load_config
from shardfun.config.schema import Config
from shardfun.errors import ShardfunError, StorageError
from shardfun.failpoints import DISK_POINTS, Point
from shardfun.model.status import NodeStatus
from shardfun.supervisor.machine import Machine
from shardfun.supervisor.node import Node

MEMORY: Final = Path("/dev/shm")
FIRST_PID: Final = 10_000_000  # no real process has it
RESTART_S: Final = 0.1
STARTS_MAX: Final = 200
LIVENESS_S: Final = 900.0
"""By default: virtual seconds from the moment when the world is well to the end of the run."""

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What is drawn for a run.

    Args:
        tick_s: what each look of a loop at its clock costs; some processes are ``slow_factor`` times slower.
        import_s: at most so long a process imports the application.
        disk_s: at most so long a job of a disk takes.
        blocking_s: at most so long blocking user code takes; ``stuck_rate``: how often it is a hundred times longer.
    """

    shards: int = 2
    spares: int = 1
    tick_s: float = 0.00005
    slow_factor: float = 5.0
    import_s: float = 0.5
    disk_s: float = 0.005
    blocking_s: float = 0.01
    stuck_rate: float = 0.0
    reap_s: float = 0.02
    liveness_s: float = LIVENESS_S
    faults_s: float = 20.0
    """How long things fail."""
    latency_s: float = 0.001
    control_latency_s: float = 0.001
    config: str = '[checkpoint]\ninterval = "200 ms"'
    """More of the configuration."""


class Violation(AssertionError):  # noqa: N818 - what it is called everywhere
    """What is wrong, with the trace."""


@dataclass
class DiskState:
    """What is wrong with the disk.

    Args:
        full: everything that writes finds it full.
        broken: so many times it fails with EIO.
    """

    full: bool = False
    supervisor_full: bool = False
    broken: int = 0


class World:
    """See the module.

    Args:
        folder: of the node: configuration, data, output.
        seed: decides everything.
    """

    def __init__(self, folder: Path, seed: int, options: Options, config: Config) -> None:
        self.chance = random.Random(seed)
        self.options = options
        self.config = config
        self.folder = folder
        self.trace = Trace()
        self.net = Net(random.Random(self.chance.getrandbits(64)), Weather(options.latency_s, options.control_latency_s))
        # In heartbeats are real figures, in a hello is the data directory's number, which is drawn from the operating system.
        self.net.watch = lambda url, raw: None if "/c-" in url else self.trace.mix(len(raw))
        self.processes: list[SimProcess] = []
        self.disk = DiskState()
        self.wall_ahead_s = 0.0
        self.slow_numbers: dict[int, float] = {}
        """Records whose function takes longer, the first time."""
        self.bugs: list[BaseException] = []
        self.faults: Counter[str] = Counter()
        self.node: Node | None = None
        self.ending = False
        self.well = trio.Event()
        self.final: NodeStatus | None = None
        self.node_errors: list[ShardfunError] = []
        self.at_points: list[Callable[[Point, SimProcess | None], None]] = []
        """Called at each named step of a driver."""
        self.supervisor_alive = True
        self._slow_imports = 0
        self._pids = count(FIRST_PID)
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()

    # ---- what is drawn --------------------------------------------------------------------------------------------------
    def disk_s(self, chance: random.Random) -> float:
        """How long half a job of a disk takes."""
        return chance.random() ** 3 * self.options.disk_s

    def import_s(self, chance: random.Random) -> float:
        """How long a process imports the application."""
        seconds = chance.random() * self.options.import_s
        if self._slow_imports:
            self._slow_imports -= 1
            seconds += 10.0
        return seconds

    def blocking_s(self, chance: random.Random) -> float:
        """How long blocking user code takes."""
        return chance.random() * self.options.blocking_s * (100 if chance.random() < self.options.stuck_rate else 1)

    # ---- the supervisor's machine ---------------------------------------------------------------------------------------
    alive = True  # as the owner of channels

    def local_time(self) -> float:
        """Of the supervisor."""
        return trio.current_time()

    def machine(self) -> Machine:
        """For the supervisor."""
        return Machine(
            start_shard=self._start_shard,
            open_channel=lambda frames, on_loss: self.net.open(self, frames, on_loss),
            run_in_thread=self._run_in_thread,
            answer=_answer_nobody,
        )

    async def _start_shard(self) -> SimProcess:
        await trio.sleep(self.chance.random() * 0.02)
        process = SimProcess(self, next(self._pids))
        self.processes.append(process)
        assert self._nursery is not None
        self._nursery.start_soon(process.main)
        return process

    async def _run_in_thread(self, job: Callable[[], T]) -> T:
        await trio.sleep(self.disk_s(self.chance))
        if self.disk.supervisor_full and self.node is not None and self.node._disk is not None:  # a start only looks around
            raise StorageError("write: no space left on device", errno=errno.ENOSPC)
        result = job()
        with trio.CancelScope(shield=True):
            await trio.sleep(self.disk_s(self.chance))
        return result

    # ---- points ---------------------------------------------------------------------------------------------------------
    def reach(self, point: Point) -> None:
        """A driver is at a named step."""
        process = here.get()
        if process is not None and not process.alive:
            raise Killed
        if point in DISK_POINTS and process is not None:
            if self.disk.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.disk.broken and point is not Point.APPLY_CHUNK:
                self.disk.broken -= 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        for at in [*self.at_points]:
            at(point, process)
        if process is not None and not process.alive:
            raise Killed

    # ---- faults ---------------------------------------------------------------------------------------------------------
    def serving(self) -> list[SimProcess]:
        """Shards, not spares."""
        return [process for process in self.processes if process.alive and process.shard is not None]

    def fault(self, kind: str, **fields: Any) -> None:
        """Count one, and have it in the trace."""
        self.faults[kind] += 1
        self.trace.add(f"FAULT {kind}", **fields)

    def heal(self) -> None:
        """Nothing fails any more."""
        self.trace.add("HEAL")
        self.disk = DiskState()
        self.at_points.clear()
        self.net.weather = Weather(self.options.latency_s, self.options.control_latency_s)
        self._slow_imports = 0
        self.wall_ahead_s = 0.0
        for process in self.processes:
            process.go_on()
        self.well.set()

    def slow_imports(self, number: int) -> None:
        """The next processes need long until they are warm."""
        self._slow_imports = number

    # ---- life -----------------------------------------------------------------------------------------------------------
    async def run(self, disturb: Callable[[World], Awaitable[None]]) -> None:
        """Run the node to its end while ``disturb`` makes things fail; then heal."""
        with self.trace.of_logs(), failpoints(self.reach):
            async with trio.open_nursery() as self._nursery:
                await self._nursery.start(self.net.run)
                async with trio.open_nursery() as inner:
                    inner.start_soon(self._disturb, disturb)
                    await self._run_node()
                    inner.cancel_scope.cancel()
                self.ending = True
                await trio.sleep(1.0)
                self._check_nothing_left()
                self._nursery.cancel_scope.cancel()

    async def _disturb(self, disturb: Callable[[World], Awaitable[None]]) -> None:
        with trio.move_on_after(self.options.faults_s):
            await disturb(self)
        self.heal()
        await trio.sleep(self.options.liveness_s)
        raise Violation(
            f"not at its end {self.options.liveness_s:g} s after the world was well: {self.node and self.node.status()}"
        )

    async def _run_node(self) -> None:
        who.set("supervisor")
        for _ in range(STARTS_MAX):
            self.node = Node(self.config, machine=self.machine())
            try:
                with trio.CancelScope() as self._scope:
                    self.final = await self.node.run()
                    self.trace.add("node ended", state=self.final.state)
                    if self.final.state == "finished":
                        return
            except ShardfunError as error:
                self.trace.add("node ended", error=error)
                self.node_errors.append(error)
            except BaseException as error:
                if not _is_kill(error):
                    raise
                self.trace.add("supervisor was killed")
            await trio.sleep(RESTART_S)
        raise Violation(f"{STARTS_MAX} starts of the node are not enough; the last errors: {self.node_errors[-3:]}")

    def end_supervisor(self) -> None:
        """Cancel it: whatever it does, it has to leave nothing."""
        self._scope.cancel()

    def check(self, job: Job, descriptors: dict[str, str]) -> None:
        """The verdict, when all is over."""
        assert self.final is not None
        differences = job.differences(self.folder / "out", self.final)
        if differences:
            raise Violation("; ".join(differences[:5]))
        if self.bugs:
            raise Violation(f"a driver has failed: {self.bugs[0]!r}") from self.bugs[0]
        left = _new_descriptors(descriptors)
        if left:
            gc.collect()  # what is mapped into a process that was killed is in a cycle
            left = _new_descriptors(descriptors)
        if left:
            raise Violation(f"descriptors are left open: {left}")

    def slowness(self, number: int) -> float:
        """How many times slower a slow function is than usual."""
        return self.slow_numbers.pop(number, 1.0)

    def _check_nothing_left(self) -> None:
        left = [f"process {process}" for process in self.processes]
        left += [f"channel {channel.url}" for channel in self.net.channels]
        left += [f"file {path}" for path in (self.config.data_dir / "node.json",) if path.exists()]
        left += [f"runtime folder {path}" for path in Path(tempfile.gettempdir()).glob("shardfun-*")]
        if left:
            raise Violation(f"left behind: {left}")


def _is_kill(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_kill, error.exceptions))
    return isinstance(error, Killed)


async def _answer_nobody(_url: str, _answer: Any) -> None:
    """Questions are put to the node itself."""
    await trio.sleep_forever()


@dataclass(frozen=True)
class Job:
    """What a node runs, and the verdict.

    Args:
        config: TOML text, without shards, spares and data directory.
        files: its input, by name.
        differences: what is wrong with the files in ``out``.
    """

    config: str
    files: dict[str, bytes]
    differences: Callable[[Path, NodeStatus], list[str]]


@dataclass(frozen=True)
class Outcome:
    """What a run was like."""

    world: World
    virtual_s: float


def run_world(seed: int, job: Job, options: Options, disturb: Callable[[World], Awaitable[None]]) -> Outcome:
    """One run, and its verdict.

    Raises:
        Violation: something is wrong; with the trace.
    """
    folder = Path(tempfile.mkdtemp(prefix="shells-", dir=MEMORY if MEMORY.is_dir() else None))
    temporary = tempfile.tempdir
    before = _descriptors()
    try:
        tempfile.tempdir = str(folder / "tmp")
        (folder / "tmp").mkdir()
        for name, content in job.files.items():
            (folder / name).write_bytes(content)
        (folder / "node.toml").write_text(
            f'name = "shells"\ndata_dir = "data"\nshards = {options.shards}\n{job.config}\n{options.config}'
        )
        world = World(folder, seed, options, load_config(folder / "node.toml"))
        ended_at: list[float] = []

        async def main() -> None:
            await world.run(disturb)
            ended_at.append(trio.current_time())

        try:
            run_virtually(seed, main)
            world.check(job, before)
        except BaseException as error:
            raise Violation(f"seed {seed}, {options}\n{world.trace}\n\nseed {seed}: {_first(error)!r}") from error
        return Outcome(world, ended_at[0])
    finally:
        tempfile.tempdir = temporary
        shutil.rmtree(folder, ignore_errors=True)


def _descriptors() -> dict[str, str]:
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[path.name] = str(path.readlink())
    return found


def _new_descriptors(before: dict[str, str]) -> list[str]:
    return [name for number, name in _descriptors().items() if number not in before]


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
