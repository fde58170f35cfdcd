"""A queue is first in, first out, whatever mix of rows and batches goes in and in whatever pieces it is taken."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.core.queue import Queue
from shardfun.model.address import Address
from shardfun.model.columns import Batch

SENDER = Address("s/s", "p")
numbers = st.lists(st.integers(), max_size=4)


def messages_of(batch: Batch) -> list[tuple[str, Any, Any]]:
    senders = batch.senders if batch.senders is not None else [None] * len(batch.ids)
    return [
        (id, Address(batch.sender_type, sender) if batch.sender_type else sender, value)
        for id, sender, value in zip(batch.ids, senders, batch.values, strict=True)
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["rows", "batch", "senders", "typed"]), numbers)
        | st.tuples(st.sampled_from(["take", "undo"]), st.integers(1, 5))
        | st.tuples(st.just("snapshot"), st.none()),
        max_size=20,
    )
)
@settings(max_examples=150)
def test_against_a_deque(actions: list[tuple[str, Any]]) -> None:
    queue, model = Queue(), deque[tuple[str, Any, Any]]()
    rows = queue.rows
    snapshots: list[tuple[tuple[Batch, ...], list[Any]]] = []
    for action, given_numbers in actions:
        match action:
            case "rows":
                rows.extend((None, str(number), SENDER, number) for number in given_numbers)
                model.extend((str(number), SENDER, number) for number in given_numbers)
            case "batch":
                queue.append(Batch([str(number) for number in given_numbers], None, None, given_numbers))
                model.extend((str(number), None, number) for number in given_numbers)
            case "senders":
                queue.append(
                    Batch(
                        [str(n) for n in given_numbers], [SENDER, None, SENDER, None][: len(given_numbers)], None, given_numbers
                    )
                )
                model.extend((str(n), (SENDER, None)[i % 2], n) for i, n in enumerate(given_numbers))
            case "typed":
                queue.append(Batch([str(n) for n in given_numbers], ["p"] * len(given_numbers), "s/s", given_numbers))
                model.extend((str(number), SENDER, number) for number in given_numbers)
            case "take" if model:
                taken = messages_of(queue.take(given_numbers))
                assert 1 <= len(taken) <= given_numbers
                assert taken == [model.popleft() for _ in taken]
            case "undo" if model:
                before = len(queue)
                queue.put_back(queue.take(given_numbers))
                assert len(queue) == before
            case "snapshot":
                snapshots.append((queue.snapshot(), list(model)))
        assert len(queue) == len(model)
        assert queue.rows is rows
    snapshots.append((queue.snapshot(), list(model)))
    for batches, expected in snapshots:  # what happened afterwards does not show
        assert [message for batch in batches for message in messages_of(batch)] == expected
        assert all(batch.ids for batch in batches)


def test_a_whole_batch_is_passed_on_as_it_is() -> None:
    queue = Queue()
    batch = Batch(["a", "b"], None, None, [1, 2])
    queue.append(batch)
    assert queue.snapshot() == (batch,)
    assert queue.take(2) is batch
    assert queue.snapshot() == ()
    assert len(queue) == 0
