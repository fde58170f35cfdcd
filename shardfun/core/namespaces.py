"""Functions that are declared for every name of a namespace, as ``shop/*``.

Each name that somebody sends to becomes a function type of its own at that moment, with its own queues and its own state, in each
shard that meets it. A function of exactly that name comes first: it is there from the beginning, so nobody asks here.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardfun.core.function import CompiledFunction
from shardfun.core.runner import Runner
from shardfun.errors import DefinitionError, InvocationError, UnknownTargetError, nearest
from shardfun.model.address import EVERY_NAME, check_typename, namespace_of


class Namespaces:
    """The namespaces of one shard in one incarnation.

    Args:
        names_max: names that may become types.
    """

    __slots__ = ("_declared", "_names", "_names_max")

    def __init__(self, names_max: int) -> None:
        self._declared: dict[str, tuple[CompiledFunction, Runner]] = {}
        self._names = 0
        self._names_max = names_max

    def declare(self, function: CompiledFunction, run: Runner) -> bool:
        """Remember a function if it is declared for a namespace; whether it is."""
        namespace = namespace_of(function.spec.typename)
        if namespace is None:
            return False
        self._declared[namespace] = function, run
        return True

    @property
    def declared(self) -> dict[str, CompiledFunction]:
        """The functions by the names they were declared with, as ``shop/*``."""
        return {namespace + EVERY_NAME: function for namespace, (function, _) in self._declared.items()}

    def find(self, typename: str, known: Iterable[str]) -> tuple[CompiledFunction, Runner]:
        """The function of a name, and its runner (which all names of a namespace share).

        Args:
            known: the function types that there are, for the error.

        Raises:
            UnknownTargetError: no function of this name or namespace is declared.
        """
        found = self._declared.get(typename.partition("/")[0]) if type(typename) is str else None
        if found is None or not _is_name(typename):
            names = [*known, *(namespace + EVERY_NAME for namespace in self._declared)]
            raise UnknownTargetError(f"unknown function type {typename!r}{nearest(typename, sorted(names))}") from None
        function, run = found
        return function.named(typename), run

    def resolve(self, typename: str, known: Iterable[str]) -> tuple[CompiledFunction, Runner]:
        """As ``find``, for a name that is met for the first time and becomes a function type.

        Raises:
            UnknownTargetError: as above.
            InvocationError: there are too many names.
        """
        found = self.find(typename, known)
        if self._names >= self._names_max:
            msg = (
                f"function type {typename!r}: this shard has met {self._names_max} names of namespaces, which is the limit; "
                "what tells addresses apart should be their id"
            )
            raise InvocationError(msg) from None
        self._names += 1
        return found


def _is_name(typename: str) -> bool:
    try:
        check_typename(typename)
    except DefinitionError:
        return False
    return True
