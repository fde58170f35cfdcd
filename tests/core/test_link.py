"""A link: order, losses, credit, and a barrier that nothing holds up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.core.link import Link
from shardfun.errors import ChannelLossError
from shardfun.model.frames import Barrier, Credit, Data, decode_frame, encode_frame

WINDOW = 4


def blocks() -> list[Any]:
    return [["t/t", "x\0y", None, None, [["int", [1, 2]]], None]]


def pair(window: int = WINDOW) -> tuple[Link, Link]:
    return Link(1, 5, window), Link(0, 5, window)


def carry(sender: Link, receiver: Link, *, cut: int = 0, data: bool = True) -> Any:
    """Move one frame; what the receiver has to act on, or "nothing"."""
    raw = sender.next_frame(cut, blocks if data else None)
    return "nothing" if raw is None else receiver.receive(decode_frame(raw))


def test_frames_are_numbered_and_arrive_in_the_inbox() -> None:
    left, right = pair()
    assert type(carry(left, right, cut=7)) is Data
    assert type(carry(left, right, cut=8)) is Data
    assert [cut for cut, _ in right.inbox] == [7, 8]
    assert (right.inbox_messages, right.received_sequence, right.data_received) == (4, 2, 2)
    assert right.take(8).messages == 2
    assert right.inbox_messages == 2


@pytest.mark.parametrize("sequence", [1, 3, 4])
def test_a_gap_or_a_repetition_is_a_loss(sequence: int) -> None:
    left, right = pair()
    carry(left, right)
    with pytest.raises(ChannelLossError, match=f"expected frame 2, got {sequence}"):
        right.receive(decode_frame(encode_frame(5, sequence, 0, blocks())))


def test_credit_frames_count_too() -> None:
    left, right = pair(1)
    carry(left, right)
    right.take(0)
    credit = right.next_frame(0, None)
    assert decode_frame(credit).body == Credit(2)
    with pytest.raises(ChannelLossError):
        left.receive(decode_frame(encode_frame(5, 2, 0, ["credit", 2])))


def test_a_barrier_finds_a_lost_last_frame() -> None:
    left, right = pair()
    carry(left, right)
    with pytest.raises(ChannelLossError, match="barrier after 2 data frames, 1 arrived"):
        right.receive(decode_frame(encode_frame(5, 2, 9, ["barrier", 2])))


def test_without_credit_nothing_is_taken_from_the_outbox_but_a_barrier_goes() -> None:
    left, right = pair()
    for _ in range(WINDOW):
        carry(left, right)
    assert not left.may_send
    assert left.next_frame(0, lambda: pytest.fail("must not be asked")) is None
    left.barrier = 9
    assert carry(left, right, cut=9) == Barrier(9, WINDOW)
    assert right.last_barrier == 9
    assert left.barrier is None


def test_a_barrier_goes_before_credit_and_messages_and_bears_its_own_cut() -> None:
    left, right = pair(1)
    carry(left, right)
    right.take(0)
    right.barrier = 9
    kinds = [type(decode_frame(right.next_frame(9, blocks)).body) for _ in range(3)]
    assert kinds == [Barrier, Credit, Data]
    left.barrier = 3
    assert decode_frame(left.next_frame(8, None)).cut == 3


def test_credit_goes_back_when_half_of_the_window_is_taken() -> None:
    left, right = pair()
    for _ in range(WINDOW):
        carry(left, right)
    for _ in range(WINDOW // 2):
        right.take(0)
        assert right.next_frame(0, None) is None
    right.take(0)
    left.receive(decode_frame(right.next_frame(0, None)))
    assert left.may_send
    assert right.next_frame(0, None) is None, "once"


def test_credit_is_absolute() -> None:
    left, _ = pair()
    for sequence, limit in enumerate((9, 7, 9), 1):
        left.receive(decode_frame(encode_frame(5, sequence, 0, ["credit", limit])))
    for _ in range(9):
        assert left.next_frame(0, blocks) is not None
    assert left.next_frame(0, blocks) is None


def test_more_than_the_window_is_a_loss() -> None:
    _, right = pair(2)
    for sequence in (1, 2):
        right.receive(decode_frame(encode_frame(5, sequence, 0, blocks())))
    with pytest.raises(ChannelLossError, match="more than 2 data frames without credit"):
        right.receive(decode_frame(encode_frame(5, 3, 0, blocks())))


def test_a_frame_from_behind_a_cut_waits_for_it() -> None:
    left, right = pair()
    carry(left, right, cut=3)
    assert right.take(2) is None
    assert right.take(3) is not None


def test_a_hello_has_no_number() -> None:
    _, right = pair()
    assert right.receive(decode_frame(encode_frame(5, 0, 0, ["hello", 0, "nonce"]))) is None
    assert right.received_sequence == 0


@given(st.lists(st.sampled_from(["left", "right", "take-left", "take-right", "cut"]), max_size=80), st.integers(1, 5))
def test_credit_never_deadlocks_and_never_overruns(actions: list[str], window: int) -> None:
    left, right = pair(window)
    cut = 0
    for action in actions:
        match action:
            case "left":
                carry(left, right, cut=cut)
            case "right":
                carry(right, left, cut=cut)
            case "take-left":
                left.take(cut)
            case "take-right":
                right.take(cut)
            case "cut":
                cut += 1
                left.barrier = right.barrier = cut
        assert len(left.inbox) <= window
        assert len(right.inbox) <= window
    for _ in range(2 * window + 4):  # whatever was, one side can always send when the other takes
        while right.take(cut) is not None:
            pass
        carry(right, left, cut=cut, data=False)
    assert left.may_send
