"""``Supervisor``: a node inside an async program, as a context manager; on Trio or asyncio, whichever runs.

What leaving the block does:

- At its end the node stops at a checkpoint: what was done is published, and the next start goes on there. It has
  ``supervision.stop_timeout`` for that; then its processes are ended as in the next case.
- By an error or a cancellation the node's processes are ended at once. The next start goes on from the last complete checkpoint;
  messages that ``send`` has taken in are durable and will be processed then.
- A node that has failed ends the block with its error: the block is cancelled, and the error is raised once, where the block ends.

In each case nothing is left when the block is over: no process, no socket, no temporary folder, no thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import sniffio
import trio

from shardfun.config.schema import Config
from shardfun.embedding.aio import AsyncioSide
from shardfun.embedding.calls import Calls
from shardfun.embedding.handle import NodeHandle
from shardfun.embedding.node_thread import NodeThread
from shardfun.embedding.settings import ConfigLike, Setup, make_setup
from shardfun.embedding.trio_side import TrioSide
from shardfun.errors import ConfigurationError, DefinitionError
from shardfun.intake.targets import Targets
from shardfun.sdk.app import App
from shardfun.sdk.launch import child_name
from shardfun.supervisor.node import Node
from shardfun.telemetry.files import LogFile
from shardfun.telemetry.logs import LEVELS
from shardfun.telemetry.node_log import ToFile, ToLogging


class Started:
    """The node of a block, to be started with ``thread.start``, and what has to be cleaned up after it.

    Raises:
        ShardfunError: application or settings are wrong.
    """

    def __init__(self, app: App | str | None, config: ConfigLike, settings: Mapping[str, Any], *, fresh: bool) -> None:
        check_place()
        self._setup: Setup = make_setup(app, config, settings)
        self._log_file: LogFile | None = None
        try:
            targets = Targets.of(self._setup.app)
            node = Node(self._setup.config, fresh=fresh, launch=self._setup.launch, targets=targets)
            self.thread = NodeThread(node, self._destination())
            self.calls = Calls(self.thread, targets)
        except BaseException:
            self.clean_up()
            raise

    def _destination(self) -> ToFile | ToLogging:
        log = self._setup.config.log
        if log.file is None:
            return ToLogging()
        self._log_file = LogFile(log.file)
        return ToFile(self._log_file, LEVELS[log.level])

    def clean_up(self) -> None:
        """After the node has ended."""
        if self._log_file is not None:
            self._log_file.close()
        self._setup.remove_temporary()

    def outcome(self, error: BaseException | None) -> BaseException | None:
        """What the block ends with: the error of the node, or that of the user's code, once and not inside groups of its own.

        Args:
            error: what has come out of the block.
        """
        failure = self.thread.failure
        if failure is None:
            return error
        if error is None or all(leaf is failure for leaf in leaves(error)):
            return failure
        if all(leaf is not failure for leaf in leaves(error)):
            error.add_note(f"meanwhile the node had failed: {type(failure).__name__}: {failure}")
        return error


class Supervisor:
    """A node inside a program on Trio or asyncio::

        async with Supervisor(app, data_dir="data/shop") as node:
            await node.send("shop/cart", "c1", Add("book"))

    Args:
        app: the application, a global variable of some module; or its reference, ``"package.module:attribute"``; or nothing, if
            ``config`` names it.
        config: a TOML file, or settings of the same shape, or a ``Config``.
        data_dir: the folder for all durable data. Without it, and without a file that says so, a temporary one, which is deleted
            at the end of the block.
        shards: how many shard processes.
        fresh: begin anew: delete the state and the outputs of earlier runs.
        settings: sections of the configuration, over ``config``: ``checkpoint={"interval": "100 ms"}``. Relative paths are
            relative to the folder of the TOML file, if there is one, else to the current one.

    ``async with`` raises:
        ShardfunError: the node could not be started (the configuration, the application or the data directory is wrong), or it
            has failed later.
    """

    def __init__(
        self,
        app: App | str | None = None,
        config: Path | str | Config | Mapping[str, Any] | None = None,
        *,
        data_dir: Path | str | None = None,
        shards: int | None = None,
        fresh: bool = False,
        **settings: Any,
    ) -> None:
        self._app = app
        self._config = config
        self._settings = combined(settings, data_dir, shards)
        self._fresh = fresh
        self._started: Started | None = None
        self._side: TrioSide | AsyncioSide | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> NodeHandle:
        """Start the node, and wait until it runs."""
        if self._started is not None:
            raise RuntimeError("this Supervisor has a node already; make another one, on another data directory")
        make_side = _side_of_caller()
        started = Started(self._app, self._config, self._settings, fresh=self._fresh)
        side = make_side(started.thread)
        self._started, self._side = started, side
        try:
            started.thread.start()
            await side.until(started.thread.started)
            started.thread.started.result()
        except BaseException as error:
            await self._leave(error)
            raise
        side.begin()
        return NodeHandle(started.calls, side)

    @trio.lowlevel.enable_ki_protection  # a Ctrl-C comes while it waits, and not between two steps
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the node: at a checkpoint, or at once if there is an error."""
        assert self._side is not None
        rest = self._side.end(kind, error, traceback)
        outcome = await self._leave(rest)
        if outcome is not None and outcome is not error:
            raise outcome from outcome.__cause__  # not with the cancellation that it has caused as its context

    async def _leave(self, error: BaseException | None) -> BaseException | None:
        started, side = self._started, self._side
        assert started is not None
        assert side is not None
        thread = started.thread
        try:
            if error is None:
                thread.request_stop()
            else:
                thread.give_up()
            try:
                await side.wait_through(thread.ended, thread.stop_now, failing=error is not None)
            finally:
                thread.join()
            return started.outcome(error)
        finally:
            started.clean_up()
            self._started = self._side = None


def combined(settings: dict[str, Any], data_dir: Path | str | None, shards: int | None) -> dict[str, Any]:
    """The settings with those that have arguments of their own."""
    if data_dir is not None:
        settings["data_dir"] = Path(data_dir).absolute()
    if shards is not None:
        settings["shards"] = shards
    return settings


def check_place() -> None:
    """Raise an error where no node can be started.

    Raises:
        ConfigurationError: assertions are switched off.
        DefinitionError: this is a process of a node.
    """
    if not __debug__:
        raise ConfigurationError("assertions are switched off, and shardfun relies on them; start Python without -O")
    name = child_name()
    if name is not None:
        msg = (
            f"a Supervisor was started in {name} of a node, which runs the script again to find the application in it; "
            "put what starts the node below 'if __name__ == \"__main__\":' (and functions cannot start nodes)"
        )
        raise DefinitionError(msg)


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, or the error alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def _side_of_caller() -> type[TrioSide | AsyncioSide]:
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        library = "none"
    if library == "trio":
        return TrioSide
    if library == "asyncio":
        return AsyncioSide
    raise RuntimeError(
        f"Supervisor: expected to be entered on Trio or asyncio, got {library}; elsewhere use BlockingSupervisor"
    )
