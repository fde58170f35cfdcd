"""Sources of users beside the loop: threads and tasks, bounded, resumed behind the last record, never two at once."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import cbor2
import msgspec
import pytest
import trio

from shardfun import App, Context
from shardfun.errors import DefinitionError, IngressError
from shardfun.ingress import generated, threaded
from shardfun.ingress.feed import FEED_RECORDS, Host, restart_pause
from shardfun.ingress.generated import GeneratedReader
from shardfun.ingress.threaded import ThreadedReader
from shardfun.ports import IngressReader, Partition
from shardfun.sources import Ingress
from shardfun.testing import read_ingress

PARTITION = Partition(0, 1, lambda _: True)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (generated, threaded):
        monkeypatch.setattr(module, "restart_pause", lambda failures: 0.01)


def nothing() -> None: ...


def drained(reader: IngressReader, limit: int = 64, seconds: float = 5.0) -> tuple[list[Any], list[Any]]:
    """Records and positions until the end."""
    records: list[Any] = []
    positions = []
    until = time.monotonic() + seconds
    while not reader.finished:
        batch = reader.read(limit, 0.0)
        if batch is None:
            assert time.monotonic() < until
            time.sleep(0.001)
            continue
        assert 0 < len(batch.records) <= limit
        records += batch.records
        positions.append((len(records), cbor2.loads(cbor2.dumps(batch.position))))
    return records, positions


# ---- classes in threads --------------------------------------------------------------------------------------------------
class Numbers(Ingress):
    """Numbers up to ``end``; what else happens is in ``faults``: (number, what) -> raise it before that number, once."""

    idle_s = 0.001
    end: ClassVar[int] = 3000
    faults: ClassVar[dict[int, Exception]] = {}
    opened: ClassVar[list[Any]] = []
    living: ClassVar[list[Any]] = []

    def open(self, position: Any | None) -> None:
        assert not self.living, "two at once"
        self.living.append(self)
        self.opened.append(position)
        self.next = 0 if position is None else position[0] + 1
        self.thread = threading.get_ident()

    def read(self, limit: int) -> Iterable[tuple[Any, int]] | None:
        assert self.thread == threading.get_ident()
        if self.next >= self.end:
            return None
        return self.some(min(self.next + limit, self.end, self.next + 700))

    def some(self, stop: int) -> Iterator[tuple[Any, int]]:
        while self.next < stop:
            if self.next in self.faults:
                raise self.faults.pop(self.next)
            self.next += 1
            yield (self.next - 1, "n"), self.next - 1

    def close(self) -> None:
        assert self.thread == threading.get_ident()
        self.living.remove(self)


def numbers(**attributes: Any) -> type[Numbers]:
    fresh: dict[str, Any] = {"faults": {}, "opened": [], "living": []}
    return type("Own", (Numbers,), fresh | attributes)


def reader_of(cls: type[Ingress], wake: Callable[[], None] = nothing) -> ThreadedReader:
    return ThreadedReader("own", lambda: cls("own", None, PARTITION), Host(wake, None))  # type: ignore[arg-type]


@contextmanager
def opened(reader: ThreadedReader, position: Any = None) -> Iterator[ThreadedReader]:
    reader.open(position)
    try:
        yield reader
    finally:
        reader.close()
        reader.close()
        assert reader._run is not None
        reader._run.thread.join(5)
        assert not reader._run.thread.is_alive()


def test_a_class_is_read_to_its_end_and_every_position_resumes() -> None:
    with opened(reader_of(numbers())) as reader:
        records, positions = drained(reader)
    assert records == list(range(3000))
    for done, position in positions[::7]:
        assert type(position) is list, "as it comes back from a checkpoint"
        with opened(reader_of(numbers()), position) as reader:
            assert drained(reader)[0] == list(range(done, 3000))


def test_after_an_error_a_new_object_goes_on_behind_the_last_record() -> None:
    cls = numbers(faults={0: OSError("not yet"), 5: OSError("lost"), 1500: SystemExit(3), 2999: ValueError("bad")})
    with opened(reader_of(cls)) as reader:
        assert drained(reader)[0] == list(range(3000))
    assert cls.opened == [None, None, [4, "n"], [1499, "n"], [2998, "n"]]
    assert not cls.living


def test_an_ingress_error_is_for_good_and_comes_behind_what_was_read() -> None:
    with opened(reader_of(numbers(faults={5: IngressError("gone")}))) as reader:
        reader._run.thread.join(5)  # type: ignore[union-attr]
        batch = reader.read(100, 0.0)
        assert batch is not None
        assert batch.records == [0, 1, 2, 3, 4]
        with pytest.raises(IngressError, match="gone"):
            reader.read(100, 0.0)
        assert not reader.finished


def test_a_fast_source_waits_while_nobody_reads() -> None:
    cls = numbers(end=100_000)
    with opened(reader_of(cls)) as reader:
        until = time.monotonic() + 5
        while not reader._run.feed.full:  # type: ignore[union-attr]
            assert time.monotonic() < until
        time.sleep(0.05)
        assert len(reader._run.feed._waiting) == FEED_RECORDS  # type: ignore[union-attr]
        records = reader.read(10, 0.0)
        assert records is not None
        assert records.records == list(range(10))


def test_opening_again_waits_for_the_thread_before() -> None:
    cls = numbers(end=100_000)
    reader = reader_of(cls)
    for _ in range(5):
        reader.open(None)
        while reader.read(10, 0.0) is None:
            time.sleep(0.001)
    with opened(reader):
        until = time.monotonic() + 5
        while (batch := reader.read(10, 0.0)) is None:
            assert time.monotonic() < until
    assert batch.records == list(range(10))


def test_a_read_that_waits_is_interrupted() -> None:
    entered, released = threading.Event(), threading.Event()

    class Waiting(Ingress):
        def open(self, position: Any | None) -> None: ...

        def read(self, limit: int) -> list[Any]:
            entered.set()
            assert released.wait(10)
            return []

        def interrupt(self) -> None:
            released.set()

    with opened(reader_of(Waiting)):
        assert entered.wait(5)


def test_the_loop_is_woken_for_the_first_record_and_the_end() -> None:
    woken: list[int] = []
    with opened(reader_of(numbers(end=3), lambda: woken.append(1))) as reader:
        reader._run.thread.join(5)  # type: ignore[union-attr]
        assert len(woken) == 2
        assert drained(reader)[0] == [0, 1, 2]
        assert reader.wake_at is None


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (5, "expected pairs"),
        ((1, 2, 3), "expected pairs"),
        ([1, 2], "expected pairs"),
        ((object(), 1), "expected a position of"),
    ],
)
def test_what_is_no_position_and_record_stops_the_node(item: Any, said: str) -> None:
    class Wrong(Ingress):
        def open(self, position: Any | None) -> None: ...

        def read(self, limit: int) -> list[Any]:
            return [item]

    with opened(reader_of(Wrong)) as reader, pytest.raises(IngressError, match=f"ingress 'own': {said}"):
        drained(reader)


def test_pauses_grow_to_a_minute() -> None:
    assert [restart_pause(n) for n in (1, 2, 3, 7, 1000)] == [1, 2, 4, 60, 60]


# ---- async generators ----------------------------------------------------------------------------------------------------
async def taken(reader: GeneratedReader, limit: int = 64) -> tuple[list[Any], list[Any]]:
    records: list[Any] = []
    positions = []
    with trio.fail_after(60):
        while not reader.finished:
            batch = reader.read(limit, 0.0)
            if batch is None:
                await trio.sleep(0.001)
                continue
            records += batch.records
            positions.append((len(records), batch.position))
    return records, positions


def generated_reader(function: Any, nursery: trio.Nursery, partition: Partition = PARTITION) -> GeneratedReader:
    return GeneratedReader("own", function, partition, Host(nothing, nursery.start_soon))


async def count(position: int | None) -> AsyncIterator[tuple[int, int]]:
    for number in range(0 if position is None else position + 1, 3000):
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
        yield number, number


async def test_a_generator_is_read_to_its_end_and_every_position_resumes() -> None:
    async with trio.open_nursery() as nursery:
        reader = generated_reader(count, nursery)
        reader.open(None)
        records, positions = await taken(reader)
        assert records == list(range(3000))
        for done, position in positions[::9]:
            reader.open(position)
            assert (await taken(reader))[0] == list(range(done, 3000))


async def test_a_generator_without_partition_runs_in_one_shard_only() -> None:
    async def split(position: int | None, partition: Partition) -> AsyncIterator[tuple[int, int]]:
        yield 0, partition.index

    async with trio.open_nursery() as nursery:
        for function, expected in ((count, [0, 3000]), (split, [1, 1])):
            sizes = []
            for index in range(2):
                reader = generated_reader(function, nursery, Partition(index, 2, lambda key, index=index: index == 1))
                reader.open(None)
                sizes.append(len((await taken(reader))[0]))
            assert sizes == expected


async def test_after_an_error_the_generator_goes_on_behind_its_last_record() -> None:
    begun: list[Any] = []

    async def flaky(position: list[int] | None) -> AsyncIterator[tuple[tuple[int, ...], int]]:
        begun.append(position)
        for number in range(0 if position is None else position[0] + 1, 5):
            if number == len(begun):
                async with trio.open_nursery() as inner:
                    inner.start_soon(trio.sleep, 0)
                    raise ConnectionError("lost")
            yield (number,), number

    async with trio.open_nursery() as nursery:
        reader = generated_reader(flaky, nursery)
        reader.open(None)
        assert (await taken(reader))[0] == [0, 1, 2, 3, 4]
    assert begun == [None, [0], [1], [2], [3]]


async def test_an_ingress_error_in_a_group_is_for_good() -> None:
    async def lost(position: int | None) -> AsyncIterator[tuple[int, int]]:
        yield 0, 0
        async with trio.open_nursery():
            raise IngressError("gone")

    async with trio.open_nursery() as nursery:
        reader = generated_reader(lost, nursery)
        reader.open(None)
        with pytest.raises(IngressError, match="gone"):
            await taken(reader)


async def test_a_fast_generator_waits_and_opening_again_cancels_it() -> None:
    living: list[int] = []
    made = 0

    async def endless(position: int | None) -> AsyncIterator[tuple[int, int]]:
        nonlocal made
        assert not living, "two at once"
        living.append(1)
        try:
            number = 0
            while True:
                made += 1
                yield number, number
                number += 1
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
            living.pop()

    async with trio.open_nursery() as nursery:
        reader = generated_reader(endless, nursery)
        reader.open(None)
        await trio.sleep(0.05)
        assert made == FEED_RECORDS
        for _ in range(3):
            reader.open(None)
        await trio.sleep(0.1)
        batch = reader.read(5, 0.0)
        assert batch is not None
        assert batch.records == [0, 1, 2, 3, 4]
        reader.close()
        reader.close()
    assert not living


# ---- declarations --------------------------------------------------------------------------------------------------------
def declared(function: Any, name: str = "own", **settings: Any) -> App:
    app = App("test")
    app.ingress(name, **settings)(function)
    return app


def test_what_app_ingress_refuses() -> None:
    def plain(position: Any) -> Any:
        yield 1, 2

    async def coroutine(position: Any) -> Any:
        return None

    async def other(position: Any, shard: int) -> AsyncIterator[Any]:
        yield 1

    for function, said in (
        (plain, "must be an async generator"),
        (coroutine, "must be an async generator"),
        (other, "got .position, shard."),
    ):
        with pytest.raises(DefinitionError, match=said):
            declared(function)
    for name, settings, said in (
        ("a.b", {}, "expected a name"),
        ("own", {"target": "t/f"}, "expected id="),
        ("own", {"id": "x"}, "expected a target"),
        ("own", {"target": "f", "id": "x"}, "'f'"),
    ):
        with pytest.raises(DefinitionError, match=said):
            declared(count, name, **settings)
    app = declared(count)
    with pytest.raises(DefinitionError, match="declared twice"):
        app.ingress("own")(count)

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None: ...

    with pytest.raises(DefinitionError, match=r"nobody to turn its records into messages: expected a router"):
        app.compile()
    app.router("own")(lambda record: ())
    assert app.compile()
    app.ingress("more", target="t/g", id="x")(count)
    with pytest.raises(DefinitionError, match="there is no function 't/g'"):
        app.compile()


def test_read_ingress_shows_what_a_generator_gives() -> None:
    app = declared(count)
    assert read_ingress(app, "own", position=2996) == [(2997, 2997), (2998, 2998), (2999, 2999)]
    assert len(read_ingress(app, "own", limit=5)) == 5
    with pytest.raises(ValueError, match="declared: own"):
        read_ingress(app, "other")


class Reserved(msgspec.Struct):
    target: str


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"options": dict}, "options: expected a msgspec.Struct class"),
        ({"options": Reserved}, "'target' is a setting that all have"),
        ({"read": lambda self: None}, "read: expected the arguments .self, limit"),
        ({"open": 5}, "open: expected a method"),
    ],
)
def test_a_class_with_mistakes_is_refused_when_it_is_defined(body: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        type("Own", (Ingress,), body)
