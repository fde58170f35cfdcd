"""What has become of dead letters: who asked for it, and whether a letter is gone for no reason, or still there against a promise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cbor2
import msgspec

from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.model.letters import DeadLetter, LetterName, letter_of, name_of_key, parse_letter_name
from shardfun.model.questions import LettersAnswer, LettersQuestion
from shardfun.shard.letters import LISTED_CHARACTERS
from shardfun.simulation.queries import Kept
from shardfun.simulation.violation import wrong


class LetterBook:
    """See the module. Letters are known by their keys as stored, and by their names.

    Args:
        replayed: told of the content of each letter that may be sent again from now on.
    """

    def __init__(self, replayed: Callable[[dict[str, Any]], None]) -> None:
        self.stored: dict[bytes, dict[str, Any]] = {}
        """In the newest complete checkpoint."""
        self.dropped: dict[bytes, dict[str, Any]] = {}
        """Those that were, until somebody had them deleted."""
        self._replayed = replayed
        self._raw: dict[str, tuple[bytes, bytes]] = {}
        self._fates: dict[str, str] = {}

    # ---- the checkpoints ------------------------------------------------------------------------------------------------
    def parked(self, key: bytes, raw: bytes, letter: dict[str, Any]) -> None:
        """A complete checkpoint has this letter."""
        name = str(name_of_key(key))
        if key in self.dropped or (name in self._raw and key not in self.stored):
            wrong(f"dead letter {name} is back, and it was gone in a complete checkpoint")
        self.stored[key] = letter
        self._raw[name] = key, raw

    def gone(self, key: bytes) -> None:
        """A complete checkpoint has it no more."""
        if key[2:3] != DEAD_LETTER_KIND or key not in self.stored:
            return
        letter, name = self.stored.pop(key), str(name_of_key(key))
        match self._fates.get(name):
            case "drop":
                self.dropped[key] = letter
            case "replay":
                pass
            case _:
                wrong(f"dead letter {name} is gone, and nobody has asked for that")

    @property
    def accounted(self) -> list[dict[str, Any]]:
        """All that stand for something that did not happen: those that are there, and those that were deleted."""
        return [*self.stored.values(), *self.dropped.values()]

    # ---- the operator ---------------------------------------------------------------------------------------------------
    def decide(self, name: str, action: str) -> str:
        """What is to become of a letter: what was decided first."""
        if name not in self._fates:
            self._fates[name] = action
            if action == "replay":
                self._replayed(self.stored.get(self._raw[name][0], {}))
        return self._fates[name]

    def shown(self, question: LettersQuestion, answer: LettersAnswer, candidates: Sequence[Kept]) -> None:
        """The operator sees letters: the newest ones, as they were parked, and how many there are.

        The shards are asked one after the other, so each may show a checkpoint of its own.

        Args:
            candidates: these checkpoints; empty if nobody knows any more.
        """
        if answer.changes or answer.unknown:
            wrong(f"{question} is answered with {answer}")
        for letter in answer.letters:
            self._is_as_parked(question, letter)
        names = [parse_letter_name(letter.key) for letter in answer.letters]
        if names != sorted(set(names), key=_newest_first) or len(names) > question.limit:
            wrong(f"dead letters are twice, too many or out of order: {answer.letters}")
        totals = {0}
        for shard in range(len(candidates[0].cells) if candidates else 0):
            mine = [name for name in names if name.shard == shard]
            there = [list(_names(kept.cells[shard], question.typename)) for kept in candidates]
            if len(names) == question.limit:  # older ones are not listed
                fitting = [some for some in there if [n for n in some if _newest_first(n) <= _newest_first(names[-1])] == mine]
            else:
                fitting = [some for some in there if some == mine]
            if not fitting:
                wrong(
                    f"dead letters of shard {shard} as of {answer.checkpoint}: shown {_text(mine)}, there are {_text(there[-1])}"
                )
            totals = {before + len(some) for before in totals for some in fitting}
        if candidates and answer.total not in totals:
            wrong(f"dead letters as of {answer.checkpoint}: {answer.total} in all, expected one of {sorted(totals)}")

    def _is_as_parked(self, question: LettersQuestion, letter: DeadLetter) -> None:
        if letter.key not in self._raw:
            wrong(f"dead letter {letter.key} is shown, and no complete checkpoint has it")
        expected = letter_of(*self._raw[letter.key])
        if question.action == "list":
            reason = expected.reason[:LISTED_CHARACTERS]
            expected = msgspec.structs.replace(expected, payload=None, traceback="", reason=reason)
        if letter != expected:
            wrong(f"dead letter {letter.key} is shown as {letter}, and is {expected}")

    def answered(self, question: LettersQuestion, answer: LettersAnswer) -> None:
        """The operator is told what has become of letters: of each one that was asked for."""
        told = [change.key for change in answer.changes] + answer.unknown
        if sorted(told) != sorted(question.keys):
            wrong(f"{question} is answered for {told} only, or for others")
        for change in answer.changes:
            if change.refused and self._raw[change.key][0] not in self.stored:
                wrong(
                    f"dead letter {change.key}: {question.action} was refused, and the newest complete checkpoint does not have it"
                )
            if not change.refused:
                self.changed(change.key, question.action)
        for key in answer.unknown:
            self.missing(key)

    def changed(self, name: str, action: str) -> None:
        """The operator was told that it is done: a complete checkpoint has it."""
        if self._raw[name][0] in self.stored:
            wrong(f"dead letter {name}: {action} was answered, and the newest complete checkpoint still has it")

    def missing(self, name: str) -> None:
        """The operator was told that there is no such letter."""
        if self._raw[name][0] in self.stored:
            wrong(f"dead letter {name} is said to be unknown, and the newest complete checkpoint has it")


def _names(cells: Mapping[bytes, bytes], typename: str | None) -> Iterator[LetterName]:
    """Of the letters among the cells of a shard: those for functions of a type, or all; the newest first."""
    letters = ((name_of_key(key), raw) for key, raw in cells.items() if key[2:3] == DEAD_LETTER_KIND)
    found = [name for name, raw in letters if typename is None or cbor2.loads(raw)["target"][0] == typename]
    return iter(sorted(found, key=_newest_first))


def _newest_first(name: LetterName) -> tuple[int, int, int]:
    return -name.cut, -name.number, name.shard


def _text(names: Iterable[LetterName]) -> str:
    return ", ".join(map(str, names)) or "none"
