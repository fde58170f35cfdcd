"""The node, seen from the door: what it says of itself, and answers to questions."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
import trio

from shardfun.errors import ProtocolError, UnavailableError, error_of
from shardfun.mesh.door import Asker
from shardfun.model.questions import (
    STATUS,
    CheckpointAnswer,
    CheckpointQuestion,
    LettersAnswer,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    Question,
    Refusal,
    StateAnswer,
    StateQuestion,
    decode_answer,
)
from shardfun.model.status import NodeStatus

STATUS_WAIT_S: Final = 2.0
STATE_WAIT_S: Final = 15.0
CHECKPOINT_WAIT_S: Final = 90.0
"""More than a node waits for a shard or a checkpoint, so that it is the node that says what is wrong."""
QUESTIONS_AT_ONCE: Final = 40
"""Less than a node takes, so that the command line still gets through; others wait for their turn."""

A = TypeVar("A")


class NodeLink:
    """Asks the supervisor; each call raises ``UnavailableError`` if it does not answer, and whatever error it answers with."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._places = trio.CapacityLimiter(QUESTIONS_AT_ONCE)

    async def status(self) -> NodeStatus:
        """The node's figures now."""
        raw = await self._asker.ask(STATUS, STATUS_WAIT_S)
        try:
            return msgspec.json.decode(raw, type=NodeStatus)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"the node answers something else than a status: {error}") from error

    async def state(self, question: StateQuestion) -> StateAnswer:
        """The state of an address."""
        return await self._ask(question, StateAnswer, STATE_WAIT_S)

    async def ids(self, question: ListQuestion) -> ListAnswer:
        """Ids of a function type."""
        return await self._ask(question, ListAnswer, STATE_WAIT_S)

    async def checkpoint(self) -> CheckpointAnswer:
        """A complete checkpoint that was cut after this call."""
        return await self._ask(CheckpointQuestion(), CheckpointAnswer, CHECKPOINT_WAIT_S)

    async def letters(self, question: LettersQuestion) -> LettersAnswer:
        """Look at dead letters, or change some."""
        return await self._ask(question, LettersAnswer, CHECKPOINT_WAIT_S)

    async def _ask(self, question: Question, expected: type[A], timeout_s: float) -> A:
        async with self._places:
            answer = decode_answer(await self._asker.ask(msgspec.json.encode(question), timeout_s))
        if isinstance(answer, Refusal):
            raise error_of(answer.code, answer.message, answer.exit_code)
        if not isinstance(answer, expected):
            raise ProtocolError(f"answer of the node: expected {expected.__name__}, got {type(answer).__name__}")
        return answer
