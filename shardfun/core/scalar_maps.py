"""``ScalarMap``: the map that most functions have, with the calls of its three most used methods written out.

``Map`` is the specification, and what functions meet under ``run_plain``. A property test shows that both agree. An update of an
entry, which is a ``get`` and a set, makes 5 calls here instead of 11.
"""

from __future__ import annotations

from typing import Any

import cbor2

from shardfun.core.cell_keys import STAMP, living
from shardfun.core.function import CollectionSpec
from shardfun.core.maps import CLOSED, MISSING, K, Map, V, Write


class ScalarMap(Map[K, V]):
    """A map whose values are CBOR scalars of declared classes, and do not expire."""

    __slots__ = ()

    def get(self, key: K, default: Any = None) -> Any:
        """As of ``Map``."""
        last = self._last
        if key is last[0]:
            suffix = last[1]
        else:
            suffix = self._key.encode(key)
            self._last = key, suffix
        if suffix in self._changes:
            encoded = self._changes[suffix]
        elif self._cleared:
            return default
        else:
            encoded = self._cells.read(self._prefix, suffix)
            if encoded is not None and encoded.startswith(STAMP):  # written when the declaration was another
                encoded = living(encoded, self._now_ms)
        if encoded is None:
            return default
        item = self._item
        if encoded in item.decoded_ints:
            return item.decoded_ints[encoded]
        value = cbor2.loads(encoded)
        return value if type(value) in item.classes else item.from_plain(value)

    def __getitem__(self, key: K) -> V:
        found = self.get(key, MISSING)
        if found is MISSING:
            raise KeyError(key)
        return found  # type: ignore[no-any-return]

    def __setitem__(self, key: K, value: V) -> None:
        last = self._last
        if key is last[0]:
            suffix = last[1]
        else:
            suffix = self._key.encode(key)
            self._last = key, suffix
        self._changes[suffix] = self._item.encode_checked(value)

    def finish(self) -> Write:
        """As of ``Map``."""
        if self._cleared:
            return super().finish()
        written = self._prefix, self._changes
        self._cells = self._changes = CLOSED
        return written


def map_class(spec: CollectionSpec) -> type[Map[Any, Any]]:
    """The fastest class for a declared map."""
    item = spec.item
    return ScalarMap if item is not None and item.scalar and item.immutable and spec.expiry is None else Map
