"""What the simulated operator is told: an answer is believed only if it is all of what is there."""

from __future__ import annotations

from typing import Any

import cbor2
import msgspec
import pytest

from shardfun import App, Context, Map, State, Value, mapping, value
from shardfun.core.cell_keys import MAP_KIND, cells_prefix
from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.model.address import Address
from shardfun.model.delta import checkpoint_id, checkpoint_name
from shardfun.model.keyspace import slot_of
from shardfun.model.letters import LetterName, letter_of
from shardfun.model.ordered_keys import key_type
from shardfun.model.page_tokens import ids_token, token_of
from shardfun.model.questions import (
    Change,
    Item,
    LettersAnswer,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    Part,
    StateAnswer,
    StateQuestion,
)
from shardfun.simulation.letters import LetterBook
from shardfun.simulation.queries import QueryTruth
from shardfun.simulation.violation import Violation

FIRST, SECOND, THIRD = (checkpoint_id(1, sequence) for sequence in (1, 2, 3))
CART = Address("shop/cart", "c1")
KEY = key_type(str, "a price")
app = App("shop")


class Cart(State):
    pieces: Value[int] = value(0)
    note: Value[str] = value("")
    prices: Map[str, int] = mapping()


@app.function("shop/cart")
def cart(ctx: Context[Cart], message: int) -> None:
    ctx.state.pieces += message


def price_key(name: str) -> bytes:
    slot = slot_of(CART.id).to_bytes(2, "big")
    return cells_prefix(slot, MAP_KIND, CART, "prices") + KEY.encode(name)


CELLS = {price_key(name): cbor2.dumps(number) for number, name in enumerate("abc", 1)}
SHOWN = StateAnswer(
    address=str(CART),
    exists=True,
    checkpoint=checkpoint_name(SECOND),
    fields={"pieces": 3, "note": ""},
    parts={
        "prices": Part(
            kind="map", items=[Item(key="a", value=1), Item(key="b", value=2)], next=token_of(MAP_KIND, KEY.encode("c"))
        )
    },
)
ASKED = StateQuestion(target=CART.typename, id=CART.id, at="checkpoint", limit=2)


@pytest.fixture
def truth() -> QueryTruth:
    """One shard, two complete checkpoints; both are remembered."""
    found = QueryTruth({function.spec.typename: function for function in app.compile()}, 1)
    found.completed(FIRST, {CART: {"pieces": 2}}, [{}])
    found.completed(SECOND, {CART: {"pieces": 3}, Address("shop/cart", "c2"): {"pieces": 1}}, [CELLS])
    return found


def with_prices(**changes: Any) -> StateAnswer:
    return msgspec.structs.replace(SHOWN, parts={"prices": msgspec.structs.replace(SHOWN.parts["prices"], **changes)})


# ---- states --------------------------------------------------------------------------------------------------------------
def test_a_state_that_is_shown_as_it_is_passes(truth: QueryTruth) -> None:
    """As of either checkpoint that a shard may have applied; a page of a part; and an address that is not there."""
    truth.answered(ASKED, SHOWN, FIRST)
    nothing = Part(kind="map", items=[])
    before = {"checkpoint": checkpoint_name(FIRST), "fields": {"pieces": 2, "note": ""}, "parts": {"prices": nothing}}
    truth.answered(ASKED, msgspec.structs.replace(SHOWN, **before), FIRST)
    next_page = msgspec.structs.replace(ASKED, part="prices", after=SHOWN.parts["prices"].next)
    truth.answered(next_page, with_prices(items=[Item(key="c", value=3)], next=None), FIRST)
    default = {"address": "shop/cart:c9", "exists": False, "fields": {"pieces": 0, "note": ""}, "parts": {"prices": nothing}}
    truth.answered(msgspec.structs.replace(ASKED, id="c9"), msgspec.structs.replace(SHOWN, **default), FIRST)


@pytest.mark.parametrize(
    "answer",
    [
        msgspec.structs.replace(SHOWN, exists=False),
        msgspec.structs.replace(SHOWN, address="shop/cart:c2"),
        msgspec.structs.replace(SHOWN, fields={"pieces": 3}),
        msgspec.structs.replace(SHOWN, fields=SHOWN.fields | {"more": 1}),
        msgspec.structs.replace(SHOWN, fields=SHOWN.fields | {"pieces": 2}),
        msgspec.structs.replace(SHOWN, expires={"pieces": 1.0}),
        msgspec.structs.replace(SHOWN, parts={}),
        with_prices(items=[Item(key="a", value=1)]),
        with_prices(items=[Item(key="a", value=1), Item(key="b", value=3)]),
        with_prices(items=[Item(key="a", value=1), Item(key="c", value=3)]),
        with_prices(next=None),
        msgspec.structs.replace(SHOWN, checkpoint=checkpoint_name(THIRD)),
        msgspec.structs.replace(SHOWN, checkpoint=checkpoint_name(FIRST)),
        msgspec.structs.replace(SHOWN, checkpoint=checkpoint_name(0)),
    ],
    ids=lambda answer: repr(answer)[:60],
)
def test_a_state_that_is_shown_otherwise_is_a_violation(truth: QueryTruth, answer: StateAnswer) -> None:
    """What is left out as well as what is made up, too old, or from an incomplete checkpoint."""
    with pytest.raises(Violation):
        truth.answered(ASKED, answer, FIRST)


# ---- ids -----------------------------------------------------------------------------------------------------------------
def test_ids_are_all_on_their_pages(truth: QueryTruth) -> None:
    """Each once, in order; what one page leaves for the next comes there."""
    question = ListQuestion(typename=CART.typename, limit=2)
    first, second = sorted(("c1", "c2"), key=slot_of)
    name = checkpoint_name(SECOND)
    token = ids_token(slot_of(first), first.encode())
    truth.listed(question, ListAnswer(ids=[first, second], next=None, checkpoint=name), FIRST)
    truth.listed(question, ListAnswer(ids=[first], next=token, checkpoint=name), FIRST)
    rest = msgspec.structs.replace(question, after=token)
    truth.listed(rest, ListAnswer(ids=[second], next=None, checkpoint=name), FIRST)
    for ids in ([first], [second], [second, first], [first, first], [first, second, "c3"]):
        with pytest.raises(Violation):
            truth.listed(question, ListAnswer(ids=ids, next=None, checkpoint=name), FIRST)
    with pytest.raises(Violation):
        truth.listed(rest, ListAnswer(ids=[], next=None, checkpoint=name), FIRST)


# ---- letters -------------------------------------------------------------------------------------------------------------
def letter(number: int, shard: int) -> tuple[bytes, bytes]:
    content = {
        "target": ["shop/cart", f"c{number}"],
        "sender": None,
        "reason": "x" * 400,
        "attempts": 1,
        "checkpoint": FIRST,
        "time": 5.0,
        "payload_type": "int",
        "payload": number,
        "traceback": "where",
    }
    return b"\0\1" + DEAD_LETTER_KIND + LetterName(FIRST, number, shard).encode(), cbor2.dumps(content)


LETTERS = [letter(2, 1), letter(1, 0)]
SOME = LettersQuestion(action="show", limit=20)
ALL_SHOWN = LettersAnswer(
    checkpoint=checkpoint_name(SECOND), total=2, letters=[letter_of(*each) for each in LETTERS], changes=[], unknown=[]
)


@pytest.fixture
def letters() -> tuple[LetterBook, QueryTruth]:
    """Two shards, with a letter each in the second checkpoint, and none in the first."""
    book, truth = LetterBook(lambda _letter: None), QueryTruth({}, 2)
    truth.completed(FIRST, {}, [{}, {}])
    truth.completed(SECOND, {}, [dict(LETTERS[1:]), dict(LETTERS[:1])])
    for key, raw in LETTERS:
        book.parked(key, raw, cbor2.loads(raw))
    return book, truth


def test_letters_that_are_shown_as_they_are_pass(letters: tuple[LetterBook, QueryTruth]) -> None:
    """Whole or in short, the newest ones, and also if one shard is a checkpoint behind."""
    book, truth = letters
    candidates = truth.candidates(FIRST, ALL_SHOWN.checkpoint)
    book.shown(SOME, ALL_SHOWN, candidates)
    short = [msgspec.structs.replace(each, payload=None, traceback="", reason="x" * 300) for each in ALL_SHOWN.letters]
    book.shown(msgspec.structs.replace(SOME, action="list"), msgspec.structs.replace(ALL_SHOWN, letters=short), candidates)
    newest = msgspec.structs.replace(ALL_SHOWN, letters=ALL_SHOWN.letters[:1])
    book.shown(msgspec.structs.replace(SOME, limit=1), newest, candidates)
    behind = msgspec.structs.replace(newest, total=1)
    book.shown(SOME, behind, candidates)
    book.shown(
        msgspec.structs.replace(SOME, typename="shop/other"), msgspec.structs.replace(behind, total=0, letters=[]), candidates
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"total": 3},
        {"total": 1},
        {"letters": ALL_SHOWN.letters[:1]},
        {"letters": ALL_SHOWN.letters[::-1]},
        {"letters": [ALL_SHOWN.letters[0], msgspec.structs.replace(ALL_SHOWN.letters[1], payload=5)]},
        {"letters": [ALL_SHOWN.letters[0], msgspec.structs.replace(ALL_SHOWN.letters[1], reason="y")]},
        {"letters": [*ALL_SHOWN.letters, letter_of(*letter(9, 1))]},
        {"unknown": ["1.1-1-0"]},
    ],
    ids=str,
)
def test_letters_that_are_shown_otherwise_are_a_violation(
    letters: tuple[LetterBook, QueryTruth], changes: dict[str, Any]
) -> None:
    """A letter that is left out, made up or changed, a wrong total; all shards are at the second checkpoint."""
    book, truth = letters
    answer = msgspec.structs.replace(ALL_SHOWN, **changes)
    with pytest.raises(Violation):
        book.shown(SOME, answer, truth.candidates(SECOND, answer.checkpoint))


def test_each_letter_that_was_to_change_is_accounted_for(letters: tuple[LetterBook, QueryTruth]) -> None:
    """Done, refused or unknown: none is passed over in silence, and what is said is so in the newest complete checkpoint."""
    book, _ = letters
    keys = [each.key for each in ALL_SHOWN.letters]
    question = LettersQuestion(action="drop", keys=keys)
    refused = [Change(key=key, target="shop/cart:c1", refused="no such function") for key in keys]
    told = LettersAnswer(checkpoint=checkpoint_name(SECOND), total=2)
    book.answered(question, msgspec.structs.replace(told, changes=refused))
    done = [msgspec.structs.replace(each, refused="") for each in refused]
    for wrong in ({"changes": refused[:1]}, {"changes": done}, {"unknown": keys}):
        with pytest.raises(Violation):
            book.answered(question, msgspec.structs.replace(told, **wrong))
    for key in keys:
        book.decide(key, "drop")
    for key, _ in LETTERS:
        book.gone(key)
    book.answered(question, msgspec.structs.replace(told, changes=done))
    with pytest.raises(Violation):
        book.answered(question, msgspec.structs.replace(told, changes=refused))
