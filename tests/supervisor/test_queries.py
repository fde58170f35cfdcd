"""Questions about state: who is asked, what happens while the world falls back, and when a checkpoint counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from shardfun.core.coordinator import Coordinator, RaiseIncarnation, State, Timing
from shardfun.errors import ConfigurationError, CorruptionError, ProtocolError, UnavailableError, UnknownTargetError
from shardfun.model.control import Applied, Found, Ids, ListIds, LookAt, Prepared, Ready, ToShard
from shardfun.model.delta import checkpoint_id
from shardfun.model.keyspace import SLOTS, owner_of, slot_of, slot_range
from shardfun.model.questions import CheckpointQuestion, ListQuestion, Query, StateAnswer, StateQuestion
from shardfun.supervisor import queries as desks
from shardfun.supervisor.queries import QueryDesk

SHARDS = 2
IDS = sorted((f"id-{n}" for n in range(40)), key=slot_of)


class World:
    """A real coordinator, and shards that know a few ids.

    ``silent``: shards that do not answer. ``step``: ids in an answer of a shard, at most.
    """

    def __init__(self) -> None:
        self.coordinator = Coordinator(SHARDS, Timing(), 0, [b""] * SHARDS, "job" * 8)
        self.desk = QueryDesk(self.coordinator, SHARDS, self._deliver, self.wake)
        self.asked: list[tuple[int, LookAt | ListIds]] = []
        self.silent: set[int] = set()
        self.step = 1000
        self.coordinator.start(0.0)
        self.recover()

    def wake(self) -> None:
        self.desk.wake()

    def _deliver(self, shard: int, message: ToShard) -> None:
        assert isinstance(message, (LookAt, ListIds))
        self.asked.append((shard, message))
        if shard not in self.silent:
            self.reply(shard, message)

    def reply(self, shard: int, message: LookAt | ListIds, code: str = "") -> None:
        answer: Any
        if isinstance(message, LookAt):
            checkpoint = f"{self.coordinator.incarnation}.0"
            answer = StateAnswer(address=f"{message.target}:{message.id}", exists=True, checkpoint=checkpoint)
        else:
            end = slot_range(shard, SHARDS)[1]
            mine = [
                id for id in IDS if owner_of(id, SHARDS) == shard and (slot_of(id), id.encode()) > (message.slot, message.after)
            ]
            some = mine[: min(self.step, message.limit)]
            slot, after = (slot_of(some[-1]), some[-1].encode()) if some and len(some) < len(mine) else (end, b"")
            answer = Ids(some, slot, after, checkpoint_id(1, 5 - shard))
        self.desk.on_found(shard, Found(message.incarnation, message.request, msgspec.json.encode(answer), code, "why"))

    def checkpoint(self, *, then_die: bool = False, applied: bool = True) -> None:
        """Prepare and complete the one that is under way, or a new one."""
        coordinator = self.coordinator
        current = coordinator.current or coordinator.trigger(0.0)
        for shard in range(SHARDS):
            part = Prepared(coordinator.incarnation, current, b"", 1, 1, False, False, False, False, 0.0, {})
            coordinator.on_prepared(shard, part)
        if then_die:
            coordinator.failure(0, "died", 0.0)
        coordinator.manifest_durable(current, 0.0)
        if applied and not then_die:
            self.apply()
        self.desk.wake()

    def apply(self) -> None:
        for shard in range(SHARDS):
            self.coordinator.on_applied(shard, Applied(self.coordinator.incarnation, self.coordinator.complete), 0.0)
        self.desk.wake()

    def die(self) -> None:
        self.coordinator.failure(0, "died", 0.0)
        self.desk.wake()

    def recover(self) -> None:
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


def state(id: str = "id-1", **more: Any) -> StateQuestion:
    return StateQuestion(target="shop/cart", id=id, **more)


async def asking(world: World, question: Query, *meanwhile: Callable[[], Any]) -> Any:
    """The answer, which must come in the last of the steps ``meanwhile``, and not before."""
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await world.desk.answer(question))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        for step in meanwhile:
            assert answers == [], f"before {step}"
            step()
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    (answer,) = answers
    return answer


# ---- state ---------------------------------------------------------------------------------------------------------------
async def test_the_shard_of_the_id_is_asked() -> None:
    world = World()
    for id in IDS[:10]:
        answer = await world.desk.answer(state(id, at="checkpoint", part="m", after="bUE", limit=7))
        assert answer.address == f"shop/cart:{id}"
        shard, asked = world.asked[-1]
        assert isinstance(asked, LookAt)
        assert shard == owner_of(id, SHARDS)
        assert (asked.at, asked.part, asked.after, asked.limit) == ("checkpoint", "m", "bUE", 7)
    assert len({asked.request for _, asked in world.asked}) == 10


async def test_a_question_is_asked_again_after_each_recovery() -> None:
    world = World()
    world.silent = {0, 1}
    answer = await asking(
        world, state(), world.die, world.recover, world.die, world.recover, lambda: world.reply(*world.asked[-1])
    )
    assert [asked.incarnation for _, asked in world.asked] == [1, 2, 3]
    assert answer.checkpoint == "3.0"


async def test_a_late_answer_of_another_incarnation_is_nothing() -> None:
    world = World()
    world.silent = {0, 1}
    answer = await asking(
        world,
        state(),
        world.die,
        lambda: world.reply(*world.asked[0]),
        world.recover,
        lambda: world.reply(*world.asked[0]),
        lambda: world.reply(*world.asked[1]),
    )
    assert answer.checkpoint == "2.0"
    assert world.desk._requests == {}


async def test_during_a_recovery_nobody_is_asked() -> None:
    world = World()
    world.die()
    answer = await asking(world, state(), lambda: None, world.recover)
    assert answer.exists
    assert len(world.asked) == 1


@pytest.mark.parametrize("question", [state(), ListQuestion(typename="a/b")], ids=["state", "list"])
async def test_without_an_answer_the_asker_is_told(question: Query, autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.silent = {0, 1}
    with pytest.raises(UnavailableError, match=r"no answer of the shard within 10 s \(state: idle\)"):
        await world.desk.answer(question)
    world.die()
    with pytest.raises(UnavailableError, match=r"within 10 s \(state: recovering\)"):
        await world.desk.answer(question)
    assert trio.current_time() == pytest.approx(2 * desks.STATE_TIMEOUT_S)
    assert world.desk._requests == {}


@pytest.mark.parametrize("question", [state(), CheckpointQuestion()], ids=["state", "checkpoint"])
async def test_when_the_node_ends_nobody_is_kept_waiting(question: Query) -> None:
    world = World()
    world.silent = {0, 1}
    with pytest.raises(ExceptionGroup) as found:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.desk.answer, question)
            await trio.testing.wait_all_tasks_blocked()
            world.desk.close()
    assert found.group_contains(UnavailableError, match="stopping")
    with pytest.raises(UnavailableError):
        await world.desk.answer(question)


async def test_a_node_that_is_finishing_does_not_answer() -> None:
    world = World()
    world.coordinator.stop()
    world.checkpoint()
    assert world.coordinator.state is State.FINISHING
    for question in (state(), ListQuestion(typename="a/b"), CheckpointQuestion()):
        with pytest.raises(UnavailableError):
            await world.desk.answer(question)


async def test_errors_of_a_shard_are_its_own() -> None:
    world = World()
    world.silent = {0, 1}
    for code, error, exit_code in (
        ("unknown-target", UnknownTargetError, 1),
        ("corruption", CorruptionError, 4),
        ("?", UnavailableError, 8),
    ):
        with pytest.raises(ExceptionGroup) as found:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.desk.answer, state())
                await trio.testing.wait_all_tasks_blocked()
                world.reply(*world.asked[-1], code)
        (raised,) = found.value.exceptions
        assert type(raised) is error
        assert (str(raised), raised.exit_code) == ("why", exit_code)


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (StateQuestion(target="cart", id="1"), UnknownTargetError),
        (StateQuestion(target="shop/*", id="1"), UnknownTargetError),
        (StateQuestion(target="shop/\ud800", id="1"), UnknownTargetError),
        (state(""), UnknownTargetError),
        (state("x" * 4097), UnknownTargetError),
        (state("\ud800"), UnknownTargetError),
        (state(part="x" * 2000), UnknownTargetError),
        (state(limit=0), ProtocolError),
        (ListQuestion(typename="a"), UnknownTargetError),
        (ListQuestion(typename="a/b", limit=1001), ProtocolError),
        (ListQuestion(typename="a/b", after="?"), ConfigurationError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else ascii(value)[:60],
)
async def test_what_no_shard_needs_to_be_asked(question: Query, error: type[Exception]) -> None:
    world = World()
    with pytest.raises(error):
        await world.desk.answer(question)
    assert world.asked == []


async def test_questions_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "WAITING_MAX", 2)
    world = World()
    world.silent = {0, 1}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.desk.answer, state())
        nursery.start_soon(world.desk.answer, CheckpointQuestion())
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(UnavailableError, match="2 questions are waiting already"):
            await world.desk.answer(state())
        nursery.cancel_scope.cancel()
    world.silent = set()
    assert (await world.desk.answer(state())).exists, "who has gone takes no room"


# ---- ids -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_ids_of_all_shards_come_each_once(step: int, limit: int) -> None:
    world = World()
    world.step = step
    found: list[str] = []
    after = None
    while True:
        answer = await world.desk.answer(ListQuestion(typename="shop/cart", after=after, limit=limit))
        assert len(answer.ids) <= limit
        found += answer.ids
        after = answer.next
        if after is None:
            break
    assert found == IDS
    if limit == step == 1000:
        assert answer.checkpoint == "1.4", "the older one of two"


async def test_a_page_of_ids_takes_a_bounded_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "LIST_STEPS_MAX", 3)
    world = World()
    world.step = 1
    answer = await world.desk.answer(ListQuestion(typename="shop/cart", limit=1000))
    assert (answer.ids, len(world.asked)) == (IDS[:3], 3)
    assert answer.next is not None


async def test_a_recovery_between_two_shards_asks_the_second_again() -> None:
    world = World()
    world.silent = {1}
    answer = await asking(
        world, ListQuestion(typename="a/b", limit=1000), world.die, world.recover, lambda: world.reply(*world.asked[-1])
    )
    assert answer.ids == IDS
    assert [shard for shard, _ in world.asked] == [0, 1, 1]


async def test_the_end_is_the_last_slot() -> None:
    world = World()
    answer = await world.desk.answer(ListQuestion(typename="a/b", limit=1000))
    assert answer.next is None
    assert slot_range(SHARDS - 1, SHARDS)[1] == SLOTS


# ---- checkpoints ---------------------------------------------------------------------------------------------------------
async def test_a_checkpoint_is_asked_for_at_once_and_answered_when_it_is_complete() -> None:
    world = World()
    world.checkpoint()
    coordinator = world.coordinator
    assert coordinator.wake_at > 0.0, "nothing has changed"

    def triggered() -> None:
        assert coordinator.wake_at <= 0.2, "as soon as the interval allows"
        coordinator.tick(0.0)
        assert coordinator.state is State.ALIGNING

    answer = await asking(world, CheckpointQuestion(), triggered, lambda: world.checkpoint(applied=False))
    assert answer.checkpoint == "1.2"
    assert answer.took_ms >= 0


async def test_a_checkpoint_that_had_been_cut_before_is_not_enough() -> None:
    world = World()
    world.coordinator.trigger(0.0)
    answer = await asking(world, CheckpointQuestion(), world.checkpoint, world.checkpoint)
    assert answer.checkpoint == "1.2"
    world.coordinator.trigger(0.0)
    world.checkpoint(applied=False)
    answer = await asking(world, CheckpointQuestion(), world.apply, world.checkpoint)
    assert answer.checkpoint == "1.4"


async def test_one_that_is_aborted_or_lost_is_waited_for_again() -> None:
    world = World()

    def abort() -> None:
        world.coordinator.trigger(0.0)
        world.coordinator.tick(1000.0)
        world.desk.wake()
        assert world.coordinator.state is State.IDLE

    answer = await asking(world, CheckpointQuestion(), abort, world.die, world.recover, world.checkpoint)
    assert answer.checkpoint == "2.1"


async def test_a_death_behind_the_commit_point_takes_nothing_back() -> None:
    world = World()
    answer = await asking(world, CheckpointQuestion(), lambda: world.checkpoint(then_die=True))
    assert answer.checkpoint == "1.1"


async def test_without_a_checkpoint_in_time_the_asker_is_told(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    with pytest.raises(UnavailableError, match="no complete checkpoint within 60 s"):
        await world.desk.answer(CheckpointQuestion())


async def test_many_may_wait_for_one_checkpoint() -> None:
    world = World()
    names: list[str] = []

    async def ask() -> None:
        answer = await world.desk.answer(CheckpointQuestion())
        names.append(answer.checkpoint)  # type: ignore[union-attr]

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        world.checkpoint()
    assert names == ["1.1"] * 20
