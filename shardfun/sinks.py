"""Base class for sinks that users write: ``kind = "package.module:Class"`` in the configuration of an egress.

A sink gets the records of complete checkpoints only, in order, and with numbers. It is exactly once if it stores the number
of the last record together with the records, in one transaction, and says it when it is opened. One that cannot do so gets some
records twice after a crash. See docs/SOURCES_AND_SINKS.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from shardfun.errors import EgressError
from shardfun.ports import Partition
from shardfun.sources import NoOptions, check_class

__all__ = ["Egress", "EgressError", "NoOptions", "Partition"]

RESERVED: Final = ("kind",)


class Egress(ABC):
    """One partition of a sink. ``encode`` is called in the loop of the shard and has to be quick, all others in one thread.

    After an exception of ``publish`` the same records are given again, from a pause on.

    Args:
        name: of the egress.
        settings: an instance of ``options``.
        partition: each shard publishes its own records: ``index`` of ``count``. ``partition.job`` names the data directory: after
            ``--fresh`` it is another one, and numbers begin at 0 again.

    Attributes:
        options: the settings of this kind: a ``msgspec.Struct`` class. Its fields stand beside ``kind`` in the configuration.
    """

    options: ClassVar[type[msgspec.Struct]] = NoOptions

    def __init__(self, name: str, settings: Any, partition: Partition) -> None:
        self.name = name
        self.settings = settings
        self.partition = partition

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls, {"encode": 1, "open": 0, "publish": 2, "close": 0}, RESERVED)

    def encode(self, value: Any) -> bytes:
        """One record as bytes, which are kept in checkpoints until they are published. By default compact JSON.

        Raises:
            TypeError: the value cannot be encoded; fails the invocation that emitted it.
        """
        try:
            return msgspec.json.encode(value)
        except (ValueError, RecursionError, OverflowError) as error:
            msg = f"expected a value that JSON can carry, got {type(value).__qualname__}: {error}"
            raise TypeError(msg) from error

    @abstractmethod
    def open(self) -> int | None:
        """Connect. How many records of this partition and job the sink holds; ``None``: it cannot tell.

        Called again after each recovery, behind ``close``. After an exception it is called again when there is something to publish.

        Raises:
            EgressError: at the start of an incarnation: the sink cannot be used at all; the node stops and shows it.
        """

    @abstractmethod
    def publish(self, records: Sequence[bytes], first: int) -> None:
        """Store records, as ``encode`` made them; durably, before this returns.

        Args:
            records: at least one.
            first: the number of the first one, from 0; the sink then holds ``first + len(records)``.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Disconnect. May not be called: a process can be killed at any time."""

    @classmethod
    def check(cls, options: Any, partitions: int) -> str | None:  # noqa: ARG003 - for those who need it
        """What is wrong with the options for that many partitions, as one sentence; ``None``: nothing."""
        return None

    @classmethod
    def remove_outputs(cls, options: Any, partitions: int) -> None:  # noqa: ARG003 - for those who need it
        """Delete what earlier runs published, for ``--fresh``. Not needed if it is kept apart by ``partition.job``."""
        return
