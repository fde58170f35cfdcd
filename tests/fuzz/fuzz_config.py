"""Targets: the configuration: a TOML file, the environment, and what stands behind ``--set``."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import cbor2
from fuzz_registry import Target, file_with, scratch
from fuzz_values import text_of

from shardfun.config import kinds, loader, reading
from shardfun.config.fields import fields_of
from shardfun.config.schema import Config
from shardfun.errors import ConfigurationError
from shardfun.model.cbor import load_cbor

FULL = b"""
app = "shop.app:app"
shards = 2
[checkpoint]
interval = "500 ms"
[state]
cache = "64 MiB"
[http]
listen = "127.0.0.1:0"
body = "1 MiB"
[log]
level = "info"
[ingress.orders]
kind = "file"
path = "orders.jsonl"
target = "shop/cart"
id = "id"
[ingress."made-up"]
kind = "generator"
ids = 10
rate = 5.5
[egress.out]
kind = "file"
path = "out-{partition}.jsonl"
[egress.hook]
kind = "webhook"
url = "http://127.0.0.1/hook"
batch = 10
"""
SMALL = b'app = "a:b"\n'
REFERENCE = Path(__file__).resolve().parents[2] / "conf" / "shardfun.toml"


def _uncommented() -> bytes:
    """Every setting there is, with its default."""
    return re.sub(rb"(?m)^# ?(?=[\[\w])", b"", REFERENCE.read_bytes())


_POINTS = functools.cache(kinds._points)
_FIELDS = functools.cache(fields_of)


def _no_class(_group: str, name: str) -> Any:
    """Whatever an input names is not imported."""
    raise ConfigurationError(f"no class {name:.100}")


def _load(path: Path, **layers: Any) -> Config:
    """As ``load_config``, but which kinds and fields there are is found out once: that takes most of its time."""
    with (
        mock.patch.object(kinds, "_points", _POINTS),
        mock.patch.object(kinds, "_load_class", _no_class),
        mock.patch.object(loader, "fields_of", _FIELDS),
        mock.patch.object(reading, "fields_of", _FIELDS),
    ):
        return loader.load_config(path, **layers)


def _file(data: bytes) -> Config:
    config = _load(file_with("node.toml", data), environ={})
    with mock.patch.object(kinds, "_points", _POINTS):
        assert Config.from_dict(cbor2.loads(cbor2.dumps(config.to_dict()))) == config
    return config


def _environment(data: bytes) -> Config:
    environ: dict[str, str] = {}
    for line in data.split(b"\0"):
        name, _, text = text_of(line).partition("=")
        environ[name] = text
    return _load(file_with("node.toml", FULL), environ=environ)


def _overrides(data: bytes) -> Config:
    return _load(file_with("node.toml", FULL), overrides=[text_of(line) for line in data.split(b"\0")], environ={})


def _is_mapping(settings: Any) -> bool:
    """With names as keys, as type checkers demand it."""
    level: list[Any] = [settings]
    while level:
        if not all(isinstance(table, dict) and all(isinstance(key, str) for key in table) for table in level):
            return False
        level = [value for table in level for value in table.values() if isinstance(value, Mapping)]
    return True


def _mapping(data: bytes) -> Config:
    """Settings of a program."""
    try:
        settings = load_cbor(data)
    except ValueError as error:
        raise ConfigurationError("not CBOR") from error
    if not _is_mapping(settings):
        raise ConfigurationError("not a mapping")
    with mock.patch.object(kinds, "_points", _POINTS), mock.patch.object(kinds, "_load_class", _no_class):
        return loader.config_from_mapping(settings, name="node", directory=scratch())


def _from_process(data: bytes) -> Config:
    """A configuration from the process that has read it."""
    try:
        settings = load_cbor(data)
    except ValueError as error:
        raise ConfigurationError("not CBOR") from error
    with mock.patch.object(kinds, "_points", _POINTS), mock.patch.object(kinds, "_load_class", _no_class):
        return Config.from_dict(settings)


def _from_process_seeds() -> list[bytes]:
    return [cbor2.dumps(_load(file_with("node.toml", raw), environ={}).to_dict()) for raw in (FULL, SMALL)]


def _plain(raw: bytes) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(raw.decode())


_ENVIRONMENT = (
    b"SHARDFUN_SHARDS=3",
    b"SHARDFUN_CHECKPOINT__INTERVAL=200 ms\0SHARDFUN_INGRESS__MADE_UP__RATE=7\0PATH=/bin",
    b"SHARDFUN_EGRESS__NEW__KIND=stdout\0SHARDFUN_SERVICE_HOST=1",
    b"SHARDFUN_HTTP__LISTEN=0.0.0.0:1\0SHARDFUN_SHARD=1",
)
_OVERRIDES = (
    b"checkpoint.interval=500 ms",
    b"shards=3\0egress.out.path=/tmp/x",
    b'ingress."made-up".rate=3',
    b"log.level='debug'",
)
_WORDS = (
    b"[[",
    b"]]",
    b'"""',
    b"'''",
    b"__",
    b"SHARDFUN_",
    b"ingress.",
    b"egress.",
    b"kind = ",
    b'"200 ms"',
    b"1979-05-27T07:32:00Z",
    b"inf",
)
LONG = 5_000_000
"""All problems of a file are told at once."""

TARGETS = (
    Target("config-file", _file, (ConfigurationError,), lambda: [FULL, SMALL, _uncommented()], words=_WORDS, message_max=LONG),
    Target("config-environment", _environment, (ConfigurationError,), lambda: _ENVIRONMENT, words=_WORDS, message_max=LONG),
    Target("config-overrides", _overrides, (ConfigurationError,), lambda: _OVERRIDES, words=_WORDS, message_max=LONG),
    Target(
        "config-mapping",
        _mapping,
        (ConfigurationError,),
        lambda: [cbor2.dumps(_plain(raw)) for raw in (FULL, SMALL)],
        message_max=LONG,
    ),
    Target("config-from-process", _from_process, (ConfigurationError,), _from_process_seeds, message_max=LONG),
)
