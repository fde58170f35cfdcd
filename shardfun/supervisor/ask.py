"""Asks a running node from another process, blocking: for the command line. The HTTP door has a link of its own (``door.node``)."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from shardfun.errors import ProtocolError, UnavailableError, error_of
from shardfun.mesh.door import ask
from shardfun.model.questions import (
    AskQuestion,
    CheckpointAnswer,
    CheckpointQuestion,
    LettersAnswer,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    Question,
    Refusal,
    ReplyAnswer,
    SendQuestion,
    SentAnswer,
    StateAnswer,
    StateQuestion,
    decode_answer,
)
from shardfun.state.directory import DataDirectory

STATE_WAIT_S = 15.0
CHECKPOINT_WAIT_S = 90.0
"""More than a node waits for a shard or a checkpoint, so that it is the node that says what is wrong."""

A = TypeVar("A")


def door_of(data_dir: Path) -> str:
    """Where the node that runs on a data directory answers.

    Raises:
        UnavailableError: none runs there.
    """
    record = DataDirectory(data_dir).read_node()
    if record is None:
        msg = f"no node runs on {data_dir}; start one with 'shardfun run CONFIG'"
        raise UnavailableError(msg)
    return record.url


def ask_for_letters(data_dir: Path, question: LettersQuestion, timeout_s: float) -> LettersAnswer:
    """Ask the node that runs on a data directory about dead letters, from another process.

    Raises:
        UnavailableError: no node runs there, or it does not answer in time.
        ShardfunError: it refuses, and says why.
    """
    return _ask(data_dir, question, LettersAnswer, timeout_s)


def ask_state(data_dir: Path, question: StateQuestion, timeout_s: float = STATE_WAIT_S) -> StateAnswer:
    """Ask for the state of an address. Raises as ``ask_for_letters``."""
    return _ask(data_dir, question, StateAnswer, timeout_s)


def ask_list(data_dir: Path, question: ListQuestion, timeout_s: float = STATE_WAIT_S) -> ListAnswer:
    """Ask for ids of a function type. Raises as ``ask_for_letters``."""
    return _ask(data_dir, question, ListAnswer, timeout_s)


def take_checkpoint(data_dir: Path, timeout_s: float = CHECKPOINT_WAIT_S) -> CheckpointAnswer:
    """Wait until a checkpoint is complete that was cut after this call. Raises as ``ask_for_letters``."""
    return _ask(data_dir, CheckpointQuestion(), CheckpointAnswer, timeout_s)


def send_message(data_dir: Path, question: SendQuestion, timeout_s: float = STATE_WAIT_S) -> SentAnswer:
    """Send a message; it is durable then. Raises as ``ask_for_letters``."""
    return _ask(data_dir, question, SentAnswer, timeout_s)


def ask_for_reply(data_dir: Path, question: AskQuestion) -> ReplyAnswer:
    """Send a request and wait for its reply, a little longer than the node does. Raises as ``ask_for_letters``."""
    return _ask(data_dir, question, ReplyAnswer, question.timeout_s + STATE_WAIT_S)


def _ask(data_dir: Path, question: Question, expected: type[A], timeout_s: float) -> A:
    return _expect(ask(door_of(data_dir), msgspec.json.encode(question), timeout_s), expected)


def _expect(raw: bytes, expected: type[A]) -> A:
    answer = decode_answer(raw)
    if isinstance(answer, Refusal):
        raise error_of(answer.code, answer.message, answer.exit_code)
    if not isinstance(answer, expected):
        raise ProtocolError(f"answer of the node: expected {expected.__name__}, got {type(answer).__name__}")
    return answer
