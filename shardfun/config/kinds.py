"""Find the class behind the kind of an ingress or egress: ours by name, others by entry point, or as ``package.module:Class``.

Packages add kinds of their own by entry points, without a change here; classes of an application are named by their place. Ours
are not looked for among those: to read what all installed packages declare takes every process of a node some 40 ms.

This module sits below ``ingress`` and ``egress`` because the configuration needs a kind's options before anything of it
is built; it must not import a kind of ours itself.
"""

from __future__ import annotations

import importlib
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec

from shardfun.errors import ConfigurationError, DefinitionError, nearest
from shardfun.sdk.importing import failure_of
from shardfun.sinks import Egress
from shardfun.sources import Ingress

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Group = Literal["ingress", "egress"]

OURS: Final[dict[Group, dict[str, str]]] = {
    "ingress": {
        "file": "shardfun.ingress.file:FileIngress",
        "generator": "shardfun.ingress.generator:GeneratorIngress",
        "http": "shardfun.ingress.http:HttpIngress",
    },
    "egress": {
        "file": "shardfun.egress.file:FileEgress",
        "http": "shardfun.egress.http:HttpEgress",
        "stdout": "shardfun.egress.stdout:StdoutEgress",
        "stream": "shardfun.egress.stream:StreamEgress",
        "webhook": "shardfun.egress.webhook:WebhookEgress",
    },
}
"""Names that no package can take."""

_CLASS: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def kind_names(group: Group) -> tuple[str, ...]:
    """The kinds that there are, sorted."""
    return tuple(sorted({*OURS[group], *(point.name for point in _points(group))}))


def load_kind(group: Group, name: str) -> type[Any]:
    """The class of a kind: has ``options`` (a ``msgspec.Struct`` class) and is built by ``(name, options, partition)``.

    Raises:
        ConfigurationError: no such kind (names the nearest), two packages claim it, or its entry point or class is broken.
    """
    if ":" in name:
        return _load_class(group, name)
    if name in OURS[group]:
        module, _, attribute = OURS[group][name].partition(":")
        ours: type[Any] = getattr(importlib.import_module(module), attribute)
        return ours
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


def _load_class(group: Group, name: str) -> type[Any]:
    """The class ``package.module:Class``, which has to be one of ``shardfun.sources`` or ``shardfun.sinks``."""
    label = f"{group} kind {name!r}"
    if _CLASS.fullmatch(name) is None:
        raise ConfigurationError(f"{label}: expected 'package.module:Class'")
    module_name, _, path = name.partition(":")
    try:
        found: Any = _import(module_name)
    except DefinitionError as error:
        raise ConfigurationError(f"{label}: {error}") from error
    except BaseException as error:  # SystemExit, too: the import of a module may not end the process
        raise ConfigurationError(f"{label} cannot be imported: {failure_of(error)}") from error
    file = getattr(found, "__file__", None) or module_name
    base = Ingress if group == "ingress" else Egress
    for part in path.split("."):
        if not hasattr(found, part):
            classes = [key for key, value in vars(found).items() if _is_subclass(value, base)]
            hint = nearest(part, classes) if classes else f"; it has no subclass of {_name(base)}"
            raise ConfigurationError(f"{label}: {file} has no {part!r}{hint}")
        found = getattr(found, part)
    if not _is_subclass(found, base):
        what = found.__qualname__ if isinstance(found, type) else repr(found)[:80]
        raise ConfigurationError(f"{label}: expected a subclass of {_name(base)}, got {what}")
    if missing := sorted(found.__abstractmethods__):
        raise ConfigurationError(f"{label}: it has no {' and no '.join(repr(one) for one in missing)}: see {_name(base)}")
    return cast("type[Any]", found)


def _import(name: str) -> ModuleType:
    """As the processes of the node do it, which have the current folder on their path."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}.") or str(Path.cwd()) in sys.path or "" in sys.path:
            raise
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _is_subclass(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base) and value is not base


def _name(base: type) -> str:
    return f"{base.__module__}.{base.__qualname__}"


def _points(group: Group) -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # here, since most nodes never need it

    return tuple(entry_points(group=f"shardfun.{group}"))


def _origin(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    return f"{package} ({point.value})"


def _unknown(group: Group, name: str) -> str:
    known = kind_names(group)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(known) or 'none'}"
    if "." in name and not near:
        module, _, attribute = name.rpartition(".")
        hint = f"for a class of yours, write {f'{module}:{attribute}'!r}"
    return f"there is no {group} kind {name!r}; {hint}"
