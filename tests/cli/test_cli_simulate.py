"""``shardfun simulate`` for applications: findings, cases, steps, errors, exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from shardfun.cli.main import main

SHOP = '''
"""A shop that keeps its totals in the wrong place."""
from collections.abc import Iterable
import msgspec
from shardfun import App, Context, Message, State, Value, value
from shardfun.testing import Simulation

app = App("shop")
TOTALS: dict[str, int] = {}

class Add(msgspec.Struct, frozen=True):
    pieces: int

class Cart(State):
    pieces: Value[int] = value(0)

@app.router("orders")
def orders(record: dict) -> Iterable[Message]:
    yield Message("shop/cart", record["cart"], Add(record["pieces"]))

@app.function("shop/cart")
def cart(ctx: Context[Cart], message: Add) -> None:
    TOTALS[ctx.self.id] = TOTALS.get(ctx.self.id, 0) + message.pieces
    ctx.state.pieces = TOTALS[ctx.self.id]

simulation = Simulation(app, inputs={"orders": [{"cart": f"c{n % 3}", "pieces": 1} for n in range(60)]})
'''
SETS = SHOP.replace(
    "TOTALS[ctx.self.id] = TOTALS.get(ctx.self.id, 0) + message.pieces", 'first = next(iter({"a", "bb", "ccc", "dddd"}))'
).replace("ctx.state.pieces = TOTALS[ctx.self.id]", "ctx.state.pieces = ctx.state.pieces * 3 % 1000 + len(first)")
FAILING_SEED = "4"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wrong_shop.py").write_text(SHOP, encoding="utf-8")
    (tmp_path / "set_shop.py").write_text(SETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_finding_is_shrunk_saved_and_repeated(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report has the violation, what is left of the run, its last events, and how to go on; the case fails again."""
    arguments = [
        "simulate",
        "--app",
        "wrong_shop:app",
        "--seeds",
        "1:30",
        "--jobs",
        "1",
        "--max-findings",
        "1",
        "--shrink-time",
        "4",
    ]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "difference: state of shop/cart:c" in out
    assert "shrunk in" in out
    assert "faults that are left: " in out
    assert ">>> difference: " in out
    assert "repeat: shardfun simulate --seed" in out
    (case,) = project.glob("shardfun-seed-*.json")
    kept: dict[str, Any] = json.loads(case.read_text(encoding="utf-8"))
    assert kept["app"]["app"] == "wrong_shop:app"
    assert kept["faults"]
    assert main(["simulate", "--case", case.name, "--trace", "trace.txt", "--json"]) == 1
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["findings"][0]["kind"] == "difference"
    assert report["findings"][0]["what"] == kept["what"]
    trace = (project / "trace.txt").read_text(encoding="utf-8")
    assert "manifest durable" in trace
    assert main(["simulate", "--case", case.name, "--follow", "shop/cart:c1"]) == 1
    followed = capsys.readouterr().out
    assert "gets" in followed
    assert "shop/cart:c1: Add(pieces=1)" in followed
    assert "delta written" not in followed


def test_steps_are_taken_from_standard_input(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script may do it; the end of the input is the end."""
    monkeypatch.setattr("sys.stdin", io.StringIO("show\nu killed\nshow shop/cart:c1\nc\n"))
    assert project.is_dir()
    assert main(["simulate", "--app", "wrong_shop:app", "--seed", "1", "--step", "--until", "manifest durable"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("   step      time  inc checkpoint")
    assert "supervisor: " in out
    assert "the run has ended after" in out


def test_a_run_that_is_not_deterministic_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The order of a set depends on the hashes of the interpreter: runs under two seeds of them differ."""
    assert project.is_dir()
    assert main(["simulate", "--app", "set_shop:app", "--seeds", "1:2", "--jobs", "1", "--twice", "--max-findings", "1"]) == 1
    out = capsys.readouterr().out
    assert "nondeterminism: two runs of this seed differ" in out
    assert "iterates over a set" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--app", "shop"], 2, "expected MODULE:NAME"),
        (["--app", "no_such_module:app"], 3, "expected it in the current folder"),
        (["--app", "wrong_shop:application"], 3, "did you mean 'app'"),
        (["--app", "wrong_shop:app", "--input", "orders"], 2, "expected INGRESS=FILE"),
        (["--app", "wrong_shop:app", "--input", "orders=none.jsonl"], 6, "none.jsonl"),
        (["--app", "wrong_shop:app", "--workload", "bank"], 2, "not both"),
        (["--app", "wrong_shop:app", "--records", "0"], 2, "expected a number from 1"),
        (["--input", "orders=x.jsonl"], 2, "expected --app MODULE:NAME or --config FILE"),
        (["--config", "none.toml"], 2, "none.toml"),
        (["--case", "none.json"], 2, "none.json"),
        (["--case", "none.json", "--app", "a:b"], 2, "the file says what runs"),
        (["--step"], 2, "--seed S or --case FILE"),
        (["--seed", "1", "--until", "killed"], 2, "--step beside --until"),
        (["--case", "none.json", "--until", "killed"], 2, "--step beside --until"),
        (["--case", "none.json", "--last", "0"], 2, "expected a number from 1"),
    ],
)
def test_wrong_arguments_are_told(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    """One line that says what was expected; the exit code of its kind."""
    assert project.is_dir()
    assert main(["simulate", *arguments]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
