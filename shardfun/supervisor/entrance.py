"""What comes into a node through its supervisor: messages and requests of the command line and of a program that embeds it.

They go into the intake log ``local`` and from there to the shards: the supervisor itself handles no messages.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import trio

from shardfun.errors import ConfigurationError, ReplyTimeoutError, RequestConflictError, UnavailableError
from shardfun.intake.desk import Intake
from shardfun.intake.entries import LOCAL, Entry, MessageEntry, Reply, RequestEntry, request_digest
from shardfun.intake.targets import Targets
from shardfun.model.questions import AskQuestion, ReplyAnswer, SendQuestion, SentAnswer

BACKLOG_BYTES: Final = 64 << 20
"""Of messages that no complete checkpoint has read; beyond it senders are told to come back later."""
ENTRY_BYTES_MAX: Final = 16 << 20
"""The longest message that a program may send."""
ANONYMOUS: Final = "~"
"""Keys that begin so are made here: nobody can ask again with one of them."""
ANONYMOUS_BYTES: Final = 12
ASKING_MAX: Final = 32
"""Questions from other processes that wait for a reply, at once: fewer than the door answers (``mesh.door``)."""
WAIT_MAX_S: Final = 86_400.0
"""The longest that a question from another process may wait for its reply."""


class Entrance:
    """See the module.

    Args:
        targets: the application's functions, if this process knows them; else messages have to come encoded.
    """

    def __init__(self, intake: Intake, targets: Targets | None) -> None:
        self._intake = intake
        self._targets = targets
        self._asking = 0

    async def send(self, entries: list[Entry]) -> None:
        """Take messages in; durable when it returns. Raises as ``Intake.append``."""
        await self._intake.append(entries)

    async def ask(self, entry: RequestEntry, timeout_s: float | None) -> Reply:
        """Take a request in and wait for its reply.

        Raises:
            RequestConflictError: the key belongs to another request.
            ReplyTimeoutError: there is no reply in time; the request goes on.
            ShardfunError: as ``Intake.append``.
        """
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            reply = await self._intake.ask(entry)
            assert reply is not None, "without a limit of its own it waits"
            if reply.status == "conflict":
                msg = f"key {entry.key!r} belongs to an earlier request with another address or message; use another key"
                raise RequestConflictError(msg)
            return reply
        hint = "a request with a key can be asked again" if entry.anonymous else "ask again with the same key for the reply"
        raise ReplyTimeoutError(f"{entry.target}:{entry.id}: no reply within {timeout_s:g} s; the request goes on; {hint}")

    async def answer(self, question: SendQuestion | AskQuestion) -> SentAnswer | ReplyAnswer:
        """Answer another process. Raises as ``send`` and ``ask``; also UnknownTargetError, PayloadTypeError."""
        type, payload = self._message(question)
        if isinstance(question, SendQuestion):
            await self.send([MessageEntry(question.target, question.id, type, payload)])
            return SentAnswer()
        entry = request_entry(question.target, question.id, type, payload, question.key)
        if self._asking >= ASKING_MAX:
            raise UnavailableError(f"{self._asking} questions wait for a reply already; ask again later")
        self._asking += 1
        try:
            reply = await self.ask(entry, min(question.timeout_s, WAIT_MAX_S))
        finally:
            self._asking -= 1
        body = None if self._targets is None else self._targets.to_json(reply.type, reply.payload)
        return ReplyAnswer(payload_type=reply.type, payload=reply.payload, body=body, has_body=self._targets is not None)

    def _message(self, question: SendQuestion | AskQuestion) -> tuple[str, bytes]:
        if question.payload is not None:
            return question.payload_type or "", question.payload
        if self._targets is None:
            msg = (
                "this node cannot read JSON, since its supervisor does not import the application; give its configuration file"
            )
            raise ConfigurationError(msg)
        return self._targets.from_json(question.target, question.id, question.body, question.payload_type)


def request_entry(target: str, id: str, type: str, payload: bytes, key: str | None) -> RequestEntry:
    """A request to a node of this process.

    Raises:
        ConfigurationError: the key is none.
    """
    if key is not None and (not key or key.startswith(ANONYMOUS) or not key.isprintable()):
        raise ConfigurationError(f"key: expected a printable text that does not begin with {ANONYMOUS!r}, got {key!r:.100}")
    anonymous = key is None
    name = f"{ANONYMOUS}{secrets.token_urlsafe(ANONYMOUS_BYTES)}" if key is None else key
    return RequestEntry(name, anonymous, request_digest(target, id, type, payload), target, id, type, payload, LOCAL)


def json_of(targets: Targets | None, answer: ReplyAnswer) -> Any:
    """A reply as JSON, by whoever of the two processes knows the application."""
    if answer.has_body or targets is None:
        return answer.body
    return targets.to_json(answer.payload_type, answer.payload)
