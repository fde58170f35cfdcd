"""What could not be restored: counted by reason while a shard restores its queues, and told to the supervisor in a few lines.

A message whose function or type is gone, or whose value no longer fits its declaration, is parked as a dead letter like any other
that cannot be processed. But it is the change of the application that did this, so it is said at once, where it is seen.
"""

from __future__ import annotations

from collections import Counter

NOTES_MAX = 20


class Parked:
    """Messages of restored queues that were parked."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, typename: str, reason: str) -> None:
        """A message for ``typename`` was parked."""
        self._counts[typename, reason] += 1

    def notes(self) -> list[str]:
        """One line for each target and reason, up to ``NOTES_MAX``; the rest is summed up in one more."""
        lines = [_line(f"for {typename} ", count, reason) for (typename, reason), count in self._counts.items()]
        if len(lines) <= NOTES_MAX:
            return lines
        rest = sum(list(self._counts.values())[NOTES_MAX:])
        return [*lines[:NOTES_MAX], _line("", rest, "for other reasons; see the dead letters")]


def _line(target: str, count: int, reason: str) -> str:
    messages = "1 restored message" if count == 1 else f"{count} restored messages"
    return f"{messages} {target}{'is' if count == 1 else 'are'} parked: {reason}"
