"""Between what produces records somewhere beside the loop and the loop that takes them: a bounded queue, and an end.

One producer, one consumer; the consumer is the loop. The producer may be a thread, or a task of the same loop: what differs is
how it waits for room, so that is left to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import cbor2
import msgspec

from shardfun.errors import IngressError
from shardfun.ports import IngressBatch

FEED_RECORDS: Final = 1000
"""Records that wait to be taken, at most: a source that is faster than the node waits."""

PLACE_CHARACTERS: Final = 200

RESTART_MIN_S: Final = 1.0
RESTART_MAX_S: Final = 60.0


_UNCHANGEABLE: Final = frozenset((int, float, bool, str, bytes, type(None)))
_NOT_STORABLE: Final = (cbor2.CBOREncodeError, ValueError, TypeError, RecursionError)


class Host(NamedTuple):
    """What a shard does for its sources.

    Args:
        wake: makes the loop look; from any thread.
        spawn: starts a task in the loop.
    """

    wake: Callable[[], None]
    spawn: Callable[..., None]


class Feed:
    """One run of a source, from where it is opened to where it ends or is closed.

    Args:
        label: of the ingress, for messages.
        position: where it begins.
        room: called whenever there is more room.
    """

    def __init__(self, label: str, position: Any | None, wake: Callable[[], None], room: Callable[[], None]) -> None:
        self.stopped = False
        self.ended = False
        self.trouble = ""
        """What it has failed with, until it gives the next record."""
        self._label = label
        self._wake = wake
        self._room = room
        self._position = position
        self._waiting: deque[tuple[Any, Any]] = deque()
        self._error: IngressError | None = None

    # ---- the producer's side --------------------------------------------------------------------------------------------
    @property
    def full(self) -> bool:
        """Whether the producer has to wait."""
        return len(self._waiting) >= FEED_RECORDS

    @property
    def position(self) -> Any | None:
        """Where to go on after an error: behind the last record that was put. As a checkpoint would give it back."""
        try:
            return cbor2.loads(cbor2.dumps(self._position))
        except _NOT_STORABLE:
            return self._position  # ``take`` stops the node for it

    def put(self, item: Any) -> None:
        """Add a record with its position.

        Raises:
            IngressError: it is no such pair.
        """
        if type(item) is not tuple or len(item) != 2:
            raise IngressError(f"{self._label}: expected pairs (position, record) from its source, got {item!r:.80}")
        self.trouble = ""
        position, record = item
        if type(position) not in _UNCHANGEABLE:  # the source may go on changing it: what waits here keeps what it was
            with suppress(*_NOT_STORABLE):  # ``take`` stops the node for it
                position = cbor2.loads(cbor2.dumps(position))
        self._waiting.append((position, record))
        self._position = position
        if len(self._waiting) == 1:
            self._wake()

    def end(self) -> None:
        """There will be no more records."""
        self.trouble = ""
        self.ended = True
        self._wake()

    def fail(self, error: IngressError) -> None:
        """There is an error that no repetition repairs. What was put before is taken first."""
        self._error = error
        self._wake()

    # ---- the loop's side ------------------------------------------------------------------------------------------------
    @property
    def finished(self) -> bool:
        """Whether all was taken that will ever be there."""
        return self.ended and not self._waiting

    def take(self, limit: int) -> IngressBatch | None:
        """Up to ``limit`` records; ``None`` if there are none now.

        Raises:
            IngressError: the source has failed for good, or its position cannot be stored.
        """
        waiting = self._waiting
        if not waiting:
            if self._error is not None:
                raise self._error
            return None
        items = [waiting.popleft() for _ in range(min(limit, len(waiting)))]
        self._room()
        position = items[-1][0]
        try:
            cbor2.dumps(msgspec.to_builtins(position, builtin_types=(bytes,)))  # as it goes to the supervisor
        except _NOT_STORABLE as error:
            msg = f"{self._label}: expected a position of numbers, texts, bytes, lists and dicts, got {position!r:.80}: {error}"
            raise IngressError(msg) from error
        place = f"before or at position {position!r:.{PLACE_CHARACTERS}}"
        return IngressBatch(position, [record for _, record in items], scanned=len(items), place=place)


def restart_pause(failures: int) -> float:
    """Seconds before a source that has failed so many times in a row is opened again."""
    return float(min(RESTART_MAX_S, RESTART_MIN_S * 2 ** min(failures - 1, 10)))
