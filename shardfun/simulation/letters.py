"""What has become of dead letters: who asked for it, and whether a letter is gone for no reason, or still there against a promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.model.letters import DeadLetter, letter_of, name_of_key
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

    def shown(self, letter: DeadLetter) -> None:
        """The operator sees a letter: it was in a complete checkpoint, and is as it was parked."""
        if letter.key not in self._raw:
            wrong(f"dead letter {letter.key} is shown, and no complete checkpoint has it")
        expected = letter_of(*self._raw[letter.key])
        if (letter.target, letter.sender, letter.attempts) != (expected.target, expected.sender, expected.attempts):
            wrong(f"dead letter {letter.key} is shown as {letter}, and is {expected}")

    def changed(self, name: str, action: str) -> None:
        """The operator was told that it is done: a complete checkpoint has it."""
        if self._raw[name][0] in self.stored:
            wrong(f"dead letter {name}: {action} was answered, and the newest complete checkpoint still has it")

    def missing(self, name: str) -> None:
        """The operator was told that there is no such letter."""
        if self._raw[name][0] in self.stored:
            wrong(f"dead letter {name} is said to be unknown, and the newest complete checkpoint has it")
