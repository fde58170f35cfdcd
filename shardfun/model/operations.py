"""The result of an operation that a function started: it comes back to the function's address as a message."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

import msgspec

M = TypeVar("M")
R = TypeVar("R")


class OperationStatus(enum.Enum):
    """How an operation ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"
    """A recovery came in between: it may have had its effect or not. Told exactly once, before any other message."""


class OperationResult(msgspec.Struct, Generic[M, R], frozen=True):
    """Declare it with its types, as in ``message: Add | OperationResult[Pay, Receipt]``.

    ``metadata`` is what ``start_operation`` was given, ``value`` what the operation returned (``None`` unless it succeeded),
    ``error`` the text of what it raised (``None`` unless it failed).
    """

    metadata: M
    status: OperationStatus
    value: R | None = None
    error: str | None = None
