"""A whole node in one process: the examples give what their plain programs compute, in any order, whatever dies."""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit_shop import CART, FLAKY, PING, STOCK, STUBBORN, Add, Pay, Reserve, build

from shardfun import Address, App, Context, State, Value, value
from shardfun.errors import FunctionRestartError, PayloadTypeError, UnknownTargetError
from shardfun.examples import bank, flights
from shardfun.examples.bank import check
from shardfun.examples.bank.transfers import OPENING_BALANCE, make_transfers
from shardfun.examples.compare import compare
from shardfun.examples.flights import plain
from shardfun.testing import LocalNode, NotQuietError

ROOT = Path(__file__).resolve().parents[2]
FLIGHTS = ROOT / "shardfun" / "examples" / "data" / "flights-2013-01.csv.gz"
TRANSFERS = list(make_transfers(transfers=200, accounts=8, seed=3))
START = dt.datetime(2030, 5, 1, 12, tzinfo=dt.UTC)


def published(node: LocalNode, egress: str) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(record) for record in node.published(egress)]


def differences(node: LocalNode, expected: dict[str, list[dict[str, Any]]]) -> list[str]:
    found = [compare(egress, published(node, egress), records, address="address") for egress, records in expected.items()]
    return [difference for comparison in found for difference in comparison.differences]


# ---- the examples --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_the_bank_gives_the_plain_result(shards: int) -> None:
    with LocalNode(bank.app, shards=shards, seed=shards) as node:
        for transfer in TRANSFERS:
            node.ingest("transfers", transfer, key=transfer["source"])
        node.end()
        assert differences(node, check.compute(TRANSFERS)) == []
        assert node.dead_letters() == []


@pytest.mark.parametrize("seed", range(3))
def test_flights_give_the_plain_result(seed: int) -> None:
    rows = list(islice(plain.read_rows(FLIGHTS), 300))
    with LocalNode(flights.app, shards=3, seed=seed) as node:
        for row in rows:
            node.ingest("flights", row)
        node.end()
        assert differences(node, plain.compute(rows)) == []


def run_with_crashes(seed: int) -> LocalNode:
    """A bank in which something dies at random moments."""
    chance = random.Random(seed)
    node = LocalNode(bank.app, shards=3, seed=seed, checkpoint_interval=chance.choice([0.02, 0.1, None]))
    waiting = list(TRANSFERS)
    while waiting:
        for _ in range(chance.randint(1, 40)):
            if waiting:
                node.ingest("transfers", waiting[0], key=waiting.pop(0)["source"])
        node.step(chance.randint(1, 150))
        if chance.random() < 0.5:
            node.crash(chance.choice([None, 0, 1, 2]))
        if chance.random() < 0.2:
            node.checkpoint()
    return node


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_whatever_dies_the_result_is_that_of_an_undisturbed_run(seed: int) -> None:
    with run_with_crashes(seed) as node:
        node.end()
        assert differences(node, check.compute(TRANSFERS)) == []


def test_one_seed_is_one_order_and_another_seed_is_another() -> None:
    digests = []
    for seed in (7, 7, 8):
        with run_with_crashes(seed) as node:
            node.end()
            digests.append((node.trace.digest, published(node, "outcomes")))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    assert digests[0][1] != digests[2][1], "the order of results differs"


def test_the_order_does_not_depend_on_the_hash_seed_of_python() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_local_node import run_with_crashes; "
        "import test_local_node_async as t; print(run_with_crashes(5).trace.digest, t.run_payments(5))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    found = {
        subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


# ---- input, state, output ------------------------------------------------------------------------------------------------
def test_messages_are_processed_by_run_only() -> None:
    with LocalNode(build()) as node:
        node.send(CART, "c1", Add("tea", 2))
        node.send(CART, "c2", Add("tea", 3))
        assert node.addresses(CART) == []
        node.run()
        assert node.addresses(CART) == [Address(CART, "c1"), Address(CART, "c2")]
        assert vars(node.state(CART, "c1")) == {"items": 2, "reserved": 2, "names": ["tea"], "idle": 0}
        assert node.state(STOCK, "tea").left == 95
        assert node.state(CART, "other").items == 0
        assert sorted(record["pieces"] for record in node.emitted("reserved")) == [2, 3]


class Sum(State):
    total: Value[int] = value(0)


def test_addresses_are_found_in_memory_and_in_the_store() -> None:
    """Also those that are back at their defaults: they are gone."""
    app = App("app")

    @app.function("a/sum")
    def add(ctx: Context[Sum], message: int) -> None:
        ctx.state.total += message

    with LocalNode(app, checkpoint_interval=None) as node:
        for id in "abcdef":
            node.send("a/sum", id, 1)
        node.run()
        node.checkpoint()
        node.send("a/sum", "a", -1)
        node.send("a/sum", "g", 1)
        node.run()
        assert [address.id for address in node.addresses("a/sum")] == list("bcdefg")
        node.crash()
        assert [address.id for address in node.addresses("a/sum")] == list("abcdef")
        node.run()
        assert [address.id for address in node.addresses("a/sum")] == list("bcdefg")


def test_only_complete_checkpoints_are_published() -> None:
    with LocalNode(build(), checkpoint_interval=None) as node:
        node.send(CART, "c1", Add("tea"))
        node.run()
        assert (len(node.emitted("reserved")), node.published("reserved")) == (1, [])
        node.checkpoint()
        assert node.published("reserved") == node.emitted("reserved") == [{"cart": "c1", "pieces": 1, "left": 99}]
        assert node.checkpoints == 1


def test_a_crash_takes_back_what_no_checkpoint_holds_and_it_runs_again() -> None:
    with LocalNode(build(), checkpoint_interval=None) as node:
        node.send(CART, "c1", Add("tea"))
        node.run()
        node.checkpoint()
        node.send(CART, "c1", Add("cup"))
        node.run()
        node.crash()
        assert node.state(CART, "c1").names == ["tea"]
        assert len(node.emitted("reserved")) == 1
        node.run()
        assert node.state(CART, "c1").names == ["tea", "cup"]
        assert len(node.emitted("reserved")) == 2


def test_records_go_through_the_router_and_bad_ones_become_dead_letters() -> None:
    with LocalNode(build()) as node:
        node.ingest("orders", {"cart": "c1", "item": "tea", "pieces": 2})
        node.ingest("orders", {"cart": "c1"})
        node.run()
        assert node.state(CART, "c1").items == 2
        (letter,) = node.dead_letters()
        assert letter.target.startswith("ingress/orders:record ")
        assert "KeyError: 'item'" in letter.reason


def test_a_message_that_fails_becomes_a_dead_letter_after_its_retries() -> None:
    with LocalNode(build(), retries=2) as node:
        node.send(CART, "c1", Add("tea", -1))
        node.run()
        node.checkpoint()
        node.crash()
        (letter,) = node.dead_letters()
        assert (letter.target, letter.attempts, letter.payload) == ("shop/cart:c1", 3, {"item": "tea", "pieces": -1})
        assert "ValueError: -1 pieces" in letter.traceback


def test_the_end_runs_on_end_once_and_takes_no_more_input() -> None:
    with LocalNode(build()) as node:
        node.send(CART, "c1", Add("tea", 2))
        node.end()
        node.end()
        assert node.published("carts") == [{"cart": "c1", "items": 2, "reserved": 2}]
        with pytest.raises(ValueError, match="the input has ended"):
            node.send(CART, "c1", Add("tea"))


# ---- time ----------------------------------------------------------------------------------------------------------------
def test_delayed_messages_come_when_time_advances() -> None:
    with LocalNode(build(), start=START) as node:
        node.send(CART, "c1", Add("tea"))
        node.run()
        node.advance(dt.timedelta(hours=3))
        node.send(CART, "c2", Add("tea"))
        node.advance(dt.timedelta(hours=4))
        assert node.now == START + dt.timedelta(hours=7)
        assert node.emitted("idle") == [["c1", "2030-05-01T18:00:00+00:00"]]
        node.settle()
        assert node.emitted("idle") == [["c1", "2030-05-01T18:00:00+00:00"], ["c2", "2030-05-01T21:00:00+00:00"]]
        assert node.now == START + dt.timedelta(hours=9)


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_keeps_delayed_messages(seed: int) -> None:
    with LocalNode(build(), start=START, seed=seed) as node:
        for hour in range(6):
            node.send(CART, f"c{hour}", Add("tea"))
            node.advance(3600)
            node.crash(hour % 2)
        node.settle()
        assert sorted(node.emitted("idle")) == [[f"c{n}", f"2030-05-01T{18 + n}:00:00+00:00"] for n in range(6)]


def test_attempts_after_a_pause_happen_when_time_advances() -> None:
    app = build()
    with LocalNode(app, start=START) as node:
        node.send(FLAKY, "f", Pay(3))
        node.run()
        assert app.failures == ["2030-05-01T12:00:00+00:00"]  # type: ignore[attr-defined]
        node.advance(29)
        assert node.state(FLAKY, "f").cents == 0
        node.advance(1)
        assert node.state(FLAKY, "f").cents == 3
        assert app.failures[1:] == ["2030-05-01T12:00:10+00:00", "2030-05-01T12:00:30+00:00"]  # type: ignore[attr-defined]


def test_a_bounded_run_waits_for_attempts() -> None:
    with LocalNode(build()) as node:
        node.send(FLAKY, "f", Pay(3))
        node.end()
        assert node.state(FLAKY, "f").cents == 3


# ---- failures that ask for a restart, and nodes that do not come to rest -----------------------------------------------
def test_a_function_may_ask_for_a_restart() -> None:
    app = build()
    with LocalNode(app) as node:
        node.send(STUBBORN, "s", Pay(4))
        node.run()
        assert node.state(STUBBORN, "s").cents == 4
        assert app.failures == ["shop/stubborn:s"] * 4  # type: ignore[attr-defined]


def test_a_function_that_never_gets_through_is_said() -> None:
    with LocalNode(build(), checkpoint_interval=None) as node:
        node.send(STUBBORN, "s", Pay(10_000))
        with pytest.raises(FunctionRestartError, match="shop/stubborn:s has failed"):
            node.run()


def test_messages_that_go_round_for_ever_are_named() -> None:
    with LocalNode(build(), seed=9) as node:
        node.send(PING, "1", 1)
        with pytest.raises(NotQuietError) as caught:
            node.run(steps_max=500)
        text = str(caught.value)
        assert "not quiet after 500 steps: its functions may be sending messages to each other for ever" in text
        assert "seed 9" in text
        assert "of shop/ping" in text


def test_timers_that_go_on_for_ever_are_said() -> None:
    app = App("app")

    @app.function("a/tick")
    def tick(ctx: Context, message: int) -> None:
        ctx.send_after(60, *ctx.self, message + 1)
        ctx.emit("ticks", message)

    with LocalNode(app) as node:
        node.send("a/tick", "1", 0)
        node.advance(600)
        assert node.emitted("ticks") == list(range(11))
        with pytest.raises(NotQuietError, match="something is still due after 1:00:00"):
            node.settle(dt.timedelta(hours=1))


# ---- mistakes ------------------------------------------------------------------------------------------------------------
def test_mistakes_are_said_where_they_are_made() -> None:
    node = LocalNode(build())
    with pytest.raises(UnknownTargetError, match="did you mean 'shop/cart'"):
        node.send("shop/card", "c1", Add("tea"))
    with pytest.raises(PayloadTypeError, match="accepts kit_shop"):
        node.send(STOCK, "tea", Add("tea"))
    with pytest.raises(PayloadTypeError, match="pieces"):
        node.send(STOCK, "tea", Reserve("many"))  # type: ignore[arg-type]
    with pytest.raises(PayloadTypeError, match="id"):
        node.send(STOCK, "", Reserve(1))
    with pytest.raises(ValueError, match="routers exist for: orders"):
        node.ingest("order", {})
    with pytest.raises(ValueError, match="1 to 64"):
        LocalNode(build(), shards=0)
    node.close()
    node.close()
    with pytest.raises(ValueError, match="closed"):
        node.run()


def test_money_is_conserved_in_a_strict_bank_and_the_order_decides_who_is_refused() -> None:
    """So orders are searched for that differ in what they mean, not only in how they look."""
    refused = []
    for seed in range(4):
        with LocalNode(bank.strict, seed=seed, shards=3) as node:
            for transfer in TRANSFERS:
                node.ingest("transfers", transfer, key=transfer["source"])
            node.end()
            balances = published(node, "balances")
            assert sum(record["balance"] for record in balances) == len(balances) * OPENING_BALANCE
            refused.append(sorted(r["transfer"] for r in published(node, "outcomes") if r["outcome"] == "refused"))
    assert len({tuple(transfers) for transfers in refused}) > 1
