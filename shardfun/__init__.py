"""Stateful functions in Python, exactly once. This module is the public API and imports nothing heavy."""

from shardfun.core.buffers import Buffer
from shardfun.core.maps import Map
from shardfun.core.registry import Registry
from shardfun.model.address import Address
from shardfun.model.operations import OperationResult, OperationStatus
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.policies import after_access, after_write, dead_letter, restart, retry
from shardfun.sdk.state import State, Value, buffer, mapping, registry, value

__all__ = [
    "Address",
    "App",
    "Buffer",
    "Context",
    "Map",
    "Message",
    "OperationResult",
    "OperationStatus",
    "Registry",
    "State",
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
