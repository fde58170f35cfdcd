"""The bank: conserved money in any interleaving, exact results with overdraft, checks that find what is wrong."""

import json

import pytest
from interleaving import World

from shardfun.examples.bank import app, strict
from shardfun.examples.bank.__main__ import main
from shardfun.examples.bank.check import check_exact, check_strict, compute
from shardfun.examples.bank.functions import ACCOUNT, Account
from shardfun.examples.bank.transfers import OPENING_BALANCE, make_transfers, read_transfers, write_transfers

TRANSFERS = list(make_transfers(transfers=600, accounts=8, seed=3))


def run(bank, seed, transfers=TRANSFERS):
    world = World(bank, {ACCOUNT: Account}, seed)
    (route,) = bank.routers("transfers")
    world.run(message for record in transfers for message in route(record))
    return world.published


def write_published(folder, published):
    folder.mkdir(parents=True, exist_ok=True)
    for egress, records in published.items():
        (folder / f"{egress}-0.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("seed", range(5))
def test_with_overdraft_the_result_is_the_plain_one_in_any_interleaving(tmp_path, seed):
    """So that runs with and without failures compare."""
    write_published(tmp_path, run(app, seed))
    assert [difference for found in check_exact(tmp_path, TRANSFERS) for difference in found.differences] == []


@pytest.mark.parametrize("seed", range(5))
def test_a_strict_bank_conserves_money_and_refuses_some(tmp_path, seed):
    """Which ones are refused differs; what follows from that does not."""
    published = run(strict, seed)
    write_published(tmp_path, published)
    assert check_strict(tmp_path, TRANSFERS) == []
    assert {record["outcome"] for record in published["outcomes"]} == {"accepted", "refused"}
    assert sum(record["balance"] for record in published["balances"]) == 8 * OPENING_BALANCE


def test_plain_balances_by_hand():
    """Two transfers, three accounts."""
    transfers = [
        {"transfer": 1, "source": "a", "target": "b", "amount": 30},
        {"transfer": 2, "source": "b", "target": "c", "amount": 50},
    ]
    results = compute(transfers)
    balances = {record["address"][-1]: record["balance"] - OPENING_BALANCE for record in results["balances"]}
    assert balances == {"a": -30, "b": -20, "c": 50}
    assert [(record["number"], record["transfer"]) for record in results["outcomes"]] == [(1, 1), (1, 2)]


def lose_outcome(published):
    published["outcomes"].pop(10)


def repeat_outcome(published):
    published["outcomes"].append(published["outcomes"][0])


def swap_outcomes(published):
    outcomes = published["outcomes"]
    first = outcomes[0]
    later = next(n for n, record in enumerate(outcomes) if n and record["address"] == first["address"])
    outcomes[0], outcomes[later] = outcomes[later], first


def make_money(published):
    published["balances"][0]["balance"] += 1


def lose_receipt(published):
    published["balances"][0]["confirmed"] -= 1


def repeat_balance(published):
    published["balances"].append(published["balances"][0])


def lose_balance(published):
    published["balances"].pop()


def lose_field(published):
    del published["outcomes"][0]["target"]


@pytest.mark.parametrize(
    "damage",
    [lose_outcome, repeat_outcome, swap_outcomes, make_money, lose_receipt, repeat_balance, lose_balance, lose_field],
)
def test_both_checks_find_each_damage(tmp_path, damage):
    """One record lost, repeated, moved or changed is enough."""
    for bank, check in ((app, check_exact), (strict, check_strict)):
        published = run(bank, seed=1)
        damage(published)
        folder = tmp_path / check.__name__
        write_published(folder, published)
        found = check(folder, TRANSFERS)
        assert found if check is check_strict else not all(comparison.equal for comparison in found)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"transfer": 1, "source": "", "target": "b", "amount": 1},
        {"transfer": 1, "source": "a", "target": "b", "amount": 0},
        {"transfer": 1, "source": "a", "target": "b", "amount": "1"},
        {"transfer": 1, "source": "a", "target": None, "amount": 1},
    ],
)
def test_a_record_that_is_no_transfer_is_refused_by_the_router(record):
    """It becomes a dead letter instead of money."""
    (route,) = app.routers("transfers")
    with pytest.raises(ValueError, match=r"object|Object|Expected"):
        list(route(record))


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    """Gzipped or not, and what is read is what was made."""
    for name in ("one.jsonl.gz", "two.jsonl.gz", "plain.jsonl"):
        assert write_transfers(tmp_path / name, make_transfers(50, 4, 9)) == 50
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    assert list(read_transfers(tmp_path / "one.jsonl.gz")) == list(read_transfers(tmp_path / "plain.jsonl"))
    assert all(record["source"] != record["target"] for record in make_transfers(200, 2, 1))


def test_the_command_writes_and_checks(tmp_path, capsys):
    """Exit code 0, 1 or 2."""
    source = tmp_path / "transfers.jsonl"
    assert main(["--write", str(source), "--transfers", "40", "--accounts", "3", "--seed", "5"]) == 0
    published = run(app, 2, list(read_transfers(source)))
    write_published(tmp_path / "out", published)
    assert main(["--check", str(tmp_path / "out"), "--of", str(source)]) == 0
    published["balances"].pop()
    write_published(tmp_path / "out", published)
    assert main(["--check", str(tmp_path / "out"), "--of", str(source)]) == 1
    assert "missing" in capsys.readouterr().out
    assert main(["--check", str(tmp_path / "out"), "--of", str(tmp_path / "none.jsonl")]) == 2
    assert main(["--write", str(source), "--accounts", "1"]) == 2
