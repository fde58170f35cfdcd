"""Find the class behind the kind of an ingress or egress by its entry point.

Kinds are entry points so that third parties add their own without a change here. This module sits below ``ingress`` and
``egress`` because the configuration needs a kind's options before anything of it is built; it must not import a kind itself.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import msgspec

from shardfun.errors import ConfigurationError

Group = Literal["ingress", "egress"]


def kind_names(group: Group) -> tuple[str, ...]:
    """The kinds that are installed, sorted."""
    return tuple(sorted({point.name for point in _points(group)}))


def load_kind(group: Group, name: str) -> type[Any]:
    """The class of a kind: has ``options`` (a ``msgspec.Struct`` class) and is built by ``(name, options, partition)``.

    Raises:
        ConfigurationError: no such kind (names the nearest), two packages claim it, or its entry point is broken.
    """
    found = {point.value: point for point in _points(group) if point.name == name}
    if not found:
        raise ConfigurationError(_unknown(group, name))
    if len(found) > 1:
        claims = " and ".join(_origin(point) for _, point in sorted(found.items()))
        msg = f"{group} kind {name!r} is claimed by {claims}; uninstall one of them"
        raise ConfigurationError(msg)
    (point,) = found.values()
    try:
        kind = point.load()
    except Exception as error:  # a foreign package may raise anything while it is imported
        msg = f"{group} kind {name!r} from {_origin(point)} cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from error
    options = getattr(kind, "options", None)
    if not (isinstance(kind, type) and isinstance(options, type) and issubclass(options, msgspec.Struct)):
        msg = f"{group} kind {name!r} from {_origin(point)} is not a class with a msgspec.Struct class as its `options`"
        raise ConfigurationError(msg)
    return kind


def _points(group: Group) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"shardfun.{group}"))


def _origin(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    return f"{package} ({point.value})"


def _unknown(group: Group, name: str) -> str:
    known = kind_names(group)
    nearest = get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known kinds: {', '.join(known) or 'none'}"
    return f"there is no {group} kind {name!r}; {hint}"
