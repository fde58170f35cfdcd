"""Stateful functions in Python, exactly once. This module is the public API and imports nothing heavy."""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from shardfun.core.buffers import Buffer
from shardfun.core.maps import Map
from shardfun.core.registry import Registry
from shardfun.model.address import Address
from shardfun.model.operations import OperationResult, OperationStatus
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.policies import after_access, after_write, dead_letter, restart, retry
from shardfun.sdk.state import State, Value, buffer, mapping, registry, value

if _TYPE_CHECKING:
    from shardfun.embedding import BlockingSupervisor, Supervisor

__all__ = [
    "Address",
    "App",
    "BlockingSupervisor",
    "Buffer",
    "Context",
    "Map",
    "Message",
    "OperationResult",
    "OperationStatus",
    "Registry",
    "State",
    "Supervisor",
    "Value",
    "after_access",
    "after_write",
    "buffer",
    "dead_letter",
    "mapping",
    "registry",
    "restart",
    "retry",
    "value",
]
__version__ = "0.1.0"

_EMBEDDING = ("BlockingSupervisor", "Supervisor")  # imported when they are used: they bring Trio, nng and LevelDB


def __getattr__(name: str) -> _Any:
    """The classes that are not light."""
    if name in _EMBEDDING:
        import shardfun.embedding

        return getattr(shardfun.embedding, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
