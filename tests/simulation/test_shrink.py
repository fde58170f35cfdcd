"""Shrinking: a run that fails becomes a small one that fails in the same way, and that can be repeated from a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shardfun.errors import ConfigurationError
from shardfun.simulation.campaign import Plan, options_of, run_options
from shardfun.simulation.case import Case, case_of, encode_case, read_plan, write_case
from shardfun.simulation.options import Options, draw
from shardfun.simulation.shrink import Shrinker, earlier
from shardfun.simulation.violation import place_of
from shardfun.simulation.workloads.workload import same
from shardfun.simulation.world import Outcome


def fake_run(options: Options, _steps_max: int) -> Outcome:
    """Fails if shard 1 is there, three records, and two of the faults."""
    faults = list(options.faults or ())
    bad = options.shards >= 2 and options.records >= 3 and {"crash:5", "late:7"} <= set(faults)
    return Outcome("correctness" if bad else "ok", "", {"steps": 10.0 * options.records}, "", [], faults)


def test_everything_that_does_not_matter_is_left_out() -> None:
    """Down to the smallest run that fails, and to usual settings."""
    faults = ("late:1", "crash:5", "late:7", *(f"rush:{number}" for number in range(40)), "drop:9")
    options = dataclasses.replace(draw(4), shards=5, records=400, speeds=(1,) * 5, faults=faults, faulty_steps=100)
    found = Outcome("correctness", "", {"steps": 4000.0}, "", [], list(faults))
    shrunk = Shrinker(options, found, fake_run, seconds_max=60.0).shrink()
    assert shrunk.finished
    assert (shrunk.options.shards, shrunk.options.records, shrunk.options.faults) == (2, 3, ("crash:5", "late:7"))
    assert shrunk.options.limits.cache_bytes > draw(4).limits.cache_bytes
    assert shrunk.attempts < 200


def test_another_kind_of_failure_is_not_taken_for_the_same() -> None:
    """A smaller run that fails for something else would lead astray."""
    options = dataclasses.replace(draw(4), faults=("crash:5",))

    def crashes(options: Options, _steps_max: int) -> Outcome:
        kind = "correctness" if options.faults == ("crash:5",) and options.faulty_steps >= 4000 else "crash"
        return Outcome(kind, "IndexError: 5", {"steps": 100.0}, "", [], list(options.faults or ()))

    shrunk = Shrinker(options, crashes(options, 0), crashes, seconds_max=60.0).shrink()
    assert shrunk.outcome.kind == "correctness"
    assert shrunk.options.faults == ("crash:5",)


def test_another_place_of_the_same_kind_is_not_taken_for_the_same() -> None:
    """Each check is a failure of its own."""
    options = dataclasses.replace(draw(4), faults=("crash:5",))

    def fails(options: Options, _steps_max: int) -> Outcome:
        place = "checker.py:5" if options.faults == ("crash:5",) and options.faulty_steps >= 4000 else "checker.py:7"
        return Outcome("correctness", "wrong", {"steps": 100.0}, "", [], list(options.faults or ()), place)

    shrunk = Shrinker(options, fails(options, 0), fails, seconds_max=60.0).shrink()
    assert (shrunk.outcome.place, shrunk.options.faults) == ("checker.py:5", ("crash:5",))


def test_settings_that_do_not_matter_become_plain() -> None:
    """Whatever is beside the node is gone, if it goes wrong without."""
    options = dataclasses.replace(
        draw(4), faults=(), operator=True, orders=30, files=True, hot=True, rounded_ms=700, careful=True
    )

    def fails(options: Options, _steps_max: int) -> Outcome:
        return Outcome("correctness" if options.orders else "ok", "", {"steps": 100.0}, "", [], list(options.faults or ()))

    shrunk = Shrinker(options, fails(options, 0), fails, seconds_max=60.0).shrink().options
    assert (shrunk.operator, shrunk.files, shrunk.hot, shrunk.rounded_ms, shrunk.careful) == (False, False, False, 0, False)
    assert shrunk.orders == 30


def test_a_failure_has_a_place() -> None:
    """Two checks of one module are told apart, so are two errors; the numbers in what they say do not count."""

    def place(fail: Callable[[], object]) -> str:
        try:
            fail()
        except Exception as error:
            return place_of(error)
        raise AssertionError("it does not fail")

    def first(number: int) -> None:
        same("pieces", number, 5)

    def second(number: int) -> None:
        same("pieces", number, 5)

    assert place(lambda: first(1)) == place(lambda: first(2)) != place(lambda: second(1))
    assert place(lambda: first(1)).startswith("test_shrink.py:")
    assert place(lambda: int("x")).endswith(" ValueError")
    assert place(lambda: {}["key"]).endswith(" KeyError")


def test_what_functions_find_wrong_is_told_apart() -> None:
    """All of it comes from one line of the world, and is known by its words, without addresses and numbers."""
    plan = Plan("trees", "timers-by-another-clock")
    outcome = run_options(options_of(1, plan), plan)
    assert outcome.place.startswith("execution.py:")
    assert outcome.place.endswith(" message before its time")


def test_time_is_a_limit() -> None:
    """What was found by then is the result."""
    options = dataclasses.replace(draw(4), faults=())
    shrunk = Shrinker(options, fake_run(options, 0), fake_run, seconds_max=0.0).shrink()
    assert not shrunk.finished
    assert shrunk.attempts == 0


def test_faults_move_with_the_time_they_have() -> None:
    """Those of steps become earlier, no two at once; others keep their place."""
    assert earlier(["crash:1000", "late:7", "drop:1001", "power:2000"], 0.1) == ("crash:100", "late:7", "drop:101", "power:200")


def test_a_run_with_the_faults_it_had_is_the_same_run() -> None:
    """Their names say all: the digest is that of the seed."""
    plan = Plan("ring")
    drawn = options_of(3, plan)
    first = run_options(drawn, plan)
    assert first.faults
    again = run_options(dataclasses.replace(drawn, faults=tuple(first.faults)), plan)
    assert (again.digest, again.faults) == (first.digest, first.faults)


def test_a_mutation_shrinks_to_a_few_records_and_faults(tmp_path: Path) -> None:
    """A checkpoint that lacks the outboxes, found with hundreds of records, is shown with a handful; the case file repeats it."""
    plan = Plan("trees", "no-outbox")
    drawn = options_of(1, plan)
    first = run_options(drawn, plan)
    assert first.kind == "correctness"
    shrunk = Shrinker(
        drawn, first, lambda options, steps_max: run_options(options, plan, steps_max=steps_max), seconds_max=25.0
    ).shrink()
    assert shrunk.options.records <= drawn.records // 8
    assert len(shrunk.outcome.faults) <= len(first.faults) // 4
    assert shrunk.outcome.figures["steps"] < first.figures["steps"]
    write_case(tmp_path / "case.json", Case(plan, shrunk.options, first.kind, first.what), drawn)
    read, found = read_plan(tmp_path / "case.json")
    case = case_of(read, found)
    assert (case.plan, case.options) == (plan, shrunk.options)
    assert run_options(case.options, case.plan).digest == shrunk.outcome.digest


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"shardfun_case": 1}', '{"shardfun_case": 1, "seed": "x"}'])
def test_what_is_no_case_is_refused(tmp_path: Path, content: str) -> None:
    """With the name of the file."""
    path = tmp_path / "case.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"case\.json: "):
        read_plan(path)


@pytest.mark.parametrize("options", [{"typo": 1}, {"shards": "many"}, {"limits": {"typo": 1}}])
def test_a_case_of_other_options_is_refused(options: dict[str, object]) -> None:
    """Of another version, or changed by hand."""
    plan = Plan("ring")
    raw = encode_case(Case(plan, options_of(3, plan)), options_of(3, plan))
    assert json.loads(json.dumps(raw))["options"] == {}
    with pytest.raises(ConfigurationError, match="its options are none"):
        case_of(plan, raw | {"options": options})
