"""``Map``: state with many entries, of which an invocation loads only those that it asks for.

Each entry is a cell of its own. What an invocation changes stays here until it returns (reads see it first); then ``writes`` tells
all of it at once, and whoever commits puts it into the cells. A mutable value that was given out may have been changed in place, so
it is kept, and its encoding is compared in the end. Immutable values cost nothing of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar, overload

import cbor2

from shardfun.core.cell_keys import deadline_of, living, stamped
from shardfun.core.cells import CellReader, in_range, overlay
from shardfun.core.function import CollectionSpec, FieldSpec
from shardfun.errors import ContextClosedError
from shardfun.model.ordered_keys import KeyType

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

Write = tuple[bytes, dict[bytes, bytes | None]]
"""Cells to put: their prefix, and the values by suffix."""
MISSING: Any = object()
"""What ``_get`` gives for a key that has no entry."""
_NO_KEY: tuple[Any, bytes] = object(), b""


class Closed:
    """Stands for the cells and the changes of a collection whose invocation is over: any use raises."""

    __slots__ = ()

    def fail(self) -> NoReturn:
        """Raise the error."""
        msg = "a part of the state was used outside of its invocation; use ctx.state only inside the function it was passed to"
        raise ContextClosedError(msg)

    def __getattr__(self, _name: str) -> NoReturn:
        self.fail()

    def __setitem__(self, _key: Any, _value: Any) -> NoReturn:
        self.fail()

    def __contains__(self, _key: Any) -> NoReturn:
        self.fail()


CLOSED: Any = Closed()


class Map(Generic[K, V]):
    """Persisted entries of one address, in the order of their keys. Declared with ``prices: Map[str, float] = mapping()``.

    Reading or writing one entry costs the same whatever the number of entries; there is no ``len``, since nobody counts them all
    the time (``count`` does). Keys and values that do not fit the declared types are refused where they are given.

    Iteration comes in key order and shows the map as it was when it began, whatever is changed meanwhile. It loads a few hundred
    entries at a time; values of a mutable type stay in memory until the invocation ends, since they may be changed in place.
    """

    __slots__ = ("_cells", "_changes", "_cleared", "_held", "_item", "_key", "_last", "_now_ms", "_prefix", "_spec")

    def __init__(self, spec: CollectionSpec, cells: CellReader, prefix: bytes, now_ms: int, empty: bool) -> None:  # noqa: FBT001
        # All by position: with a keyword a class takes 0.2 us longer, and most invocations with maps make one.
        self._spec = spec
        self._key: KeyType = spec.key  # type: ignore[assignment]  # that of a map has both
        self._item: FieldSpec = spec.item  # type: ignore[assignment]
        self._cells = cells
        self._prefix = prefix
        self._now_ms = now_ms
        self._cleared = empty
        self._changes: dict[bytes, bytes | None] = {}
        self._held: dict[bytes, tuple[Any, bytes]] = {}
        """Values of mutable types that were given out or set, and their encoding then."""
        self._last: tuple[Any, bytes] = _NO_KEY
        """The key that was used last, and its suffix: what is read is mostly written next. Keys are immutable."""

    def __repr__(self) -> str:
        return f"<Map {self._spec.name}>"

    # ---- one entry ------------------------------------------------------------------------------------------------------
    def __getitem__(self, key: K) -> V:
        found = self._get(self._suffix(key))
        if found is MISSING:
            raise KeyError(key)
        return found  # type: ignore[no-any-return]

    def __setitem__(self, key: K, value: V) -> None:
        suffix = self._suffix(key)
        encoded = self._item.encode_checked(value)
        self._changes[suffix] = encoded
        if not self._item.immutable:
            self._held[suffix] = (value, encoded)

    def __delitem__(self, key: K) -> None:
        if not self._remove(self._suffix(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self._peek(self._suffix(key)) is not None

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, or ``default``."""
        found = self._get(self._suffix(key))
        return default if found is MISSING else found

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | D) -> V | D: ...
    def pop(self, key: K, default: Any = MISSING) -> Any:
        """Remove an entry and return its value; ``default`` if there is none.

        Raises:
            KeyError: there is none, and no default was given.
        """
        suffix = self._suffix(key)
        found = self._get(suffix)
        if found is not MISSING:
            self._remove(suffix)
            return found
        if default is MISSING:
            raise KeyError(key)
        return default

    def setdefault(self, key: K, default: V) -> V:
        """The value of a key, which is set to ``default`` if there is none."""
        found = self._get(self._suffix(key))
        if found is not MISSING:
            return found  # type: ignore[no-any-return]
        self[key] = default
        return default

    # ---- many entries ---------------------------------------------------------------------------------------------------
    def update(self, other: Mapping[K, V] | Iterable[tuple[K, V]], /) -> None:
        """Set all entries of a mapping, or of an iterable of pairs."""
        for key, value in other.items() if isinstance(other, Mapping) else other:
            self[key] = value

    def clear(self) -> None:
        """Remove all entries. Takes time and memory in proportion to their number when the invocation returns."""
        self._changes.clear()
        self._held.clear()
        self._cleared = True

    def keys(self, *, start: K | tuple[Any, ...] | None = None, stop: K | tuple[Any, ...] | None = None) -> Iterator[K]:
        """The keys in order, from ``start`` to before ``stop``. Of tuples, the first parts are enough as a bound."""
        decode = self._key.decode
        now_ms = self._now_ms
        return (decode(suffix) for suffix, raw in self._pairs(start, stop) if living(raw, now_ms) is not None)

    def values(self, *, start: K | tuple[Any, ...] | None = None, stop: K | tuple[Any, ...] | None = None) -> Iterator[V]:
        """The values in the order of their keys, from ``start`` to before ``stop``."""
        return (value for _, value in self.items(start=start, stop=stop))

    def items(
        self, *, start: K | tuple[Any, ...] | None = None, stop: K | tuple[Any, ...] | None = None
    ) -> Iterator[tuple[K, V]]:
        """Keys and values in key order, from ``start`` to before ``stop``."""
        return self._items(self._pairs(start, stop), None if self._item.immutable else dict(self._held))

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def __bool__(self) -> bool:
        return next(self.keys(), MISSING) is not MISSING

    def count(self) -> int:
        """The number of entries. Looks at all of them."""
        return sum(1 for _, raw in self._pairs(None, None) if living(raw, self._now_ms) is not None)

    # ---- how ------------------------------------------------------------------------------------------------------------
    def _suffix(self, key: Any) -> bytes:
        """The encoded key."""
        last = self._last
        if key is last[0]:
            return last[1]
        suffix = self._key.encode(key)
        self._last = key, suffix
        return suffix

    def _peek(self, suffix: bytes) -> bytes | None:
        """An encoded value as this invocation sees it."""
        if suffix in self._changes:
            return self._changes[suffix]
        return None if self._cleared else living(self._cells.read(self._prefix, suffix), self._now_ms)

    def _get(self, suffix: bytes) -> Any:
        if suffix in self._held:
            return self._held[suffix][0]
        if suffix in self._changes:
            encoded = self._changes[suffix]
        elif self._cleared:
            return MISSING
        else:
            raw = encoded = self._cells.read(self._prefix, suffix)
            if raw is not None:
                encoded = living(raw, self._now_ms)
                if encoded is not None and self._spec.expiry is not None:
                    self._note_read(suffix, raw, encoded)
        return MISSING if encoded is None else self._give(suffix, encoded)

    def _give(self, suffix: bytes, encoded: bytes) -> Any:
        """Decode a value that is given out as the present one of its key."""
        item, value = self._item, cbor2.loads(encoded)
        if item.scalar and type(value) in item.classes:  # most are; it is immutable, and what ``from_plain`` gives
            return value
        value = item.from_plain(value)
        if not item.immutable:
            self._held[suffix] = (value, encoded)
        return value

    def _note_read(self, suffix: bytes, raw: bytes, encoded: bytes) -> None:
        """A read may put off the end of an entry: then it is written again, with a new deadline."""
        expiry = self._spec.expiry
        if expiry is not None and expiry.is_renewed_by_read(deadline_of(raw), self._now_ms):
            self._changes[suffix] = encoded

    def _remove(self, suffix: bytes) -> bool:
        if self._peek(suffix) is None:
            return False
        self._changes[suffix] = None
        self._held.pop(suffix, None)
        return True

    def _pairs(self, start: Any, stop: Any) -> Iterator[tuple[bytes, bytes]]:
        """Suffixes and cells as they are now, own changes included."""
        first = b"" if start is None else self._key.encode_bound(start)
        last = None if stop is None else self._key.encode_bound(stop)
        below = iter(()) if self._cleared else self._cells.scan(self._prefix, first, last)
        return overlay(in_range(self._changes, first, last), below)

    def _items(
        self, pairs: Iterator[tuple[bytes, bytes]], held: dict[bytes, tuple[Any, bytes]] | None
    ) -> Iterator[tuple[K, V]]:
        """``held``: the values that were given out when the iteration began; ``None``: they are immutable."""
        decode, item, now_ms = self._key.decode, self._item, self._now_ms
        for suffix, raw in pairs:
            encoded = living(raw, now_ms)
            if encoded is None:
                continue
            present: bytes | None = encoded
            if suffix in self._changes:
                present = self._changes[suffix]
            elif self._cleared:
                present = None
            else:
                self._note_read(suffix, raw, encoded)
            if held is None:
                yield decode(suffix), item.from_plain(cbor2.loads(encoded))
            elif suffix in held:
                yield decode(suffix), held[suffix][0]
            elif present != encoded:  # changed since the iteration began: what it was is shown, and belongs to nobody
                yield decode(suffix), item.from_plain(cbor2.loads(encoded))
            else:
                now = self._held.get(suffix)
                yield decode(suffix), self._give(suffix, encoded) if now is None else now[0]

    # ---- the end of the invocation --------------------------------------------------------------------------------------
    def writes(self) -> Write:
        """What has to be put into the cells. May be asked once, before ``close``.

        Raises:
            PayloadTypeError: a value that was changed in place is not of its declared type any more.
        """
        changes = self._changes
        if self._held:
            for suffix, (value, before) in self._held.items():
                if self._item.encode(value) != before:
                    changes[suffix] = self._item.encode_checked(value)
        expiry = self._spec.expiry
        if expiry is not None:
            end_ms = self._now_ms + expiry.ttl_ms
            changes = {suffix: None if encoded is None else stamped(encoded, end_ms) for suffix, encoded in changes.items()}
        if self._cleared:
            changes = dict.fromkeys(suffix for suffix, _ in self._cells.scan(self._prefix)) | changes
        return self._prefix, changes

    def finish(self) -> Write:
        """As ``writes``, and the invocation is over."""
        try:
            return self.writes()
        finally:
            self.close()

    def close(self) -> None:
        """The invocation is over: any use raises."""
        self._cells = self._changes = CLOSED
        self._held = {}
