"""tools/soak: what is done is never lost and never done twice, whatever ends it, and what is found ends nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from soaking.campaign import Campaign, Wish
from soaking.clones import Following, Here
from soaking.piece import _judged, chaos_piece
from soaking.report import report
from soaking.state import Found, Piece, Result, State, StateError, StateFile, Times, load

TOOL = Path(__file__).resolve().parents[2] / "tools" / "soak"
HALF_SECOND = 0.5 / 60
WAIT_S = 60.0
CHEAP_SEED = 2

GOOD = 'result = {"runs": piece["count"], "figures": {"messages": 10.0 * piece["count"], "faults_crash": 3}}'
BAD = """
found = {"seed": piece["first"], "kind": "correctness", "what": "seven | lost", "details": {"last events": ["one", "two"]}}
result = {"runs": piece["count"], "violations": [found]}
"""
CHAOS = 'result = {"runs": 1, "figures": {"sigkills": 5, "faults_kill_shard": 5}, "recoveries_ms": [20, 1999.5]}'


def repository(folder: Path, does: str) -> Path:
    """A repository whose tool does a piece as told."""
    (folder / "tools").mkdir(parents=True, exist_ok=True)
    lines = ["import json, os, sys, time", "piece = json.loads(sys.argv[2])", does, "print(json.dumps(result))"]
    (folder / "tools" / "soak").write_text("\n".join(lines))
    return folder


class Somewhere(Here):
    """A place without git."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root

    def current(self) -> tuple[Path, str]:
        return self.root, "abc"


def soak(state: Path, place: Here | Following, *, jobs: int = 1, chaos_share: float = 0.0) -> State:
    file = StateFile(state)
    try:
        wish = Wish(minutes=HALF_SECOND, jobs=jobs, chaos_share=chaos_share, seeds=3)
        Campaign(file, place, wish, state.with_suffix(".md")).run()
    finally:
        file.close()
    return load(state)


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_seeds_are_run_once_each_by_all_workers_and_added_up(tmp_path: Path) -> None:
    """Two workers share the seeds; the sums are those of all pieces; a second soak goes on behind the first."""
    place, path = Somewhere(repository(tmp_path / "repo", GOOD)), tmp_path / "s.json"
    first = soak(path, place, jobs=2)
    done = first.next_seed - 1
    assert done >= 6
    assert first.open == []
    assert first.sums["seeds"].runs == done
    assert first.sums["seeds"].figures["messages"] == 10 * done
    second = soak(path, place)
    assert second.next_seed > first.next_seed
    assert second.sums["seeds"].runs == second.next_seed - 1
    assert second.sums["seeds"].commits == {"abc": second.next_seed - 1}
    assert second.soaked_s > first.soaked_s


def test_a_piece_that_was_under_way_is_done_first(tmp_path: Path) -> None:
    """What a killed soak had begun is in the state, and is what the next one begins with."""
    path = tmp_path / "s.json"
    file = StateFile(path)
    file.state.next_seed = 7
    file.state.open = [Piece("seeds", 1, 3), Piece("seeds", 4, 3)]
    file.write()
    file.close()
    state = soak(path, Somewhere(repository(tmp_path / "repo", GOOD)))
    assert state.open == []
    assert state.sums["seeds"].runs == state.next_seed - 1


def test_violations_are_kept_with_their_details_and_end_nothing(tmp_path: Path) -> None:
    """Each has seed, commit and a file with the last events; the exit code of the summary says that there are some."""
    path = tmp_path / "s.json"
    state = soak(path, Somewhere(repository(tmp_path / "repo", BAD)))
    assert len(state.violations) >= 2
    found = state.violations[0]
    assert (found.seed, found.kind, found.commit) == (1, "correctness", "abc")
    details = (tmp_path / found.file).read_text()
    assert "seeds 1 to 3, commit abc" in details
    assert "== last events\none\ntwo" in details
    summary = tool("--state", str(path), "--summary")
    assert summary.returncode == 1
    assert "| 1 | correctness | `abc` | seven \\| lost | s.findings/seeds-1-abc.txt |" in summary.stdout


def test_a_piece_that_crashes_is_a_violation(tmp_path: Path) -> None:
    """Also what does not come from a check is recorded: with the exit code and the last line of the error output."""
    place = Somewhere(repository(tmp_path / "repo", 'raise ZeroDivisionError("oh")'))
    state = soak(tmp_path / "s.json", place)
    assert state.violations[0].what == "exit code 1 without a result: ZeroDivisionError: oh"


def test_chaos_gets_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums for each application and number of shards; percentiles of all recoveries."""
    does = f"if piece['kind'] == 'chaos':\n  {CHAOS}\nelse:\n  {GOOD}"
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 1.0, 1.0))
    state = soak(tmp_path / "s.json", Somewhere(repository(tmp_path / "repo", does)), chaos_share=0.5)
    piece = chaos_piece(1)
    sums = state.sums[f"chaos {piece.app} {piece.shards}"]
    assert sums.figures["sigkills"] == 5
    share = state.busy_s("chaos") / (state.busy_s("chaos") + state.busy_s("seeds"))
    assert 0.2 < share < 0.8
    text = (tmp_path / "s.md").read_text()
    assert f"| {piece.app} | {piece.shards} | 1 | 0 | 5 | 2 | 20 | 1,900 | 2,000 | 0 |" in text
    assert "| kill shard |" in text


def test_real_nodes_are_not_started_on_a_machine_without_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under too much load seeds are run instead."""
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 1.0, 1.0))
    state = soak(tmp_path / "s.json", Somewhere(repository(tmp_path / "repo", GOOD)), chaos_share=0.5)
    assert list(state.sums) == ["seeds"]


@pytest.mark.parametrize(
    ("load", "what", "violations"),
    [
        (1000.0, "the node does not run again within 60 s; the last status: ...", 0),
        (1000.0, "account 7 holds 12, expected 13", 1),
        (0.1, "the node does not run again within 60 s; the last status: ...", 1),
    ],
)
def test_only_what_took_too_long_without_time_is_no_violation(
    monkeypatch: pytest.MonkeyPatch, load: float, what: str, violations: int
) -> None:
    """A wrong result is a violation on any machine; so is a node that hangs on one that has time."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    result = _judged(Found(1, "difference", what), {}, ())
    assert (len(result.violations), result.inconclusive) == (violations, 1 - violations)


def test_all_applications_run_with_all_numbers_of_shards() -> None:
    """The first 24 chaos runs are 24 different ones."""
    assert len({(chaos_piece(number).app, chaos_piece(number).shards) for number in range(1, 25)}) == 24


def test_a_state_belongs_to_one_soak(tmp_path: Path) -> None:
    """A second one is refused as long as the first one lives."""
    file = StateFile(tmp_path / "s.json")
    with pytest.raises(StateError, match="another soak is using it"):
        StateFile(tmp_path / "s.json")
    file.close()
    StateFile(tmp_path / "s.json").close()


@pytest.mark.parametrize(
    ("content", "said"), [("[]", "expected the state of a soak"), ('{"version": 9}', "expected version 1")]
)
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """Nothing is overwritten that was not written by a soak."""
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(StateError, match=said):
        StateFile(path)
    assert path.read_text() == content


def test_new_commits_are_used_when_their_quick_check_passes(tmp_path: Path) -> None:
    """A commit that fails its check is not used and is named; a later one is; only the clone in use is kept."""
    source = repository(tmp_path / "source", GOOD)
    git(source, "init", "-q")
    git(source, "add", "tools")
    commits = [commit(source, "good")]
    place = Following(source, tmp_path / "clones", 0.0)
    assert place.current() == (tmp_path / "clones" / commits[0], commits[0])
    repository(source, BAD)
    commits.append(commit(source, "bad"))
    refused = place.refresh()
    assert refused is not None
    assert refused.startswith(f"{commits[1]}: seven | lost")
    assert place.refresh() is None, "it is checked once"
    assert place.current()[1] == commits[0]
    repository(source, f"# better\n{GOOD}")
    commits.append(commit(source, "good again"))
    state = soak(tmp_path / "s.json", place)
    assert list(state.sums["seeds"].commits) == [commits[2]]
    assert [path.name for path in (tmp_path / "clones").iterdir()] == [commits[2]]


def test_others_go_on_while_a_new_commit_is_checked(tmp_path: Path) -> None:
    """A check takes minutes. Only the one who does it waits."""

    class SlowToCheck(Somewhere):
        checks = 0

        def refresh(self) -> None:
            self.checks += 1
            if self.checks == 1:
                until(lambda: (tmp_path / "s.json").exists() and bool(load(tmp_path / "s.json").sums))

    soak(tmp_path / "s.json", SlowToCheck(repository(tmp_path / "repo", GOOD)), jobs=2)


def test_the_clone_of_a_piece_that_runs_is_kept(tmp_path: Path) -> None:
    """From the moment on that somebody has decided to use it, also while a newer commit comes."""
    source = repository(tmp_path / "source", GOOD)
    git(source, "init", "-q")
    git(source, "add", "tools")
    old = commit(source, "old")
    place = Following(source, tmp_path / "clones", 0.0)
    file = StateFile(tmp_path / "s.json")
    campaign = Campaign(file, place, Wish(minutes=1, jobs=2, chaos_share=0, seeds=3), tmp_path / "s.md")
    seen = []

    def known(process: object) -> contextlib.AbstractContextManager[None]:
        repository(source, f"# newer\n{GOOD}")
        seen.append(commit(source, "newer"))
        campaign._refresh()  # as another worker does it
        seen.extend(sorted(path.name for path in (tmp_path / "clones").iterdir()))
        return contextlib.nullcontext()

    campaign._known = known  # type: ignore[method-assign, assignment]
    campaign._do_a_piece()
    campaign._refresh()
    file.close()
    assert seen[1:] == sorted([old, seen[0]])
    assert [path.name for path in (tmp_path / "clones").iterdir()] == [seen[0]]


def test_a_soak_that_cannot_go_on_is_no_soak_without_findings(tmp_path: Path) -> None:
    """If a worker fails, the others end, too, and what was under way stays open."""

    class Breaks(Somewhere):
        asked = 0

        def current(self) -> tuple[Path, str]:
            self.asked += 1
            if self.asked == 3:
                raise OSError("no room")
            return super().current()

    with pytest.raises(RuntimeError, match="a worker cannot go on: OSError: no room"):
        soak(tmp_path / "s.json", Breaks(repository(tmp_path / "repo", GOOD)), jobs=2)
    (tmp_path / "empty").mkdir()
    for nowhere in ("empty", "nowhere"):
        run = tool("--state", str(tmp_path / "t.json"), "--follow", str(tmp_path / nowhere))
        assert (run.returncode, run.stderr.splitlines()[-1][:6]) == (2, "soak: ")
        assert f"{nowhere}: git rev-parse" in run.stderr


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    return subprocess.run(["git", *names, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "commit", "-q", "-a", "-m", message)
    return git(folder, "rev-parse", "--short=10", "HEAD")


def test_times_are_told_to_two_digits() -> None:
    """Percentiles come from buckets, the maximum is exact."""
    times = Times()
    for ms in range(1, 1001):
        times.add(ms + 0.5)
    assert times.count == 1000
    assert times.percentile(0.5) == pytest.approx(500, rel=0.05)
    assert times.percentile(0.99) == pytest.approx(990, rel=0.05)
    assert times.max_ms == 1000.5
    assert Times().percentile(0.5) is None


def test_faults_of_the_simulator_are_told_by_kind() -> None:
    """In all, and per seed."""
    state = State()
    state.open = [Piece("seeds", 1, 4)]
    result = Result(4, {"faults_bit_flip": 10, "faults_crash": 70, "virtual_s": 7200}, (Found(1, "crash", "x"),))
    state.close(Piece("seeds", 1, 4), result, "abc", 8.0, [])
    text = report(state)
    assert "| bit flip | 10 | 2.5 |" in text
    assert "| faults in a seed, on average | 20.0 |" in text
    assert "| virtual time in them | 2 hours |" in text
    assert "| wall clock seconds of one process | 8 | 2.00 |" in text


def test_killed_in_the_middle_it_loses_a_piece_at_most(tmp_path: Path) -> None:
    """The real tool: killed with SIGKILL it leaves no process, and the next start does again what was under way."""
    path = tmp_path / "s.json"
    arguments = ["--state", str(path), "--chaos-share", "0"]
    with subprocess.Popen([sys.executable, str(TOOL), *arguments, "--minutes", "5"]) as process:
        try:
            until(lambda: bool(path.exists() and children(process.pid)))
            refused = tool(*arguments)
            assert refused.returncode == 2
            assert "another soak is using it" in refused.stderr
            pieces = children(process.pid)
        finally:
            process.kill()
    assert pieces
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pieces))
    killed = load(path)
    assert [piece.first for piece in killed.open] == [killed.next_seed - 10]
    state = soak(path, Somewhere(repository(tmp_path / "repo", GOOD)))
    assert state.open == []
    assert state.sums["seeds"].runs == state.next_seed - 1
    assert state.sums["seeds"].commits["abc"] >= 10


def test_a_real_piece_says_what_its_seeds_did() -> None:
    """Figures of the simulator, as they are added up."""
    piece = Piece("seeds", CHEAP_SEED, 1)
    with subprocess.Popen(
        [sys.executable, str(TOOL), "--piece", msgspec.json.encode(piece).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        result = msgspec.json.decode(process.stdout.read(), type=Result)
    assert (result.runs, result.violations) == (1, ())
    assert result.figures["messages"] > 2_000


def test_interrupted_it_ends_its_pieces(tmp_path: Path) -> None:
    """Ctrl-C: no process is left, and the report is there."""
    path = tmp_path / "s.json"
    command = [sys.executable, str(TOOL), "--state", str(path), "--chaos-share", "0", "--minutes", "5"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: bool(path.exists() and children(process.pid)))
            pieces = children(process.pid)
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 130
        finally:
            process.kill()
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pieces))
    assert (tmp_path / "s.md").read_text().startswith("# Soak")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # gone meanwhile
        if int(parent) == pid:
            found.append(int(entry.name))
    return found
