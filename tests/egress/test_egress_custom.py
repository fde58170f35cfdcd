"""Sinks of users: numbers, what they hold, errors, one thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shardfun.egress.custom import CustomSink
from shardfun.egress.registry import build_sink
from shardfun.errors import DefinitionError, EgressError
from shardfun.examples.tickets.sink import History
from shardfun.ports import Partition, PublishedPosition
from shardfun.sinks import Egress

PARTITION = Partition(0, 1, lambda _: True, "a" * 32)


class Listed(Egress):
    """Keeps records in a list that outlives it."""

    def __init__(self, stored: list[bytes], *, tells: bool = True) -> None:
        super().__init__("own", None, PARTITION)
        self.stored = stored
        self.tells = tells
        self.failing: list[Exception] = []
        self.half = 0
        self.calls: list[str] = []
        self.threads: set[int] = set()

    def open(self) -> int | None:
        self.calls.append("open")
        self.threads.add(threading.get_ident())
        if self.failing:
            raise self.failing.pop()
        return len(self.stored) if self.tells else None

    def publish(self, records: Sequence[bytes], first: int) -> None:
        self.threads.add(threading.get_ident())
        if self.tells:
            assert first == len(self.stored)
        if self.half:
            self.stored += records[: self.half]
            self.half = 0
            raise ConnectionError("lost after a part")
        self.stored += records

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append("close")
        raise OSError("nobody cares")


def position(records: int) -> PublishedPosition:
    return PublishedPosition(records, 100 * records)


RECORDS = [b"%d" % n for n in range(20)]


def publish_all(sink: CustomSink, records: list[bytes]) -> None:
    while records:
        done = sink.publish(records)
        assert 0 < done <= len(records)
        records = records[done:]


def test_what_it_holds_already_is_not_given_again() -> None:
    stored = RECORDS[:7].copy()
    sink = CustomSink("own", Listed(stored))
    assert sink.open(position(5), RECORDS[5:10]) == 2
    publish_all(sink, RECORDS[7:])
    assert stored == RECORDS


def test_one_that_cannot_tell_gets_all_that_is_pending() -> None:
    stored = RECORDS[:7].copy()
    sink = CustomSink("own", Listed(stored, tells=False))
    assert sink.open(position(5), RECORDS[5:10]) == 0
    publish_all(sink, RECORDS[5:10])
    assert stored == RECORDS[:7] + RECORDS[5:10]


def test_after_an_error_it_is_opened_anew_and_asked_what_it_holds() -> None:
    user = Listed([])
    sink = CustomSink("own", user)
    sink.open(position(0), [])
    user.half = 3
    with pytest.raises(ConnectionError):
        sink.publish(RECORDS)
    publish_all(sink, RECORDS)
    assert user.stored == RECORDS
    assert user.calls == ["open", "close", "open"]


def test_one_that_cannot_be_reached_is_opened_when_there_is_something_to_publish() -> None:
    stored = RECORDS[:8].copy()
    user = Listed(stored)
    user.failing = [OSError("down"), OSError("down")]
    sink = CustomSink("own", user)
    assert sink.open(position(5), RECORDS[5:10]) == 0
    with pytest.raises(OSError, match="down"):
        sink.publish(RECORDS[5:])
    assert sink.publish(RECORDS[5:10]) == 3, "found, not stored"
    publish_all(sink, RECORDS[8:])
    assert stored == RECORDS


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (4, "holds 4 records of partition 0, but 5 were published"),
        (11, "holds 11 .* more than the 10"),
        (-1, "expected a number"),
        ("5", "expected a number"),
    ],
)
def test_what_cannot_be_is_an_error(held: Any, said: str) -> None:
    user = Listed([])
    user.open = lambda: held  # type: ignore[method-assign]
    with pytest.raises(EgressError, match=f"egress 'own': .*{said}"):
        CustomSink("own", user).open(position(5), RECORDS[5:10])


def test_everything_but_encoding_is_called_in_one_thread() -> None:
    user = Listed([])
    sink = CustomSink("own", user)
    for _ in range(3):
        thread = threading.Thread(target=lambda: (sink.open(position(len(user.stored)), []), sink.publish(RECORDS[:1])))
        thread.start()
        thread.join()
    sink.close()
    sink.close()
    assert len(user.threads) == 1
    assert threading.get_ident() not in user.threads


def test_encoding_gives_bytes_or_a_type_error() -> None:
    sink = CustomSink("own", Listed([]))
    assert sink.encode({"a": [1, None]}) == b'{"a":[1,null]}'
    with pytest.raises(TypeError, match="Encoding objects of type object"):
        sink.encode(object())

    class Text(Listed):
        def encode(self, value: Any) -> Any:
            return str(value)

    with pytest.raises(TypeError, match=r"expected bytes from .*Text.encode, got str"):
        CustomSink("own", Text([])).encode(1)


def test_a_class_with_mistakes_is_refused_when_it_is_defined() -> None:
    async def publish(self: Any, records: Any, first: int) -> None: ...

    for body, said in (
        ({"publish": publish}, "publish: expected a plain 'def'"),
        ({"open": lambda self, position: 0}, "open: expected the arguments .self. "),
    ):
        with pytest.raises(DefinitionError, match=said):
            type("Own", (Egress,), body)


def test_the_sink_of_the_example_survives_crashes_anywhere(tmp_path: Path) -> None:
    options = History.options(path=tmp_path / "history.db")

    def sink() -> Any:
        return build_sink("history", "shardfun.examples.tickets.sink:History", options, PARTITION)

    records = [sink().encode({"ticket": f"t{n}", "times": n}) for n in range(30)]
    for known, complete, published in ((0, 10, 4), (2, 12, 0), (4, 20, 9), (13, 30, 17)):
        one = sink()
        found = one.open(position(known), records[known:complete])
        one.publish(records[known + found : known + found + published])
    last = sink()
    assert last.open(position(30), []) == 0
    last.close()
