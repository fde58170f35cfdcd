"""Frames have a limit in bytes: large messages share frames by their size, in order, and one that never fits is parked."""

from __future__ import annotations

from typing import Any

import pytest
from single_core import DictStore

from shardfun.core.dispatch import Dispatcher
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.queue import Queue
from shardfun.core.runner import run_plain
from shardfun.core.shard import IngressRoute, Program, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.model.columns import Batch, decode_block
from shardfun.model.frames import Data, decode_frame
from shardfun.model.keyspace import owner_of
from shardfun.sdk.app import App
from shardfun.sdk.context import Context

LIMITS = Limits(frame_bytes=1000, frame_bytes_max=4000, frame_messages=64, window_frames=200)
NEAR, FAR = (next(f"k{i}" for i in range(100) if owner_of(f"k{i}", 2) == shard) for shard in (0, 1))


@pytest.fixture
def core() -> ShardCore:
    app = App("sizes")

    @app.function("test/relay")
    def relay(ctx: Context, texts: list[str]) -> None:
        for text in texts:
            ctx.send("test/sink", FAR, text)

    @app.function("test/sink")
    def sink(ctx: Context, text: str) -> None: ...

    functions = app.compile()
    program = Program(functions, [run_plain] * len(functions), {"in": IngressRoute()}, {}, _context)
    identity = ShardIdentity("ab" * 16, 0, 2)
    return ShardCore(identity, StartPoint(1, 0, b"", EMPTY_QUEUES), program, LIMITS, DictStore({}))


def _context(dispatcher: Dispatcher) -> Context[Any]:
    return Context(dispatcher)


def send(core: ShardCore, texts: list[str]) -> list[list[str]]:
    """What each frame to the peer carries."""
    core.dispatcher.ingest_columns("test/relay", [NEAR], [texts])
    assert core.run(100) is not None
    frames = []
    while (raw := core.next_frame(1, flush=True)) is not None:
        assert len(raw) <= LIMITS.frame_bytes_max
        body = decode_frame(raw).body
        assert type(body) is Data
        frames.append(texts_of(core, body.blocks))
        assert decode_frame(raw).sequence == len(frames)
    return frames


def texts_of(core: ShardCore, blocks: list[Any]) -> list[str]:
    payloads = core.dispatcher.types["test/sink"].payloads
    return [text for block in blocks for text in decode_block(payloads, block)[0].values]


def test_large_messages_share_frames_by_their_size_and_stay_in_order(core: ShardCore) -> None:
    texts = [f"{i:04}" * size for i in range(40) for size in (1, 200)]
    frames = send(core, texts)
    assert [text for frame in frames for text in frame] == texts
    assert len(frames) > 40 * 800 // LIMITS.frame_bytes_max
    assert core.links[0].frame_messages < 8
    assert core.dispatcher.letters.count == 0


def test_small_messages_fill_frames_again(core: ShardCore) -> None:
    core.links[0].frame_messages = 1
    assert [len(frame) for frame in send(core, ["x"] * 60)] == [1, 2, 4, 8, 16, 29]


def test_a_message_that_never_fits_is_parked_where_it_was_sent(core: ShardCore) -> None:
    frames = send(core, ["a", "b" * 5000, "c"])
    assert [text for frame in frames for text in frame] == ["a", "c"]
    assert core.dispatcher.letters.count == 1
    assert core.dispatcher.outgoing(1) == 0


def test_what_is_put_back_waits_at_the_head() -> None:
    queue = Queue()
    queue.append(Batch(["a", "b", "c"], None, None, [1, 2, 3]))
    queue.rows.append((None, "d", None, 4))
    assert list(queue.take(1).ids) == ["a"]
    taken = queue.take(1)
    queue.put_back(taken)
    assert len(queue) == 3
    assert [id for batch in queue.snapshot() for id in batch.ids] == ["b", "c", "d"]
    assert [list(queue.take(5).ids) for _ in range(3)] == [["b"], ["c"], ["d"]]
    queue.put_back(Batch(["e"], None, None, [5]))
    assert list(queue.take(1).values) == [5]
