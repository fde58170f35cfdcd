"""What a configuration is written as is read back as the same configuration, from wherever the file lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.config import Config, load_config
from shardfun.config.loader import config_from_mapping
from shardfun.config.writing import config_toml
from shardfun.errors import ConfigurationError

CONF = Path(__file__).resolve().parents[2] / "conf"


def read_back(config: Config, folder: Path) -> Config:
    folder.mkdir(exist_ok=True)
    path = folder / "other-name.toml"
    path.write_text(config_toml(config))
    return load_config(path, environ={})


@pytest.mark.parametrize("name", ["flights", "bank", "tickets", "shardfun"])
def test_the_configurations_that_come_with_it(tmp_path: Path, name: str) -> None:
    config = load_config(CONF / f"{name}.toml", environ={})
    assert read_back(config, tmp_path) == config


def test_settings_of_every_kind(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "app": "a.b:c",
        "endless": True,
        "checkpoint": {"interval": "1234567 us", "loop_share": 0.25},
        "state": {"cache": 1048577},
        "http": {"listen": "127.0.0.1:0", "idempotency_window": "3 d", "connections": 3},
        "log": {"file": 'odd "name"\\of\x7fit\n.log'},
        "ingress": {
            "x-1": {"kind": "generator", "count": 0, "value": None, "prefix": "\u20ac", "target": "a/b"},
            "y": {"kind": "http"},
        },
        "egress": {"z": {"kind": "webhook", "url": "http://127.0.0.1:1/", "batch_size": "3 KiB", "retry_max": "90 s"}},
    }
    settings["ingress"]["x-1"]["value"] = 1.5
    config = config_from_mapping(settings, name="all", directory=tmp_path)
    assert read_back(config, tmp_path / "elsewhere") == config


@given(st.floats(0.01, 3600), st.integers(1 << 20, 1 << 45), st.text(min_size=1).filter(str.isprintable))
def test_numbers_and_texts(tmp_path_factory: pytest.TempPathFactory, seconds: float, size: int, prefix: str) -> None:
    seconds = round(seconds, 6)
    config = config_from_mapping(
        {
            "app": "a:b",
            "checkpoint": {"interval": f"{seconds:.6f} s"},
            "state": {"cache": size},
            "ingress": {"x": {"kind": "generator", "prefix": prefix, "target": "a/b"}},
        },
        name="x",
        directory=Path("/"),
    )
    assert read_back(config, tmp_path_factory.getbasetemp() / "numbers") == config


class Strange(msgspec.Struct, frozen=True):
    what: Any = None


def test_a_value_that_toml_has_not(tmp_path: Path) -> None:
    config = config_from_mapping(
        {"app": "a:b", "ingress": {"x": {"kind": "generator", "target": "a/b"}}}, name="x", directory=tmp_path
    )
    entry = msgspec.structs.replace(config.ingress["x"], options=Strange(what=b"bytes"))
    with pytest.raises(ConfigurationError, match=r"ingress\.x\.what: cannot be written"):
        config_toml(msgspec.structs.replace(config, ingress={"x": entry}))
