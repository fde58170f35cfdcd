"""``Buffer``: state that is appended to, and read as a whole.

Each element is a cell under its number. The numbers of the first and of the next element are in the record's hidden data, so
appending reads nothing. What an invocation changes stays here until it returns, as with maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import cbor2

from shardfun.core.cell_keys import living, number_suffix, stamped, value_in
from shardfun.core.cells import CellReader
from shardfun.core.function import CollectionSpec
from shardfun.core.maps import CLOSED, Closed, Write
from shardfun.core.options import ExpiryMode

T = TypeVar("T")

Bounds = list[int]
"""Numbers of the first and of the next element; with ``after_write``, also the latest deadline given to an element."""
EMPTY: Bounds = [0, 0]


class Buffer(Generic[T]):
    """Persisted elements of one address, in the order appended. Declared with ``recent: Buffer[Order] = buffer()``.

    Appending costs the same whatever there is already. Elements are encoded when they are appended: what becomes of a list
    afterwards, also of one that ``view`` gave, has no effect.
    """

    __slots__ = (
        "_appended",
        "_bounds",
        "_cells",
        "_cleared",
        "_deadline",
        "_first",
        "_item",
        "_now_ms",
        "_prefix",
        "_read",
        "_spec",
    )

    def __init__(
        self,
        spec: CollectionSpec,
        cells: CellReader,
        prefix: bytes,
        now_ms: int,
        bounds: Bounds | None,
        deadline: int | None,
        *,
        empty: bool,
    ) -> None:
        assert spec.item is not None
        self._spec = spec
        self._item = spec.item
        self._cells = cells
        self._prefix = prefix
        self._now_ms = now_ms
        self._bounds = bounds or EMPTY
        self._deadline = deadline
        """Of the buffer as a whole (``after_access``)."""
        self._cleared = empty or (self._whole and deadline is not None and deadline <= now_ms)
        self._first = self._bounds[1] if self._cleared else self._bounds[0]
        self._appended: list[bytes] = []
        self._read = False

    def __repr__(self) -> str:
        return f"<Buffer {self._spec.name}>"

    # ---- writing --------------------------------------------------------------------------------------------------------
    def append(self, value: T) -> None:
        """Add an element at the end.

        Raises:
            PayloadTypeError: it is not of the declared type.
        """
        self._appended.append(self._item.encode_checked(value))

    def append_all(self, values: Iterable[T]) -> None:
        """Add elements at the end, all or none.

        Raises:
            PayloadTypeError: one of them is not of the declared type.
        """
        self._appended.extend(self._encoded(values))

    def replace(self, values: Iterable[T]) -> None:
        """Put these elements in the place of all that were there. An empty iterable clears the buffer.

        Raises:
            PayloadTypeError: one of them is not of the declared type; the buffer stays as it was.
        """
        encoded = self._encoded(values)
        self.clear()
        self._appended = encoded

    def clear(self) -> None:
        """Remove all elements. Takes time in proportion to their number when the invocation returns."""
        self._require_open()
        self._appended = []
        self._cleared = True
        self._first = self._bounds[1]

    def _encoded(self, values: Iterable[T]) -> list[bytes]:
        return [self._item.encode_checked(value) for value in values]

    # ---- reading --------------------------------------------------------------------------------------------------------
    def view(self) -> Iterator[T]:
        """The elements in order, a few hundred loaded at a time, as they are now, whatever is changed meanwhile."""
        self._note_read()
        first, after, decode = self._first, self._bounds[1], self._item.from_plain
        stored: Iterator[tuple[bytes, bytes]] = iter(())
        if first < after:
            stored = self._cells.scan(self._prefix, number_suffix(first), number_suffix(after))
        return self._view(stored, self._appended[:], decode)

    @staticmethod
    def _view(stored: Iterator[tuple[bytes, bytes]], appended: list[bytes], decode: Any) -> Iterator[T]:
        for _, raw in stored:
            yield decode(cbor2.loads(value_in(raw)))
        for encoded in appended:
            yield decode(cbor2.loads(encoded))

    def __iter__(self) -> Iterator[T]:
        return self.view()

    def __len__(self) -> int:
        self._note_read()
        return self._bounds[1] - self._first + len(self._appended)

    def _note_read(self) -> None:
        """Before the first read, skip what has expired: it is at the front, since deadlines never go back."""
        self._require_open()
        if self._read:
            return
        self._read = True
        if self._expires_one_by_one and self._first < self._bounds[1]:
            stored = self._cells.scan(self._prefix, number_suffix(self._first), number_suffix(self._bounds[1]))
            self._first = next(
                (int.from_bytes(suffix, "big") for suffix, raw in stored if living(raw, self._now_ms) is not None),
                self._bounds[1],
            )

    def _require_open(self) -> None:
        if self._appended is CLOSED:
            Closed().fail()

    @property
    def _whole(self) -> bool:
        return self._spec.expiry is not None and self._spec.expiry.mode is ExpiryMode.AFTER_ACCESS

    @property
    def _expires_one_by_one(self) -> bool:
        return len(self._bounds) > 2 or (self._spec.expiry is not None and not self._whole)

    # ---- the end of the invocation --------------------------------------------------------------------------------------
    def writes(self) -> tuple[Write, Bounds | None, int | None]:
        """What has to be put into the cells, the bounds after that (``None``: empty), and the deadline of the whole."""
        prefix = self._prefix
        first, after = self._first, self._bounds[1]
        found: dict[bytes, bytes | None]
        if self._cleared:
            found = dict.fromkeys(suffix for suffix, _ in self._cells.scan(prefix))
        else:
            found = dict.fromkeys(map(number_suffix, range(self._bounds[0], first)))
        encoded, bounds = self._appended, [first, after + len(self._appended)]
        if self._expires_one_by_one:
            latest = self._bounds[2] if len(self._bounds) > 2 else 0
            if encoded and self._spec.expiry is not None and not self._whole:
                latest = max(latest, self._now_ms + self._spec.expiry.ttl_ms)
                encoded = [stamped(value, latest) for value in encoded]
            bounds.append(latest)
        for number, value in enumerate(encoded, after):
            found[number_suffix(number)] = value
        if bounds[0] == bounds[1]:
            return (prefix, found), None, None
        return (prefix, found), bounds, self._new_deadline()

    def _new_deadline(self) -> int | None:
        expiry = self._spec.expiry
        if expiry is None or not self._whole:
            return None
        written = self._cleared or bool(self._appended) or self._deadline is None
        if written or (self._read and expiry.is_renewed_by_read(self._deadline, self._now_ms)):
            return self._now_ms + expiry.ttl_ms
        return self._deadline

    def close(self) -> None:
        """The invocation is over: any use raises."""
        self._cells = self._appended = CLOSED
