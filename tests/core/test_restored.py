"""What a changed application cannot restore is parked, message by message, and said in a few lines."""

from __future__ import annotations

from typing import Any

import cbor2
import msgspec
import pytest
from single_core import cells_of, core_of, letters_of, run_all, waiting_of

from shardfun import App, Context
from shardfun.core.parked import NOTES_MAX, Parked
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES, decode_queues, encode_queues
from shardfun.model.columns import Batch, encode_block
from shardfun.model.frames import encode_frame
from shardfun.model.payload import Payloads, payload_types


class Item(msgspec.Struct, frozen=True):
    number: int
    name: str = ""


class Basket(msgspec.Struct):
    items: list[Item]


def application(upgrade: Any = None) -> App:
    app = App("shop")

    @app.function("shop/cart")
    def cart(ctx: Context, message: Item | Basket | int) -> None: ...

    if upgrade is not None:
        app.upgrade(Item, version=2)(upgrade)
    return app


def start_with(**parts: Any) -> StartPoint:
    return StartPoint(2, 7, b"d", msgspec.structs.replace(EMPTY_QUEUES, **parts))


def restored(*blocks: list[Any], app: App | None = None) -> ShardCore:
    carried = [cbor2.loads(cbor2.dumps(block)) for block in blocks]
    return core_of(app or application(), start=start_with(mailbox=carried))


def block(ids: str, type_name: str, column: Any, typename: str = "shop/cart") -> list[Any]:
    return [typename, "\0".join(ids), None, None, [[type_name, column]], None]


ITEM = f"{__name__}.Item"


def test_nothing_is_said_when_everything_fits() -> None:
    payloads = Payloads(payload_types(Item | Basket | int, ""), "")
    values = [Item(1), 5, payloads.prepare(Basket([Item(2)])), Item(3, "x")]
    core = restored(encode_block("shop/cart", payloads, Batch(list("abcd"), None, None, values)))
    assert core.notes == []
    assert [value for _, _, _, value in waiting_of(core, 0)] == [Item(1), 5, Basket([Item(2)]), Item(3, "x")]


def test_messages_of_gone_functions_and_types_are_counted_by_target_and_reason() -> None:
    core = restored(
        block("abc", "shop.Add", {"n": [1, 2, 3]}),
        block("ab", "int", [1, 2], typename="shop/gone"),
        block("d", "shop.Add", {"n": [4]}),
        block("e", "shop.Other", [1]),
    )
    assert core.notes == [
        "4 restored messages for shop/cart are parked: the type shop.Add does not exist any more",
        "2 restored messages for shop/gone are parked: the function shop/gone does not exist any more",
        "1 restored message for shop/cart is parked: the type shop.Other does not exist any more",
    ]
    assert core.dispatcher.letters.count == 7
    assert core.dispatcher.waiting == 0


def test_a_flat_column_whose_declared_scalar_type_has_changed_is_found() -> None:
    core = restored(block("abc", ITEM, {"number": ["1", 2, 3], "name": ["x", "y", 3]}))
    assert [value for _, _, _, value in waiting_of(core, 0)] == [Item(2, "y")]
    assert [letter["target"][1] for letter in letters_of(cells_of(core))] == ["a", "c"]
    assert [letter["payload"] for letter in letters_of(cells_of(core))] == [
        {"number": "1", "name": "x"},
        {"number": 3, "name": 3},
    ]
    assert core.notes == [
        f"1 restored message for shop/cart is parked: stored or received value is not a {ITEM}: Expected `int`, got `str` - at `$.number`",
        f"1 restored message for shop/cart is parked: stored or received value is not a {ITEM}: Expected `str`, got `int` - at `$.name`",
    ]


@pytest.mark.parametrize(
    ("name", "column", "fits"),
    [
        ("int", ["x", 1], [1]),
        ("int", [True, 1], [1]),
        (f"{__name__}.Basket", [cbor2.dumps({"items": [{"number": "x"}]}), cbor2.dumps({"items": []})], [Basket([])]),
        (f"{__name__}.Basket", [{"items": 1}, {"items": []}], [Basket([])]),
        (ITEM, {"name": ["x", "y"]}, []),
        (ITEM, {"number": [1, 2]}, [Item(1), Item(2)]),
    ],
)
def test_every_value_is_checked_and_only_misfits_are_parked(name: str, column: Any, fits: list[Any]) -> None:
    core = restored(block("ab", name, column))
    assert [value for _, _, _, value in waiting_of(core, 0)] == fits
    assert core.dispatcher.letters.count == 2 - len(fits)
    run_all(core)


def test_frames_on_the_wire_keep_the_fast_path() -> None:
    core = core_of(application(), shards=2)
    core.receive(1, encode_frame(core.incarnation, 1, 0, [block("a", "int", ["not looked at"])]))
    core.fill_mailboxes()
    assert [value for _, _, _, value in waiting_of(core, 0)] == ["not looked at"]


def test_frames_of_the_inbox_and_of_the_logs_and_outboxes_are_checked_like_the_mailbox() -> None:
    raw = encode_frame(1, 1, 0, [block("a", "int", ["x"])])
    start = start_with(inbox=[raw], logs={1: [raw]}, outboxes={1: [block("a", "int", ["x"])]})
    core = core_of(application(), shards=2, start=start)
    assert core.dispatcher.letters.count == 3
    assert len(core.notes) == 1
    assert core.notes[0].startswith("3 restored messages for shop/cart are parked: ")


def test_an_upgrade_is_applied_to_what_waited_and_a_failing_one_is_said() -> None:
    def upgrade(version: int, fields: dict[str, Any]) -> dict[str, Any]:
        return {"number": int(fields["n"]), "name": f"from {version}"}

    core = restored(block("abc", ITEM, {"n": ["1", "two", "3"]}), app=application(upgrade))
    assert [value for _, _, _, value in waiting_of(core, 0)] == [Item(1, "from 1"), Item(3, "from 1")]
    (note,) = core.notes
    assert note.startswith(
        f"1 restored message for shop/cart is parked: the upgrade of {ITEM} from version 1 to 2 failed: ValueError"
    )
    *_, raw = encode_queues(core.take_cut(8))
    assert raw is not None
    again = core_of(application(upgrade), start=StartPoint(3, 8, b"d", decode_queues(raw)))
    assert waiting_of(again, 0) == waiting_of(core, 0), "stored as version 2 now: nothing is upgraded twice"
    assert again.notes == []


def test_going_back_to_an_earlier_version_is_said() -> None:
    core = restored(block("a", f"{ITEM}@2", {"number": [1]}))
    assert core.notes == [
        f"1 restored message for shop/cart is parked: version 2 of {ITEM} is newer than this application's, which is 1"
    ]


def test_notes_are_few() -> None:
    parked = Parked()
    for number in range(NOTES_MAX + 3):
        for _ in range(2):
            parked.add("a/b", f"reason {number}")
    notes = parked.notes()
    assert len(notes) == NOTES_MAX + 1
    assert notes[0] == "2 restored messages for a/b are parked: reason 0"
    assert notes[-1] == "6 restored messages are parked: for other reasons; see the dead letters"
