"""Applications of users in the simulated world: good ones pass, each way to be wrong is found and called by its name."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import simulated_apps

from shardfun import App
from shardfun.errors import ConfigurationError, DefinitionError, IngressError
from shardfun.model.keyspace import owner_of
from shardfun.simulation.application.child import ChildError, in_child
from shardfun.simulation.application.inputs import Input, Item, batch_of, from_file
from shardfun.simulation.application.runs import AppRuns
from shardfun.simulation.application.subject import AppPlan, find_subject
from shardfun.simulation.options import draw
from shardfun.simulation.world import Outcome
from shardfun.testing import Simulation

ROOT = Path(__file__).resolve().parents[2]
Load = Callable[..., AppPlan]
RECORDS = 60


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Puts an application into the current folder, in a module of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)

    def put(source: str, check: str = "") -> AppPlan:
        module = f"simulated_{random.getrandbits(60):x}"
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        return AppPlan(f"{module}:app", check=check.replace("MODULE", module), records=RECORDS)

    yield put
    for name in set(sys.modules) - before:
        if name.startswith("simulated_"):
            del sys.modules[name]


def outcomes(plan: AppPlan, seeds: range) -> list[Outcome]:
    runs = AppRuns(plan)
    return [runs.run(runs.options(seed)) for seed in seeds]


def test_a_good_application_ends_as_without_faults(load: Load) -> None:
    """Values, maps, buffers, delayed messages, dead letters and records, whatever fails; its own invariant sees them all."""
    found = outcomes(load(simulated_apps.GOOD), range(1, 6))
    assert [(outcome.kind, outcome.what) for outcome in found] == [("ok", "")] * 5
    assert sum(outcome.figures["kills"] for outcome in found) > 0


def test_two_runs_of_a_seed_are_the_same(load: Load) -> None:
    """Trace and results; another seed is another run."""
    plan = load(simulated_apps.GOOD)
    first, other = outcomes(plan, range(1, 3))
    assert outcomes(plan, range(1, 2))[0].digest == first.digest != other.digest


def test_a_run_that_was_not_compared_says_so(load: Load) -> None:
    """A start that is refused for damage leaves nothing to compare; so no seed of an application draws any."""
    runs = AppRuns(load(simulated_apps.GOOD))
    seeds = range(1, 60)
    assert any(draw(seed).rates.flip for seed in seeds)
    assert not any(runs.options(seed).rates.flip for seed in seeds)
    options = runs.options(1)
    damaged = dataclasses.replace(options, files=True, rates=dataclasses.replace(options.rates, flip=0.01))
    outcome = runs.run(damaged)
    assert (outcome.kind, outcome.figures["refusals"], outcome.figures["not_compared"]) == ("ok", 1, 1)


def test_what_is_kept_in_a_module_is_found(load: Load) -> None:
    """A recovery does not take it back. The undisturbed run, in a process of its own, knows nothing of it."""
    found = outcomes(load(simulated_apps.GLOBAL_TOTALS), range(1, 6))
    wrong = [outcome for outcome in found if outcome.kind == "difference"]
    assert wrong
    assert "state of shop/cart:c" in wrong[0].what
    assert "expected" in wrong[0].what


def test_coroutines_live_in_virtual_time(load: Load) -> None:
    """They may sleep, in nurseries too; a crash ends them, and they run again."""
    found = outcomes(load(simulated_apps.SLEEPY), range(1, 4))
    assert [outcome.kind for outcome in found] == ["ok"] * 3


def test_who_waits_for_a_socket_cannot_be_simulated(load: Load) -> None:
    """The error says which code waits, and what to do."""
    (outcome,) = outcomes(load(simulated_apps.SOCKETS), range(1, 2))
    assert outcome.kind == "unsuitable"
    assert "waits for a socket" in outcome.what
    assert "shop/cart" in outcome.what
    assert "fake" in outcome.what


def test_a_function_that_ends_its_process_is_told(load: Load) -> None:
    """The undisturbed run fails already."""
    (outcome,) = outcomes(load(simulated_apps.EXITS), range(1, 2))
    assert outcome.kind == "undisturbed"
    assert "exit code 3" in outcome.what


@pytest.mark.parametrize(
    ("check", "kind", "said"),
    [
        ("invariant_fails", "invariant", "too many orders"),
        ("end_fails", "invariant", "this is the end"),
        ("check_fails", "check", "ValueError: nothing is good enough"),
        ("says_no", "invariant", "it returned False"),
        ("says_later", "check", "expected a plain function"),
    ],
)
def test_checks_of_the_user_are_asked(load: Load, check: str, kind: str, said: str) -> None:
    """An invariant at each checkpoint and at the end, a check at the end; what they raise is told, or that they say no."""
    plan = load(simulated_apps.CHECKS, check=f"MODULE:{check}")
    runs = AppRuns(plan)
    outcome = runs.run(runs.options(1))
    assert outcome.kind == "undisturbed"  # they complain without any fault as well
    assert f"{kind}: " in outcome.what
    assert said in outcome.what
    assert (".py:" in outcome.what) == ("fails" in check)  # the place where it was raised


@pytest.mark.parametrize("argument", ["invariant", "check"])
def test_a_check_that_would_never_run_is_refused(argument: str) -> None:
    """Nobody would await it, or ask it for its elements."""

    async def asynchronous(_checkpoint: object) -> None:
        raise AssertionError

    def generator(_checkpoint: object) -> Iterator[None]:
        yield

    class Asynchronous:
        async def __call__(self, _checkpoint: object) -> None:
            raise AssertionError

    for check in (asynchronous, generator, Asynchronous(), functools.partial(asynchronous, None)):
        arguments: dict[str, Any] = {argument: check}
        with pytest.raises(DefinitionError, match=f"{argument}: expected a plain function"):
            Simulation(App("shop"), **arguments)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("no_such_ingress", "partition_by: expected an ingress of the application, got 'order'; known: orders"),
        ("no_such_field", "ingress 'orders': partition_by: .* none of 120 has 'card'"),
        ("no_such_egress", "order_by: expected an egress of the application, got 'total'; known: totals; .*App"),
        ("no_such_order", "order_by: egress 'totals': none of 60 records has a text or a number 'card'"),
    ],
)
def test_names_that_are_not_there_are_refused(load: Load, check: str, said: str) -> None:
    """With a typo every run would pass, unchecked."""
    with pytest.raises(ConfigurationError, match=said):
        AppRuns(load(simulated_apps.CHECKS, check=f"MODULE:{check}")).options(1)


def test_declared_egresses_are_known_without_a_run(load: Load) -> None:
    """They may be named although nothing comes there, and no others."""
    source = simulated_apps.CHECKS.replace('App("shop")', 'App("shop", egresses=["totals", "rare"])')
    with pytest.raises(ConfigurationError, match="got 'total'; known: rare, totals"):
        AppRuns(load(source, check="MODULE:no_such_egress"))
    source = source.replace('"total": "cart"', '"rare": "cart"')
    runs = AppRuns(load(source, check="MODULE:no_such_egress"))
    assert runs.run(runs.options(1)).kind == "ok"


@pytest.mark.parametrize(
    ("source", "check", "said"),
    [
        (simulated_apps.NO_INPUT, "", "expected --config FILE"),
        (simulated_apps.CHECKS, "", "has several simulations: invariant_fails, end_fails, "),
        (simulated_apps.CHECKS, "MODULE:other", "it is of 'other'"),
        (simulated_apps.CHECKS, "MODULE:nothing", "expected a shardfun.testing.Simulation, got int"),
        (simulated_apps.CHECKS, "no_such_module:x", "cannot be imported"),
    ],
)
def test_what_does_not_fit_is_told(load: Load, source: str, check: str, said: str) -> None:
    """One line: what was expected, what to do."""
    with pytest.raises(Exception, match=said):
        find_subject(load(source, check))


def test_records_come_from_files(load: Load, tmp_path: Path) -> None:
    """Lines that cannot be read become dead letters, here as there."""
    lines = [json.dumps({"cart": f"c{n % 3}", "pieces": 1}) for n in range(30)]
    (tmp_path / "orders.jsonl").write_text("\n".join([*lines, "{"]) + "\n", encoding="utf-8")
    plan = load(simulated_apps.NO_INPUT)
    plan = AppPlan(plan.app, inputs=(("orders", "orders.jsonl"),))
    found = outcomes(plan, range(1, 3))
    assert [(outcome.kind, outcome.what) for outcome in found] == [("ok", "")] * 2
    with pytest.raises(IngressError, match=r"missing\.jsonl"):
        find_subject(AppPlan(plan.app, inputs=(("orders", "missing.jsonl"),)))
    with pytest.raises(ConfigurationError, match="routers exist for: orders"):
        find_subject(AppPlan(plan.app, inputs=(("typo", "orders.jsonl"),)))


def test_a_configuration_brings_application_and_ingresses() -> None:
    """That of the bank: the file is read, the first records of it."""
    runs = AppRuns(AppPlan(config=str(ROOT / "conf" / "bank.toml"), records=60))
    outcome = runs.run(runs.options(1))
    assert (outcome.kind, outcome.what) == ("ok", "")
    assert runs.options(1).records == 60


def test_the_bank_is_simulated_by_either_spelling() -> None:
    """``examples.bank`` is ours, unless the project has an ``examples`` of its own."""
    assert find_subject(AppPlan("examples.bank:app")).app is find_subject(AppPlan("shardfun.examples.bank:app")).app


def test_a_strict_bank_keeps_its_promises() -> None:
    """It is not confluent, so it is checked and not compared."""
    runs = AppRuns(AppPlan("shardfun.examples.bank:strict", records=100))
    outcome = runs.run(runs.options(2))
    assert (outcome.kind, outcome.what) == ("ok", "")


# ---- parts ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_share_the_records(shards: int) -> None:
    """Each record once; those of one value of the field in one shard, in order."""
    records = [{"key": f"k{number % 7}", "number": number} for number in range(50)]
    items = [Item(record) for record in records]
    for shared in (Input("in", items).shared(shards), Input("in", items, "key").shared(shards)):
        assert sorted(item.value["number"] for part in shared for item in part) == list(range(50))
    for shard, part in enumerate(Input("in", items, "key").shared(shards)):
        assert all(owner_of(item.value["key"], shards) == shard for item in part)
        assert [item.value["number"] for item in part] == sorted(item.value["number"] for item in part)
    assert [bool(part) for part in Input("in", items, alone=True).shared(shards)].count(True) == 1


def test_whoever_reads_a_record_gets_a_copy() -> None:
    """A router may change it; a recovery reads it again."""
    items = [Item({"list": [1]})]
    batch_of(items, 1, "").records[0]["list"].append(2)
    assert batch_of(items, 1, "").records == [{"list": [1]}]


def test_only_as_many_records_as_wanted_are_read(tmp_path: Path) -> None:
    """The first ones."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(3000)), encoding="utf-8")
    assert [item.value["n"] for item in from_file("in", path, None, 700).items] == list(range(700))


def test_a_child_hands_back_and_leaves_nothing() -> None:
    """Events on the way, a result at the end; what it does to modules stays there."""
    state: list[int] = []

    def work(send: Callable[[object], None]) -> int:
        state.append(1)
        for number in range(1200):
            send(number)
        return len(state)

    events: list[object] = []
    assert in_child(work, 60.0, events.append) == 1
    assert events == list(range(1200))
    assert state == []


def test_a_child_that_takes_too_long_is_killed() -> None:
    """In real time: a function may run for ever."""

    def work(_send: Callable[[object], None]) -> None:
        while True:
            pass

    with pytest.raises(ChildError, match="has not ended within"):
        in_child(work, 0.2)
