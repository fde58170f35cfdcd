"""``tools/fuzz``: names its targets, repeats an input, and says what it needs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_registry import all_targets
from fuzz_regressions import regressions

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fuzz"
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


def run(*arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = dict(os.environ) if path is None else os.environ | {"PYTHONPATH": str(path)}
    command = [sys.executable, TOOL, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environ, timeout=200)


def test_it_lists_the_targets() -> None:
    finished = run("--list")
    assert finished.stdout.split() == list(all_targets())


def test_it_repeats_an_input_and_tells_what_came_of_it(tmp_path: Path) -> None:
    found = next(found for found in regressions() if found.target == "ordered-key")
    file = tmp_path / "input"
    file.write_bytes(found.data)
    refused = run("--repeat", file, "ordered-key")
    assert (refused.returncode, refused.stdout.startswith("refused: damaged key")) == (0, True), refused
    file.write_bytes(b"\x05")
    assert run("--repeat", file, "ordered-key").stdout == "a value: False\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--repeat", "x"), "needs the one TARGET"), (("nonsense",), "no target is called 'nonsense'")],
)
def test_it_refuses_what_it_cannot_do(arguments: tuple[str, ...], said: str) -> None:
    finished = run(*arguments)
    assert finished.returncode == 2
    assert said in finished.stderr


def test_without_atheris_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text("raise ImportError")
    finished = run("typename", path=tmp_path)
    assert finished.returncode == 2
    assert "pip install" in finished.stderr


@pytest.mark.long
@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is not installed")
def test_it_fuzzes_and_keeps_a_corpus(tmp_path: Path) -> None:
    finished = run("--folder", tmp_path, "--seconds", "2", "ordered-key")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert " ok" in finished.stdout
    before = len(list((tmp_path / "corpus" / "ordered-key").iterdir()))
    assert before > 0
    minimised = run("--folder", tmp_path, "--minimise", "ordered-key")
    assert f"{before} inputs before" in minimised.stdout
    assert 0 < len(list((tmp_path / "corpus" / "ordered-key").iterdir())) <= before


FUZZER = """
import contextlib, os, pathlib, sys

def instrument_imports(**_):
    return contextlib.nullcontext()

def Setup(arguments, one):
    global prefix
    prefix = next(text.partition("=")[2] for text in arguments if text.startswith("-artifact_prefix"))

def Fuzz():
    HOW
"""
CRASHES = """
    pathlib.Path(prefix + "crash-1").write_bytes(b"x")
    print(f"artifact_prefix='{prefix}'; Test unit written to {prefix}crash-1", file=sys.stderr)
    os._exit(77)
"""


def test_a_crash_that_is_known_is_found_again(tmp_path: Path) -> None:
    """Its file is there already, with the same name."""
    (tmp_path / "atheris.py").write_text(FUZZER.replace("HOW", CRASHES))
    for _ in range(2):
        finished = run("--folder", tmp_path / "fuzz", "typename", path=tmp_path)
        assert finished.returncode == 1
        found = tmp_path / "fuzz" / "found" / "typename-crash-1"
        assert f"  found: {found}\n  repeat it with: tools/fuzz --repeat {found} typename" in finished.stdout
        assert "FOUND" in finished.stdout


def test_a_fuzzer_that_does_not_run_has_found_nothing(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text(FUZZER.replace("HOW", 'raise OSError("no room")'))
    finished = run("--folder", tmp_path / "fuzz", "typename", path=tmp_path)
    assert (finished.returncode, "FAILED" in finished.stdout) == (2, True), finished.stdout + finished.stderr
    log = tmp_path / "fuzz" / "logs" / "typename.txt"
    assert str(log) in finished.stdout
    assert "OSError: no room" in log.read_text()
    assert list((tmp_path / "fuzz" / "found").iterdir()) == []
