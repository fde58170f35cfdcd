"""Find an ingress kind by name.

The shards build readers through this. The lookup itself is ``config.kinds``, since the configuration needs it first.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from shardfun.config.kinds import load_kind
from shardfun.ingress.feed import Host
from shardfun.ingress.threaded import ThreadedReader
from shardfun.ports import IngressReader, Partition
from shardfun.sources import Ingress


class IngressKind(Protocol):
    """What the class of a kind offers; its instances are ``IngressReader``."""

    @property
    def options(self) -> type[Any]:
        """The ``msgspec.Struct`` class of its settings."""

    def __call__(self, name: str, options: Any, partition: Partition) -> IngressReader:
        """Build the reader of one partition. Opens nothing yet."""


def find_kind(name: str) -> IngressKind:
    """The ingress kind called ``name``.

    Raises:
        ConfigurationError: there is none (names the nearest), or its entry point is broken.
    """
    return cast("IngressKind", load_kind("ingress", name))


def build_reader(name: str, kind: str, options: Any, partition: Partition, host: Host) -> IngressReader:
    """The reader of one partition of an ingress. Opens nothing yet.

    Args:
        host: for the sources of users, which run beside the loop.

    Raises:
        ConfigurationError: as ``find_kind``.
    """
    found = load_kind("ingress", kind)
    if issubclass(found, Ingress):
        return ThreadedReader(name, lambda: found(name, options, partition), host)
    return cast("IngressReader", found(name, options, partition))
