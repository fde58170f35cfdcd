"""Questions and answers between processes: whatever bytes come, it is a question, or a ProtocolError."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.errors import ConfigurationError, ProtocolError
from shardfun.model.keyspace import SLOTS
from shardfun.model.page_tokens import IDS, ids_place, ids_token, place_of, token_of
from shardfun.model.questions import (
    LETTERS_MAX,
    PAGE_MAX,
    CheckpointQuestion,
    Item,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    Part,
    Refusal,
    StateAnswer,
    StateQuestion,
    decode_answer,
    decode_question,
)

QUESTIONS = [
    LettersQuestion(action="drop", keys=["1.1-1-0"]),
    StateQuestion(target="a/b", id="\0é"),
    StateQuestion(target="a/b", id="1", at="checkpoint", part="m", after="x", limit=PAGE_MAX),
    ListQuestion(typename="a/b", after=ids_token(5, b"\xff"), limit=1),
    CheckpointQuestion(),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: type(each).__name__)
def test_questions_round_trip(question: Any) -> None:
    assert decode_question(msgspec.json.encode(question)) == question


def test_answers_round_trip() -> None:
    item = Item(key=["a", 1], value={"base64": ""}, expires=1.5)
    part = Part(kind="map", items=[item, Item(key=None, value=None)], next="t")
    answer = StateAnswer(address="a/b:1", exists=True, checkpoint="1.2", fields={"n": 2**70}, parts={"m": part}, next="t")
    assert decode_answer(msgspec.json.encode(answer)) == answer
    assert "expires" not in msgspec.json.decode(msgspec.json.encode(Item(key=1, value=2)))
    ids = ListAnswer(ids=["a", "\0"], next=None, checkpoint="none")
    assert decode_answer(msgspec.json.encode(ids)) == ids
    refusal = Refusal(code="unavailable", message="m", exit_code=8)
    assert decode_answer(msgspec.json.encode(refusal)) == refusal


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"null", b"[1]", b"\xff", b'"\\ud800"', b"[" * 60_000, b'{"type":"x"}', b'{"type":"state","target":"a/b"}',
        b'{"type":"state","target":1,"id":"1"}', b'{"type":"state","target":"a/b","id":"1","at":"never"}',
        b'{"type":"state","target":"a/b","id":"1","limit":0}', b'{"type":"list","typename":"a/b","limit":1001}',
        b'{"type":"list","typename":"a/b","limit":1.5}', b'{"type":"letters","action":"list","limit":-1}',
        b'{"type":"list","typename":"a/b","limit":1' + b"0" * 400 + b"}",
    ],
    ids=lambda raw: raw[:50],
)  # fmt: skip
def test_what_is_no_question(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_question(raw)


@given(st.binary() | st.text().map(str.encode) | st.from_type(dict).map(repr).map(str.encode))
def test_arbitrary_bytes(raw: bytes) -> None:
    for decode in (decode_question, decode_answer):
        with pytest.raises(ProtocolError):
            decode(raw)


@given(st.sampled_from(QUESTIONS).map(msgspec.json.encode), st.data())
def test_damaged_questions(raw: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(raw) - 1))
    damaged = raw[:position] + data.draw(st.binary(max_size=3)) + raw[position + 1 :]
    try:
        question = decode_question(damaged)
    except ProtocolError:
        return
    assert getattr(question, "limit", 1) <= max(PAGE_MAX, LETTERS_MAX)


# ---- continuation tokens -------------------------------------------------------------------------------------------------
@given(st.sampled_from([b"m", b"b", b"r"]), st.binary(max_size=300))
def test_a_token_gives_its_place_back(kind: bytes, place: bytes) -> None:
    token = token_of(kind, place)
    assert token.isascii()
    assert place_of(token, kind) == place
    with pytest.raises(ConfigurationError):
        place_of(token, IDS)


@given(st.integers(0, SLOTS - 1), st.binary(max_size=30))
def test_a_token_of_ids(slot: int, after: bytes) -> None:
    assert ids_place(ids_token(slot, after)) == (slot, after)


def test_no_token_is_the_beginning() -> None:
    assert (place_of(None, b"m"), ids_place(None)) == (b"", (0, b""))


@given(st.text(max_size=30))
def test_a_text_is_a_place_or_an_error(text: str) -> None:
    try:
        slot, _ = ids_place(text)
    except ConfigurationError:
        return
    assert 0 <= slot < SLOTS


@pytest.mark.parametrize(
    "token", ["", "a", "aQ", "aYA", ids_token(SLOTS, b""), token_of(b"m", b"x" * 20_000), "é", "a b", "aAAA\n"]
)
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(ConfigurationError):
        ids_place(token)
    with pytest.raises(ConfigurationError):
        place_of(token, b"b")
