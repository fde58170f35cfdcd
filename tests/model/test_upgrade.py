"""Upgrades of message types: earlier versions and names are read as of the present version, and what does not fit says why."""

from __future__ import annotations

import dataclasses
from typing import Any

import cbor2
import msgspec
import pytest
from pydantic import BaseModel

from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.columns import Batch, UndecodableMessage, decode_block, encode_block
from shardfun.model.payload import Encoded, Payloads, payload_type
from shardfun.model.upgrade import Upgrade, is_upgradable, split_version, versioned


class Flat(msgspec.Struct, frozen=True):
    count: int
    unit: str = "piece"


class Tagged(msgspec.Struct, frozen=True, tag="now", rename="camel"):
    item_count: int
    parts: tuple[int, ...] = ()


class Listed(msgspec.Struct):
    counts: list[int]


@dataclasses.dataclass
class Data:
    count: int


class Model(BaseModel):
    count: int


class Positional(msgspec.Struct, array_like=True):
    count: int


def count_from_n(version: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had ``n``, version 2 ``n`` and ``unit``, version 3 has ``count``."""
    assert version in (1, 2)
    return {"count": fields["n"], **({"unit": fields["unit"]} if version == 2 else {})}


def payloads_of(cls: Any, function: Any, version: int = 3, formerly: tuple[str, ...] = ()) -> Payloads:
    described = payload_type(cls, "here")
    return Payloads([described.upgraded_by(Upgrade(described.name, version, function, formerly))], "here")


def decoded(payloads: Payloads, name: str, column: Any, count: int = 1) -> tuple[list[Any], list[UndecodableMessage]]:
    block = cbor2.loads(cbor2.dumps(["t/t", "\0".join("abcdef"[:count]), None, None, [[name, column]], None]))
    batch, bad = decode_block(payloads, block, stored=True)
    return [value.type.decode(value.data) if type(value) is Encoded else value for value in batch.values], bad


BASE = f"{__name__}.Flat"


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        (BASE, {"n": [5, 6]}, [Flat(5), Flat(6)]),
        (f"{BASE}@2", {"n": [5, 6], "unit": ["a", "b"]}, [Flat(5, "a"), Flat(6, "b")]),
        (f"{BASE}@3", {"count": [5, 6], "unit": ["a", "b"]}, [Flat(5, "a"), Flat(6, "b")]),
        ("old.Flat", {"n": [5, 6]}, [Flat(5), Flat(6)]),
        ("old.Flat@3", {"count": [5, 6]}, [Flat(5), Flat(6)]),
        (BASE, [{"n": 5}, {"n": 6}], [Flat(5), Flat(6)]),
        (BASE, [cbor2.dumps({"n": 5}), cbor2.dumps({"n": 6})], [Flat(5), Flat(6)]),
    ],
)
def test_every_earlier_version_and_name_is_read(name: str, column: Any, expected: Any) -> None:
    """In whichever form it was stored: as flat columns, as maps, or (a class that was mutable then) as encoded values."""
    assert decoded(payloads_of(Flat, count_from_n, formerly=("old.Flat",)), name, column, 2) == (expected, [])


def test_what_is_sent_has_the_present_version() -> None:
    payloads = payloads_of(Flat, count_from_n)
    block = encode_block("t/t", payloads, Batch(["a"], None, None, [Flat(1)]))
    assert [name for name, _ in block[4]] == [f"{BASE}@3"]
    assert decode_block(payloads, cbor2.loads(cbor2.dumps(block)))[0].values == [Flat(1)]


@pytest.mark.parametrize(
    ("cls", "column", "expected"),
    [
        (Tagged, [{"type": "before", "itemCount": 3}], Tagged(3, (1,))),
        (Tagged, {"item_count": [3]}, Tagged(3, (1,))),
        (Listed, [cbor2.dumps({"n": 1})], Listed([1])),
        (Data, [cbor2.dumps({"n": 1})], Data(1)),
        (Model, [cbor2.dumps({"n": 1})], Model(count=1)),
    ],
)
def test_every_kind_of_record_can_be_upgraded(cls: Any, column: Any, expected: Any) -> None:
    def upgrade(_version: int, fields: dict[str, Any]) -> dict[str, Any]:
        if cls is Tagged:
            assert fields == {"item_count": 3}, "attribute names, and no tag"
            return {**fields, "parts": (1,)}
        return {"counts": [fields["n"]]} if cls is Listed else {"count": fields["n"]}

    assert decoded(payloads_of(cls, upgrade, 2), f"{__name__}.{cls.__name__}", column) == ([expected], [])


@pytest.mark.parametrize("cls", [Flat, Tagged, Listed, Data, Model])
def test_which_classes_can_be_upgraded(cls: Any) -> None:
    assert is_upgradable(cls)


@pytest.mark.parametrize("cls", [Positional, int, list[int], dict[str, int]])
def test_which_classes_cannot(cls: Any) -> None:
    assert not is_upgradable(cls)


def leave(_version: int, _fields: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("function", "column", "reason"),
    [
        (count_from_n, {"m": [1, 2]}, rf"the upgrade of {BASE} from version 1 to 3 failed: KeyError: 'n'"),
        (
            lambda _version, _fields: {"count": "x"},
            {"n": [1, 2]},
            r"not a .*Flat@3: Expected `int`, got `str` - at `\$\.count`",
        ),
        (lambda _version, _fields: {}, {"n": [1, 2]}, "Missing required argument 'count'"),
        (lambda _version, _fields: None, {"n": [1, 2]}, "expected it to return the fields as a dict, got NoneType"),
        (leave, {"n": [1, 2]}, "failed: SystemExit: 1"),
        (count_from_n, [1, 2], "expected the fields of version 1 by name, got 1"),
    ],
)
def test_an_upgrade_that_fails_parks_the_message_with_its_reason(function: Any, column: Any, reason: str) -> None:
    values, bad = decoded(payloads_of(Flat, function), BASE, column, 2)
    assert values == []
    assert len(bad) == 2
    with pytest.raises(PayloadTypeError, match=reason):
        raise PayloadTypeError(bad[0].reason)


def test_only_the_message_that_cannot_be_upgraded_is_parked() -> None:
    values, bad = decoded(payloads_of(Flat, count_from_n), BASE, [{"n": 1}, {"m": 2}, {"n": 3}], 3)
    assert values == [Flat(1), Flat(3)]
    assert [(message.id, message.plain) for message in bad] == [("b", {"m": 2})]


def test_a_version_of_the_future_is_named() -> None:
    _, bad = decoded(payloads_of(Flat, count_from_n), f"{BASE}@4", {"count": [1]})
    assert bad[0].reason == f"version 4 of {BASE} is newer than this application's, which is 3"
    _, bad = decoded(Payloads([payload_type(Flat, "here")], "here"), f"{BASE}@2", {"count": [1]})
    assert bad[0].reason == f"version 2 of {BASE} is newer than this application's, which is 1"


def test_an_earlier_name_that_is_still_a_type_is_refused() -> None:
    flat, listed = payload_type(Flat, "here"), payload_type(Listed, "here")
    with pytest.raises(DefinitionError, match=r"Listed is a payload type, so it cannot be an earlier name of .*Flat"):
        Payloads([flat.upgraded_by(Upgrade(flat.name, 1, count_from_n, (listed.name,))), listed], "here")


@pytest.mark.parametrize(("name", "version", "text"), [("a.B", 1, "a.B"), ("a.B", 12, "a.B@12")])
def test_versions_in_names(name: str, version: int, text: str) -> None:
    assert versioned(name, version) == text
    assert split_version(text) == (name, version)
