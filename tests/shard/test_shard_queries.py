"""A shard's side of questions about state: at once, or by the storage worker; whatever is asked, the shard goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardfun import App, Context, Map, State, Value, mapping, value
from shardfun.core.function import state_key
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.runner import compile_runner
from shardfun.core.shard import Program, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.errors import StorageError
from shardfun.model.columns import Batch
from shardfun.model.control import Found, Ids, ListIds, LookAt
from shardfun.model.delta import DeltaHeader, RecordBlock, checkpoint_id
from shardfun.model.keyspace import SLOTS, owner_of
from shardfun.model.questions import StateAnswer
from shardfun.shard import queries
from shardfun.shard.queries import Queries
from shardfun.shard.worker import Failed
from shardfun.state.store import LevelDBStore

JOB = "ab" * 16
SHARDS = 2

app = App("looked-at")


class Plain(State):
    n: Value[int] = value(0)
    text: Value[str] = value("")


class Mapped(State):
    m: Map[str, int] = mapping()


@app.function("t/plain")
def plain(ctx: Context[Plain], number: int) -> None:
    ctx.state.n += number
    ctx.state.text = "x" * number


@app.function("t/mapped")
def mapped(ctx: Context[Mapped], number: int) -> None:
    ctx.state.m[f"k{number}"] = number


class FakeStorage:
    """A store whose jobs wait until ``work``."""

    def __init__(self, folder: Path) -> None:
        self.store = LevelDBStore.open(folder, job=JOB, shard=0, shards=SHARDS)
        self.store.recover(0, b"")
        self.jobs: list[tuple[Callable[[LevelDBStore], bytes], Callable[[Any], None]]] = []

    def read(self, job: Callable[[LevelDBStore], bytes], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))

    def read_now(self, job: Callable[[LevelDBStore], bytes]) -> bytes:
        return job(self.store)

    def work(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job, done in jobs:
            try:
                result: Any = job(self.store)
            except Exception as error:
                result = Failed(error)
            done(result)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.storage = FakeStorage(folder)
        self.answers: list[Found] = []
        functions = app.compile()
        program = Program(functions, [compile_runner(function) for function in functions], {}, {}, Context)
        start = StartPoint(1, 0, b"", EMPTY_QUEUES)
        self.core = ShardCore(ShardIdentity(JOB, 0, SHARDS), start, program, Limits(), self.storage.store)
        self.queries = Queries(self.storage, self.answers.append, lambda: 1000.0)  # type: ignore[arg-type]

    def handle(self, typename: str, id: str, number: int) -> None:
        self.core.dispatcher.types[typename].mailbox.append(Batch([id], None, None, [number]))
        while self.core.run(10) is not None:
            pass

    def apply(self, keys: list[bytes]) -> None:
        blocks = [RecordBlock(sorted(keys), [b"\xa0"] * len(keys))]
        header = DeltaHeader(JOB, 0, SHARDS, (0, SLOTS // 2), 1, checkpoint_id(1, 1), 0, b"")
        self.storage.store.write_delta(header, blocks, b"")
        self.storage.store.apply_delta(header.checkpoint, blocks)

    def ask(self, target: str, id: str, at: Any = "live", part: str | None = None, limit: int = 10) -> None:
        self.queries.ask(self.core, LookAt(1, 7, target, id, at, part, None, limit))

    def state(self) -> StateAnswer:
        (found,) = self.answers
        self.answers.clear()
        assert (found.incarnation, found.request, found.code) == (1, 7, "")
        return msgspec.json.decode(found.answer, type=StateAnswer)

    def refusal(self) -> tuple[str, str]:
        (found,) = self.answers
        self.answers.clear()
        assert (found.incarnation, found.request, found.answer) == (1, 7, b"")
        return found.code, found.reason


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.storage.store.close()


def test_what_is_in_memory_and_small_is_answered_at_once(rig: Rig) -> None:
    rig.handle("t/plain", "a", 3)
    rig.ask("t/plain", "a")
    assert rig.storage.jobs == []
    answer = rig.state()
    assert (answer.fields, answer.exists, answer.checkpoint) == ({"n": 3, "text": "xxx"}, True, "none")


def test_everything_else_is_read_by_the_worker(rig: Rig) -> None:
    rig.handle("t/plain", "a", queries.AT_ONCE_BYTES + 1)
    rig.handle("t/mapped", "a", 5)
    for target, id, at in (
        ("t/plain", "a", "live"),
        ("t/plain", "b", "live"),
        ("t/plain", "a", "checkpoint"),
        ("t/mapped", "a", "live"),
    ):
        rig.ask(target, id, at)
        assert rig.answers == []
        rig.storage.work()
        assert rig.state().exists == (at == "live" and id == "a")


def test_what_happens_while_the_worker_is_busy_is_not_shown_by_half(rig: Rig) -> None:
    rig.handle("t/mapped", "a", 5)
    rig.ask("t/mapped", "a")
    rig.handle("t/mapped", "a", 6)
    rig.storage.work()
    assert [item.key for item in rig.state().parts["m"].items] == ["k5"]


def test_ids_of_the_own_slots(rig: Rig) -> None:
    mine = [id for id in map(str, range(50)) if owner_of(id, SHARDS) == 0]
    rig.apply([state_key("t/plain", id) for id in mine])
    rig.queries.ask(rig.core, ListIds(1, 7, "t/plain", 0, b"", 1000))
    rig.storage.work()
    (found,) = rig.answers
    ids = msgspec.json.decode(found.answer, type=Ids)
    assert (sorted(ids.ids), ids.slot, ids.checkpoint) == (sorted(mine), SLOTS // 2, checkpoint_id(1, 1))


def test_what_is_wrong_with_a_question_is_told(rig: Rig) -> None:
    rig.ask("t/plane", "a")
    assert rig.refusal() == ("unknown-target", "unknown function type 't/plane'; did you mean 't/plain'?")
    rig.ask("t/mapped", "a", part="x")
    rig.storage.work()
    assert rig.refusal()[0] == "unknown-target"
    rig.queries.ask(rig.core, ListIds(1, 7, "t/plane", 0, b"", 1))
    assert rig.refusal()[0] == "unknown-target"


def test_errors_of_the_store_and_of_user_code_end_the_question_only(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(error: Exception) -> Callable[..., Any]:
        def fail(*_: Any) -> None:
            raise error

        return fail

    for error, expected in (
        (StorageError("the disk is gone"), ("storage", "the disk is gone")),
        (KeyError("n"), ("error", "KeyError: 'n'")),
    ):
        monkeypatch.setattr(queries, "look", broken(error))
        rig.ask("t/plain", "b")
        rig.storage.work()
        assert rig.refusal() == expected
    monkeypatch.setattr(queries, "sight_of", broken(ZeroDivisionError("bug")))
    rig.ask("t/plain", "b")
    assert rig.refusal() == ("error", "ZeroDivisionError: bug")


def test_an_answer_that_is_too_long_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "ANSWER_BYTES_MAX", 1000)
    rig.handle("t/plain", "a", 2000)
    rig.ask("t/plain", "a")
    code, reason = rig.refusal()
    assert code == "unavailable"
    assert "ask for a single part, or for fewer items" in reason


def test_questions_that_wait_for_the_disk_are_limited(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "WAITING_MAX", 2)
    for _ in range(3):
        rig.ask("t/plain", "b")
    assert rig.refusal()[0] == "unavailable"
    rig.storage.work()
    rig.answers.clear()
    rig.ask("t/plain", "b")
    rig.storage.work()
    assert not rig.state().exists
