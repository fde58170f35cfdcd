"""The configuration of an embedded node: what the program says, over a file if there is one, over the defaults."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from shardfun.config.kinds import load_kind
from shardfun.config.loader import SETTINGS_PLACE, config_from_mapping, load_config
from shardfun.config.schema import Config, EgressConfig
from shardfun.embedding.application import MAIN, Located, is_at, locate
from shardfun.errors import ConfigurationError
from shardfun.sdk.app import App
from shardfun.sdk.importing import import_app
from shardfun.sdk.launch import Launch

NAME_DEFAULT: Final = "node"
TEMPORARY_PREFIX: Final = "shardfun-data-"
STREAM: Final = "stream"
"""The kind of an egress that the application declares and nobody configures: its records wait for ``node.egress``."""

ConfigLike = Path | str | Config | Mapping[str, Any] | None


class Setup(NamedTuple):
    """All that a node is made from.

    Args:
        temporary: a data directory to be deleted in the end.
    """

    app: App
    config: Config
    launch: Launch
    temporary: Path | None

    def remove_temporary(self) -> None:
        """Delete the data directory, if it was only for this run."""
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)


def make_setup(app: App | str | None, config: ConfigLike, settings: Mapping[str, Any]) -> Setup:
    """Put together application and settings.

    Raises:
        ConfigurationError: with all problems of the settings.
        DefinitionError, ApplicationImportError: the application cannot be found, here or by other processes.
    """
    plain: dict[str, Any] = _plain(settings)
    located: Located | None = None
    if isinstance(app, str):
        plain["app"] = app
        app = import_app(app)
    elif app is not None:
        located = locate(app)
    temporary = None if _has_place(config, plain) else Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
    if temporary is not None:
        plain["data_dir"] = str(temporary / "data")
    try:
        found = _load(config, plain, _defaults(app, located))
        if app is None:
            app = import_app(found.app)
        elif not is_at(app, found.app):
            located = locate(app) if located is None else located
            found = msgspec.structs.replace(found, app=located.reference)
        found = _with_streams(found, app)
        launch = locate(app, _modules_of_kinds(found)).launch
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Setup(app, found, launch, temporary)


def _has_place(config: ConfigLike, settings: Mapping[str, Any]) -> bool:
    """Whether somebody says where the data is. A file says so even if it leaves that to the default."""
    if isinstance(config, Mapping):
        return "data_dir" in config or "data_dir" in settings
    return config is not None or "data_dir" in settings


def _defaults(app: App | None, located: Located | None) -> dict[str, Any]:
    defaults: dict[str, Any] = {"endless": True}
    if app is not None and located is not None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", app.name).strip("-._")[:64]
        defaults |= {"app": located.reference, **({"name": name} if name else {})}
    return defaults


def _load(config: ConfigLike, settings: dict[str, Any], defaults: dict[str, Any]) -> Config:
    match config:
        case Config():
            return _over_config(config, settings)
        case str() | Path():
            defaults.pop("name", None)  # that of the file, as for 'shardfun run'
            return load_config(config, settings=settings, defaults=defaults)
        case _:
            given = defaults | _plain(config or {})
            return config_from_mapping(_merged(given, settings), name=NAME_DEFAULT, directory=Path.cwd())


def _over_config(config: Config, settings: dict[str, Any]) -> Config:
    """A ``Config`` is complete; of what is beside it, only what has the same form in it and in a mapping."""
    simple = {"app", "data_dir", "shards", "name", "endless"}
    if strange := sorted(settings.keys() - simple):
        msg = (
            f"{SETTINGS_PLACE}: {', '.join(strange)}: expected them inside the Config that is given, or a mapping instead of it"
        )
        raise ConfigurationError(msg)
    changes = dict(settings)
    if "data_dir" in changes:
        changes["data_dir"] = Path(changes["data_dir"])
    return msgspec.structs.replace(config, **({"endless": True} | changes))


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        inner = result.get(key)
        result[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return result


def _plain(value: Any) -> Any:
    """Settings as a file has them: paths as texts, classes as references."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    return value


def _with_streams(config: Config, app: App) -> Config:
    """The egresses that the application declares and nobody has configured, as streams."""
    missing = [name for name in app.egresses or () if name not in config.egress]
    if not missing:
        return config
    options = load_kind("egress", STREAM).options
    added = {name: EgressConfig(kind=STREAM, options=options()) for name in missing}
    return msgspec.structs.replace(config, egress=config.egress | added)


def _modules_of_kinds(config: Config) -> list[str]:
    """Of kinds that are named by a reference, only the script: the others are imported by their name."""
    kinds = [*(entry.kind for entry in config.ingress.values()), *(entry.kind for entry in config.egress.values())]
    return [MAIN] if any(kind.startswith(f"{MAIN}:") for kind in kinds) and MAIN in sys.modules else []
