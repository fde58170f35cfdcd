"""Dead letters: messages and records that cannot be processed are kept with the reason, and the run goes on.

A dead letter is an ordinary write of the shard's key space. So it is part of the exactly-once world: it rolls back with it, and is
there once, after whatever failure.
"""

from __future__ import annotations

import traceback
from typing import Any

import cbor2

from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.core.records import RecordTable
from shardfun.core.totals import Totals
from shardfun.model.address import Address
from shardfun.model.columns import UndecodableMessage
from shardfun.model.keyspace import slot_of, slot_range
from shardfun.model.letters import INGRESS_RECORD, LetterName
from shardfun.model.payload import END, Encoded, Payloads

CONTEXTS_MAX = 100  # of exceptions that were raised while another was handled
PAYLOAD_CHARACTERS = 2000  # of the text that stands for a payload that has no encoding


class DeadLetters:
    """Writes the dead letters of one shard in one incarnation.

    ``count``: how many there are; ``now``: the wall clock in unix seconds.
    """

    def __init__(self, table: RecordTable, shard: int, shards: int, totals: Totals) -> None:
        self.count = 0
        self._totals = totals
        self.now = 0.0
        self._table = table
        self._shard = shard
        self._slots = slot_range(shard, shards)
        self._cut = 0
        self._in_cut = 0

    def begin_cut(self, checkpoint: int) -> None:
        """What is parked after this belongs to the next checkpoint."""
        self._cut = checkpoint
        self._in_cut = 0

    def park(
        self,
        target: Address,
        sender: Address | None,
        payloads: Payloads,
        value: Any,
        reason: str,
        trace: str = "",
        attempts: int = 0,
    ) -> None:
        """A message that cannot be processed or sent.

        Args:
            payloads: the payload types of the target.
            trace: of the last of ``attempts``.
        """
        self._totals.known(target.typename).dead_letters += 1
        described = value.type if type(value) is Encoded else payloads.by_class[type(value)]
        try:
            plain = cbor2.loads(value.data) if type(value) is Encoded else None if value is END else described.to_plain(value)
            cbor2.dumps(plain)
        except Exception as error:  # noqa: BLE001 - often the very reason why the message failed; a letter has to be written
            plain = f"{value!r:.{PAYLOAD_CHARACTERS}}"
            reason += f" (the payload cannot be encoded: {error!r:.200})"
            self._write(target, sender, described.name, plain, reason, trace, attempts, lossy=True)
            return
        self._write(target, sender, described.name, plain, reason, trace, attempts)

    def park_undecodable(self, typename: str, message: UndecodableMessage) -> None:
        """A message whose payload does not fit any declared type: kept as it came."""
        self._totals.known(typename).dead_letters += 1
        self._write(Address(typename, message.id), message.sender, message.type_name, message.plain, message.reason, "", 0)

    def park_ingress(self, ingress: str, position: str, reason: str, raw: bytes, trace: str = "") -> None:
        """A record that could not be read or routed."""
        self._totals.rejected[ingress] += 1
        self._write(Address(f"ingress/{ingress}", position), None, INGRESS_RECORD, raw, reason, trace, 0)

    def _write(
        self,
        target: Address,
        sender: Address | None,
        payload_type: str,
        payload: Any,
        reason: str,
        trace: str,
        attempts: int,
        *,
        lossy: bool = False,
    ) -> None:
        self._in_cut += 1
        self.count += 1
        low, high = self._slots
        slot = slot_of(target.id)
        if not low <= slot < high:  # a record that was not routed yet, or a message that cannot leave
            slot = low
        letter: dict[str, Any] = {
            "payload_type": payload_type,
            "payload": payload,
            "target": list(target),
            "sender": None if sender is None else list(sender),
            "reason": _encodable(reason),
            "traceback": _encodable(trace),
            "attempts": attempts,
            "checkpoint": self._cut,
            "time": self.now,
        }
        if lossy:
            letter["lossy"] = True
        name = LetterName(self._cut, self._in_cut, self._shard).encode()
        self._table.cells.put(slot.to_bytes(2, "big") + DEAD_LETTER_KIND, name, cbor2.dumps(letter))


def describe_error(error: BaseException, traceback_bytes: int) -> tuple[str, str]:
    """One line and the traceback of what user code raised, as texts that can be encoded. Never raises itself: even ``str(error)``
    may be user code.

    Args:
        traceback_bytes: how much of the traceback's end is kept.
    """
    trace = "".join(traceback.format_exception(error))[-traceback_bytes:]
    try:
        text = f"{error!s:.500}"
    except BaseException as broken:  # noqa: BLE001 - see above
        text = f"<{type(broken).__name__} in str()>"
    return _encodable(f"{type(error).__qualname__}: {text}"), _encodable(trace)


def forget_earlier(error: BaseException, earlier: BaseException) -> None:
    """Forget that ``error`` was raised while ``earlier`` was handled: it is another attempt, and no part of its story."""
    for _ in range(CONTEXTS_MAX):  # user code may have made a ring of them
        if error.__context__ is None or error is earlier:
            return
        if error.__context__ is earlier:
            error.__context__ = None
            return
        error = error.__context__


def _encodable(text: str) -> str:
    """The text with lone surrogates written out: they have no UTF-8, and a message may quote one."""
    return text.encode(errors="backslashreplace").decode()
