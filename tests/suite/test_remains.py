"""The check at the end of each module of tests: it finds what was left, and clears it away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import remains
from remains import MARK, Remains

ORPHAN = """
import subprocess, sys
null = subprocess.DEVNULL
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=null, stdout=null, stderr=null)
print(child.pid)
child.returncode = 0  # or its end would be waited for
"""


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remains:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(remains, "WAIT_S", 0.1)
    return Remains(tmp_path / "temporary")


def test_nothing_left_is_fine(found: Remains) -> None:
    subprocess.run([sys.executable, "-c", ""], env={**os.environ, MARK: found.mark}, check=True)
    found.check("tests")
    assert not found.folder.exists()


def test_a_process_whose_parent_has_ended_is_found_and_ended(found: Remains) -> None:
    environ = {**os.environ, MARK: found.mark}
    done = subprocess.run([sys.executable, "-c", ORPHAN], env=environ, capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    with pytest.raises(AssertionError, match=rf"(?s)tests/some\.py has left behind:.*process {pid}: .*sleep\(600\)"):
        found.check("tests/some.py")
    deadline = time.monotonic() + 20
    while pid in found.processes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_socket_in_the_folder_for_temporary_files_is_found(found: Remains) -> None:
    (found.folder / "node.sock").touch()
    with pytest.raises(AssertionError, match=r"temporary .*node\.sock"):
        found.check("tests")


def test_other_processes_are_none_of_its_business(found: Remains) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        found.check("tests")
        assert other.poll() is None
