"""The fixtures for pytest, in tests of pytest's own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

TESTS = """
from kit_app import app, Add
from shardfun.testing import Sent

def test_one(function_test):
    test = function_test(app, "a/sum", id="x", state={"total": 2})
    assert test.receive(Add(3)).sent == []
    assert test.state.total == 5

def test_node(local_node, shardfun_seed):
    node = local_node(app, shards=3)
    assert node.seed == shardfun_seed
    node.send("a/sum", "x", Add(3))
    node.run()
    assert node.state("a/sum", "x").total == 3

def test_own_seed(local_node):
    assert local_node(app, seed=77).seed == 77
"""
APP = """
import msgspec
from shardfun import App, Context, State, Value, value

class Add(msgspec.Struct, frozen=True):
    n: int

class Sum(State):
    total: Value[int] = value(0)

app = App("app")

@app.function("a/sum")
def add(ctx: Context[Sum], message: Add) -> None:
    ctx.state.total += message.n
"""
INSTALLED = bool(entry_points(group="pytest11", name="shardfun"))
LOAD = () if INSTALLED else ("-p", "shardfun.testing.plugin")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(kit_app=APP)
    return pytester


def test_the_fixtures_make_what_their_namesakes_are(project: pytest.Pytester) -> None:
    project.makepyfile(TESTS)
    project.runpytest(*LOAD).assert_outcomes(passed=3)
    project.runpytest(*LOAD, "--shardfun-seed", "5").assert_outcomes(passed=3)


def test_the_seed_is_shown_when_a_test_fails(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(local_node): assert 0\n\ndef test_other(): assert 0")
    found = project.runpytest(*LOAD, "--shardfun-seed", "42")
    found.assert_outcomes(failed=2)
    found.stdout.fnmatch_lines(["* shardfun *", "seed 42; repeat with --shardfun-seed 42"])
    assert str(found.stdout).count("repeat with") == 1, "a test without local nodes has no seed"


def test_a_random_seed_is_another_one_each_time(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(shardfun_seed, function_test): assert 0, shardfun_seed")
    seeds = set()
    for _ in range(2):
        found = project.runpytest(*LOAD, "--shardfun-seed", "random")
        seeds.add(next(line for line in found.outlines if line.startswith("seed ")))
    assert len(seeds) == 2


def test_a_seed_that_is_none_is_refused(project: pytest.Pytester) -> None:
    found = project.runpytest(*LOAD, "--shardfun-seed", "x")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines(["*expected a number from 0, or 'random', got 'x'*"])


def test_nodes_are_closed_after_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from kit_app import app, Add

        nodes = []

        def test_first(local_node):
            nodes.append(local_node(app))

        def test_second():
            try:
                nodes[0].run()
            except ValueError as error:
                assert "closed" in str(error)
            else:
                raise AssertionError("still open")
        """
    )
    project.runpytest(*LOAD).assert_outcomes(passed=2)


def test_neither_the_package_nor_the_plugin_loads_more_than_it_needs() -> None:
    """Every run of pytest imports the plugin, also those that have nothing to do with it."""
    code = "import sys; import {module}; print(*sys.modules)"
    for module, absent in (
        ("shardfun.testing", {"pytest", "trio", "pynng", "plyvel"}),
        ("shardfun.testing.plugin", {"trio", "pynng", "plyvel", "structlog", "shardfun.testing.engine"}),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module=module)], capture_output=True, text=True, check=True, timeout=30
        )
        assert not absent & set(done.stdout.split()), module
