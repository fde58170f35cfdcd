"""What becomes of a trial, with nodes and faults that are played: what is a difference, what shows nothing, and what is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from counting_app import app

from shardfun.chaos import Counts, InconclusiveError, Report, run_chaos, trial
from shardfun.chaos.folder import PREFIX
from shardfun.chaos.node import NodeFailedError
from shardfun.chaos.plan import Fault, Kind, Plan, make_plan
from shardfun.chaos.report import Happened, Unreached
from shardfun.chaos.run import END_S
from shardfun.errors import ApplicationImportError, ConfigurationError
from shardfun.failpoints import Action, Point

KILL = Fault(Kind.KILL_SHARD, recovered=True, gap_s=0.1, choice=0.0)
NUMBERS = [{"id": "k", "number": 1}]

Does = Callable[["Run"], None]


class PlayedNode:
    """Ends at once, and has published a line of its own, which is another one in each run if ``varies``."""

    varies = False
    started = 0

    def __init__(self, folder: Path, config: str, data_dir: Path, environ: Mapping[str, str]) -> None:
        assert config
        assert environ
        (folder / "published").mkdir(parents=True)
        PlayedNode.started += 1
        number = PlayedNode.started if self.varies else 0
        (folder / "published" / "sums-0.jsonl").write_text(f'{{"run": {number}}}\n')
        self.data_dir = data_dir

    def start(self) -> None:
        """Nothing."""

    def wait(self, _timeout_s: float) -> int:
        return 0

    def close(self) -> None:
        """Nothing."""

    def events(self) -> list[dict[str, Any]]:
        return [{"verdict": "finished", "published": 1, "dead_letters": 0}]


class Run:
    """The run under faults."""

    does: Does
    end_s = 0.0

    def __init__(self, node: PlayedNode, report: Report, **options: Any) -> None:
        self.node = node
        self.report = report
        Run.end_s = options["end_s"]

    def run(self) -> None:
        Run.does(self)


def strikes(run: Run) -> None:
    run.report.timeline.append(Happened(0.0, 0.0, Kind.KILL_SHARD, "shard 0 (7)", 7, "running", 1, sigkill=True))


def breaks_the_store(run: Run) -> None:
    strikes(run)
    run.node.data_dir.mkdir()
    (run.node.data_dir / "job").write_bytes(b"no job")


def publishes_something_else(run: Run) -> None:
    strikes(run)
    (run.node.data_dir.parent / "published" / "sums-0.jsonl").write_text('{"run": -1}\n')


def fails(run: Run) -> None:
    strikes(run)
    raise NodeFailedError("the node has ended by itself, with exit code 70")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Report]]:
    """A trial in a temporary folder, as the command makes it; ``folders`` of it that are left are in ``tmp_path``."""
    monkeypatch.setattr(trial, "Node", PlayedNode)
    monkeypatch.setattr(trial, "Chaos", Run)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(does: Does, *faults: Fault, varies: bool = False, **options: Any) -> Report:
        monkeypatch.setattr(PlayedNode, "varies", varies)
        monkeypatch.setattr(Run, "does", staticmethod(does), raising=False)
        return run_chaos(app, plan=Plan(0, faults or (KILL,)), shards=1, inputs={"numbers": NUMBERS}, **options)

    yield run
    for folder in left(tmp_path):
        shutil.rmtree(folder)


def left(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob(f"{PREFIX}*"))


def test_what_is_equal_is_not_kept_unless_that_is_wanted(played: Callable[..., Report], tmp_path: Path) -> None:
    assert played(strikes).differences == []
    assert left(tmp_path) == []
    report = played(strikes, keep=True)
    assert left(tmp_path) == [Path(report.folder)]


def test_a_node_that_fails_is_a_difference_whatever_its_results_are(played: Callable[..., Report], tmp_path: Path) -> None:
    """No second undisturbed run can refute it, also if all runs differ."""
    report = played(fails, varies=True)
    assert report.differences == ["the node has ended by itself, with exit code 70"]
    assert not (Path(report.folder) / "again").exists()
    assert left(tmp_path) == [Path(report.folder)]


def test_a_store_that_cannot_be_read_is_a_difference_and_is_kept(played: Callable[..., Report]) -> None:
    report = played(breaks_the_store, varies=True)
    assert len(report.differences) == 1
    assert report.differences[0].startswith("what the node has stored cannot be read: ")
    assert (Path(report.folder) / "chaos" / "data" / "job").read_bytes() == b"no job"


def test_results_that_differ_without_faults_show_nothing(played: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(InconclusiveError, match="two undisturbed runs differ already"):
        played(strikes, varies=True)
    assert left(tmp_path) == []
    with pytest.raises(InconclusiveError) as raised:
        played(strikes, varies=True, keep=True)
    assert raised.value.__notes__ == [f"kept: {left(tmp_path)[0]}"]
    assert "egress sums: of 1 records 1 missing and 1 too many" in played(publishes_something_else).differences


def test_what_a_check_that_fails_has_seen_is_kept(played: Callable[..., Report], tmp_path: Path) -> None:
    def check(published: Path) -> list[str]:
        raise KeyError(published.name)

    with pytest.raises(ApplicationImportError, match="the check itself raises KeyError"):
        played(strikes, check=check)
    assert (left(tmp_path)[0] / "chaos" / "published" / "sums-0.jsonl").exists()


@pytest.mark.parametrize("said", [False, True, "all is well", 3])
def test_a_check_says_sentences_or_nothing(played: Callable[..., Report], said: object) -> None:
    with pytest.raises(ApplicationImportError, match="expected what is wrong, one sentence each, or None"):
        played(strikes, check=lambda _: said)
    assert played(strikes, check=lambda _: None).differences == []
    assert played(strikes, check=lambda _: ("a", "b")).differences == ["a", "b"]


def test_what_would_check_nothing_is_refused(played: Callable[..., Report]) -> None:
    with pytest.raises(ConfigurationError, match="--order smus: there is no such egress; did you mean 'sums'"):
        played(strikes, order={"smus": "id"})
    for beside in ({"order": {"sums": "id"}}, {"state": False}):
        with pytest.raises(ConfigurationError, match="judges alone"):
            played(strikes, check=lambda _: [], **beside)
    with pytest.raises(ConfigurationError, match="check: expected a function"):
        played(strikes, check=[])


# ---- faults that did not happen ------------------------------------------------------------------------------------------
def test_without_any_fault_equal_results_show_nothing(played: Callable[..., Report]) -> None:
    point = Fault(Kind.FAILPOINT, recovered=True, gap_s=0.0, choice=0.0, point=Point.PUBLISHED)

    def misses(run: Run) -> None:
        run.report.unreached.append(Unreached(point, "nobody came there in time"))

    with pytest.raises(InconclusiveError, match="none of the 1 faults met anybody: published: nobody came there in time"):
        played(misses, point)

    def strikes_once(run: Run) -> None:
        strikes(run)
        misses(run)

    assert played(strikes_once, KILL, point).differences == []


def test_a_named_failpoint_has_to_be_reached(played: Callable[..., Report]) -> None:
    (point,) = make_plan(1, Counts(), shards=1, points=("published=kill",)).faults
    assert (point.point, point.action) == (Point.PUBLISHED, Action.KILL)

    def strikes_elsewhere(run: Run) -> None:
        strikes(run)
        run.report.unreached.append(Unreached(point, "nobody came there"))

    with pytest.raises(InconclusiveError, match="a failpoint that was asked for was not reached: published: nobody"):
        played(strikes_elsewhere, KILL, point)


# ---- time and place ------------------------------------------------------------------------------------------------------
def test_the_end_is_waited_for_as_long_as_reading_was_told_to_take(played: Callable[..., Report]) -> None:
    played(strikes, duration_s=900.0)
    assert 900.0 + END_S < Run.end_s < 900.0 + 2 * END_S
    played(strikes, duration_s=900.0, check=lambda _: [])
    assert Run.end_s > 900.0 + trial.CALM_S, "no run has shown how long the application takes"


def test_a_folder_with_results_of_another_trial_is_refused(played: Callable[..., Report], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert played(strikes, folder=folder).folder == str(folder)
    with pytest.raises(ConfigurationError, match=r"expected one without results of another trial, but it has 'calm'"):
        played(strikes, folder=folder)
