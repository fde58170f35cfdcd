"""Pydantic models as payloads: whole, nested, in unions; immutable only if frozen all the way down; pydantic never imported by us."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import pathlib
import subprocess
import sys
import uuid
from typing import Any, Generic, TypeVar

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PrivateAttr, RootModel, SecretStr

from shardfun.core.function import FieldSpec
from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.conversion import convertible
from shardfun.model.immutability import is_immutable
from shardfun.model.payload import Encoded, Payloads, payload_type, payload_types

T = TypeVar("T")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


class Size(enum.Enum):
    S = "s"
    L = "l"


class Pay(BaseModel, frozen=True):
    amount: decimal.Decimal
    at: dt.datetime
    note: str | None = None


class Order(BaseModel):
    id: uuid.UUID
    pays: list[Pay] = []
    sizes: dict[Size, int] = {}
    raw: bytes = b""
    took: dt.timedelta = dt.timedelta(0)
    tags: frozenset[str] = frozenset()


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    day: dt.date
    renamed: int = Field(alias="Renamed")


class Special(BaseModel):
    url: HttpUrl
    password: SecretStr
    path: pathlib.Path


class Numbers(RootModel[list[int]]):
    pass


class Box(BaseModel, Generic[T]):
    inside: T


class Holder(msgspec.Struct, frozen=True):
    pay: Pay
    more: tuple[Pay, ...] = ()
    maybe: Pay | None = None


class OpenHolder(msgspec.Struct):
    orders: dict[str, Order]


class WithList(BaseModel, frozen=True):
    items: list[int]


class WithExtra(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")
    n: int


class WithPrivate(BaseModel, frozen=True):
    n: int
    _cache: list[int] = PrivateAttr(default_factory=list)


class Opaque:
    pass


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    opaque: Opaque


class Excluding(BaseModel):
    kept: int
    lost: int = Field(exclude=True)


PAY = Pay(amount=decimal.Decimal("1.10"), at=dt.datetime(2024, 2, 29, tzinfo=dt.UTC))
ORDER = Order(
    id=uuid.UUID(int=7),
    pays=[PAY],
    sizes={Size.L: 2},
    raw=b"\0\xff",
    took=dt.timedelta(days=-1, seconds=3),
    tags=frozenset("ab"),
)
VALUES: list[tuple[Any, Any]] = [
    (Pay, PAY),
    (Order, ORDER),
    (Strict, Strict(day=dt.date(2024, 1, 2), Renamed=3)),
    (Numbers, Numbers([1, 2])),
    (Box[int], Box[int](inside=1)),
    (Box[Pay], Box[Pay](inside=PAY)),
    (Holder, Holder(PAY, (PAY, PAY), PAY)),
    (OpenHolder, OpenHolder({"a": ORDER})),
    (list[Order], [ORDER]),
    (list[Order | int | None], [ORDER, 1, None]),
    (dict[str, list[Pay | str]], {"a": [PAY, "x"]}),
    (Special, Special(url="https://example.org/a", password="p", path="/a/b")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=lambda item: str(item)[:40])
def test_a_value_survives_alone_in_a_column_and_as_state(annotation: Any, value: Any) -> None:
    described = payload_type(annotation, "here")
    described.validate(value)
    back = described.decode(described.encode(value))
    assert back == value
    assert type(back) is type(value)
    sent = [value] * 2 if described.immutable else [Encoded(described, described.encode(value))] * 2
    for decode in (described.decode_column, described.decode_stored):
        column = decode(cbor2.loads(cbor2.dumps(described.encode_column(sent))))
        assert [item.type.decode(item.data) if type(item) is Encoded else item for item in column] == [value, value]
    field = FieldSpec("f", convertible(annotation, "here"), payload_types(annotation, "here"), value)
    assert field.from_plain(cbor2.loads(field.encode(value))) == value


@pytest.mark.parametrize("annotation", [Pay | int | None, Pay | str | list[int]])
@pytest.mark.parametrize("value", [PAY, 1, None, "text", [1]], ids=str)
def test_a_union_as_state(annotation: Any, value: Any) -> None:
    field = FieldSpec("f", convertible(annotation, "here"), payload_types(annotation, "here"), None)
    if type(value) in field.classes:
        assert field.from_plain(cbor2.loads(field.encode(value))) == value
    else:
        with pytest.raises(PayloadTypeError):
            field.encode(value)


def test_a_union_as_message_is_told_apart_by_class() -> None:
    payloads = Payloads(payload_types(Pay | Order | Strict | int, "here"), "here")
    assert payloads.shared == {Pay, Strict, int}
    order = ORDER.model_copy(deep=True)
    prepared = payloads.prepare(order)
    order.pays.clear()
    assert prepared.type.decode(prepared.data) == ORDER, "a mutable model is encoded when it is sent"


@pytest.mark.parametrize("annotation", [Pay, Strict, Holder, tuple[Pay, ...]])
def test_frozen_models_of_immutable_fields_are_immutable(annotation: Any) -> None:
    assert is_immutable(annotation)


@pytest.mark.parametrize("annotation", [Order, WithList, WithExtra, WithPrivate, Numbers, Box[int], OpenHolder, Special])
def test_other_models_are_not(annotation: Any) -> None:
    assert not is_immutable(annotation)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Arbitrary, "Arbitrary: a pydantic model whose fields cannot all be encoded: .*Opaque"),
        (Excluding, "the field 'lost' is excluded from encoding"),
        (BaseModel, "BaseModel is not a supported type"),
        (list[Pay | Order], "Pay | Order: models cannot be told apart in a stored value"),
        (list[Pay | Holder], "both stored as maps"),
        (list[Numbers | int], "cannot be told apart"),
        (dict[Pay, int], "keys of a dict can be"),
    ],
)
def test_what_cannot_come_back_is_refused(annotation: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=f"^here: .*{reason}"):
        payload_type(annotation, "here")


def test_a_wrong_field_is_named_without_its_value() -> None:
    described = payload_type(Order, "here")
    with pytest.raises(PayloadTypeError, match=r"id: Field required; pays: Input should be a valid list"):
        described.from_plain({"pays": 5})
    broken = ORDER.model_copy()
    broken.tags = 5  # type: ignore[assignment]
    with pytest.raises(PayloadTypeError, match="cannot be encoded"):
        described.encode(broken)


@given(
    st.builds(
        Pay,
        amount=st.decimals(allow_nan=False, allow_infinity=False),
        at=st.datetimes(timezones=st.just(dt.UTC)),
        note=st.none() | TEXTS,
    )
)
@settings(max_examples=100)
def test_any_model_survives(pay: Pay) -> None:
    described = payload_type(Pay, "here")
    assert described.decode(described.encode(pay)) == pay


def test_pydantic_is_imported_only_by_the_application() -> None:
    code = (
        "import sys, shardfun, msgspec\n"
        "from shardfun.model.payload import payload_type\n"
        "class S(msgspec.Struct, frozen=True):\n    n: int\n"
        "described = payload_type(S, 'here')\n"
        "assert described.decode(described.encode(S(1))) == S(1)\n"
        "assert not [name for name in sys.modules if name.startswith('pydantic')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
