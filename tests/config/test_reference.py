"""``conf/shardfun.toml`` says exactly what the code does."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from shardfun.config import load_config
from shardfun.config.loader import setting_paths
from shardfun.config.reference import NOT_SET, default_reference
from shardfun.config.schema import Config, HttpConfig

FILE = Path(__file__).parents[2] / "conf" / "shardfun.toml"


def _uncommented(text: str) -> str:
    """With every default written out; what has no default stays a comment."""
    return "\n".join(line if line.endswith(NOT_SET) else re.sub(r"^#(?=[a-z\[])", "", line) for line in text.splitlines())


def test_the_file_is_what_the_schema_says() -> None:
    assert FILE.read_text() == default_reference(), "run: python -m shardfun.config.reference > conf/shardfun.toml"


def test_it_loads() -> None:
    config = load_config(FILE, environ={})
    assert config == Config(app="package.module:app", name="shardfun", data_dir=FILE.parent / "data" / "shardfun")


def test_its_commented_values_are_the_defaults(tmp_path: Path) -> None:
    copy = tmp_path / "shardfun.toml"
    copy.write_text(_uncommented(FILE.read_text()))
    config = load_config(copy, environ={})
    assert sorted(config.ingress) == ["my-file", "my-generator", "my-http"]
    assert sorted(config.egress) == ["my-file", "my-http", "my-stdout", "my-stream", "my-webhook"]
    expected = Config(
        app="package.module:app",
        name="shardfun",
        data_dir=tmp_path / "data" / "shardfun",
        ingress=config.ingress,
        egress=config.egress,
        http=HttpConfig(),
    )
    assert config == expected
    assert "\nshards = 2\n" in copy.read_text()


def test_every_setting_is_in_it_with_a_sentence() -> None:
    lines = FILE.read_text().splitlines()
    section = ""
    found = []
    for before, line in pairwise(lines):
        if header := re.fullmatch(r"#?\[(\w+)\]", line):
            section = header[1]
        elif line.startswith(("#[ingress", "#[egress")):
            break
        elif setting := re.match(r"#?(\w+) = ", line):
            found.append((section, setting[1]) if section else (setting[1],))
            assert before.startswith("# "), f"{line} has no sentence above it"
    assert found == setting_paths()
