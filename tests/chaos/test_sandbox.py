"""A private copy touches nothing of the user's, has an end, and says what it changed; what cannot be redirected is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardfun import App, Context, Message
from shardfun.chaos.inputs import Input, Records
from shardfun.chaos.sandbox import Sandbox, make_sandbox
from shardfun.chaos.subject import find_subject
from shardfun.config.loader import config_from_mapping
from shardfun.errors import ApplicationImportError, ConfigurationError, DefinitionError

app = App("orders")


@app.function("shop/order")
def order(ctx: Context, message: dict[str, Any]) -> None:
    """Does nothing."""


@app.router("orders")
def route(record: dict[str, Any]) -> list[Message]:
    return [Message("shop/order", record["id"], record)]


ORDERS = [{"id": f"o{number}", "n": number} for number in range(20)]


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in ORDERS))
    return path


def sandbox(folder: Path, settings: dict[str, Any], **options: Any) -> Sandbox:
    config = config_from_mapping({"app": "x.y:app", **settings}, name="n", directory=folder)
    return make_sandbox(config, app, folder / "inputs", **options)


def problems(folder: Path, settings: dict[str, Any], **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        sandbox(folder, settings, **options)
    return raised.value.problems


FILE = {"kind": "file", "path": "orders.jsonl"}


def test_everything_is_redirected_and_told(tmp_path: Path, orders: Path) -> None:
    settings = {
        "data_dir": "precious",
        "endless": True,
        "checkpoint": {"interval": "5 s"},
        "http": {"listen": "127.0.0.1:8484"},
        "log": {"file": "precious.log", "level": "error"},
        "ingress": {"orders": FILE},
        "egress": {
            "a": {"kind": "file", "path": "precious-{partition}.jsonl"},
            "b": {"kind": "stdout"},
            "c": {"kind": "stream"},
            "d": {"kind": "http"},
            "hook": {"kind": "webhook", "url": "http://127.0.0.1:1/"},
        },
    }
    made = sandbox(tmp_path, settings, shards=5, replace=["hook"])
    place = tmp_path / "place"
    config = made.at(place, reading_s=4.0)
    assert config.data_dir == place / "data"
    assert (config.http, config.endless, config.shards, config.log.file) == (None, False, 5, None)
    assert config.checkpoint.interval_s == 0.2
    assert config.ingress["orders"].options.path == orders
    assert config.ingress["orders"].options.rate == 5.0
    assert {entry.kind for entry in config.egress.values()} == {"file"}
    assert all(entry.options.path.is_relative_to(place) for entry in config.egress.values())
    assert "precious" not in str(msgspec.to_builtins(config, enc_hook=str))
    for word in ("data_dir", "endless", "[http]", "shards", "checkpoint.interval", "egress.a", "egress.b", "egress.hook"):
        assert any(note.startswith(word) for note in made.notes), word
    assert made.at(place).ingress["orders"].options.rate is None
    assert made.total == 20


def test_what_reaches_outside_or_has_no_end_is_refused_all_at_once(tmp_path: Path, orders: Path) -> None:
    assert orders.exists()
    settings = {
        "http": {"listen": "127.0.0.1:0"},
        "ingress": {
            "orders": {**FILE, "follow": True},
            "more": {"kind": "generator", "target": "shop/order"},
            "web": {"kind": "http"},
        },
        "egress": {"hook": {"kind": "webhook", "url": "http://127.0.0.1:1/"}},
    }
    found = problems(tmp_path, settings, replace=["hok"], order=["hoook"], inputs={"ordres": ORDERS})
    assert [text.partition(";")[0] for text in found] == [
        "input 'ordres': the application and its configuration have no such ingress",
        "ingress.orders: it follows a growing file",
        "ingress.more: an endless generator",
        "ingress.web: its records come over HTTP",
        "--replace hok: there is no such egress",
        "--order hoook: there is no such egress",
        "egress.hook: kind 'webhook' writes outside of the private copy, and every fault would be seen there",
    ]
    assert "did you mean 'orders'" in found[0]
    assert "--records" in found[1]
    assert "--input web=FILE" in found[3]
    assert "--replace hook" in found[6]


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, {}) == (
        "there is no ingress: nothing would happen; add one to the configuration, or give records as an input",
    )


def test_a_given_number_of_records(tmp_path: Path, orders: Path) -> None:
    (tmp_path / "quoted.csv").write_text('id,text\n1,"two\nlines"\n2,x\n3,y\n')
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(orders.read_bytes()))
    settings = {
        "ingress": {
            "orders": {**FILE, "follow": True, "rate": 3.0},
            "csv": {"kind": "file", "path": "quoted.csv", "target": "shop/order", "id": "id"},
            "packed": {"kind": "file", "path": "packed.jsonl.gz", "target": "shop/order", "id": "id"},
            "made": {"kind": "generator", "target": "shop/order"},
        }
    }
    made = sandbox(tmp_path, settings, records=2)
    assert made.records == {"orders": 2, "csv": 2, "packed": 2, "made": 2}
    records = Records(made.at(tmp_path).ingress)
    assert records["orders"] == records["packed"] == ORDERS[:2]
    assert records["csv"] == [{"id": "1", "text": "two\nlines"}, {"id": "2", "text": "x"}]
    assert len(records["made"]) == 2
    assert orders.read_bytes().count(b"\n") == 20


def test_a_packed_file_that_is_cut_off_or_damaged(tmp_path: Path, orders: Path) -> None:
    packed = gzip.compress(orders.read_bytes())
    for content in (packed[:-20], packed[:15] + b"\xff" * 9 + packed[24:]):
        (tmp_path / "packed.jsonl.gz").write_bytes(content)
        (found,) = problems(tmp_path, {"ingress": {"orders": {**FILE, "path": "packed.jsonl.gz"}}}, records=20)
        assert found.startswith(f"ingress.orders: {tmp_path / 'packed.jsonl.gz'} cannot be copied: ")


def test_only_what_is_cut_is_told_to_be(tmp_path: Path) -> None:
    settings = {"ingress": {"made": {"kind": "generator", "target": "shop/order", "count": 30}}}
    for records, told in ((None, []), (40, []), (20, ["ingress.made: the first 20 records"])):
        notes = sandbox(tmp_path, settings, records=records).notes
        assert [note for note in notes if note.startswith("ingress")] == told


def test_limits_for_deaths_in_a_row_are_higher_than_a_plan_brings(tmp_path: Path, orders: Path) -> None:
    assert orders.exists()
    low = sandbox(tmp_path, {"ingress": {"orders": FILE}}).config
    assert (low.supervision.restarts_without_checkpoint, low.failure.poison_deaths) == (100, 10)
    settings = {"supervision": {"restarts_without_checkpoint": 500}, "failure": {"poison_deaths": 60}}
    high = sandbox(tmp_path, {"ingress": {"orders": FILE}, **settings}).config
    assert (high.supervision.restarts_without_checkpoint, high.failure.poison_deaths) == (500, 60)


class Order(msgspec.Struct):
    id: str
    n: int = 1


@pytest.mark.parametrize(
    "given",
    [
        ORDERS[:3],
        (record for record in ORDERS[:3]),
        [Order("a"), Order("b"), Order("c")],
        Input(ORDERS[:3], partition_by="id"),
        "orders.jsonl",
    ],
)
def test_inputs_in_every_form(tmp_path: Path, orders: Path, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = sandbox(tmp_path, {}, inputs={"orders": given})
    assert made.total == (20 if given == "orders.jsonl" else 3)
    assert made.config.ingress["orders"].options.partition_by == getattr(given, "partition_by", None)
    assert orders.exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("nowhere.jsonl", "input 'orders': expected a file of records, but there is none at "),
        ([1], "input 'orders': expected records with fields (a dict or a struct), got 1"),
        ([{"x": object()}], "input 'orders': record 1 cannot be written as JSON: "),
    ],
)
def test_wrong_inputs(tmp_path: Path, given: Any, problem: str) -> None:
    (found, *_) = problems(tmp_path, {}, inputs={"orders": given})
    assert found.startswith(problem)


def test_an_input_keeps_what_the_configuration_says_of_the_ingress(tmp_path: Path) -> None:
    settings = {
        "ingress": {"x": {"kind": "file", "path": "gone.jsonl", "partition_by": "id", "target": "shop/order", "id": "id"}}
    }
    entry = sandbox(tmp_path, settings, inputs={"x": ORDERS}).config.ingress["x"]
    assert (entry.target, entry.id_field, entry.options.partition_by) == ("shop/order", "id", "id")


# ---- the application -----------------------------------------------------------------------------------------------------
def test_an_app_is_found_by_its_module() -> None:
    subject = find_subject(app, egresses=["a"], settings={"shards": 1})
    assert subject.config.app == f"{__name__}:app"
    assert subject.config.egress.keys() == {"a"}
    assert str(Path(__file__).parent) in subject.environ["PYTHONPATH"]


def test_what_is_no_application() -> None:
    with pytest.raises(DefinitionError, match="expected it as a global variable of a module"):
        find_subject(App("local"))
    with pytest.raises(ConfigurationError, match=r"expected an App, a reference 'package\.module:app' or the path"):
        find_subject(3)
    with pytest.raises(ConfigurationError, match="expected a TOML configuration file"):
        find_subject(Path("nowhere.toml"))
    with pytest.raises(ApplicationImportError, match=r"no\.such"):
        find_subject("no.such:app")
