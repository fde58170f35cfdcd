"""Targets: the node's socket (``shardfun.model.questions``), and lines that other processes write."""

from __future__ import annotations

import io
from typing import Any

import msgspec
from fuzz_registry import Target

from shardfun.errors import ProtocolError
from shardfun.model.letters import DeadLetter
from shardfun.model.questions import (
    AskQuestion,
    Change,
    CheckpointAnswer,
    CheckpointQuestion,
    Item,
    LettersAnswer,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    Part,
    Refusal,
    ReplyAnswer,
    SendQuestion,
    SentAnswer,
    StateAnswer,
    StateQuestion,
    decode_answer,
    decode_question,
)
from shardfun.telemetry.logs import configure_logging, forward_line

QUESTIONS = (
    LettersQuestion(action="list"),
    LettersQuestion(action="replay", keys=["1.17-3-0"], typename="a/b", limit=3),
    StateQuestion(target="a/b", id="1", at="checkpoint", part="prices", after="bUFB", limit=7),
    ListQuestion(typename="a/b", after="aAAB"),
    CheckpointQuestion(),
    SendQuestion(target="a/b", id="1", body={"n": [1, None, 2.5]}),
    SendQuestion(target="a/b", id="1", payload_type="int", payload=b"\x01"),
    AskQuestion(target="a/b", id="1", body="x", key="k", timeout_s=1.5),
)
LETTER = DeadLetter(
    target="a/b:1",
    sender=None,
    reason="no",
    attempts=1,
    checkpoint="1.1",
    time=1.5,
    payload_type="int",
    payload=[1, {"a": None}],
)
ANSWERS = (
    LettersAnswer(checkpoint="1.2", total=1, letters=[LETTER], unknown=["x"]),
    LettersAnswer(checkpoint="1.2", total=1, changes=[Change(key="1.17-3-0", target="a/b:1", refused="no")]),
    StateAnswer(
        address="a/b:1",
        exists=True,
        checkpoint="1.2",
        fields={"n": 1},
        parts={"m": Part(kind="map", items=[Item(key="k", value=[1], expires=5.0)], next="x")},
    ),
    ListAnswer(ids=["1"], next=None, checkpoint="1.2"),
    CheckpointAnswer(checkpoint="1.2", took_ms=1.5),
    SentAnswer(),
    ReplyAnswer(payload_type="int", payload=b"\x01", body=1, has_body=True),
    Refusal(code="protocol", message="no", exit_code=1),
)


def _json(values: tuple[Any, ...]) -> list[bytes]:
    return [msgspec.json.encode(value) for value in values]


def _log_line(data: bytes) -> str:
    """What a shard writes to its standard error, in both forms a node may log in."""
    shown = ""
    for json in (True, False):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        configure_logging(level="debug", json=json, stream=stream)
        forward_line(data, 3)
        stream.seek(0)
        shown = stream.read()
        assert "\x1b" not in shown
    return shown


_LOG_LINES = (
    b'{"timestamp":"2024-01-01T00:00:00Z","level":"info","event":"started","shard":1}\n',
    b'{"level":"error","event":"failed","exception":"Traceback\\n  line","n":[1,{"a":null}],"token":"x"}\n',
    b"Traceback (most recent call last):\n",
    b"print of a function: \x1b[31mrot\n",
)

TARGETS = (
    Target("question", decode_question, (ProtocolError,), lambda: _json(QUESTIONS), msgspec.json.encode),
    Target("answer", decode_answer, (ProtocolError,), lambda: _json(ANSWERS), msgspec.json.encode),
    Target("log-line", _log_line, (), lambda: _LOG_LINES),
)
