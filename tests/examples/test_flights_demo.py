"""The demonstration against a node that is a script: it kills, waits, compares, and never calls a broken run a success."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shardfun.examples.flights import demo
from shardfun.examples.flights.demo import DemoError, Plan

ROW = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_delay,carrier,flight,tailnum,origin,dest,distance\n"
FLIGHTS = ROW + "2013,1,1,800,600,120,130,UA,7,N1,JFK,BOS,100\n" * 4

NODE = '''\
#!{python}
"""run: one child as shard 1; when it is killed, "recover", publish what the plain program computes, end. status: the file."""
import json, pathlib, subprocess, sys, time
folder, mode = pathlib.Path({folder!r}), {mode!r}
status = folder / "status.json"
if sys.argv[1] == "status":
    print(status.read_text() if status.exists() else "")
    sys.exit(0 if status.exists() else 8)
def say(pid, recoveries, **more):
    shards = [dict(shard=0, pid=1, state="running"), dict(shard=1, pid=pid, state="running")]
    value = dict(name="f", app="a", data_dir="d", pid=1, state="running", incarnation=1, uptime_s=1.0, recoveries=recoveries,
                 shards=shards, checkpoint=dict(), records_in=2, **more)
    part = folder / "status.part"
    part.write_text(json.dumps(value))
    part.replace(status)
shard = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
if mode == "dies":
    shard.kill()
    sys.exit(7)
say(shard.pid, 0)
assert shard.wait() == -9
say(0, 1, last_recovery_ms=12.5)
if mode == "fails":
    time.sleep(1)
    sys.exit(4)
from shardfun.examples.flights.plain import compute, read_rows
(folder / "out").mkdir()
for egress, records in compute(read_rows(folder / "flights.csv")).items():
    if mode == "loses":
        records.pop()
    (folder / "out" / (egress + "-0.jsonl")).write_text("".join(json.dumps(record) + "\\n" for record in records))
time.sleep(1)
'''


def make_plan(folder, mode, shard=1):
    (folder / "flights.csv").write_text(FLIGHTS)
    command = folder / "node"
    command.write_text(NODE.format(python=sys.executable, folder=str(folder), mode=mode))
    command.chmod(0o755)
    return Plan(str(command), folder / "flights.toml", folder / "flights.csv", folder / "out", shard, 0.4)


@pytest.fixture(autouse=True)
def _import_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(demo.__file__).resolve().parents[3]))


@pytest.mark.parametrize(("mode", "equal"), [("works", True), ("loses", False)])
def test_a_killed_shard_and_the_verdict(tmp_path, capfd, mode, equal):
    """One SIGKILL, the recovery time is shown, and the verdict is that of the records."""
    plan = make_plan(tmp_path, mode)
    demo.run_and_kill(plan, records=4)
    assert demo.verdict(plan) is equal
    shown = capfd.readouterr()
    assert "2 of 4 flights read. SIGKILL to shard 1" in shown.err
    assert "Recovered in 12 ms" in shown.err
    assert ("\nequal to the single-threaded result\n" in shown.out) is equal


@pytest.mark.parametrize(("mode", "sentence"), [("dies", "ended with exit code 7"), ("fails", "ended with exit code 4")])
def test_a_node_that_fails_is_no_success(tmp_path, mode, sentence):
    """Whether before the kill or after it."""
    with pytest.raises(DemoError, match=sentence):
        demo.run_and_kill(make_plan(tmp_path, mode), records=4)


def test_a_run_that_was_too_fast_is_no_success(tmp_path):
    """Nothing was interrupted, so nothing was shown; the node is stopped."""
    with pytest.raises(DemoError, match="lower 'rate'"):
        demo.run_and_kill(make_plan(tmp_path, "works"), records=2)
    end_orphan(tmp_path)


def test_an_unknown_shard_is_named(tmp_path):
    """With the shards that there are."""
    with pytest.raises(DemoError, match=r"--shard 9: expected one of \[0, 1\]"):
        demo.run_and_kill(make_plan(tmp_path, "works", shard=9), records=4)
    end_orphan(tmp_path)


def end_orphan(folder):
    """The scripted node does not end its child when it is told to stop."""
    os.kill(json.loads((folder / "status.json").read_text())["shards"][1]["pid"], signal.SIGKILL)


def test_a_node_that_ignores_the_polite_request_is_killed(monkeypatch):
    """Nothing is left running."""
    monkeypatch.setattr(demo, "STOP_TIMEOUT_S", 0.3)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        node.stdout.readline()
        demo.stop(node)
        assert node.poll() == -signal.SIGKILL


def test_the_shipped_configuration_is_one_for_the_demo():
    """Paths by the place of the file, whatever the working directory."""
    plan = demo.make_plan(demo.CONFIG, 1, 0.4)
    assert plan.source.exists()
    assert plan.published == demo.CONFIG.parents[1] / "out" / "flights"


def test_another_configuration_is_refused(tmp_path):
    """Missing, not TOML, or of another application."""
    for text in (None, "= wrong", 'app = "other:app"'):
        config = tmp_path / "other.toml"
        if text is not None:
            config.write_text(text)
        with pytest.raises(DemoError, match=r"other\.toml: expected the configuration of the flights example"):
            demo.make_plan(config, 1, 0.4)
