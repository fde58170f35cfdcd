"""Find an egress kind by name.

The shards build sinks through this. The lookup itself is ``config.kinds``, since the configuration needs it first.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from shardfun.config.kinds import load_kind
from shardfun.errors import ConfigurationError
from shardfun.ports import EgressSink, Partition


class EgressKind(Protocol):
    """What the class behind an entry point in ``shardfun.egress`` offers; its instances are ``EgressSink``."""

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
