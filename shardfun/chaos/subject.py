"""What is put under chaos: a configuration file, or an application with nothing but its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from shardfun.config import Config, load_config
from shardfun.config.loader import config_from_mapping
from shardfun.errors import ConfigurationError, DefinitionError
from shardfun.model.payload import MAIN_ELSEWHERE
from shardfun.sdk.app import App
from shardfun.sdk.importing import import_app, search_here

NAME: Final = "chaos"
_NOT_IMPORTABLE: Final = frozenset({"__main__", "__mp_main__", MAIN_ELSEWHERE})


@dataclass(frozen=True, slots=True)
class Subject:
    """A node's settings and its application, imported here.

    Args:
        environ: what its processes need to find it.
    """

    config: Config
    app: App
    name: str
    environ: Mapping[str, str] = field(default_factory=dict)


def find_subject(
    what: object,
    *,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    egresses: Iterable[str] | None = None,
) -> Subject:
    """Load and import it.

    Args:
        what: an ``App`` that is a global variable of a module, a reference ``package.module:app``, or the path of a configuration.
        overrides: ``section.key=value`` each.
        settings: further settings, in the shape of the file.
        egresses: that the application emits to, if it is not configured and does not declare them.

    Raises:
        ConfigurationError: a setting is wrong, or there is no such file.
        DefinitionError, ApplicationImportError: the application cannot be found or imported.
    """
    search_here()
    if isinstance(what, Path) or (isinstance(what, str) and ":" not in what):
        config = load_config(what, overrides=overrides, settings=settings)
        return Subject(config, import_app(config.app), str(what))
    if isinstance(what, str):
        app, reference = import_app(what), what
    elif isinstance(what, App):
        app, reference = what, _reference(what)
    else:
        msg = f"expected an App, a reference 'package.module:app' or the path of a configuration, got {what!r:.100}"
        raise ConfigurationError(msg)
    names = tuple(egresses) if egresses is not None else (app.egresses or ())
    entries = {name: {"kind": "file", "path": f"{name}-{{partition}}.jsonl"} for name in names}
    plain = {"app": reference, "egress": entries, **(settings or {})}
    config = config_from_mapping(plain, name=NAME, directory=Path.cwd(), overrides=overrides)
    path = os.pathsep.join(str(Path(entry or ".").absolute()) for entry in sys.path)
    return Subject(config, app, reference, {"PYTHONPATH": path})


def _reference(app: App) -> str:
    """Rather where its functions are than elsewhere."""
    places = [
        (name, attribute)
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and name not in _NOT_IMPORTABLE
        for attribute, value in list(vars(module).items())
        if value is app and attribute.isidentifier()
    ]
    if not places:
        msg = (
            f"application {app.name!r}: expected it as a global variable of a module that other processes can import by its name, as in "
            "'app = App(...)' at the beginning of a line; it is in none (made inside a function, or in the script that is run?)"
        )
        raise DefinitionError(msg)
    module, attribute = min(places, key=lambda place: (place[0] not in app.modules, place[0].count("."), place[0]))
    return f"{module}:{attribute}"
