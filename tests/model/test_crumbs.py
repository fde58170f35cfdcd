"""The table of breadcrumbs: what is written is there whenever the process ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.model.crumbs import ADDRESS_BYTES_MAX, KEY_BYTES, SLOTS, TABLE_BYTES, UNRECORDED, Crumb, CrumbTable, read_crumbs


def crumb(number: int, address: str = "test/worker:1") -> Crumb:
    return Crumb(number.to_bytes(KEY_BYTES, "big"), number, address)


@given(st.lists(st.one_of(st.none(), st.text(max_size=600)), max_size=150))
def test_what_is_under_way_is_in_the_table(steps: list[str | None]) -> None:
    """``None`` ends the message that began first."""
    buffer = bytearray(TABLE_BYTES)
    table = CrumbTable(buffer)
    running: list[tuple[int, Crumb]] = []
    for number, address in enumerate(steps, 1):
        if address is not None:
            begun = crumb(number, address)
            running.append((table.put(begun), begun))
        elif running:
            table.clear(running.pop(0)[0])
        found = read_crumbs(bytes(buffer))
        if any(slot == UNRECORDED for slot, _ in running):
            assert found is None, "a table that does not name all names none"
            continue
        assert found is not None
        assert sorted(item[:2] for item in found) == sorted(begun[:2] for _, begun in running)
        for item in found:
            (begun,) = (begun for _, begun in running if begun.key == item.key)
            whole = begun.address.encode(errors="replace")
            assert item.address == whole[:ADDRESS_BYTES_MAX].decode(errors="replace")


def test_a_full_table_is_good_again_when_the_surplus_is_done() -> None:
    buffer = bytearray(TABLE_BYTES)
    table = CrumbTable(buffer)
    for number in range(1, SLOTS + 1):
        table.put(crumb(number))
    surplus = table.put(crumb(99))
    assert surplus == UNRECORDED
    assert read_crumbs(bytes(buffer)) is None
    table.clear(surplus)
    assert len(read_crumbs(bytes(buffer)) or ()) == SLOTS


class Dying(bytearray):
    """A buffer whose process ends at its n-th write."""

    left = 1000

    def __setitem__(self, key: Any, value: Any) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().__setitem__(key, value)


@pytest.mark.parametrize("writes", range(3))
def test_a_process_that_ends_while_it_writes_leaves_a_crumb_or_none(writes: int) -> None:
    buffer = Dying(TABLE_BYTES)
    table = CrumbTable(buffer)
    buffer.left = writes
    try:
        table.put(crumb(7, "a/b:c"))
    except KeyboardInterrupt:
        assert read_crumbs(bytes(buffer)) == ()
    else:
        assert read_crumbs(bytes(buffer)) == (crumb(7, "a/b:c"),)


@pytest.mark.parametrize("raw", [b"", b"x" * TABLE_BYTES, bytes(TABLE_BYTES), b"sfcrumb\n"])
def test_what_is_no_table_says_nothing(raw: bytes) -> None:
    assert read_crumbs(raw) is None


def test_a_crumb_without_a_key_has_none() -> None:
    buffer = bytearray(TABLE_BYTES)
    CrumbTable(buffer).put(Crumb(bytes(KEY_BYTES), 1, "a/b:c"))
    assert read_crumbs(bytes(buffer)) == (Crumb(b"", 1, "a/b:c"),)
