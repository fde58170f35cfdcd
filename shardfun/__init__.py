"""Stateful functions in Python, exactly once. This module is the public API and imports nothing heavy."""

from shardfun.model.address import Address
from shardfun.model.operations import OperationResult, OperationStatus
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.policies import after_access, after_write, dead_letter, restart, retry
from shardfun.sdk.state import State, Value, value

__all__ = [
    "Address",
    "App",
    "Context",
    "Message",
    "OperationResult",
    "OperationStatus",
    "State",
    "Value",
    "after_access",
    "after_write",
    "dead_letter",
    "restart",
    "retry",
    "value",
]
__version__ = "0.1.0"
