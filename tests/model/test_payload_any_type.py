"""Any supported type, composed at random, survives as a message, in a column, and as state; aliases of generic classes, too."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Generic, NamedTuple, NewType, Optional, TypedDict, TypeVar

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.core.function import FieldSpec
from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.conversion import convertible
from shardfun.model.immutability import is_immutable
from shardfun.model.payload import Encoded, Payloads, payload_type, payload_types

T = TypeVar("T")
U = TypeVar("U")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flags(enum.Flag):
    A = 1
    B = 2


class Point(msgspec.Struct, frozen=True):
    x: int
    y: float = 0.0


class Path(msgspec.Struct):
    points: list[Point]
    names: dict[str, Color] = {}


class Compact(msgspec.Struct, frozen=True, array_like=True):
    n: int
    when: dt.datetime | None = None


class Pair(NamedTuple):
    left: int
    right: str


@dataclasses.dataclass(frozen=True)
class Data(Generic[T]):
    inside: T
    more: tuple[T, ...] = ()


class Box(msgspec.Struct, Generic[T, U], frozen=True):
    first: T
    second: U | None = None


class IntBox(Box[int, U], Generic[U], frozen=True):
    third: tuple[U, ...] = ()


class Open(msgspec.Struct, Generic[T]):
    inside: T


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False)),
    (str, TEXTS),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=8)),
    (type(None), st.none()),
    (dt.datetime, st.datetimes(timezones=st.none() | st.just(dt.UTC))),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas(dt.timedelta(days=-10_000), dt.timedelta(days=10_000))),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Flags, st.sampled_from([Flags.A, Flags.B, Flags.A | Flags.B])),
    (Point, st.builds(Point, st.integers(), st.floats(allow_nan=False))),
    (Compact, st.builds(Compact, st.integers(), st.none() | st.datetimes())),
    (Pair, st.builds(Pair, st.integers(), TEXTS)),
    (
        Path,
        st.builds(Path, st.lists(st.builds(Point, st.integers()), max_size=2), st.dictionaries(TEXTS, st.sampled_from(Color))),
    ),
]
KEYS = [leaf for leaf in LEAVES if leaf[0] not in (Point, Compact, Pair, Path, float, type(None))]
SIMPLE = [leaf for leaf in LEAVES if leaf[0] in (int, str, dt.date, uuid.UUID, Color)]


def composed(draw: st.DrawFn, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
    kind = draw(
        st.sampled_from(
            ["leaf"] if depth == 0 else ["leaf", "list", "tuple", "pair", "dict", "set", "optional", "box", "open", "data"]
        )
    )
    if kind == "leaf":
        return draw(st.sampled_from(LEAVES))
    if kind == "dict":
        key, keys = draw(st.sampled_from(KEYS))
        inner, values = composed(draw, depth - 1)
        return dict[key, inner], st.dictionaries(keys, values, max_size=3)
    if kind == "set":
        inner, values = draw(st.sampled_from(SIMPLE))
        return draw(
            st.sampled_from([(set[inner], st.sets(values, max_size=3)), (frozenset[inner], st.frozensets(values, max_size=3))])
        )
    inner, values = composed(draw, depth - 1)
    if kind == "list":
        return list[inner], st.lists(values, max_size=3)
    if kind == "tuple":
        return tuple[inner, ...], st.lists(values, max_size=3).map(tuple)
    if kind == "optional":
        return Optional[inner], st.none() | values  # noqa: UP045 - made from a value
    if kind == "open":
        return Open[inner], st.builds(Open, values)
    if kind == "data":
        return Data[inner], st.builds(Data, values, st.lists(values, max_size=2).map(tuple))
    other, others = composed(draw, depth - 1)
    if kind == "pair":
        return tuple[inner, other], st.tuples(values, others)
    return Box[inner, other], st.builds(Box, values, st.none() | others)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    annotation, values = composed(draw, 3)
    return annotation, draw(values)


@given(typed_values())
def test_any_value_survives_as_message_and_as_state(case: tuple[Any, Any]) -> None:
    annotation, value = case
    payloads = Payloads(payload_types(annotation, "here"), "here")
    prepared = payloads.prepare(value)
    described = prepared.type if type(prepared) is Encoded else payloads.by_class[type(value)]
    assert described.immutable == (type(prepared) is not Encoded)
    described.validate(value)
    for decode in (described.decode_column, described.decode_stored):
        column = decode(cbor2.loads(cbor2.dumps(described.encode_column([prepared] * 2))))
        back = [item.type.decode(item.data) if type(item) is Encoded else item for item in column]
        assert back == [value, value]
        assert type(back[0]) is type(value)
    field = FieldSpec("f", convertible(annotation, "here"), payload_types(annotation, "here"), value)
    assert field.from_plain(cbor2.loads(field.encode(value))) == value


@pytest.mark.parametrize(
    "annotation", [Box[int, str], Box[Point, tuple[Color, ...]], Data[int], IntBox[str], Box[Box[int, str], None]]
)
def test_an_alias_of_a_frozen_class_is_immutable_if_its_arguments_are(annotation: Any) -> None:
    assert is_immutable(annotation)


@pytest.mark.parametrize(
    "annotation", [Box[int, list[int]], Data[Path], IntBox[list[int]], Box, Data, Open[int], Box[int, Any]]
)
def test_an_alias_that_may_hold_something_mutable_is_not(annotation: Any) -> None:
    assert not is_immutable(annotation)


def test_a_generic_class_is_sent_by_its_class_and_converted_by_its_alias() -> None:
    payloads = Payloads(payload_types(Box[Point, Color] | Data[int] | int, "shop/cart"), "shop/cart")
    value = Box(Point(1), Color.RED)
    assert payloads.prepare(value) is value
    described = payloads.by_class[Box]
    assert described.decode_item(cbor2.loads(described.encode(value))) == value
    with pytest.raises(PayloadTypeError, match=r"Box\[.*Point, .*Color\]: .*\$\.first"):
        described.from_plain({"first": 5})


def test_two_aliases_of_one_class_are_refused() -> None:
    with pytest.raises(
        DefinitionError, match=r"^here: .*Box\[int, str\] and .*Box\[str, int\] cannot be told apart .* class Box; declare"
    ):
        payload_types(Box[int, str] | Box[str, int], "here")


class Fields(TypedDict):
    n: int


class Empty(enum.Enum):
    pass


class Abstract(msgspec.Struct):
    pass


UserId = NewType("UserId", str)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Fields, "Fields is a TypedDict, whose values are plain dicts; use a struct"),
        (int | Fields, "is a TypedDict"),
        (Mapping[str, int], "abstract"),
        (int | Any, "in a union takes in all the others"),
        (int | object, "in a union takes in all the others"),
        (msgspec.Struct, "abstract"),
        (Empty, "has no members"),
        (enum.Enum, "abstract"),
        (dict[Point, int], "keys of a dict can be"),
        (dict[str, dict[tuple[Pair, Path], int]], "keys of a dict can be"),
        (int | type, "not a supported type"),
    ],
)
def test_what_can_never_be_sent_is_refused(annotation: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=f"^shop/cart: message: .*{reason}"):
        payload_types(annotation, "shop/cart: message")


def test_two_classes_of_one_name_are_refused() -> None:
    def make() -> type:
        class Twin(msgspec.Struct):
            n: int

        return Twin

    with pytest.raises(DefinitionError, match=r"two classes are called .*Twin"):
        payload_types(make() | make(), "here")  # type: ignore[operator]


@pytest.mark.parametrize(("annotation", "cls"), [(UserId, str), (Annotated[int, msgspec.Meta(ge=0)], int)])
def test_names_for_types_stand_for_them(annotation: Any, cls: type) -> None:
    (described,) = payload_types(annotation, "here")
    assert described.cls is cls
    assert described.immutable


class Bounded(msgspec.Struct, frozen=True):
    number: Annotated[int, msgspec.Meta(ge=0)]
    share: float = 0.5


@pytest.mark.parametrize(
    ("annotation", "column"),
    [
        (Bounded, {"number": [1, "x"], "share": [0.5, 0.5]}),
        (Bounded, {"number": [1, -1], "share": [0.5, 0.5]}),
        (Bounded, {"number": [1, True], "share": [0.5, 0.5]}),
        (int, [1, "x"]),
        (str, [1, "x"]),
        (bool, [1, True]),
        (list[int], [cbor2.dumps([1]), cbor2.dumps(["x"])]),
        (Path, [cbor2.dumps({"points": []}), cbor2.dumps({"points": 1})]),
    ],
)
def test_stored_columns_are_checked_value_by_value(annotation: Any, column: Any) -> None:
    described = payload_type(annotation, "here")
    described.decode_column(column)
    with pytest.raises(Exception, match=r"Expected|not a"):
        described.decode_stored(column)


def test_an_integer_in_a_stored_column_of_floats_is_no_misfit() -> None:
    described = payload_type(Bounded, "here")
    values = described.decode_stored(described.encode_column([Bounded(1, 2), Bounded(3, 4)]))
    assert [(value.number, value.share) for value in values] == [(1, 2.0), (3, 4.0)]
