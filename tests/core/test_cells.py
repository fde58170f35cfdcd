"""Cells: a store that fails is no matter of the function that reads; a scan goes on when the store is opened again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from invoking import Invoking

from shardfun import Context, Map, State, mapping
from shardfun.core.cells import Cells
from shardfun.errors import CorruptionError, StorageError


class Shop(State):
    prices: Map[str, float] = mapping()


class Broken:
    """A disk that cannot be read."""

    def __init__(self, error: StorageError) -> None:
        self._error = error

    def get(self, key: bytes) -> bytes | None:
        raise self._error

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        raise self._error


@pytest.mark.parametrize("error", [StorageError("the disk is gone"), CorruptionError("a table is damaged")])
def test_a_function_cannot_swallow_that_the_store_cannot_be_read(error: StorageError) -> None:
    shop = Invoking(Shop)

    def swallow(ctx: Context[Shop]) -> None:
        for read in (lambda: ctx.state.prices.get("a"), lambda: list(ctx.state.prices)):
            try:
                read()
            except StorageError:
                continue
            raise AssertionError
        ctx.state.prices["a"] = 1.0

    shop.core.table.cells._store = Broken(error)
    with pytest.raises(type(error), match=str(error)):
        shop.do(swallow)
    assert shop.core.dispatcher.letters.count == 0, "nor is its message parked"


class Reopened:
    """Its scans end with an error after some steps, a few times."""

    def __init__(self, pairs: list[tuple[bytes, bytes]], errors: list[StorageError], steps: int) -> None:
        self.pairs = pairs
        self.errors = errors
        self.steps = steps

    def get(self, key: bytes) -> bytes | None:
        return dict(self.pairs).get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self._scan([pair for pair in self.pairs if pair[0].startswith(prefix) and pair[0] >= prefix + start])

    def _scan(self, pairs: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for step, pair in enumerate(pairs):
            if step == self.steps and self.errors:
                raise self.errors.pop()
            yield pair


PAIRS = [(b"p" + bytes((number,)), bytes((number,))) for number in range(10)]


def test_a_scan_goes_on_when_the_store_was_opened_again() -> None:
    cells = Cells(Reopened(PAIRS, [StorageError("opened again")] * 3, 2), 1 << 20)
    cells.put(b"p", b"\5", b"changed")
    cells.put(b"p", b"\6", None)
    found = dict(cells.scan(b"p", b"\1", b"\x09"))
    assert found == {bytes((n,)): b"changed" if n == 5 else bytes((n,)) for n in (1, 2, 3, 4, 5, 7, 8)}
    assert cells.failure is None


@pytest.mark.parametrize(
    ("errors", "steps"), [([StorageError("gone"), StorageError("gone")], 0), ([CorruptionError("damaged")], 3)]
)
def test_a_scan_that_cannot_go_on_is_a_failure_of_the_store(errors: list[StorageError], steps: int) -> None:
    cells = Cells(Reopened(PAIRS, list(errors), steps), 1 << 20)
    with pytest.raises(type(errors[0])):
        list(cells.scan(b"p"))
    assert cells.failure is not None


def test_a_scan_is_of_the_moment_when_it_was_asked_for() -> None:
    stored = dict(PAIRS[:3])

    class Live:
        def get(self, key: bytes) -> bytes | None:
            return stored.get(key)

        def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
            return iter(sorted(stored.items()))

    cells = Cells(Live(), 1 << 20)
    cells.put(b"p", b"\7", b"new")
    scan = cells.scan(b"p")
    cells.put(b"p", b"\x08", b"later")
    cells.put(b"p", b"\1", None)
    cells.freeze()
    stored.update({b"p\x08": b"later"})
    cells.drop_frozen()
    assert [suffix for suffix, _ in scan] == [b"\0", b"\1", b"\2", b"\7"]
