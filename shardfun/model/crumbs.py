"""Crumbs: the messages that a shard process in careful mode is inside of, in a small table that outlives the process.

The table lies in a file that the process has mapped into its memory, so a crumb costs no system call, and what was written is
there however the process ends. It is written by one process and read by the supervisor after that one was reaped.

    magic (8 bytes) | messages that found no slot (u32) | slots

    slot: in use (u8) | key (16 bytes) | occurrence (u32) | length of the address (u16) | address, UTF-8

A slot's first byte is written last and cleared first: a process may end between any two instructions.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

KEY_BYTES = 16
SLOTS = 64
SLOT_BYTES = 512
MAGIC = b"sfcrumb\n"
_HEAD = struct.Struct(">8sI")
_SLOT = struct.Struct(">B16sIH")
HEAD_BYTES = 64  # so that a slot begins at a multiple of its size's divisors
TABLE_BYTES = HEAD_BYTES + SLOTS * SLOT_BYTES
ADDRESS_BYTES_MAX = SLOT_BYTES - _SLOT.size
UNRECORDED = -1
"""The slot of a message that found none."""


class Crumb(NamedTuple):
    """One message that was being processed.

    Args:
        key: tells it from all others (see ``core.careful``); empty if it cannot be told.
        occurrence: 1 for the first such message since the checkpoint that the process went back to.
        address: of its target, for people; long ones are cut.
    """

    key: bytes
    occurrence: int
    address: str


class CrumbTable:
    """Writes crumbs.

    Args:
        buffer: ``TABLE_BYTES`` writable bytes, such as a mapped file.
    """

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self._free = list(range(SLOTS - 1, -1, -1))
        self._unrecorded = 0
        self._buffer[:TABLE_BYTES] = bytes(TABLE_BYTES)
        self._write_head()

    def put(self, crumb: Crumb) -> int:
        """Write a crumb; its slot, or ``UNRECORDED`` if all are taken."""
        if not self._free:
            self._unrecorded += 1
            self._write_head()
            return UNRECORDED
        slot = self._free.pop()
        start = HEAD_BYTES + slot * SLOT_BYTES
        address = crumb.address.encode(errors="replace")[:ADDRESS_BYTES_MAX]
        raw = _SLOT.pack(1, crumb.key, crumb.occurrence, len(address)) + address
        self._buffer[start + 1 : start + len(raw)] = raw[1:]
        self._buffer[start] = 1
        return slot

    def clear(self, slot: int) -> None:
        """The message of ``slot`` is done."""
        if slot == UNRECORDED:
            self._unrecorded -= 1
            self._write_head()
            return
        self._buffer[HEAD_BYTES + slot * SLOT_BYTES] = 0
        self._free.append(slot)

    def _write_head(self) -> None:
        self._buffer[: _HEAD.size] = _HEAD.pack(MAGIC, self._unrecorded)


def read_crumbs(raw: bytes) -> tuple[Crumb, ...] | None:
    """The crumbs in a table, in no order; ``None`` if it is none, or if there were messages that it does not name."""
    if len(raw) < TABLE_BYTES or _HEAD.unpack_from(raw) != (MAGIC, 0):
        return None
    found = []
    for start in range(HEAD_BYTES, TABLE_BYTES, SLOT_BYTES):
        used, key, occurrence, length = _SLOT.unpack_from(raw, start)
        if used:
            address = raw[start + _SLOT.size : start + _SLOT.size + min(length, ADDRESS_BYTES_MAX)]
            found.append(Crumb(b"" if key == bytes(KEY_BYTES) else key, occurrence, address.decode(errors="replace")))
    return tuple(found)
