"""``Intake``: durable when it returns, one fsync for many, a limit on what waits; and replies for those who wait."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from shardfun.errors import BacklogFullError, DirectoryInUseError, PayloadTypeError, StorageError, UnavailableError
from shardfun.intake.bells import Bell
from shardfun.intake.desk import RETRY_MAX_S, RETRY_MIN_S, Intake
from shardfun.intake.entries import Entry, MessageEntry, RecordEntry, Reply, RequestEntry, decode_entry
from shardfun.intake.log import CONSUMED, DURABLE, LogWriter, log_exists
from shardfun.intake.log_files import Mark, load_mark, save_mark, scan
from shardfun.intake.pending import PendingKeys
from shardfun.intake.replies import ReplyRecord, ReplySink, ReplyStream, encode_reply, replies_path
from shardfun.model.doors import PublishedPosition


def message(number: int, size: int = 10) -> MessageEntry:
    return MessageEntry("t/f", f"id{number}", "bytes", b"x" * size)


def request(key: str, digest: bytes = b"d", *, anonymous: bool = False) -> RequestEntry:
    return RequestEntry(key, anonymous, digest, "t/f", "id", "int", b"\x01", "http")


def reply(key: str, digest: bytes = b"d", status: Any = "reply") -> ReplyRecord:
    return ReplyRecord("http", key, digest, status, "int", b"\x02")


def logged(folder: Path) -> list[Entry]:
    mark = load_mark(folder / DURABLE)
    assert mark is not None
    return [decode_entry(item.content) for item in scan(folder, 0, mark.offset)]


class Place:
    """Where an intake works."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "intake" / "http"
        self.runtime = folder / "run"
        self.runtime.mkdir()

    def made(self, *, backlog_bytes: int = 1 << 20, entry_bytes_max: int = 1 << 16) -> Intake:
        return Intake("http", self.log, self.runtime, 1, backlog_bytes=backlog_bytes, entry_bytes_max=entry_bytes_max)

    @asynccontextmanager
    async def running(self, **settings: Any) -> AsyncIterator[Intake]:
        async with trio.open_nursery() as nursery:
            intake = self.made(**settings)
            await nursery.start(intake.run)
            yield intake
            nursery.cancel_scope.cancel()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def sink(place: Place) -> Iterator[ReplySink]:
    made = ReplySink(place.runtime)
    made.open(PublishedPosition(0, 0), [])
    yield made
    made.close()


# ---- appending -----------------------------------------------------------------------------------------------------------
async def test_entries_are_durable_and_the_bell_has_rung_when_append_returns(place: Place) -> None:
    bell = Bell(place.runtime, 0)
    async with place.running() as intake:
        assert not log_exists(place.log), "without an entry there is no log"
        await intake.append([message(1), RecordEntry("events", {"a": 1})])
        assert logged(place.log) == [message(1), RecordEntry("events", {"a": 1})]
        bell.listen(1.0)
        assert bell.rings == 1
    bell.close()


async def test_many_callers_share_one_sync(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    real = LogWriter.append

    def counting(self: LogWriter, entries: Any) -> int:
        groups.append(len(entries))
        return real(self, entries)

    monkeypatch.setattr(LogWriter, "append", counting)
    async with place.running() as intake, trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(intake.append, [message(number)])
    assert sum(groups) == 500
    assert len(groups) < 10
    assert sorted(entry.id for entry in logged(place.log) if isinstance(entry, MessageEntry)) == sorted(
        f"id{n}" for n in range(500)
    )


async def test_one_callers_entries_stay_together_and_in_order(place: Place) -> None:
    async with place.running() as intake, trio.open_nursery() as nursery:
        for first in range(0, 300, 10):
            nursery.start_soon(intake.append, [message(first + index) for index in range(10)])
    numbers = [int(entry.id[2:]) for entry in logged(place.log) if isinstance(entry, MessageEntry)]
    assert all(numbers[at : at + 10] == list(range(numbers[at], numbers[at] + 10)) for at in range(0, 300, 10))


async def test_nothing_of_a_refused_append_is_in_the_log(place: Place) -> None:
    async with place.running(entry_bytes_max=100) as intake:
        with pytest.raises(PayloadTypeError, match=r"t/f:id2: a message of .* expected at most 100"):
            await intake.append([message(1), message(2, 200)])
        with pytest.raises(PayloadTypeError, match="RecordEntry cannot be encoded"):
            await intake.append([message(1), RecordEntry("events", object())])
        await intake.append([])
        assert intake.backlog_bytes_now == 0
        await intake.append([message(3)])
    assert logged(place.log) == [message(3)]


async def test_a_full_disk_refuses_all_that_wait_and_later_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.running() as intake:
        await intake.append([message(1)])
        before = intake.backlog_bytes_now

        def full(*_: Any) -> Any:
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patch:
            patch.setattr("shardfun.intake.log.write_all_at", full)
            with pytest.raises(StorageError) as caught:
                await intake.append([message(2), request("k")])
            assert caught.value.errno == errno.ENOSPC
        assert intake.backlog_bytes_now == before
        assert intake.digest_of("k") is None
        await intake.append([message(3)])
    assert logged(place.log) == [message(1), message(3)]


async def test_cancelling_an_append_breaks_nothing(place: Place) -> None:
    async with place.running() as intake:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                scope = trio.CancelScope(deadline=trio.current_time() + 0.001 * (number % 3))

                async def cancelled(number: int = number, scope: trio.CancelScope = scope) -> None:
                    with scope:
                        await intake.append([message(number)])

                nursery.start_soon(cancelled)
        await intake.append([message(1000)])
    found = [entry.id for entry in logged(place.log) if isinstance(entry, MessageEntry)]
    assert len(set(found)) == len(found)
    assert found[-1] == "id1000"


async def test_it_goes_on_in_the_log_that_is_there(place: Place) -> None:
    for number in range(3):
        async with place.running() as intake:
            await intake.append([message(number)])
    assert logged(place.log) == [message(0), message(1), message(2)]


async def test_when_it_has_ended_nothing_is_taken_in_and_nothing_is_left(place: Place) -> None:
    async with place.running() as intake:
        await intake.append([message(1)])
    with pytest.raises(UnavailableError, match="does not run"):
        await intake.append([message(2)])
    assert list(place.runtime.iterdir()) == []
    other = LogWriter(place.log)
    other.open()
    other.close()


async def test_two_processes_cannot_own_one_log(place: Place) -> None:
    async with place.running() as intake:
        await intake.append([message(1)])
        with pytest.raises(ExceptionGroup) as caught:
            async with place.running():
                pass
        assert caught.group_contains(DirectoryInUseError)
        await intake.append([message(2)])


# ---- the limit -----------------------------------------------------------------------------------------------------------
async def test_what_no_checkpoint_has_read_is_limited(place: Place) -> None:
    async with place.running(backlog_bytes=1000) as intake:
        with pytest.raises(BacklogFullError) as caught:
            for number in range(100):
                await intake.append([message(number, 100)])
        assert RETRY_MIN_S <= caught.value.retry_after_s <= RETRY_MAX_S
        assert 0 < intake.backlog_bytes_now <= 1000
        mark = load_mark(place.log / DURABLE)
        assert mark is not None
        intake.consumed(mark.offset)
        assert intake.backlog_bytes_now == 0
        await intake.append([message(1, 100)])


async def test_it_sees_by_itself_how_far_checkpoints_have_read(place: Place) -> None:
    async with place.running(backlog_bytes=500) as intake:
        for _ in range(20):
            await intake.append([message(1, 100)])
            mark = load_mark(place.log / DURABLE)
            assert mark is not None
            save_mark(place.log / CONSUMED, Mark(mark.offset, 0))
            await trio.sleep(0.025)
        assert intake.backlog_bytes_now == 0


async def test_what_is_longer_than_all_room_gets_in_alone(place: Place) -> None:
    async with place.running(backlog_bytes=100) as intake:
        await intake.append([message(1, 1000)])
        with pytest.raises(BacklogFullError):
            await intake.append([message(1, 1)])


# ---- asking --------------------------------------------------------------------------------------------------------------
async def answer(sink: ReplySink, *records: ReplyRecord) -> None:
    await trio.to_thread.run_sync(sink.publish, [sink.encode(record) for record in records])


async def test_an_ask_gets_its_reply(place: Place, sink: ReplySink) -> None:
    async with place.running() as intake, trio.open_nursery() as nursery:
        found: list[Reply | None] = []

        async def ask(key: str) -> None:
            found.append(await intake.ask(request(key)))

        nursery.start_soon(ask, "a")
        nursery.start_soon(ask, "b")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await answer(sink, reply("nobody"), reply("b"), reply("b"))
        with trio.fail_after(60):
            while not found:  # noqa: ASYNC110 - there is only looking
                await trio.sleep(0.01)
        assert found == [Reply("b", "reply", "int", b"\x02")]
        await answer(sink, reply("a"))
    assert [each.key for each in found if each is not None] == ["b", "a"]
    assert sorted(logged(place.log)) == [request("a"), request("b")]


async def test_a_conflict_is_for_the_request_that_has_it(place: Place, sink: ReplySink) -> None:
    async with place.running() as intake, trio.open_nursery() as nursery:
        found: dict[bytes, Reply | None] = {}

        async def ask(digest: bytes) -> None:
            found[digest] = await intake.ask(request("k", digest))

        nursery.start_soon(ask, b"first")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert intake.digest_of("k") == b"first"
        nursery.start_soon(ask, b"second")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert intake.digest_of("k") == b"first"
        await answer(sink, reply("k", b"second", "conflict"), reply("k", b"first"))
    assert {digest: each.status for digest, each in found.items() if each is not None} == {
        b"first": "reply",
        b"second": "conflict",
    }


async def test_waiting_ends_by_time_and_the_request_stays(place: Place, sink: ReplySink) -> None:
    async with place.running() as intake:
        assert await intake.ask(request("k"), wait_s=0.01) is None
        assert await intake.ask(request("k"), wait_s=0) is None
        with trio.move_on_after(0.01) as scope:
            await intake.ask(request("k"))
        assert scope.cancelled_caught
        await answer(sink, reply("k"))
        assert intake._waiting == {}
    assert logged(place.log) == [request("k")] * 3


async def test_an_ask_that_is_refused_leaves_no_waiter(place: Place) -> None:
    async with place.running(entry_bytes_max=20) as intake:
        with pytest.raises(PayloadTypeError):
            await intake.ask(request("k" * 100))
        assert intake._waiting == {}


async def test_keys_are_known_until_a_complete_checkpoint_has_read_them_also_after_a_restart(place: Place) -> None:
    async with place.running() as intake:
        await intake.append([request("a"), request("secret", anonymous=True)])
        first = load_mark(place.log / DURABLE)
        await intake.append([request("b", b"other")])
        assert first is not None
    async with place.running() as intake:
        assert [intake.digest_of(key) for key in ("a", "b", "secret", "none")] == [b"d", b"other", None, None]
        save_mark(place.log / CONSUMED, Mark(first.offset, 0))
    async with place.running() as intake:
        assert [intake.digest_of(key) for key in ("a", "b")] == [None, b"other"]


def test_the_first_digest_of_a_key_stays_while_the_key_is_pending() -> None:
    keys = PendingKeys()
    keys.add("k", b"1")
    keys.add("k", b"2")
    keys.written("k", b"1", 10)
    keys.consumed(10)
    assert keys.digest_of("k") == b"1", "the other one still waits for the disk"
    keys.remove("k")
    assert keys.digest_of("k") is None
    keys.add("k", b"3")
    keys.written("k", b"3", 20)
    keys.add("x", b"x")
    keys.add("k", b"4")
    keys.remove("k")
    keys.consumed(19)
    assert keys.digest_of("k") == b"3"
    keys.consumed(20)
    assert len(keys) == 1
    keys.remove("x")
    assert len(keys) == 0


def test_the_digest_of_a_request_that_was_not_written_does_not_stay() -> None:
    keys = PendingKeys()
    keys.add("k", b"1")
    keys.add("k", b"2")
    keys.remove("k")
    keys.written("k", b"2", 10)
    assert keys.digest_of("k") == b"2"


# ---- replies on their way ------------------------------------------------------------------------------------------------
def test_replies_survive_any_cut_of_the_stream() -> None:
    records = [reply("a"), reply("b" * 300), reply("é", status="conflict")]
    raw = b"".join(len(data).to_bytes(4, "big") + data for data in map(encode_reply, records))
    for cut in range(len(raw)):
        stream = ReplyStream()
        assert [*stream.feed(raw[:cut]), *stream.feed(raw[cut:])] == records


async def test_a_replaced_owner_gets_what_comes_next(place: Place, sink: ReplySink) -> None:
    for _ in range(3):
        async with place.running() as intake, trio.open_nursery() as nursery:
            nursery.start_soon(intake.ask, request("k"))
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.fail_after(60):
                await answer(sink, reply("k"))


def test_without_an_owner_replies_are_dropped(place: Place, sink: ReplySink) -> None:
    assert sink.publish([encode_reply(reply("k"))]) is None
    assert sink.open(PublishedPosition(3, 30), [b"1", b"2"]) == 0


def test_an_owner_that_does_not_read_does_not_hold_the_shard_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfun.intake.replies.OWNER_WAIT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(replies_path(place.runtime, "http")))
        listener.listen()
        sink = ReplySink(place.runtime)
        big = encode_reply(reply("k")._replace(payload=b"x" * (4 << 20)))
        sink.publish([big])
        sink.publish([big])
        sink.close()
        sink.close()


async def test_what_is_no_reply_ends_the_connection_only(place: Place, sink: ReplySink) -> None:
    async with place.running() as intake, trio.open_nursery() as nursery:
        nursery.start_soon(intake.ask, request("k"))
        async with await trio.open_unix_socket(str(replies_path(place.runtime, "http"))) as stream:
            await stream.send_all(b"\xff" * 100)
            assert await stream.receive_some(1) == b""
        await answer(sink, reply("k"))
