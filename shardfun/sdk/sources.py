"""What ``@app.ingress`` declares: where the records of an ingress come from, checked when it is declared."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from shardfun.errors import DefinitionError
from shardfun.model.address import check_typename
from shardfun.sdk.definition import place_of

INGRESS_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
PARAMETERS: Final = (["position"], ["position", "partition"])


@dataclass(frozen=True, slots=True)
class DeclaredIngress:
    """An ingress of an application.

    Args:
        function: ``(position)`` or ``(position, partition)`` to an async iterator of ``(position, record)``.
        target: a typename that every record goes to, at the id in its field ``id_field``; instead of routers.
    """

    name: str
    function: Callable[..., AsyncIterator[Any]]
    target: str | None
    id_field: str | None


def declared_ingress(
    name: str, function: Callable[..., AsyncIterator[Any]], target: str | None, id_field: str | None
) -> DeclaredIngress:
    """The declaration, if it can work.

    Raises:
        DefinitionError: the name, the function or its parameters do not fit.
    """
    label = f"ingress {name!r}: {place_of(function)}"
    if type(name) is not str or INGRESS_NAME.fullmatch(name) is None:
        raise DefinitionError(f"ingress {name!r}: expected a name of 1 to 64 letters, digits, '_' or '-'")
    if not inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{label} must be an async generator: 'async def' with 'yield position, record' in it")
    parameters = list(inspect.signature(function).parameters)
    if parameters not in PARAMETERS:
        raise DefinitionError(
            f"{label}: expected the parameters (position) or (position, partition), got ({', '.join(parameters)})"
        )
    if target is not None:
        check_typename(target)
        if id_field is None:
            raise DefinitionError(f"{label}: target: expected id=... with it, the field of a record that holds the id")
    elif id_field is not None:
        raise DefinitionError(f"{label}: id: expected a target with it; without one a router picks the address")
    return DeclaredIngress(name, function, target, id_field)
