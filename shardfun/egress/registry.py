"""Find an egress kind by name.

The shards build sinks through this. The lookup itself is ``config.kinds``, since the configuration needs it first.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from shardfun.config.kinds import load_kind
from shardfun.egress.custom import CustomSink
from shardfun.errors import ConfigurationError, EgressError, ShardfunError
from shardfun.ports import EgressSink, Partition
from shardfun.sinks import Egress


class EgressKind(Protocol):
    """What the class of a kind offers; its instances are ``EgressSink``."""

    @property
    def options(self) -> type[Any]:
        """The ``msgspec.Struct`` class of its settings."""

    def __call__(self, name: str, options: Any, partition: Partition) -> EgressSink:
        """Build the sink of one partition. Opens nothing yet."""

    def check(self, options: Any, partitions: int) -> str | None:
        """What is wrong with the options for that many partitions, as one sentence; ``None``: nothing."""

    def remove_outputs(self, options: Any, partitions: int) -> None:
        """Delete what earlier runs published, for a start from nothing (``--fresh``).

        Raises:
            EgressError: something cannot be deleted.
        """


def find_kind(name: str) -> EgressKind:
    """The egress kind called ``name``.

    Raises:
        ConfigurationError: there is none (names the nearest), or its entry point is broken.
    """
    kind = load_kind("egress", name)
    for method in ("check", "remove_outputs"):
        if not callable(getattr(kind, method, None)):
            msg = f"egress kind {name!r} ({kind.__module__}.{kind.__qualname__}) has no class method `{method}`"
            raise ConfigurationError(msg)
    return cast("EgressKind", kind)


def build_sink(name: str, kind: str, options: Any, partition: Partition) -> EgressSink:
    """The sink of one partition of an egress. Opens nothing yet.

    Raises:
        ConfigurationError: as ``find_kind``.
        EgressError: a user's class cannot be made.
    """
    cls = find_kind(kind)
    found: Any
    try:
        found = cls(name, options, partition)
    except ShardfunError:
        raise
    except Exception as error:
        msg = f"egress {name!r}: {kind} cannot be made: {type(error).__name__}: {error}"
        raise EgressError(msg) from error
    return CustomSink(name, found) if isinstance(found, Egress) else cast("EgressSink", found)
