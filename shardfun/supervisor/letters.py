"""Answers questions about dead letters: asks the shards, and waits until what they changed is part of a complete checkpoint.

Looking is simple. A change is exactly once like everything else: a shard makes it in one step between two cuts, and the answer is
given when a checkpoint behind that step is complete. If the world goes back to an earlier one meanwhile, the letters are there
again, and it is done again. A letter that is not there any more was dealt with, if this question has done so before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from shardfun.core.coordinator import Coordinator, State
from shardfun.core.letters import MISSING
from shardfun.errors import CorruptionError, UnavailableError
from shardfun.model.control import Changed, Letters, LettersDone, ToShard
from shardfun.model.delta import CHECKPOINT_SEQUENCE_BITS, checkpoint_name
from shardfun.model.letters import DeadLetter, letter_of, name_of_key, parse_letter_name
from shardfun.model.questions import Action, Change, LettersAnswer, LettersQuestion

ANSWER_TIMEOUT_S = 60.0
WAITING_MAX = 4
"""Questions about dead letters at once."""
FOUND_BYTES_MAX = 2 << 20
"""Of letters in one answer, unless it is a single one: as JSON they may become six times as long, and the door has a limit."""
CHANGED_AT_ONCE = 100
"""Letters that a shard changes in one step between two pieces of its work."""


class Event(Protocol):
    """As ``trio.Event``."""

    def set(self) -> None:
        """Let all who wait go on."""

    async def wait(self) -> None:
        """Until it is set."""


class LetterDesk:
    """See the module.

    Args:
        send: a control message to a shard; lost if it has no process.
        perform: does what the coordinator wants.
        new_event: another one, where there is no Trio.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        shards: int,
        send: Callable[[int, ToShard], None],
        perform: Callable[[], None],
        new_event: Callable[[], Event] = trio.Event,
    ) -> None:
        self._coordinator = coordinator
        self._shards = shards
        self._send = send
        self._perform = perform
        self._request = 0
        self._waiting = 0
        self._answers: dict[tuple[int, int], LettersDone] = {}
        self._new_event = new_event
        self._news = new_event()
        self._closed = False

    # ---- what happens ---------------------------------------------------------------------------------------------------
    def wake(self) -> None:
        """Something may have changed: the coordinator's state, or a shard's answer has come."""
        if self._waiting:
            self._news.set()
            self._news = self._new_event()

    def close(self) -> None:
        """The node ends: nobody is kept waiting."""
        self._closed = True
        self.wake()

    def on_done(self, shard: int, message: LettersDone) -> None:
        """A shard has answered. Numbers of requests mean nothing beyond an incarnation."""
        if self._waiting and message.incarnation == self._coordinator.incarnation:
            self._answers[shard, message.request] = message
            self.wake()

    # ---- questions ------------------------------------------------------------------------------------------------------
    async def answer(self, question: LettersQuestion) -> LettersAnswer:
        """Answer one question.

        Raises:
            UnavailableError: the node cannot do it now, or not in time.
            ConfigurationError: a key is none.
            CorruptionError: a shard has found damage.
        """
        if self._waiting >= WAITING_MAX:
            raise UnavailableError(f"{self._waiting} questions about dead letters are waiting already; ask again later")
        with trio.move_on_after(ANSWER_TIMEOUT_S) as scope:
            return await self.work_on(question)
        assert scope.cancelled_caught
        raise UnavailableError(
            f"no complete checkpoint within {ANSWER_TIMEOUT_S:g} s (state: {self._coordinator.state.name.lower()}); "
            "what was asked may still be done. Asking again does no harm: a dead letter is sent again once only"
        )

    async def work_on(self, question: LettersQuestion) -> LettersAnswer:
        """``answer``, however long it takes."""
        self._waiting += 1
        try:
            return await self._answer(question)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._answers.clear()

    async def _answer(self, question: LettersQuestion) -> LettersAnswer:
        names = list(dict.fromkeys(parse_letter_name(key) for key in question.keys))
        look: Action = "show" if question.action == "show" else "list"
        found, total, checkpoint = await self._look(look, [name.encode() for name in names], question)
        letters = {key: letter_of(key, raw) for key, raw in found}
        there = {letter.key for letter in letters.values()}
        unknown = [str(name) for name in names if str(name) not in there]
        if question.action in {"list", "show"}:
            shown = list(letters.values())
            return LettersAnswer(checkpoint=checkpoint_name(checkpoint), total=total, letters=shown, unknown=unknown)
        if not letters:
            return LettersAnswer(checkpoint=checkpoint_name(checkpoint), total=total, unknown=unknown)
        outcomes, checkpoint = await self._change(question.action, list(letters))
        changes = [_change(letters[key], outcome) for key, outcome in outcomes.items() if outcome != MISSING]
        unknown += [letters[key].key for key, outcome in outcomes.items() if outcome == MISSING]
        return LettersAnswer(checkpoint=checkpoint_name(checkpoint), total=total, changes=changes, unknown=unknown)

    async def _look(
        self, action: Action, names: list[bytes], question: LettersQuestion
    ) -> tuple[list[tuple[bytes, bytes]], int, int]:
        """The newest letters of all shards, how many there are, and as of which checkpoint."""
        while True:
            incarnation = await self._running()
            asked = {
                shard: Letters(incarnation, 0, action, names, question.typename, question.limit)
                for shard in range(self._shards)
            }
            answers = await self._ask(asked)
            if answers is not None:
                break
        found = sorted((item for answer in answers.values() for item in answer.found), key=_newest_first)
        total = sum(answer.total for answer in answers.values())
        return _bounded(found[: question.limit]), total, max(answer.cut for answer in answers.values())

    async def _change(self, action: Action, keys: list[bytes]) -> tuple[dict[bytes, str], int]:
        """What has become of each letter, and the complete checkpoint that holds it."""
        outcomes: dict[bytes, str] = {}
        while True:
            incarnation = await self._running()
            cut: int | None = 0
            for start in range(0, len(keys), CHANGED_AT_ONCE):
                cut = await self._change_some(incarnation, action, keys[start : start + CHANGED_AT_ONCE], outcomes)
                if cut is None:
                    break
            if cut is None:
                continue
            complete = await self._complete_behind(incarnation, cut)
            if complete:
                return outcomes, complete

    async def _change_some(self, incarnation: int, action: Action, keys: list[bytes], outcomes: dict[bytes, str]) -> int | None:
        """Change some letters; the newest cut that does not hold it, ``None`` if the incarnation has ended before."""
        by_shard: dict[int, list[bytes]] = {}
        for key in keys:
            by_shard.setdefault(name_of_key(key).shard, []).append(key)
        asked = {shard: Letters(incarnation, 0, action, mine, None, len(mine)) for shard, mine in by_shard.items()}
        answers = await self._ask(asked)
        if answers is None:
            return None
        for shard, answer in answers.items():
            for key, outcome in zip(by_shard[shard], answer.outcomes, strict=True):
                if outcome != MISSING or key not in outcomes:
                    outcomes[key] = outcome
        return max(answer.cut for answer in answers.values())

    # ---- waiting --------------------------------------------------------------------------------------------------------
    async def _running(self) -> int:
        """The incarnation, once the world runs in it.

        Raises:
            UnavailableError: it will not run any more.
        """
        coordinator = self._coordinator
        while coordinator.state is State.RECOVERING and not self._closed:
            await self._news.wait()
        if self._closed or coordinator.stopping or coordinator.state is State.FINISHING:
            raise UnavailableError(
                "the node is stopping; look at its dead letters when it has, or start it again to change them"
            )
        return coordinator.incarnation

    async def _ask(self, asked: dict[int, Letters]) -> dict[int, LettersDone] | None:
        """The answers of the shards; ``None`` if the incarnation has ended before.

        Raises:
            CorruptionError: a shard cannot read its store.
        """
        self._request += 1
        request = self._request
        incarnation = next(iter(asked.values())).incarnation
        for shard, message in asked.items():
            self._send(shard, Letters(incarnation, request, message.action, message.keys, message.typename, message.limit))
        while not all((shard, request) in self._answers for shard in asked):
            if self._over(incarnation):
                return None
            await self._news.wait()
        answers = {shard: self._answers.pop((shard, request)) for shard in asked}
        for shard, answer in answers.items():
            if answer.error:
                raise CorruptionError(f"shard {shard}: {answer.error}")
        return answers

    async def _complete_behind(self, incarnation: int, cut: int) -> int:
        """The complete checkpoint that holds what was done after ``cut``; 0 if the incarnation has ended before there was one."""
        coordinator = self._coordinator
        coordinator.on_changed(Changed(incarnation, urgent=True))
        self._perform()
        while True:
            complete = coordinator.complete
            if complete > cut and complete >> CHECKPOINT_SEQUENCE_BITS == incarnation:
                return complete
            if self._over(incarnation):
                return 0
            await self._news.wait()

    def _over(self, incarnation: int) -> bool:
        """Whether the incarnation has ended, and no checkpoint of it can become complete any more.

        Raises:
            UnavailableError: the node is ending with it.
        """
        coordinator = self._coordinator
        if self._closed or coordinator.state is State.FINISHING:
            raise UnavailableError("the node has finished meanwhile; look at its dead letters when it has stopped")
        return coordinator.state is State.RECOVERING or coordinator.incarnation != incarnation


def _bounded(found: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The first ones, as many as fit an answer; at least one."""
    size = 0
    for position, (_, raw) in enumerate(found):
        size += len(raw)
        if position and size > FOUND_BYTES_MAX:
            return found[:position]
    return found


def _newest_first(item: tuple[bytes, bytes]) -> tuple[int, int, int]:
    cut, number, shard = name_of_key(item[0])
    return -cut, -number, shard


def _change(letter: DeadLetter, outcome: str) -> Change:
    return Change(key=letter.key, target=letter.target, refused=outcome)
