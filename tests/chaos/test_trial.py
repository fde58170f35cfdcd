"""A trial tells an application that loses something from one that does not, and from one about which nothing can be said."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from counting_app import app

from shardfun.chaos import Counts, InconclusiveError, Report, run_chaos, trial
from shardfun.chaos.plan import Fault, Kind, Plan
from shardfun.errors import ApplicationImportError, ConfigurationError

ONE_KILL = Plan(0, (Fault(Kind.KILL_SHARD, recovered=True, gap_s=0.3, choice=0.0),))
NUMBERS = [{"id": f"k{number % 5}", "number": number} for number in range(2000)]


@pytest.mark.chaos
def test_a_counter_in_a_global_variable_is_a_difference(tmp_path: Path) -> None:
    """What differs is named, address and field; a second calm run has shown that it is not chance; everything is kept."""
    report = run_chaos(app, plan=ONE_KILL, shards=1, inputs={"numbers": NUMBERS}, folder=tmp_path)
    assert report.sigkills == 1
    assert report.differences[0] == "egress sums: of 5 records 5 missing and 5 too many"
    assert any(text.startswith("state of count/adder:k1: shown: expected 1997, got ") for text in report.differences)
    assert not any("total" in text.partition(" in the record")[0] for text in report.differences)
    assert any("a second undisturbed run" in note for note in report.notes)
    assert report.folder == str(tmp_path)
    assert {"calm", "chaos", "again"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.chaos
def test_a_check_sees_what_was_published_and_what_went_in(tmp_path: Path) -> None:
    looked: list[Any] = []

    def check(published: Path, records: Mapping[str, list[Any]]) -> list[str]:
        looked.append(records["numbers"])
        return [path.name for path in published.iterdir()]

    report = run_chaos(app, plan=ONE_KILL, shards=1, inputs={"numbers": NUMBERS}, check=check, folder=tmp_path)
    assert report.differences == ["sums-0.jsonl"]
    assert looked == [NUMBERS]


@pytest.mark.chaos
def test_a_run_in_which_every_record_becomes_a_dead_letter_shows_nothing(tmp_path: Path) -> None:
    wrong = [{"id": record["id"], "number": "text"} for record in NUMBERS[:10]]
    with pytest.raises(InconclusiveError, match=r"publishes and stores nothing.*leaves 10 dead letters: "):
        run_chaos(app, plan=ONE_KILL, shards=1, inputs={"numbers": wrong}, folder=tmp_path)


@pytest.mark.chaos
def test_faults_outside_of_the_run_show_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record is read before the first fault can be."""
    monkeypatch.setattr(trial, "ATTEMPTS_MAX", 1)
    plan = Plan(0, (*ONE_KILL.faults, *ONE_KILL.faults))
    with pytest.raises(InconclusiveError, match="the input was used up before the last of 2 faults"):
        run_chaos(app, plan=plan, shards=1, inputs={"numbers": NUMBERS[:1]}, check=lambda _: [], folder=tmp_path)


# ---- without a node ------------------------------------------------------------------------------------------------------
def test_wrong_use_is_refused_before_anything_runs(chaos: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="kills: expected a number of faults from 0, got -1"):
        chaos(app, kills=-1)
    with pytest.raises(ConfigurationError, match="there is no ingress"):
        chaos(app)
    with pytest.raises(ConfigurationError, match="no such ingress; did you mean 'numbers'"):
        chaos(app, inputs={"nombers": NUMBERS})
    with pytest.raises(TypeError, match="inpt"):
        chaos(app, inpt={})
    with pytest.raises(ConfigurationError, match="expected an App"):
        chaos(run_chaos)
    with pytest.raises(ApplicationImportError):
        run_chaos("no.module:app", counts=Counts.of(1), folder=tmp_path)


def test_the_fixture_fails_with_differences_and_timeline(pytester_like: Callable[[str], str]) -> None:
    text = pytester_like("""
        import shardfun.chaos.trial
        from shardfun.chaos import Report
        from shardfun.chaos.plan import Kind, Plan
        from shardfun.chaos.report import Happened

        def test_it(chaos, monkeypatch):
            report = Report("shop:app", 2, Plan(7, ()), differences=["egress x: 1 missing"], folder="/kept")
            report.timeline = [Happened(1.0, 0.0, Kind.KILL_SHARD, "shard 0 (77)", 77, "running", 5, sigkill=True)]
            monkeypatch.setattr(shardfun.chaos.trial, "run_chaos", lambda app, **options: report)
            chaos("shop:app", kills=1)
    """)
    for wanted in (
        "shop:app gives other results under faults (seed 0)",
        "egress x: 1 missing",
        "shard 0 (77)",
        "everything is in /kept",
    ):
        assert wanted.replace("seed 0", "seed 7") in text
    assert "plugin.py:" not in text


@pytest.fixture
def pytester_like(tmp_path: Path) -> Callable[[str], str]:
    """Run a test in a session of its own; what it prints."""

    def run(source: str) -> str:
        (tmp_path / "test_inner.py").write_text(textwrap.dedent(source))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", "inner", "test_inner.py"]
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        ).stdout

    return run
