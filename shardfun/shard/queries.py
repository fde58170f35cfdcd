"""Answers questions about state in a shard: the loop takes what is in memory, the storage worker reads and converts the rest.

The worker does its jobs in order, so what is applied to the store between the two is a checkpoint that was complete already, and all of
its changes are among those taken. An address that is in memory and has nothing else is answered at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from shardfun.core.listing import list_ids
from shardfun.core.looking import NOTHING, Wanted, function_of, look, sight_of
from shardfun.core.shard import ShardCore
from shardfun.errors import ShardfunError, UnavailableError
from shardfun.model.address import Address
from shardfun.model.control import Found, Ids, ListIds, LookAt
from shardfun.model.delta import checkpoint_name
from shardfun.model.keyspace import slot_range
from shardfun.model.questions import StateAnswer
from shardfun.shard.storage import Storage
from shardfun.shard.worker import Failed
from shardfun.state.store import LevelDBStore

WAITING_MAX: Final = 128
"""Questions for the storage worker at once; who asked may have gone, so there may be more than the supervisor has."""
ANSWER_BYTES_MAX: Final = 8 << 20
"""Half of what a control message may have."""
AT_ONCE_BYTES: Final = 16 << 10
"""A longer text is converted by the worker, as all that has an inside."""


class Queries:
    """See the module.

    Args:
        send: an answer to the supervisor.
        now: unix seconds.
    """

    def __init__(self, storage: Storage, send: Callable[[Found], None], now: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._send = send
        self._now = now
        self._waiting = 0

    def ask(self, core: ShardCore, message: LookAt | ListIds) -> None:
        """Answer one question, now or later. To be called between two pieces of work."""
        if self._waiting >= WAITING_MAX:
            self._refuse(message, UnavailableError(f"{self._waiting} questions wait for the disk already; ask again later"))
            return
        try:
            job = self._look_at(core, message) if isinstance(message, LookAt) else _listing(core, message)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a question, the shard goes on
            self._refuse(message, error)
            return
        if isinstance(job, bytes):
            self._send(Found(message.incarnation, message.request, job, "", ""))
            return
        self._waiting += 1
        self._storage.read(job, lambda result: self._read(message, result))

    def _look_at(self, core: ShardCore, message: LookAt) -> bytes | Callable[[LevelDBStore], bytes]:
        """The answer, or how the worker gets it."""
        address = Address(message.target, message.id)
        function = function_of(core.dispatcher, address.typename)
        sight = sight_of(core.dispatcher, address, function, message.part) if message.at == "live" else NOTHING
        now_ms = int(self._now() * 1000)
        wanted = Wanted(message.part, message.after, message.limit)

        def job(store: LevelDBStore) -> bytes:
            shown = look(function, address, sight, store, now_ms, wanted)
            return _encoded(StateAnswer(**shown, checkpoint=checkpoint_name(store.applied)))

        if sight.values is not None and not function.spec.collections and all(map(_is_small, sight.values)):
            return self._storage.read_now(job)
        return job

    def _read(self, message: LookAt | ListIds, result: Any) -> None:
        self._waiting -= 1
        if isinstance(result, Failed):
            self._refuse(message, result.error)
        else:
            self._send(Found(message.incarnation, message.request, result, "", ""))

    def _refuse(self, message: LookAt | ListIds, error: Exception) -> None:
        if isinstance(error, ShardfunError):
            code, reason = error.code, str(error)
        else:  # the upgrade of a state, say, is user code
            code, reason = ShardfunError.code, f"{type(error).__name__}: {error!s:.500}"
        self._send(Found(message.incarnation, message.request, b"", code, reason))


def _is_small(value: Any) -> bool:
    """Whether to show a value of a record takes no time worth speaking of."""
    if isinstance(value, (str, bytes)):
        return len(value) <= AT_ONCE_BYTES
    return value is None or isinstance(value, (int, float))


def _listing(core: ShardCore, message: ListIds) -> Callable[[LevelDBStore], bytes]:
    function = function_of(core.dispatcher, message.typename)
    first, end = slot_range(core.identity.shard, core.identity.shards)
    start = max((message.slot, message.after), (first, b""))

    def job(store: LevelDBStore) -> bytes:
        ids, (slot, after) = list_ids(store.seeker(end), function, start, end, message.limit)
        return _encoded(Ids(ids, slot, after, store.applied))

    return job


def _encoded(answer: StateAnswer | Ids) -> bytes:
    raw = msgspec.json.encode(answer)
    if len(raw) > ANSWER_BYTES_MAX:
        msg = f"the answer has {len(raw)} bytes, more than {ANSWER_BYTES_MAX}; ask for a single part, or for fewer items"
        raise UnavailableError(msg)
    return raw
