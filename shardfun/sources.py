"""Base class for sources of records that users write: ``kind = "package.module:Class"`` in the configuration of an ingress.

For libraries that block (database drivers, clients of brokers): the source runs in a thread of its own, so nothing of it has to be
quick. The short way, for what is asynchronous, is ``@app.ingress`` on an async generator. Both are told where to go on, and give a
position with every record; the position is stored with the effects of the record, in one checkpoint. That is what makes it exactly
once, whatever is killed. See docs/SOURCES_AND_SINKS.md.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from shardfun.errors import DefinitionError, IngressError
from shardfun.ports import Partition

__all__ = ["Ingress", "IngressError", "NoOptions", "Partition"]

RESERVED: Final = ("kind", "target", "id")
"""Settings that every ingress has, beside those of its kind."""


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """There is nothing to set."""


class Ingress(ABC):
    """One partition of a source. A new object is made whenever reading begins: at the start, after a recovery, after an error.

    All methods but ``interrupt`` are called in one thread. Raise ``IngressError`` for what no repetition can repair: the node stops
    and shows it. After any other exception the source is closed, and opened anew behind the last record it gave, with pauses
    that grow from a second to a minute.

    Args:
        name: of the ingress.
        settings: an instance of ``options``.
        partition: which part to read: ``index`` of ``count``, and ``owns(key)`` for sources that are split by a key. All partitions
            together have to read every record once.

    Attributes:
        options: the settings of this kind: a ``msgspec.Struct`` class. Its fields stand beside ``kind`` in the configuration.
        idle_s: after ``read`` gave nothing it is asked again after so many seconds.
    """

    options: ClassVar[type[msgspec.Struct]] = NoOptions
    idle_s: ClassVar[float] = 0.2

    def __init__(self, name: str, settings: Any, partition: Partition) -> None:
        self.name = name
        self.settings = settings
        self.partition = partition

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls, {"open": 1, "read": 1, "close": 0, "interrupt": 0}, RESERVED)

    @abstractmethod
    def open(self, position: Any | None) -> None:
        """Connect, and go right behind the record that was given with ``position``; ``None``: to the beginning.

        Raises:
            IngressError: the source does not have that position any more.
        """

    @abstractmethod
    def read(self, limit: int) -> Iterable[tuple[Any, Any]] | None:
        """The next records, each as ``(position, record)``; about ``limit`` at most. ``None``: there will never be more.

        May wait for records, best for no longer than a second or two, and give none.

        A position is any value of CBOR: numbers, texts, bytes, lists, dicts. ``open`` gets it as it was stored, so a tuple comes
        back as a list. Every record has to lead to the same messages when it is read again.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Disconnect. May not be called: a process can be killed at any time."""

    def interrupt(self) -> None:  # noqa: B027 - most do not wait for long
        """From another thread: make a ``read`` that waits return soon. Without it, whoever comes next waits for it a while."""


def check_class(cls: type, methods: dict[str, int], reserved: tuple[str, ...]) -> None:
    """Find what is wrong with a class when it is defined.

    Args:
        methods: with how many arguments each is called.
        reserved: names that its options may not have.

    Raises:
        DefinitionError: it would not work.
    """
    label = f"{cls.__module__}.{cls.__qualname__}"
    options = getattr(cls, "options", None)
    if not (isinstance(options, type) and issubclass(options, msgspec.Struct)):
        raise DefinitionError(f"{label}.options: expected a msgspec.Struct class, got {options!r:.80}")
    taken = [field.encode_name for field in msgspec.structs.fields(options) if field.encode_name in reserved]
    if taken:
        raise DefinitionError(f"{label}.options: {taken[0]!r} is a setting that all have; choose another name")
    for name, count in methods.items():
        function = inspect.getattr_static(cls, name, None)
        if not inspect.isfunction(function):
            raise DefinitionError(f"{label}.{name}: expected a method, got {function!r:.80}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise DefinitionError(
                f"{label}.{name}: expected a plain 'def', which runs in a thread; for an async source, use @app.ingress"
            )
        try:
            inspect.signature(function).bind(None, *[None] * count)
        except TypeError as error:
            expected = inspect.signature(getattr(cls.__mro__[-3], name, function))
            raise DefinitionError(f"{label}.{name}: expected the arguments {expected}: {error}") from error
