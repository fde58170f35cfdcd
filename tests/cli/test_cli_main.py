"""Every way to end is an exit code and lines that say what to do; help is quick and complete."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_samples import shardfun

from shardfun import __version__
from shardfun.cli.main import COMMANDS, main, report
from shardfun.errors import BacklogLimitError, ConfigurationError, StorageError


def _built(command: str) -> bool:
    return importlib.util.find_spec(COMMANDS[command].module) is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not _built(command):
        pytest.skip("not built yet")
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: shardfun {command}" in text
    assert f"shardfun {command} " in text.partition("usage:")[2].partition("\n")[2], "no example"
    assert "--debug" in text


def test_help_lists_all_commands() -> None:
    ended = shardfun("--help")
    assert ended.returncode == 0
    assert all(re.search(rf"\n    {name}\s+\w", ended.stdout) for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from shardfun.cli.main import main; main(['--help']); print([m for m in ('trio', 'pynng', 'plyvel', 'rich') if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    assert shardfun("--version").stdout == f"shardfun {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "arguments are required: COMMAND; see 'shardfun --help'"),
        (["walk"], "invalid choice: 'walk'"),
        (["run"], "arguments are required: CONFIG; see 'shardfun run --help'"),
        (["run", "missing.toml"], "missing.toml: expected a TOML configuration file"),
        (["status", "missing"], "missing: expected a configuration file or a data directory"),
        (["inspect", "."], "expected a data directory of shardfun"),
        (["inspect", ".", "cart"], "address 'cart': expected 'namespace/name:id'"),
        (["inspect", ".", "a/b:c", "--dead-letters"], "expected one of ADDRESS, --dead-letters and --timers"),
        (["query", ".", "cart", "1"], "query: function type 'cart': expected 'namespace/name'"),
        (["query", ".", "a/b"], "query: expected an ID, or --list"),
        (["query", ".", "a/b", "1", "--list"], "query: expected an ID, or --list"),
        (["query", ".", "a/b", ""], "query: expected an ID of 1 to 4096 bytes"),
        (["query", ".", "a/b", "1", "--all"], "--all and --after need --part or --list"),
        (["query", ".", "a/b", "--list", "--part", "m"], "expected no --part and no --at"),
        (["query", ".", "a/b", "1", "--limit", "1001"], "expected a number from 1 to 1000, got '1001'"),
        (["checkpoint", "missing"], "missing: expected a configuration file or a data directory"),
        (["inspect", ".", "--limit", "-1"], "expected a number of dead letters, such as 20, got '-1'"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    [line] = output.err.splitlines()
    assert line.startswith("shardfun: error: ")
    assert said in line


def test_all_problems_of_a_configuration_are_told_a_line_each(tmp_path: Path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text('app = "shop.app:app"\nshard = 3\n[checkpoint]\ninterval = "soon"\n')
    ended = shardfun("run", config)
    assert ended.returncode == 2
    assert [line.split(": ")[:2] for line in ended.stderr.splitlines()] == [["shardfun", "error"]] * 2
    assert f"{config}:2" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_stack_trace_is_shown_only_with_debug(tmp_path: Path) -> None:
    ended = shardfun("run", tmp_path / "no.toml", "--debug")
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("shardfun: error: ")
    assert shardfun("--debug", "run", tmp_path / "no.toml").stderr.count("Traceback") > 0


def test_no_node_runs_is_exit_code_8(tmp_path: Path) -> None:
    ended = shardfun("status", tmp_path)
    assert ended.returncode == 8
    assert len(ended.stderr.splitlines()) == 1


def test_does_not_start_without_assertions() -> None:
    for ended in (shardfun("--version", python=["-O"]), shardfun("--version", PYTHONOPTIMIZE="1")):
        assert ended.returncode == 2
        assert "start Python without -O" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m shardfun --help; echo $? >{tmp_path / 'code'}"
    ended = subprocess.run(f"({command}) | true", shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "code").exists()


# ---- report --------------------------------------------------------------------------------------------------------------
def test_an_error_keeps_its_exit_code_and_fits_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(BacklogLimitError("too\n  many"), debug=False) == 7
    assert capsys.readouterr().err == "shardfun: error: too many\n"


def test_a_group_of_errors_is_told_error_by_error(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup(
        "nursery", [ExceptionGroup("inner", [StorageError("a")]), ConfigurationError("b", "c"), StorageError("a")]
    )
    assert report(group, debug=False) == 4
    assert capsys.readouterr().err.splitlines() == [f"shardfun: error: {text}" for text in "abc"]


def test_a_bug_is_one_line_that_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyError("shard"), debug=False) == 70
    [line] = capsys.readouterr().err.splitlines()
    assert "unexpected KeyError: 'shard'" in line
    assert "--debug" in line


def test_an_interrupt_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt(), debug=False) == 130
    assert capsys.readouterr().err == ""
