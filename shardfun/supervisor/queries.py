"""Answers questions about state: asks the shard that has it, and again if the world was reset meanwhile.

Nothing is kept here between two questions: where a page goes on is in its token. Looking changes nothing, so asking twice does no
harm, and an answer of a shard that has fallen back meanwhile is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, assert_never

import msgspec
import trio

from shardfun.core.coordinator import Coordinator, State
from shardfun.errors import DefinitionError, ProtocolError, UnavailableError, UnknownTargetError, error_of
from shardfun.model.address import ID_BYTES_MAX, check_typename
from shardfun.model.control import Changed, Found, Ids, ListIds, LookAt, ToShard
from shardfun.model.delta import checkpoint_name
from shardfun.model.keyspace import SLOTS, owner_of, owner_of_slot
from shardfun.model.page_tokens import ids_place, ids_token
from shardfun.model.questions import (
    PART_BYTES_MAX,
    CheckpointAnswer,
    CheckpointQuestion,
    ListAnswer,
    ListQuestion,
    Query,
    QueryAnswer,
    StateAnswer,
    StateQuestion,
    check_question,
)
from shardfun.supervisor.letters import Event

STATE_TIMEOUT_S = 10.0
CHECKPOINT_TIMEOUT_S = 60.0
WAITING_MAX = 56
"""Questions at once: fewer than the door answers (``mesh.door``), so that there is always room for the status."""
LIST_STEPS_MAX = 32
"""Questions to shards for one page of ids: each looks at a bounded number of keys, and most of them may be of other types."""

A = TypeVar("A")


class _Request:
    """A question to one shard, until it is answered."""

    __slots__ = ("answer", "news")

    def __init__(self, news: Event) -> None:
        self.answer: Found | None = None
        self.news = news


class QueryDesk:
    """See the module.

    Args:
        send: a control message to a shard; lost if it has no process.
        perform: does what the coordinator wants.
        new_event: another one, where there is no Trio.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        shards: int,
        send: Callable[[int, ToShard], None],
        perform: Callable[[], None],
        new_event: Callable[[], Event] = trio.Event,
    ) -> None:
        self._coordinator = coordinator
        self._shards = shards
        self._send = send
        self._perform = perform
        self._number = 0
        self._waiting = 0
        self._requests: dict[tuple[int, int], _Request] = {}
        self._new_event = new_event
        self._news = new_event()
        self._seen = self._moment()
        self._closed = False

    # ---- what happens ---------------------------------------------------------------------------------------------------
    def wake(self) -> None:
        """The coordinator may have changed."""
        moment = self._moment()
        if self._waiting and moment != self._seen:
            self._announce()
        self._seen = moment

    def on_found(self, shard: int, message: Found) -> None:
        """A shard has answered."""
        request = self._requests.get((shard, message.request))
        if request is not None and message.incarnation == self._coordinator.incarnation:
            request.answer = message
            request.news.set()

    def close(self) -> None:
        """The node ends: nobody is kept waiting."""
        self._closed = True
        self._announce()

    def _announce(self) -> None:
        self._news.set()
        self._news = self._new_event()
        for request in self._requests.values():
            request.news.set()

    def _moment(self) -> tuple[State, int, int]:
        coordinator = self._coordinator
        return coordinator.state, coordinator.incarnation, coordinator.complete

    # ---- questions ------------------------------------------------------------------------------------------------------
    async def answer(self, question: Query) -> QueryAnswer:
        """Answer one question.

        Raises:
            UnavailableError: the node cannot do it now, or not in time.
            UnknownTargetError: there is no such function, or the address is none.
            ConfigurationError: a continuation token is none.
            ProtocolError: the question is beyond the limits.
            CorruptionError, StorageError: a shard cannot read its store.
            PayloadTypeError: the stored state does not fit its declaration.
        """
        check_question(question)
        if self._waiting >= WAITING_MAX:
            raise UnavailableError(f"{self._waiting} questions are waiting already; ask again later")
        seconds = CHECKPOINT_TIMEOUT_S if isinstance(question, CheckpointQuestion) else STATE_TIMEOUT_S
        with trio.move_on_after(seconds) as scope:
            return await self.work_on(question)
        assert scope.cancelled_caught
        what = "no complete checkpoint" if isinstance(question, CheckpointQuestion) else "no answer of the shard"
        state = self._coordinator.state.name.lower()
        raise UnavailableError(f"{what} within {seconds:g} s (state: {state}); ask again, or look at 'shardfun status'")

    async def work_on(self, question: Query) -> QueryAnswer:
        """``answer``, however long it takes."""
        self._waiting += 1
        try:
            return await self._answer(question)
        finally:
            self._waiting -= 1

    async def _answer(self, question: Query) -> QueryAnswer:
        match question:
            case StateQuestion():
                return await self._state(question)
            case ListQuestion():
                return await self._list(question)
            case CheckpointQuestion():
                return await self._checkpoint()
            case _:
                assert_never(question)

    async def _state(self, question: StateQuestion) -> StateAnswer:
        _check_type(question.target)
        _check_id(question.id)
        if question.part is not None and len(question.part.encode(errors="replace")) > PART_BYTES_MAX:
            raise UnknownTargetError(f"part {question.part!r:.60}: expected the name of a map, a buffer or a registry")
        shard = owner_of(question.id, self._shards)
        look = LookAt(0, 0, question.target, question.id, question.at, question.part, question.after, question.limit)
        found = await self._ask(shard, look)
        return _decoded(found, StateAnswer)

    async def _list(self, question: ListQuestion) -> ListAnswer:
        _check_type(question.typename)
        slot, after = ids_place(question.after)
        ids: list[str] = []
        oldest: int | None = None
        for _ in range(LIST_STEPS_MAX):
            shard = owner_of_slot(slot, self._shards)
            found = await self._ask(shard, ListIds(0, 0, question.typename, slot, after, question.limit - len(ids)))
            some = _decoded(found, Ids)
            oldest = some.checkpoint if oldest is None else min(oldest, some.checkpoint)
            ids += some.ids
            slot, after = some.slot, some.after
            if slot >= SLOTS or len(ids) >= question.limit:
                break
        assert oldest is not None
        return ListAnswer(ids=ids, next=None if slot >= SLOTS else ids_token(slot, after), checkpoint=checkpoint_name(oldest))

    async def _checkpoint(self) -> CheckpointAnswer:
        """A complete checkpoint that was triggered from now on. Its number is above all that were: also that of one under way."""
        coordinator, started = self._coordinator, trio.current_time()
        before = max(coordinator.current, coordinator.complete)
        asked_in = -1
        while coordinator.complete <= before:
            if self._closed or coordinator.state is State.FINISHING:
                raise UnavailableError("the node is stopping, and takes no more checkpoints")
            if coordinator.state is not State.RECOVERING and coordinator.incarnation != asked_in:
                asked_in = coordinator.incarnation
                coordinator.on_changed(Changed(asked_in, urgent=True))
                self._perform()
                continue
            await self._news.wait()
        took_ms = (trio.current_time() - started) * 1000
        return CheckpointAnswer(checkpoint=checkpoint_name(coordinator.complete), took_ms=took_ms)

    # ---- waiting --------------------------------------------------------------------------------------------------------
    async def _ask(self, shard: int, message: LookAt | ListIds) -> Found:
        """The answer of a shard, in whatever incarnation.

        Raises:
            UnavailableError: the world will not run any more.
            ShardfunError: why the shard cannot answer.
        """
        while True:
            incarnation = await self._running()
            found = await self._ask_in(incarnation, shard, message)
            if found is not None:
                break
        if found.code:
            raise error_of(found.code, found.reason)
        return found

    async def _running(self) -> int:
        """The incarnation, once the world runs in it."""
        coordinator = self._coordinator
        while coordinator.state is State.RECOVERING and not self._closed:
            await self._news.wait()
        self._require_life()
        return coordinator.incarnation

    async def _ask_in(self, incarnation: int, shard: int, message: LookAt | ListIds) -> Found | None:
        """The answer; ``None`` if the incarnation has ended before."""
        self._number += 1
        number, request = self._number, _Request(self._new_event())
        self._requests[shard, number] = request
        try:
            self._send(shard, msgspec.structs.replace(message, incarnation=incarnation, request=number))
            while True:
                coordinator = self._coordinator
                if coordinator.state is State.RECOVERING or coordinator.incarnation != incarnation:
                    return None
                if request.answer is not None:
                    return request.answer
                self._require_life()
                await request.news.wait()
                request.news = self._new_event()
        finally:
            del self._requests[shard, number]

    def _require_life(self) -> None:
        """Raises UnavailableError if no shard will answer any more."""
        if self._closed or self._coordinator.state is State.FINISHING:
            raise UnavailableError("the node has finished or is stopping; 'shardfun inspect' shows what it has stored")


def _decoded(found: Found, expected: type[A]) -> A:
    try:
        return msgspec.json.decode(found.answer, type=expected)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"answer of a shard: {error}") from error


def _check_type(typename: str) -> None:
    try:
        check_typename(typename)
    except (DefinitionError, UnicodeEncodeError) as error:
        raise UnknownTargetError(str(error)) from error


def _check_id(id: str) -> None:
    try:
        size = len(id.encode())
    except UnicodeEncodeError as error:
        raise UnknownTargetError(f"id {id!r:.60}: expected text that can be encoded as UTF-8: {error.reason}") from error
    if not 1 <= size <= ID_BYTES_MAX:
        raise UnknownTargetError(f"id {id!r:.60}: expected 1 to {ID_BYTES_MAX} bytes, got {size}")
