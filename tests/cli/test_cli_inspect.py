"""``inspect`` shows what a start of the node would go on from, and leaves every byte as it is."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cli_samples import DataDirectoryWriter, cart, letter, timer

from shardfun.cli.main import main
from shardfun.cli.stored import plain
from shardfun.core.cell_keys import BUFFER_KIND, MAP_KIND, REGISTERED_KIND, cells_prefix, number_suffix, stamped
from shardfun.core.function import state_key
from shardfun.model.address import Address
from shardfun.model.delta import checkpoint_name
from shardfun.model.keyspace import slot_of
from shardfun.model.ordered_keys import key_type

HOLD = """
import sys
from pathlib import Path
from shardfun.state.directory import DataDirectory, NodeRecord
directory = DataDirectory(Path(sys.argv[1]))
directory.acquire()
directory.write_node(NodeRecord(pid=4321, url="ipc:///nowhere", runtime_dir="/nowhere"))
print("held", flush=True)
sys.stdin.read()
"""
HOLD_LEVELDB = """
import sys
from pathlib import Path
from shardfun.state.leveldb import Database, StoreOptions
database = Database(Path(sys.argv[1]) / "shard-1" / "leveldb", StoreOptions())
database.open(paranoid=True)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two applied checkpoints, and a third, the newest, that is still a delta."""
    path = tmp_path / "data"
    writer = DataDirectoryWriter(path)
    writer.checkpoint({cart(f"c{i}"): {"items": i} for i in range(100)})
    first = writer.checkpoint({cart("c0"): {"items": 1000, "name": "ä"}, **letter(1, 1), **letter(2, 1, "ValueError: other")})
    writer.checkpoint(
        {cart("c0"): None, cart("c1"): {"items": 77}, cart("new"): {"big": 1 << 70}, **letter(3, first)}, applied=False
    )
    writer.close()
    return path


def _everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def _inspect(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main(["inspect", *map(str, arguments)]) == code
    return capsys.readouterr().out


def _held(script: str, data: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", script, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()


@pytest.fixture
def running(data: Path) -> Iterator[None]:
    yield from _held(HOLD, data)


@pytest.fixture
def left_over(data: Path) -> Iterator[None]:
    yield from _held(HOLD_LEVELDB, data)


# ---- what is seen --------------------------------------------------------------------------------------------------------
def test_overview(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _inspect(capsys, data)
    lines = [line.split() for line in text.splitlines()]
    assert ["shop/cart", "100"] in lines
    assert ["orders", "0", "10"] in lines
    assert ["orders", "1", "20"] in lines
    assert [line[0] for line in lines if line and line[0].startswith("1.")] == ["1.3", "1.2", "1.1"]
    assert "3 dead letters" in text
    assert "ValueError: no [such] item" in text
    assert "2 shards  incarnation 1" in text


def test_overview_as_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_inspect(capsys, data, "--json"))
    assert [checkpoint["name"] for checkpoint in found["checkpoints"]] == ["1.3", "1.2", "1.1"]
    assert [checkpoint["records"] for checkpoint in found["checkpoints"]] == [4, 3, 100]
    assert found["positions"] == {"orders": [10, 20]}
    assert found["contents"]["addresses"] == {"shop/cart": 100}
    assert found["contents"]["dead_letters"] == 3
    assert "traceback" not in found["contents"]["letters"][0]
    assert all(files["leveldb_bytes"] > 0 and files["deltas"] == 3 for files in found["files"])


@pytest.mark.parametrize(("id", "state"), [("c1", {"items": 77}), ("c2", {"items": 2}), ("new", {"big": 1 << 70})])
def test_state_is_that_of_the_newest_checkpoint_also_where_it_is_not_applied(
    id: str, state: object, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(_inspect(capsys, data, f"shop/cart:{id}", "--json"))
    assert (found["state"], found["checkpoint"]) == (state, "1.3")
    text = _inspect(capsys, data, f"shop/cart:{id}")
    assert json.loads(text.partition("\n")[2]) == state


def test_maps_buffers_and_registered_states_of_an_address(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slot, address = slot_of("c1").to_bytes(2, "big"), Address("shop/cart", "c1")
    keys = key_type(tuple[str, dt.date], "key")
    prices = cells_prefix(slot, MAP_KIND, address, "prices")
    expiring = cbor2.CBORTag(21318, [1_700_000_000_000, 2.5])
    records: dict[bytes, Any] = {
        state_key(*address): {"items": 5, "~v": 2, "~": {"b": {"recent": [1, 3]}, "x": {"items": 1_700_000_000_000}, "i": 1}},
        prices + keys.encode(("a", dt.date(2024, 2, 29))): 1.5,
        prices + keys.encode(("b", dt.date(2024, 2, 29))): expiring,
        cells_prefix(slot, MAP_KIND, address, "extra.m") + key_type(str, "key").encode("x"): b"\xff",
        cells_prefix(slot, BUFFER_KIND, address, "recent") + number_suffix(1): "first",
        cells_prefix(slot, BUFFER_KIND, address, "recent") + number_suffix(2): "second",
        cells_prefix(slot, REGISTERED_KIND, address, "extra") + b"m": {"kind": "map", "type": "str, bytes"},
        cells_prefix(slot, REGISTERED_KIND, address, "extra") + b"n": {"kind": "value", "type": "int", "value": 7},
        cells_prefix(slot_of("c10").to_bytes(2, "big"), MAP_KIND, Address("shop/cart", "c10"), "prices") + b"\x05": 1,
    }
    assert stamped(cbor2.dumps(2.5), 1_700_000_000_000) == cbor2.dumps(expiring)
    writer = DataDirectoryWriter(tmp_path / "cells")
    writer.checkpoint(records)
    writer.close()
    found = json.loads(_inspect(capsys, tmp_path / "cells", "shop/cart:c1", "--json"))
    assert found["state"] == {"items": 5}, "what the runtime keeps there itself is not shown"
    assert found["expires"] == {"items": 1_700_000_000.0, "": 0.001}
    shown = {each["name"]: each for each in found["collections"]}
    assert {name: (each["kind"], each["count"]) for name, each in shown.items()} == {
        "extra.m": ("map", 1), "prices": ("map", 2), "recent": ("buffer", 2), "extra": ("registry", 2),
    }  # fmt: skip
    assert shown["prices"]["items"] == [
        {"key": ["a", "2024-02-29"], "value": 1.5, "expires": None},
        {"key": ["b", "2024-02-29"], "value": 2.5, "expires": 1_700_000_000.0},
    ]
    assert [item["value"] for item in shown["recent"]["items"]] == ["first", "second"]
    assert shown["extra"]["items"][1] == {"key": "n", "value": {"kind": "value", "type": "int", "value": 7}, "expires": None}
    text = _inspect(capsys, tmp_path / "cells", "shop/cart:c1", "--limit", "1")
    assert "prices: map of 2 entries" in text
    assert '["a","2024-02-29"]: 1.5' in text
    assert "... and 1 more" in text
    overview = json.loads(_inspect(capsys, tmp_path / "cells", "--json"))
    assert overview["contents"]["addresses"] == {"shop/cart": 2}, "each address once, also one without a record"
    assert "prices: map of 1 entry" in _inspect(capsys, tmp_path / "cells", "shop/cart:c10"), "an address without a record"


def test_what_is_not_stored_is_exit_code_1(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing is stored, as of checkpoint 1.3" in _inspect(capsys, data, "shop/cart:c0", code=1)
    assert json.loads(_inspect(capsys, data, "shop/cart:nobody", "--json", code=1))["state"] is None


def test_dead_letters_newest_first(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_inspect(capsys, data, "--dead-letters", "--json"))
    assert [each["target"] for each in found["letters"]] == ["shop/cart:c3", "shop/cart:c2", "shop/cart:c1"]
    newest = found["letters"][0]
    assert newest["payload"] == {"item": "x", "raw": {"base64": "/wA="}}
    assert newest["traceback"].endswith("ValueError: no [such] item\n")
    assert (newest["attempts"], newest["sender"], newest["checkpoint"]) == (4, "shop/till:t1", "1.2")
    assert len(json.loads(_inspect(capsys, data, "--dead-letters", "--limit", "1", "--json"))["letters"]) == 1
    text = _inspect(capsys, data, "--dead-letters", "--limit", "2")
    assert text.count("Traceback") == 2
    assert text.startswith("3 dead letters as of checkpoint 1.3")


def test_timers_the_next_first(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data.parent / "waiting"
    writer = DataDirectoryWriter(path)
    first = timer(0, 1_700_000_100, "[x]")
    timers = [timer(number, 1_700_000_000 + 7 * number % 50) for number in range(1, 40)]
    writer.checkpoint({key: value for each in [first, *timers] for key, value in each.items()})
    writer.checkpoint(dict.fromkeys(timer(39, 1_700_000_000 + 7 * 39 % 50)), applied=False)
    writer.close()
    assert "39 timers pending" in _inspect(capsys, path)
    found = json.loads(_inspect(capsys, path, "--timers", "--json"))
    assert found["timers"] == len(found["pending"]) == 39
    assert [each["due"] for each in found["pending"]] == sorted(each["due"] for each in found["pending"])
    assert found["pending"][-1] == {
        "due": 1_700_000_100.0,
        "target": "shop/cart:to-c0",
        "sender": "shop/cart:c0",
        "token": "[x]",
        "payload_type": "shop.app.Idle",
        "payload": {"n": 0},
    }
    some = json.loads(_inspect(capsys, path, "--timers", "--limit", "5", "--json"))
    assert some == {"checkpoint": "1.2", "timers": 39, "pending": found["pending"][:5]}
    text = _inspect(capsys, path, "--timers")
    assert text.startswith("39 timers pending as of checkpoint 1.2, the next first")
    assert "[x]" in text
    assert "0 timers pending" in _inspect(capsys, data, "--timers")


def test_a_configuration_names_its_data_directory(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = data.parent / "shop.toml"
    config.write_text('app = "shop.app:app"\ndata_dir = "data"\n')
    assert "shop/cart" in _inspect(capsys, config)


def test_a_node_that_never_completed_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DataDirectoryWriter(tmp_path / "data").close()
    text = _inspect(capsys, tmp_path / "data")
    assert "no complete checkpoint yet" in text
    assert "no dead letters" in text
    assert "nothing is stored, as of checkpoint none" in _inspect(capsys, tmp_path / "data", "a/b:c", code=1)


# ---- nothing is changed --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [[], ["--dead-letters"], ["shop/cart:c1"]])
def test_no_file_is_changed(arguments: list[str], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _everything(data)
    _inspect(capsys, data, *arguments)
    assert _everything(data) == before


def test_an_orphaned_table_is_not_written_through_its_link(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table that LevelDB does not know has a number that it gives to the next table."""
    for shard in (0, 1):
        leveldb = data / f"shard-{shard}" / "leveldb"
        newest = max(int(path.stem) for path in leveldb.glob("*.log"))
        for number in range(newest + 1, newest + 4):
            (leveldb / f"{number:06d}.ldb").write_bytes(b"orphan")
    before = _everything(data)
    _inspect(capsys, data)
    assert _everything(data) == before


# ---- in use, damaged -----------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("running")
def test_while_a_node_runs_checkpoints_and_sizes_are_shown(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _inspect(capsys, data)
    assert "a node runs here (pid 4321): its LevelDB is locked" in text
    assert "1.3" in text
    assert "shop/cart" not in text
    assert json.loads(_inspect(capsys, data, "--json"))["contents"] is None


@pytest.mark.usefixtures("running")
def test_while_a_node_runs_state_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(data), "shop/cart:c1"]) == 5
    [line] = capsys.readouterr().err.splitlines()
    assert "a node runs here (pid 4321), so LevelDB is locked; stop it" in line


@pytest.mark.usefixtures("left_over")
def test_a_left_over_process_is_noticed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "an earlier run still has LevelDB of shard 1 locked" in _inspect(capsys, data)


def test_a_damaged_delta_is_named_by_its_real_name_and_the_rest_is_shown(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta = max((data / "shard-0" / "deltas").iterdir())
    content = bytearray(delta.read_bytes())
    content[len(content) // 2] ^= 1
    delta.write_bytes(content)
    assert main(["inspect", str(data)]) == 4
    output = capsys.readouterr()
    assert "1.3" in output.out
    [line] = output.err.splitlines()
    assert str(delta) in line


def test_a_damaged_manifest_is_shown_as_such(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = max((data / "manifests").iterdir())
    os.truncate(manifest, 20)
    assert main(["inspect", str(data)]) == 4
    output = capsys.readouterr()
    assert "damaged" in output.out
    assert "1.2" in output.out
    assert str(manifest) in output.err


# ---- values --------------------------------------------------------------------------------------------------------------
def test_values_that_json_does_not_have() -> None:
    assert plain({1: b"text", b"k": [b"\xff", (None, 1.5, True)]}) == {
        "1": "text",
        "k": [{"base64": "/w=="}, [None, 1.5, True]],
    }
    assert checkpoint_name(0) == "none"
