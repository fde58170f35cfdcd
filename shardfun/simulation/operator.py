"""The simulated operator: looks at dead letters, sends them again or deletes them, and asks for state, while everything fails.

The desks are the real ones; their questions go on whenever something has happened. The operator outlives supervisors, and asks again
what was not answered: that must do no harm.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from shardfun.core.coordinator import Coordinator
from shardfun.errors import CorruptionError, ShardfunError, StorageError, UnavailableError
from shardfun.model.address import Address
from shardfun.model.control import Found, LettersDone, ToShard
from shardfun.model.questions import (
    Action,
    LettersAnswer,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    StateAnswer,
    StateQuestion,
)
from shardfun.simulation.calls import Turn
from shardfun.simulation.checker import Checker
from shardfun.simulation.letters import LetterBook
from shardfun.simulation.violation import Violation, wrong
from shardfun.supervisor.letters import LetterDesk
from shardfun.supervisor.queries import QueryDesk

CHANGED_MAX = 6
TURNS_AT_END = 100
"""A question goes through a few awaits at most when nothing keeps it waiting any more."""
LETTER_LIMITS = (2, 20, 20, 20)
LIST_LIMITS = (1, 3, 100)
ITEM_LIMITS = (1, 2, 20)
GOES_ON = 0.7
"""Of the answers with another page behind them: whether it is asked for, too."""
Question = LettersQuestion | StateQuestion | ListQuestion


class _Event:
    """As ``trio.Event``, for code that the world lets go on."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """See ``trio.Event``."""
        self._is_set = True

    async def wait(self) -> None:
        """See ``trio.Event``."""
        while not self._is_set:
            await Turn()


class Desks:
    """The desks of one supervisor process, and the question that one of them works on."""

    def __init__(self, coordinator: Coordinator, shards: int, send: Callable[[int, ToShard], None]) -> None:
        self._letters = LetterDesk(coordinator, shards, send, lambda: None, _Event)
        self._queries = QueryDesk(coordinator, shards, send, lambda: None, _Event)
        self._work: Coroutine[Any, Any, Any] | None = None

    def hear(self, shard: int, message: LettersDone | Found) -> None:
        """A shard has answered."""
        if isinstance(message, LettersDone):
            self._letters.on_done(shard, message)
        else:
            self._queries.on_found(shard, message)

    def wake(self) -> None:
        """The coordinator may have changed."""
        self._letters.wake()
        self._queries.wake()

    @property
    def busy(self) -> bool:
        """Whether a question is being worked on."""
        return self._work is not None

    def begin(self, question: Question) -> None:
        """Ask. One question at a time."""
        assert self._work is None
        desk: Any = self._letters if isinstance(question, LettersQuestion) else self._queries
        self._work = desk.work_on(question)

    def go_on(self) -> Any:
        """The answer, or ``None`` as long as there is none.

        Raises:
            ShardfunError: why there will be none.
        """
        work = self._work
        assert work is not None
        try:
            work.send(None)
        except StopIteration as stop:
            self._work = None
            return stop.value
        except BaseException:
            self._work = None
            raise
        return None

    def close(self) -> None:
        """The process is gone."""
        if self._work is not None:
            self._work.close()


class Operator:
    """See the module.

    Args:
        chance: of the world.
        unreadable: whether reads may fail in this run, or bits of the disk flip.
    """

    def __init__(self, chance: random.Random, checker: Checker, typenames: list[str], *, unreadable: bool) -> None:
        self.active = True
        self.counts = {"letters_replayed": 0, "letters_dropped": 0, "questions": 0}
        self._chance = chance
        self._checker = checker
        self._book: LetterBook = checker.letters
        self._typenames = typenames
        self._unreadable = unreadable
        self._asked: Question | None = None
        self._since = 0
        """What every shard had applied when that was asked."""

    @property
    def waits_for(self) -> Question | None:
        """What is not answered yet. What was asked before the world healed is asked until it is."""
        return self._asked

    def hear_the_end(self, desks: Desks) -> None:
        """The node has ended: a question that it still works on is answered or refused now.

        Raises:
            Violation: it is not.
        """
        for _ in range(TURNS_AT_END):
            if not desks.busy:
                return
            self.work(desks)
        raise Violation("liveness", f"the node has ended, and {self._asked} is neither answered nor refused")

    def work(self, desks: Desks) -> bool:
        """Ask something, or go on with it; whether anything has come of it."""
        if not desks.busy:
            if self._asked is None:
                if not self.active:
                    return False
                self._asked = self._question()
            self._since = self._checker.queries.oldest_applied
            desks.begin(self._asked)
        try:
            answer = desks.go_on()
        except UnavailableError:
            self._asked = None
            return False
        except (CorruptionError, StorageError):
            if not self._unreadable:
                raise
            self._asked = None
            return True
        except ShardfunError as error:
            wrong(f"{self._asked} is answered with {type(error).__name__}: {error}")
        if answer is None:
            return False
        question, self._asked = self._asked, None
        self.counts["questions"] += 1
        match answer:
            case LettersAnswer():
                assert isinstance(question, LettersQuestion)
                self._letters(question, answer)
            case StateAnswer():
                assert isinstance(question, StateQuestion)
                self._checker.queries.answered(question, answer, self._since)
                self._asked = self._next_items(question, answer)
            case ListAnswer():
                assert isinstance(question, ListQuestion)
                self._checker.queries.listed(question, answer, self._since)
                if self.active and answer.next is not None and self._chance.random() < GOES_ON:
                    self._asked = msgspec.structs.replace(question, after=answer.next)
        return True

    def _next_items(self, question: StateQuestion, answer: StateAnswer) -> StateQuestion | None:
        """The next page of one of the parts that have one."""
        following = {name: part.next for name, part in answer.parts.items() if part.next is not None}
        if not self.active or not following or self._chance.random() >= GOES_ON:
            return None
        part = self._chance.choice(list(following))
        return msgspec.structs.replace(question, part=part, after=following[part])

    def _question(self) -> Question:
        chance = self._chance
        kind = chance.random()
        if kind < 0.5:
            typename = chance.choice(self._typenames) if chance.random() < 0.1 else None
            return LettersQuestion(
                action=chance.choice(("list", "show")), typename=typename, limit=chance.choice(LETTER_LIMITS)
            )
        if kind < 0.6:
            return ListQuestion(typename=chance.choice(self._typenames), limit=chance.choice(LIST_LIMITS))
        known = self._checker.queries.addresses
        typename = chance.choice([each for each in self._typenames if known(each)] or self._typenames)
        there = known(typename)
        address = chance.choice(there) if there and chance.random() < 0.9 else Address(typename, "nobody")
        at: Literal["live", "checkpoint"] = chance.choice(("live", "checkpoint"))
        parts = self._checker.queries.parts(typename)
        part = chance.choice(parts) if parts and chance.random() < 0.2 else None
        return StateQuestion(target=address.typename, id=address.id, at=at, part=part, limit=chance.choice(ITEM_LIMITS))

    def _letters(self, question: LettersQuestion, answer: LettersAnswer) -> None:
        candidates = self._checker.queries.candidates(self._since, answer.checkpoint)
        if question.action in {"list", "show"}:
            self._book.shown(question, answer, candidates)
            found = [letter.key for letter in answer.letters]
            if self.active and found and self._chance.random() < 0.8:
                self._asked = self._change(found)
            return
        self._book.answered(question, answer)
        done = sum(not change.refused for change in answer.changes)
        self.counts["letters_replayed" if question.action == "replay" else "letters_dropped"] += done

    def _change(self, found: list[str]) -> LettersQuestion:
        """Each letter has one fate, however often it is asked for: so it is known what has become of one that is gone."""
        chance = self._chance
        chosen = chance.sample(found, min(len(found), chance.randint(1, CHANGED_MAX)))
        action: Action = "replay" if chance.random() < 0.5 else "drop"
        keys = [key for key in chosen if self._book.decide(key, action) == action]
        if not keys:
            return LettersQuestion(action="list", limit=max(LETTER_LIMITS))
        return LettersQuestion(action=action, keys=keys)
