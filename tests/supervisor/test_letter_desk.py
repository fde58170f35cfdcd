"""Questions about dead letters: an answer stands for a complete checkpoint, whatever happens between question and answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import cbor2
import pytest
import trio
import trio.testing

from shardfun.core.coordinator import Coordinator, RaiseIncarnation, State, Timing
from shardfun.errors import CorruptionError, UnavailableError
from shardfun.model.control import Applied, Letters, LettersDone, Prepared, Ready, ToShard
from shardfun.model.letters import LetterName
from shardfun.model.questions import LETTERS_MAX, LettersAnswer, LettersQuestion
from shardfun.supervisor import letters as desks
from shardfun.supervisor.letters import LetterDesk

SHARDS = 2


def letter(number: int, shard: int, target: str = "test/worker") -> tuple[bytes, bytes]:
    name = LetterName((1 << 32) | 1, number, shard)
    content = {
        "payload_type": "int",
        "payload": number,
        "target": [target, f"{number}"],
        "sender": None,
        "reason": "r",
        "traceback": "t",
        "attempts": 1,
        "checkpoint": name.cut,
        "time": 1.0,
    }
    return b"\0\0d" + name.encode(), cbor2.dumps(content)


class World:
    """A real coordinator, and shards of which only the dead letters are there."""

    def __init__(self) -> None:
        self.coordinator = Coordinator(SHARDS, Timing(), 0, [b""] * SHARDS, "job" * 8)
        self.desk = LetterDesk(self.coordinator, SHARDS, self._deliver, self._wake)
        self.stored = [dict([letter(1, shard), letter(2, shard)]) for shard in range(SHARDS)]
        """As of the last complete checkpoint."""
        self.live = [dict(mine) for mine in self.stored]
        self.asked: list[Letters] = []
        self.silent = False
        self.coordinator.start(0.0)
        self.recover()

    def _wake(self) -> None:
        self.desk.wake()

    def _deliver(self, shard: int, message: ToShard) -> None:
        assert isinstance(message, Letters)
        self.asked.append(message)
        if self.silent or message.incarnation != self.coordinator.incarnation:
            return
        found, outcomes = [], []
        if message.action in {"list", "show"}:
            found = sorted(self.stored[shard].items(), reverse=True)
            found = [(key, raw) for key, raw in found if not message.keys or key[3:] in message.keys][: message.limit]
        else:
            outcomes = ["" if self.live[shard].pop(key, None) is not None else "missing" for key in message.keys]
        cut = self.coordinator.current or self.coordinator.complete
        self.desk.on_done(shard, LettersDone(message.incarnation, message.request, found, len(found), outcomes, cut, ""))

    def checkpoint(self, *, then_die: bool = False) -> None:
        """One from trigger to the end."""
        coordinator = self.coordinator
        current = coordinator.trigger(0.0)
        at_cut = [dict(mine) for mine in self.live]
        for shard in range(SHARDS):
            coordinator.on_prepared(
                shard,
                Prepared(coordinator.incarnation, current, b"", 1, 1, False, False, False, False, 0.0, {}),
            )
        if then_die:
            coordinator.failure(0, "died", 0.0)
        coordinator.manifest_durable(current, 0.0)
        self.stored = at_cut
        if not then_die:
            for shard in range(SHARDS):
                coordinator.on_applied(shard, Applied(coordinator.incarnation, current), 0.0)
        self.desk.wake()

    def die(self) -> None:
        """Back to the last complete checkpoint."""
        self.coordinator.failure(0, "died", 0.0)
        self.desk.wake()

    def recover(self) -> None:
        self.live = [dict(mine) for mine in self.stored]
        coordinator = self.coordinator
        assert RaiseIncarnation() in coordinator.take_effects()
        coordinator.incarnation_raised(coordinator.incarnation + 1)
        for shard, member in enumerate(coordinator.membership.members):
            if member.name == "VACANT":
                coordinator.assigned(shard)
        for shard in range(SHARDS):
            coordinator.on_ready(shard, Ready(coordinator.incarnation, {}, []), 0.0)
        coordinator.take_effects()
        self.desk.wake()

    @property
    def left(self) -> list[int]:
        return [len(mine) for mine in self.stored]


def question(action: Any, *keys: str, limit: int = LETTERS_MAX) -> LettersQuestion:
    return LettersQuestion(action=action, keys=list(keys), limit=limit)


async def asking(world: World, asked: LettersQuestion, meanwhile: Callable[[], Awaitable[None]]) -> LettersAnswer:
    answers: list[LettersAnswer] = []

    async def ask() -> None:
        answers.append(await world.desk.answer(asked))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [], "nothing is complete yet"
        await meanwhile()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    (answer,) = answers
    return answer


async def test_a_look_needs_no_checkpoint() -> None:
    world = World()
    answer = await world.desk.answer(question("list", limit=3))
    assert [each.key for each in answer.letters] == ["1.1-2-0", "1.1-2-1", "1.1-1-0"]
    assert answer.total == 4
    answer = await world.desk.answer(question("show", "1.1-2-1", "1.1-7-0"))
    assert ([each.key for each in answer.letters], answer.unknown) == (["1.1-2-1"], ["1.1-7-0"])


async def test_a_change_is_answered_when_a_checkpoint_behind_it_is_complete() -> None:
    world = World()

    async def meanwhile() -> None:
        assert world.coordinator.wake_at <= 0.0, "a checkpoint is asked for"
        world.checkpoint()

    answer = await asking(world, question("replay"), meanwhile)
    assert [change.refused for change in answer.changes] == [""] * 4
    assert answer.checkpoint == "1.1"
    assert world.left == [0, 0]


async def test_a_recovery_in_between_does_it_again() -> None:
    world = World()

    async def meanwhile() -> None:
        for _ in range(3):
            world.die()
            await trio.testing.wait_all_tasks_blocked()
            world.recover()
            await trio.testing.wait_all_tasks_blocked()
        world.checkpoint()

    answer = await asking(world, question("drop", "1.1-1-0"), meanwhile)
    assert ([change.key for change in answer.changes], answer.unknown) == (["1.1-1-0"], [])
    assert sum(message.action == "drop" for message in world.asked) == 4
    assert world.left == [1, 2]


async def test_a_death_during_the_decision_does_not_undo_it() -> None:
    world = World()

    async def meanwhile() -> None:
        world.checkpoint(then_die=True)

    answer = await asking(world, question("replay", "1.1-1-1"), meanwhile)
    assert [change.key for change in answer.changes] == ["1.1-1-1"]
    assert world.coordinator.state is State.RECOVERING
    assert world.left == [2, 1]


async def test_a_checkpoint_cut_before_the_change_is_not_enough() -> None:
    world = World()
    current = world.coordinator.trigger(0.0)

    async def meanwhile() -> None:
        coordinator = world.coordinator
        for shard in range(SHARDS):
            part = Prepared(coordinator.incarnation, current, b"", 1, 1, False, False, False, False, 0.0, {})
            coordinator.on_prepared(shard, part)
        coordinator.manifest_durable(current, 0.0)
        for shard in range(SHARDS):
            coordinator.on_applied(shard, Applied(coordinator.incarnation, current), 0.0)
        world.desk.wake()
        await trio.testing.wait_all_tasks_blocked()
        world.checkpoint()

    answer = await asking(world, question("drop", "1.1-1-0"), meanwhile)
    assert answer.checkpoint == "1.2"


async def test_a_shard_that_died_before_it_answered_is_asked_again() -> None:
    world = World()
    world.silent = True

    async def meanwhile() -> None:
        world.die()
        world.silent = False
        world.recover()

    answer = await asking(world, question("list"), meanwhile)
    assert answer.total == 4


async def test_answers_and_steps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(desks, "FOUND_BYTES_MAX", 3 * len(letter(1, 0)[1]))
    assert (await world.desk.answer(question("list"))).total == 4
    assert len((await world.desk.answer(question("list"))).letters) == 3
    monkeypatch.setattr(desks, "FOUND_BYTES_MAX", 1)
    assert len((await world.desk.answer(question("show"))).letters) == 1
    monkeypatch.undo()
    monkeypatch.setattr(desks, "CHANGED_AT_ONCE", 1)

    async def meanwhile() -> None:
        world.checkpoint()

    assert len((await asking(world, question("drop"), meanwhile)).changes) == 4
    assert [len(message.keys) for message in world.asked if message.action == "drop"] == [1] * 4


async def test_a_node_that_stops_refuses() -> None:
    world = World()
    world.coordinator.stop()
    with pytest.raises(UnavailableError, match="the node is stopping"):
        await world.desk.answer(question("list"))


async def test_when_the_node_ends_nobody_is_kept_waiting() -> None:
    world = World()
    with pytest.raises(ExceptionGroup) as found:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.desk.answer, question("drop"))
            await trio.testing.wait_all_tasks_blocked()
            world.desk.close()
    assert found.group_contains(UnavailableError, match="the node has finished meanwhile")
    with pytest.raises(UnavailableError):
        await world.desk.answer(question("list"))


async def test_without_a_checkpoint_the_asker_is_told(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    with pytest.raises(UnavailableError, match="Asking again does no harm"):
        await world.desk.answer(question("drop"))
    assert world.left == [2, 2]


async def test_questions_are_limited(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "WAITING_MAX", 1)
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_swallow, world.desk.answer, question("drop"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(UnavailableError, match="questions about dead letters are waiting already"):
            await world.desk.answer(question("list"))


async def _swallow(answer: Callable[[LettersQuestion], Awaitable[Any]], asked: LettersQuestion) -> None:
    with pytest.raises(UnavailableError):
        await answer(asked)


async def test_damage_in_a_store_is_reported() -> None:
    world = World()
    world.silent = True
    with pytest.raises(ExceptionGroup) as found:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.desk.answer, question("list"))
            await trio.testing.wait_all_tasks_blocked()
            for shard in range(SHARDS):
                world.desk.on_done(shard, LettersDone(1, world.asked[-1].request, [], 0, [], 0, "block is damaged"))
    assert found.group_contains(CorruptionError, match="shard 0: block is damaged")


async def test_an_answer_of_another_incarnation_is_none() -> None:
    """Another supervisor may have asked something else under the same number."""
    world = World()
    world.silent = True
    answers: list[LettersAnswer] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await world.desk.answer(LettersQuestion(action="list")))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        for shard in range(SHARDS):
            request = world.asked[shard].request
            world.desk.on_done(shard, LettersDone(7, request, [letter(9, shard)], 1, [], 0, ""))
        await trio.testing.wait_all_tasks_blocked()
        assert not answers
        for shard in range(SHARDS):
            world.desk.on_done(shard, LettersDone(1, world.asked[shard].request, [], 0, [], 0, ""))
    assert answers[0].letters == []
