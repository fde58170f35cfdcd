"""``shardfun chaos`` without a node: plans, names of failpoints, and what is wrong on its command line or in the configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardfun.cli.main import main
from shardfun.failpoints import Point

BANK = str(Path(__file__).resolve().parents[2] / "conf" / "bank.toml")


def test_the_names_of_failpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--failpoint", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(Point)


def test_the_plan_of_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("7", "7", "8"):
        assert main(["chaos", BANK, "--kills", "12", "--seed", seed, "--plan-only", "--json"]) == 0
        texts.append(json.loads(capsys.readouterr().out)["faults"])
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 12 + 2 + 1 + 6 + 1
    assert main(["chaos", BANK, "--kills", "1", "--failpoint", "applied", "--plan-only"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("seed 0: 2 faults, about ")
    assert "failpoint applied: " in shown


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "expected the configuration of a node: shardfun chaos CONFIG"),
        (["nowhere.toml"], 2, "nowhere.toml: expected a TOML configuration file"),
        ([BANK, "--kills", "-1"], 2, "--kills: expected "),
        ([BANK, "--kills", "many"], 2, "expected a number from 0, got 'many'"),
        ([BANK, "--kills", "0"], 2, "expected at least one fault"),
        ([BANK, "--shards", "0"], 2, "expected a number from 1, got '0'"),
        ([BANK, "--duration", "soon"], 2, "expected a number of seconds, got 'soon'"),
        ([BANK, "--failpoint", "cut"], 2, "failpoint cut: there is no such step"),
        ([BANK, "--failpoint", "cut-made=explode"], 2, "expected one of kill, stop, ENOSPC, EIO behind '='"),
        (
            [BANK, "--failpoint", "cut-made=EIO"],
            2,
            "a disk can fail at apply-chunk, delta-written, manifest-written, publishing",
        ),
        ([BANK, "--input", "transfers"], 2, "--input transfers: expected two parts with '=' between them"),
        ([BANK, "--input", "transfer=nowhere"], 2, "no such ingress; did you mean 'transfers'?"),
        ([BANK, "--replace", "outcome"], 2, "--replace outcome: there is no such egress; did you mean 'outcomes'?"),
        ([BANK, "--set", "shards=many"], 2, "--set shards: shards"),
        ([BANK, "--check", "nothing"], 2, "--check nothing: expected MODULE:FUNCTION"),
        ([BANK, "--check", "no.such:thing"], 3, "--check no.such:thing cannot be imported: ModuleNotFoundError"),
        ([BANK, "--check", "json:dmps"], 3, "json/__init__.py has no attribute 'dmps'; did you mean 'dumps'?"),
        ([BANK, "--check", "json:__name__"], 3, "expected a function, got 'json'"),
        ([BANK, "--set", "app=no.module:app"], 3, "no.module"),
        ([BANK, "--set", "ingress.transfers.path=gone.jsonl"], 6, "gone.jsonl"),
    ],
)
def test_wrong_use(arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", *arguments]) == code
    shown = capsys.readouterr().err
    assert all(line.startswith("shardfun: error: ") for line in shown.splitlines())
    assert text in shown
