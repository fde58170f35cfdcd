"""Read a configuration: the file, the environment over it, the command line over both, checked as a whole.

The one entrance for files and for programs that have the settings in a mapping. All problems are reported at once, each where
it was written; nothing of the application is imported, only the kinds of ingress and egress that are named.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shardfun.config.fields import fields_of
from shardfun.config.kinds import Group, kind_names, load_kind
from shardfun.config.layers import DOORS, KEY_PARTS_MAX, KeyPath, Layers
from shardfun.config.reading import Reader
from shardfun.config.schema import Config, EgressConfig, IngressConfig
from shardfun.config.toml_lines import key_lines, longest_key
from shardfun.errors import ConfigurationError
from shardfun.model.cbor import shown
from shardfun.sdk.importing import failure_of

FILE_BYTES_MAX: Final = 1 << 20
"""A larger file is not a configuration, and is not read."""

SETTINGS_PLACE: Final = "settings of the program"
"""How they are called in messages."""

DOOR_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names of ingresses and egresses: they become parts of file names and of keys."""

_ENTRIES: Final[Mapping[Group, type[IngressConfig | EgressConfig]]] = {"ingress": IngressConfig, "egress": EgressConfig}


def load_config(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    settings: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration in a TOML file.

    Args:
        path: the file. Relative paths in it, and in overrides, are relative to its folder.
        overrides: ``section.key=value`` each, as after ``--set``. They win over everything.
        environ: where ``SHARDFUN_SECTION__KEY`` is looked up. These win over the file.
        settings: of a program, in the shape of the file. They win over file and environment.
        defaults: for settings at the top of the file that are given nowhere.

    Raises:
        ConfigurationError: with all problems, each with its place.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: expected a TOML configuration file, got: {error.strerror or error}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{path}: expected a configuration of at most {FILE_BYTES_MAX} bytes, but it is larger")
    try:
        text = data.decode()
        if longest_key(text) > KEY_PARTS_MAX:  # the parser's time and memory grow with the square of a key's length
            raise ConfigurationError(f"{path}: expected keys of at most {KEY_PARTS_MAX} parts, such as 'http.listen'")
        values = tomllib.loads(text)
        layers = Layers(values, str(path), key_lines(text.replace("\r\n", "\n")))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: expected UTF-8 text, but byte {error.start} is not") from error
    except ValueError as error:  # a ``TOMLDecodeError``, or an integer that is too long
        raise ConfigurationError(_syntax_problem(path, str(error))) from error
    except RecursionError as error:
        raise ConfigurationError(f"{path}: expected a configuration, but it is nested too deeply") from error
    return _config(layers, path.absolute().parent, path.stem, overrides, environ, settings or {}, defaults or {})


def config_from_mapping(
    settings: Mapping[str, Any],
    *,
    name: str,
    directory: Path,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration in a mapping of the same shape as the file: ``{"app": ..., "checkpoint": {"interval": "1 s"}}``.

    Args:
        settings: sections and settings, values as in the file.
        name: the name of the node unless ``settings`` has one; also what problems call the mapping.
        directory: what relative paths are relative to.
        overrides: as for ``load_config``.
        environ: as for ``load_config``; by default the environment is left out.

    Raises:
        ConfigurationError: with all problems.
    """
    return _config(Layers(settings, name, {}), directory.absolute(), name, overrides, environ or {}, {}, {})


def setting_paths() -> list[KeyPath]:
    """The paths of all settings that always exist: not those of ingresses and egresses, which the user names."""
    paths: list[KeyPath] = []
    for spec in fields_of(Config):
        if spec.key in DOORS:
            continue
        if spec.struct is None:
            paths.append((spec.key,))
        else:
            paths.extend((spec.key, inner.key) for inner in fields_of(spec.struct))
    return paths


def _config(
    layers: Layers,
    directory: Path,
    name: str,
    overrides: Sequence[str],
    environ: Mapping[str, str],
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Config:
    layers.add_environment(environ, setting_paths())
    layers.add_settings(settings, SETTINGS_PLACE)
    layers.add_overrides(overrides)
    reader = Reader(layers, directory, layers.problems)
    table = layers.values
    doors: dict[str, Any] = {group: _entries(reader, group, table.pop(group, {})) for group in _ENTRIES}
    for key, value in defaults.items():
        table.setdefault(key, value)
    table.setdefault("name", name)
    table.setdefault("data_dir", f"data/{table['name']}")
    config = reader.struct(Config, table, (), doors)
    if config is not None and not reader.problems:
        _check_egresses(reader, config)
    if config is None or reader.problems:
        raise ConfigurationError(*reader.problems)
    return config


def _entries(reader: Reader, group: Group, table: Any) -> dict[str, Any]:
    """All ingresses or all egresses; one with a problem is ``None``."""
    entries: dict[str, Any] = {}
    if not reader.is_table(table, (group,)):
        return entries
    for name, entry in table.items():
        path = (group, name)
        if DOOR_NAME.fullmatch(name) is None:
            reader.problem(path, "expected a name of 1 to 64 letters, digits, '_' or '-'")
        elif reader.is_table(entry, path):
            entries[name] = _entry(reader, group, entry, path)
    return entries


def _entry(reader: Reader, group: Group, table: dict[str, Any], path: KeyPath) -> IngressConfig | EgressConfig | None:
    """One ingress or egress. Its keys are those that every kind has, and those of its own kind."""
    kind = table.get("kind")
    if not isinstance(kind, str):
        got = "it is missing" if kind is None else f"got {shown(kind)}"
        reader.problem((*path, "kind"), f"required: expected the name of a kind ({', '.join(kind_names(group))}), but {got}")
        return None
    try:
        options_type = load_kind(group, kind).options
    except ConfigurationError as error:
        reader.problem((*path, "kind"), str(error))
        return None
    shared = [spec.key for spec in fields_of(_ENTRIES[group]) if spec.attribute != "options"]
    own = [spec.key for spec in fields_of(options_type)]
    reader.refuse_unknown(table, [*shared, *own], path)
    options = reader.struct(options_type, {key: value for key, value in table.items() if key in own}, path)
    common = {key: value for key, value in table.items() if key in shared}
    return reader.struct(_ENTRIES[group], common, path, {"options": options})


def _check_egresses(reader: Reader, config: Config) -> None:
    """Ask each kind of egress that can tell whether its options suit the number of shards."""
    for name, egress in config.egress.items():
        check = getattr(load_kind("egress", egress.kind), "check", None)
        try:
            problem = check(egress.options, config.shards) if check is not None else None
        except Exception as error:  # noqa: BLE001 - of a class of a user
            problem = f"{egress.kind} cannot check its options: {failure_of(error)}"
        if problem is not None:
            reader.problem(("egress", name), problem)


def _syntax_problem(path: Path, text: str) -> str:
    """The place of a ``TOMLDecodeError`` in front, as in all other problems; Python 3.11 has it in the text only."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", text)
    return (
        f"{path}:{match[2]}: not valid TOML, at column {match[3]}: {match[1]}" if match else f"{path}: not valid TOML: {text}"
    )
