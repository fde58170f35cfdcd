"""The supervisor of a local node: a real ``Coordinator``, whose effects are performed at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import assert_never

from shardfun.core.coordinator import (
    Coordinator,
    FillVacancy,
    Finished,
    RaiseIncarnation,
    Send,
    State,
    Timing,
    WriteManifest,
)
from shardfun.model.control import (
    Applied,
    Changed,
    Prepared,
    Ready,
    Refused,
    ToShard,
    ToSupervisor,
)
from shardfun.model.delta import checkpoint_name
from shardfun.testing.shard import JOB
from shardfun.testing.trace import Trace


class Supervision:
    """See the module.

    Args:
        interval_s: between checkpoints; ``None``: only when asked for.
        send: a control message to a shard.
    """

    def __init__(self, shards: int, interval_s: float | None, send: Callable[[int, ToShard], None], trace: Trace) -> None:
        interval = math.inf if interval_s is None else interval_s
        timing = Timing(interval=interval, timeout=math.inf, idle_interval=math.inf, loop_share=1.0, repeat=math.inf)
        self.coordinator = Coordinator(shards, timing, 0, [b""] * shards, JOB)
        self.now_s = 0.0
        self.finished = False
        """Everything is processed and published, and nothing more will come."""
        self._periodic = interval_s is not None
        self._incarnation = 0
        self._send = send
        self._trace = trace

    def start(self) -> None:
        """The first incarnation."""
        self.coordinator.start(self.now_s)
        self._perform()

    @property
    def idle(self) -> bool:
        """Whether the world runs and no checkpoint is in work."""
        return self.coordinator.state is State.IDLE

    @property
    def recovered(self) -> bool:
        """Whether the world runs."""
        return self.coordinator.state is not State.RECOVERING

    @property
    def completed(self) -> int:
        """Complete checkpoints."""
        return self.coordinator.statistics.completed

    def tick(self) -> None:
        """Begin a checkpoint if it is time."""
        if self._periodic and self.coordinator.state is State.IDLE:
            self.coordinator.tick(self.now_s)
            self._perform()

    def trigger(self) -> None:
        """Begin a checkpoint now. Only while idle."""
        self.coordinator.trigger(self.now_s)
        self._perform()

    def died(self, shard: int, reason: str) -> None:
        """A shard is gone."""
        self.finished = False
        self.coordinator.failure(shard, reason, self.now_s)
        self._perform()

    def hear(self, shard: int, message: ToSupervisor) -> None:
        """A message of a shard."""
        coordinator = self.coordinator
        match message:
            case Ready():
                coordinator.on_ready(shard, message, self.now_s)
            case Prepared():
                coordinator.on_prepared(shard, message)
            case Refused():
                coordinator.on_refused(shard, message, self.now_s)
            case Applied():
                coordinator.on_applied(shard, message, self.now_s)
            case Changed():
                coordinator.on_changed(message)
            case _:
                raise AssertionError(f"the shards of a local node do not send {type(message).__name__}")
        self._perform()

    def _perform(self) -> None:
        coordinator = self.coordinator
        while effects := coordinator.take_effects():
            for effect in effects:
                match effect:
                    case Send(shard, message):
                        self._send(shard, message)
                    case RaiseIncarnation():
                        self._incarnation += 1
                        self._trace.note(f"incarnation {self._incarnation}")
                        coordinator.incarnation_raised(self._incarnation)
                    case FillVacancy(shard):
                        coordinator.assigned(shard)
                    case WriteManifest(checkpoint, _, _, end):
                        self._trace.note(f"complete {checkpoint_name(checkpoint)}{' end' if end else ''}")
                        coordinator.manifest_durable(checkpoint, self.now_s)
                    case Finished(ended):
                        self.finished = ended
                    case _:
                        assert_never(effect)
