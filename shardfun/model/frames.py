"""Frames: what crosses the mesh between two shards.

One CBOR array per frame, readable by any decoder::

    [incarnation, sequence, cut, body]

    body = [block, ...]            messages (see ``columns``)
         | ["barrier", data frames sent before it on this channel]
         | ["credit", data frames that may have been sent in all]
         | ["hello", shard, nonce]   the first frame of a channel, sequence 0

``sequence`` counts all frames of a channel in one incarnation from 1, so a gap is a loss. ``cut`` is the last checkpoint that
the sender had cut when it made the frame: it decides which checkpoint the frame belongs to, not the time of arrival.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cbor2

from shardfun.errors import ProtocolError
from shardfun.model.cbor import load_cbor, shown
from shardfun.model.columns import block_size, check_block

FRAME_BYTES_MAX = 64 << 20


class Barrier(NamedTuple):
    """The sender has cut ``checkpoint``; ``data_frames`` were sent before on this channel."""

    checkpoint: int
    data_frames: int


class Credit(NamedTuple):
    """The receiver of this may have sent ``limit`` data frames on this channel in all."""

    limit: int


class Hello(NamedTuple):
    """Who is at the other end. ``nonce`` belongs to one start of one incarnation: a left-over process has another one."""

    shard: int
    nonce: str


class Data(NamedTuple):
    """Messages. ``raw`` is the frame itself: a channel log keeps it by reference."""

    blocks: list[Any]
    messages: int
    raw: bytes


class Frame(NamedTuple):
    """A decoded frame."""

    incarnation: int
    sequence: int
    cut: int
    body: Barrier | Credit | Hello | Data


def encode_frame(incarnation: int, sequence: int, cut: int, body: list[Any]) -> bytes:
    """A frame with blocks or a control body."""
    return cbor2.dumps([incarnation, sequence, cut, body])


def decode_frame(raw: bytes) -> Frame:
    """Decode and check the outer shape; the columns of the blocks are decoded when they are executed.

    Raises:
        ProtocolError: it is not a frame.
    """
    if len(raw) > FRAME_BYTES_MAX:
        msg = f"frame of {len(raw)} bytes: expected at most {FRAME_BYTES_MAX}"
        raise ProtocolError(msg)
    try:
        item = load_cbor(raw)
    except ValueError as error:
        msg = f"frame of {len(raw)} bytes: damaged: {error}"
        raise ProtocolError(msg) from error
    if type(item) is not list or len(item) != 4 or type(item[3]) is not list:
        msg = f"frame: expected [incarnation, sequence, cut, body], got {shown(item)}"
        raise ProtocolError(msg)
    incarnation, sequence, cut, body = item
    for number in (incarnation, sequence, cut):
        if type(number) is not int or number < 0:
            msg = f"frame header: expected numbers from 0, got {shown(item[:3])}"
            raise ProtocolError(msg)
    if body and type(body[0]) is str:
        return Frame(incarnation, sequence, cut, _decode_control(cut, body))
    messages = 0
    for block in body:
        check_block(block)
        messages += block_size(block)
    return Frame(incarnation, sequence, cut, Data(body, messages, raw))


def _decode_control(cut: int, body: list[Any]) -> Barrier | Credit | Hello:
    if len(body) > 1 and type(body[1]) is int and body[1] >= 0:  # exactly int: True is none
        match body:
            case ["barrier", count]:
                return Barrier(cut, count)
            case ["credit", limit]:
                return Credit(limit)
            case ["hello", shard, str(nonce)]:
                return Hello(shard, nonce)
    msg = f"frame: unknown control body {shown(body)}"
    raise ProtocolError(msg)
