"""The answers of a simulated shard to questions about letters and state: by the real code, over the simulated store."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

from shardfun.core.shard import ShardCore
from shardfun.errors import ShardfunError
from shardfun.model.control import Found, Letters, LettersDone, ListIds, LookAt
from shardfun.model.keyspace import slot_range
from shardfun.shard.letters import find_letters
from shardfun.shard.queries import Queries
from shardfun.shard.worker import Failed
from shardfun.simulation.file_store import AnyStore
from shardfun.simulation.queries import QueryTruth

Submit = Callable[[Callable[[], Any], Callable[[Any], None]], None]


class _Readable:
    """A store as questions see it."""

    def __init__(self, store: AnyStore) -> None:
        self._store = store
        self.applied = store.applied
        self.get = store.get
        self.scan = store.scan

    def scan_kind(self, kind: bytes, slots: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
        """See ``KindStore``."""
        low, high = slots
        return (
            item for item in self._store.scan() if item[0][2:3] == kind and low <= int.from_bytes(item[0][:2], "big") < high
        )

    def seeker(self, end_slot: int) -> Callable[[bytes], bytes | None]:
        """See ``LevelDBStore``."""
        keys = [key for key, _ in self._store.scan() if int.from_bytes(key[:2], "big") < end_slot]

        def seek(key: bytes) -> bytes | None:
            at = bisect_left(keys, key)
            return keys[at] if at < len(keys) else None

        return seek


class Looks:
    """See the module. Of one incarnation or of many: a question is of one.

    Args:
        submit: a job for the storage thread, and who gets its result.
        now: unix seconds.
        truth: what has to be found.
    """

    def __init__(
        self,
        store: AnyStore,
        submit: Submit,
        send: Callable[[LettersDone | Found], None],
        now: Callable[[], float],
        truth: QueryTruth,
    ) -> None:
        self._store = store
        self._submit = submit
        self._send = send
        self._truth = truth
        self._shard = 0
        storage: Any = self
        self._queries = Queries(storage, self._found, now)

    def letters(self, core: ShardCore, message: Letters) -> None:
        """As the real process does."""
        if message.action in {"replay", "drop"}:
            outcomes = core.change_letters(message.action, message.keys)
            self._send(LettersDone(core.incarnation, message.request, [], 0, outcomes, core.participant.cut, ""))
            return
        slots = slot_range(core.identity.shard, core.identity.shards)

        def job() -> tuple[list[tuple[bytes, bytes]], int, int]:
            store = _Readable(self._store)
            return (*find_letters(store, slots, message), store.applied)

        def done(result: Any) -> None:
            if isinstance(result, Failed):
                answer = LettersDone(core.incarnation, message.request, [], 0, [], 0, str(result.error))
            else:
                found, total, applied = result
                answer = LettersDone(core.incarnation, message.request, found, total, [], applied, "")
            self._send(answer)

        self._submit(_guarded(job), done)

    def look(self, core: ShardCore, message: LookAt | ListIds) -> None:
        """As the real process does."""
        self._shard = core.identity.shard
        if isinstance(message, LookAt):
            self._truth.asked(core, message, self._store.scan())
        self._queries.ask(core, message)

    def _found(self, message: Found) -> None:
        self._truth.found(self._shard, message)
        self._send(message)

    # ---- as ``Storage`` -------------------------------------------------------------------------------------------------
    def read(self, job: Callable[[Any], bytes], done: Callable[[Any], None]) -> None:
        """See ``Storage``."""
        self._submit(_guarded(lambda: job(_Readable(self._store))), done)

    def read_now(self, job: Callable[[Any], bytes]) -> bytes:
        """See ``Storage``."""
        return job(_Readable(self._store))


def _guarded(job: Callable[[], Any]) -> Callable[[], Any]:
    """A job whose error is its result, as in a worker."""

    def run() -> Any:
        try:
            return job()
        except ShardfunError as error:
            return Failed(error)

    return run
