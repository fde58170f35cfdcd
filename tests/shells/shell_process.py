"""A simulated shard process: the real driver in tasks that can be killed, stopped and waited for, with a clock of its own.

Its clock is ahead of the common one by the work it has done in this turn. Before its next turn it sleeps until the common one has
caught up: so shards work at the same time, though only one of them ever runs.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import cbor2
import trio
from shell_trace import who

from shardfun.config.schema import Config
from shardfun.errors import CorruptionError, ShardfunError, StorageError
from shardfun.failpoints import Point
from shardfun.mesh.fabric import Endpoint
from shardfun.model.control import Fatal, Warm, encode_control
from shardfun.model.exits import EXIT_BUG, EXIT_STORAGE, EXIT_SUPERVISOR_GONE
from shardfun.ports import Clock
from shardfun.sdk.app import App
from shardfun.sdk.importing import import_app
from shardfun.shard.machine import Machine
from shardfun.shard.process import LAST_WORDS_S, ShardProcess
from shardfun.shard.program import Application

if TYPE_CHECKING:
    from shell_world import World

EPOCH_S: Final = 1_700_000_000.0
CONTROL_BUFFER_FRAMES: Final = 256
PIPE_BYTES: Final = 65_536

T = TypeVar("T")

here: Final[ContextVar[SimProcess | None]] = ContextVar("shells_here", default=None)
"""The process whose code runs; ``None``: the supervisor's."""


class Killed(BaseException):
    """Unwinds the code of a process that was killed in the middle."""


class Exit(BaseException):
    """Unwinds the code of a process that ends itself."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@cache
def imported(name: str) -> App:
    """An application; importing it twice makes no difference."""
    return import_app(name)


def spend(seconds: float) -> None:
    """For functions of tests: compute for so long."""
    process = here.get()
    if process is not None:
        process.spend(seconds)


class SimProcess:
    """See the module. A ``supervisor.machine.ChildProcess``."""

    def __init__(self, world: World, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.alive = True
        self.stopped = False
        self.shard: int | None = None
        self.driver: VirtualShard | None = None
        self.point: Point | None = None  # where it dies
        self.stdin, self._lifeline = trio.testing.memory_stream_one_way_pair()
        self._log, self.stderr = trio.testing.memory_stream_one_way_pair()
        self.world = world
        self._chance = random.Random(world.chance.getrandbits(64))
        self._tick_s = world.options.tick_s * (world.options.slow_factor if self._chance.random() < 0.2 else 1)
        self._local = 0.0
        self._beaten_until = 0.0
        self._exit: int | None = None
        self._scope = trio.CancelScope()
        self._reaped = trio.Event()
        self._bootstrapped = trio.Event()
        self._goes_on = trio.Event()

    # ---- as the supervisor sees it --------------------------------------------------------------------------------------
    def kill(self) -> None:
        """SIGKILL."""
        self.die(-signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit."""
        await self._reaped.wait()
        assert self.returncode is not None
        return self.returncode

    # ---- what is done to it ---------------------------------------------------------------------------------------------
    def die(self, code: int) -> None:
        """It executes nothing any more, and its ends of channels are closed."""
        if self.alive:
            self._exit = code
            self.alive = False
            self.world.trace.add(f"{self} dies", code=code)
            self.world.net.sever(self)
            self._scope.cancel()

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        if not self.stopped and self.alive:
            self.world.trace.add(f"{self} is stopped", seconds=round(seconds, 3))
            self.stopped = True
            self.world.net.at(trio.current_time() + seconds, self.go_on)

    def go_on(self) -> None:
        """SIGCONT."""
        if self.stopped and self.alive:
            self.world.trace.add(f"{self} goes on")
        self.stopped = False
        self._goes_on.set()
        self._goes_on = trio.Event()

    # ---- time -----------------------------------------------------------------------------------------------------------
    def local_time(self) -> float:
        """By its own clock."""
        return max(self._local, trio.current_time())

    def _work(self) -> float:
        self._local = self.local_time() + self._tick_s
        return self._local

    def _wall(self) -> float:
        return EPOCH_S + self.local_time() + self.world.wall_ahead_s

    def spend(self, seconds: float) -> None:
        """Compute. The thread of the heartbeat goes on meanwhile, and sees the function run."""
        ends = self.local_time() + seconds
        while self.driver is not None and (due := max(self._beaten_until, self.local_time()) + self._interval_s) < ends:
            self._local = self._beaten_until = due
            self.beat()
        self._local = ends

    async def turn(self, until: float) -> None:
        """Sleep until the common clock is there, and as long as the process is stopped."""
        await trio.sleep_until(until)
        await self.gate()

    async def gate(self) -> None:
        """Wait as long as the process is stopped."""
        while self.stopped:
            await self._goes_on.wait()

    async def run_in_thread(self, job: Callable[[], T]) -> T:
        """A job of a worker."""
        await self.turn(self.local_time() + self.world.disk_s(self._chance))
        result = job()
        await self.turn(trio.current_time() + self.world.disk_s(self._chance))
        return result

    async def run_abandonable(self, job: Callable[[], T]) -> T:
        """Blocking user code, which takes as long as is drawn; also if nobody waits any more."""
        seconds = self.world.blocking_s(self._chance)
        done, results = trio.Event(), []

        async def thread() -> None:
            await self.turn(trio.current_time() + seconds)
            try:
                results.append((job(), None))
            except Exception as error:
                results.append((None, error))
            done.set()

        self._threads.start_soon(thread)
        await done.wait()
        (value, error), *_ = results
        if error is not None:
            raise error
        return value

    # ---- life -----------------------------------------------------------------------------------------------------------
    def __str__(self) -> str:
        return f"process {self.pid}" if self.shard is None else f"process {self.pid} (shard {self.shard})"

    async def main(self) -> None:
        """From start to reaping."""
        here.set(self)
        who.set(f"process {self.pid}")
        try:
            with self._scope:
                async with trio.open_nursery() as self._threads:
                    self._threads.start_soon(self._watch_lifeline)
                    code = await self._program()
                    if self._exit is None:
                        self._exit = code
                    self._threads.cancel_scope.cancel()
        except BaseException as error:
            if self._exit is None:
                self._exit = self._exit_of(error)
        self.alive = False
        self.world.net.sever(self)
        self._release()
        with trio.CancelScope(shield=True):
            await trio.sleep(self.world.options.reap_s * self._chance.random())
            await self._log.aclose()
        assert self._exit is not None or self.world.ending
        self.returncode = -signal.SIGKILL if self._exit is None else self._exit
        self.world.trace.add("exit", code=self.returncode)
        self.world.processes.remove(self)
        self._reaped.set()

    def _exit_of(self, error: BaseException) -> int:
        while isinstance(error, BaseExceptionGroup):
            error = next((found for found in error.exceptions if not isinstance(found, trio.Cancelled)), error.exceptions[0])
        if isinstance(error, Exit):
            return error.code
        if not isinstance(error, (Exception, trio.Cancelled)):
            raise error  # it is meant for the test: somebody has pressed a key, say
        if isinstance(error, (CorruptionError, StorageError)):
            self.world.trace.add("shard process failed", error=error)
            return EXIT_STORAGE
        self.world.bugs.append(error)
        self.world.trace.add("shard process failed", error=repr(error))
        return EXIT_BUG

    async def _program(self) -> int:
        """As ``shardfun.shard.__main__``."""
        line = b""
        while not line.endswith(b"\n"):
            line += await self._lifeline.receive_some(PIPE_BYTES)
        self._bootstrapped.set()
        bootstrap = cbor2.loads(bytes.fromhex(line.decode()))
        await self.turn(trio.current_time() + self.world.import_s(self._chance))
        control = self._open(CONTROL_BUFFER_FRAMES, lambda: None)
        control.dial(bootstrap["control"])
        try:
            config = Config.from_dict(bootstrap["config"])
            application = Application(config, imported(config.app))
        except ShardfunError as error:
            control.send(encode_control(Fatal(error.code, error.exit_code, str(error), "")))
            await trio.sleep(LAST_WORDS_S)
            return error.exit_code
        endpoint = Endpoint(config.mesh.transport, config.mesh.host, Path(bootstrap["runtime_dir"]), config.mesh.buffer_frames)
        self._control, self._interval_s = control, config.supervision.heartbeat_interval_s
        self.driver = VirtualShard(self, application, control, endpoint)
        self.driver.send(Warm(self.pid))
        self._threads.start_soon(self._heartbeat)
        await self.driver.run()
        return 0

    def machine(self) -> Machine:
        """For the driver."""
        return Machine(
            pid=self.pid,
            clock=Clock(monotonic=self.local_time, wall=self._wall, work=self._work),
            open_channel=self._open,
            run_in_thread=self.run_in_thread,
            run_abandonable=self.run_abandonable,
            chance=lambda: random.Random(self._chance.getrandbits(64)),
            tune=lambda: None,
            settle=lambda: None,
            end=self._end,
        )

    def _open(self, buffer_frames: int, on_loss: Callable[[], None]) -> Any:
        return self.world.net.open(self, buffer_frames, on_loss)

    def _end(self, code: int) -> NoReturn:
        self.die(code)
        raise Exit(code)

    def beat(self) -> None:
        """One heartbeat."""
        assert self.driver is not None
        with suppress(ShardfunError):
            self._control.send(encode_control(self.driver.sample()))

    async def _heartbeat(self) -> None:
        """As the thread beside the loop."""
        while True:
            await self.gate()
            if trio.current_time() >= self._beaten_until:
                self._beaten_until = trio.current_time()
                self.beat()
            await trio.sleep(self._interval_s)

    async def _watch_lifeline(self) -> None:
        """End when the supervisor is gone."""
        await self._bootstrapped.wait()
        while await self._lifeline.receive_some(PIPE_BYTES):
            pass
        await self.gate()
        self.die(EXIT_SUPERVISOR_GONE)

    def _release(self) -> None:
        """What the kernel does: descriptors and locks."""
        driver, self.driver = self.driver, None
        if driver is None:
            return
        if driver._egress is not None:
            driver._egress.close()
        for reader in driver._readers.values():
            reader.close()
        driver._storage.close()
        driver._epoll.close()
        os.close(driver._completions.fd)


class VirtualShard(ShardProcess):
    """The driver, whose turns take virtual time."""

    def __init__(self, process: SimProcess, application: Application, control: Any, endpoint: Endpoint) -> None:
        super().__init__(application, control, endpoint, process.machine())
        self._process = process
        self._was_busy = False

    def _iterate(self) -> bool:
        if not self._process.alive:
            raise Killed
        self._was_busy = super()._iterate()
        return False  # to be asked to park

    async def _park(self) -> None:
        await self._process.turn(self._process.local_time())
        if not self._was_busy:
            await super()._park()
            await self._process.gate()

    def _assign(self, message: Any) -> None:
        self._process.shard = message.shard
        who.set(f"shard {message.shard}")
        super()._assign(message)


@contextmanager
def failpoints(reach: Callable[[Point], None]) -> Iterator[None]:
    """Within it, the drivers' named steps call ``reach``."""
    import sys

    from shardfun import failpoints as real
    from shardfun.shard import process

    modules = [module for name, module in sys.modules.items() if name.startswith("shardfun.")]
    bound = [module for module in modules if getattr(module, "reached", None) is real.reached and module is not real]
    on = process.ON
    process.ON = True  # type: ignore[misc]
    for module in bound:
        module.reached = reach
    try:
        yield
    finally:
        process.ON = on  # type: ignore[misc]
        for module in bound:
            module.reached = real.reached
