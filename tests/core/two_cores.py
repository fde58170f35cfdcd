"""Two ShardCores wired by hand: the mesh is two deques, the disks are dicts, the coordinator is whoever calls."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import cbor2
from single_core import JOB, DictStore, program_of

from shardfun import App, Context, State, Value, value
from shardfun.core.effects import ApplyDelta, DeleteDelta, SendControl, WriteDelta
from shardfun.core.function import parse_state_key
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES, decode_queues
from shardfun.model.control import Abort, Applied, Complete, Prepared, Trigger
from shardfun.model.delta import DeltaSummary, checkpoint_id

LIMITS = Limits(retries=0, frame_messages=2, window_frames=2, mailbox_refill=4, encode_records=2, cache_bytes=2000)


class Counts(State):
    runs: Value[int] = value(0)
    total: Value[int] = value(0)
    ended: Value[int] = value(0)


def application() -> App:
    """Each message is passed on to another id with one less, until 0. Confluent: sums only."""
    app = App("balls")

    @app.function("ball/hop")
    def hop(ctx: Context[Counts], left: int) -> None:
        ctx.state.runs += 1
        ctx.state.total += left
        ctx.emit("out", (ctx.self.id, left))
        if left:
            ctx.send("ball/hop", f"id{(int(ctx.self.id[2:]) * 7 + left) % 12}", left - 1)

    @app.on_end("ball/hop")
    def end(ctx: Context[Counts]) -> None:
        ctx.state.ended += 1
        ctx.emit("out", (ctx.self.id, "end"))

    return app


class TwoCores:
    def __init__(self, app: Callable[[], App] = application, limits: Limits = LIMITS) -> None:
        self.app = app
        self.limits = limits
        self.now_s = 1_700_000_000.0
        self.stores: list[dict[bytes, bytes]] = [{}, {}]
        self.deltas: dict[tuple[int, int], WriteDelta] = {}
        self.sinks: list[list[bytes]] = [[], []]
        self.incarnation = 0
        self.complete = 0
        self.sequence = 0
        self.cores: list[ShardCore] = []
        self.restart()

    def restart(self, *, survivors: bool = False) -> None:
        """A new incarnation from the last complete checkpoint; ``survivors``: the processes are the same."""
        self.incarnation += 1
        self.sequence = 0
        self.wires: list[deque[bytes]] = [deque(), deque()]
        """By sender."""
        self.sent: list[list[Any]] = [[], []]
        previous, self.cores = self.cores, []
        for shard in (0, 1):
            delta = self.deltas.get((self.complete, shard))
            for key in list(self.deltas):
                if key[0] > self.complete:
                    del self.deltas[key]
            if delta is not None:
                self._apply(shard, delta)
            queues = EMPTY_QUEUES if delta is None else decode_queues(delta.queues)
            digest = b"" if delta is None else self.digest(delta)
            core = ShardCore(
                ShardIdentity(JOB, shard, 2),
                StartPoint(self.incarnation, self.complete, digest, queues),
                program_of(self.app()),
                self.limits,
                DictStore(self.stores[shard]),
                previous[shard] if survivors else None,
            )
            log = core.egress["out"]  # a sink that knows how much it holds
            core.published("out", len(self.sinks[shard]) - log.published.records)
            self.cores.append(core)

    def _apply(self, shard: int, delta: WriteDelta) -> None:
        for block in delta.blocks:
            for key, raw in zip(*block, strict=True):
                if raw is None:
                    self.stores[shard].pop(key, None)
                else:
                    self.stores[shard][key] = raw

    @staticmethod
    def digest(delta: WriteDelta) -> bytes:
        return cbor2.dumps([delta.header.checkpoint, delta.header.shard])

    # ---- what a driver does, in pieces ------------------------------------------------------------------------------
    def perform(self, shard: int) -> None:
        core = self.cores[shard]
        for effect in core.take_effects():
            match effect:
                case SendControl(message):
                    self.sent[shard].append(message)
                case WriteDelta():
                    header = effect.header
                    assert (header.parent, header.incarnation, header.shard) == (
                        core.participant.applied,
                        self.incarnation,
                        shard,
                    )
                    self.deltas[header.checkpoint, shard] = effect
                    summary = DeltaSummary(self.digest(effect), 100, sum(len(block.keys) for block in effect.blocks))
                    core.delta_written(header.checkpoint, summary, 0.0)
                case DeleteDelta(checkpoint):
                    self.deltas.pop((checkpoint, shard), None)
                case ApplyDelta(checkpoint, blocks, end):
                    self._apply(shard, self.deltas[checkpoint, shard])
                    assert blocks == self.deltas[checkpoint, shard].blocks
                    stored: dict[str, list[str]] = {}
                    for address in map(parse_state_key, self.stores[shard]):
                        if end and address is not None:
                            stored.setdefault(address.typename, []).append(address.id)
                    core.delta_applied(checkpoint, stored)
        if core.participant.effects:
            self.perform(shard)

    def send(self, shard: int, *, flush: bool = True) -> bool:
        raw = self.cores[shard].next_frame(1 - shard, flush=flush)
        if raw is not None:
            self.wires[shard].append(raw)
        return raw is not None

    def receive(self, shard: int) -> bool:
        wire = self.wires[1 - shard]
        if not wire:
            return False
        self.cores[shard].receive(1 - shard, wire.popleft())
        return True

    def publish(self, shard: int) -> bool:
        records = self.cores[shard].egress["out"].publishable(3)
        if records:
            self.sinks[shard] += records
            self.cores[shard].published("out", len(records))
        return bool(records)

    def random_step(self, chance: random.Random) -> None:
        shard = chance.randrange(2)
        core = self.cores[shard]
        match chance.randrange(7):
            case 0 | 1:
                core.run(chance.randint(1, 3))
            case 2:
                self.send(shard, flush=chance.random() < 0.5)
            case 3:
                self.receive(shard)
            case 4:
                core.fill_mailboxes()
            case 5:
                core.checkpoint_work()
                core.sweep()
            case _:
                self.publish(shard)
        self.perform(shard)

    def advance(self, seconds: float = 0.0) -> bool:
        """Let time pass, and do what is due then."""
        self.now_s += seconds
        worked = [core.advance(self.now_s) for core in self.cores]
        return any(worked)

    def settle(self) -> None:
        """Until nothing moves any more."""
        busy = True
        while busy:
            busy = False
            for shard, core in enumerate(self.cores):
                busy |= self.send(shard) | self.receive(shard) | core.fill_mailboxes()
                busy |= core.run(100) is not None
                busy |= core.checkpoint_work()
                self.perform(shard)
                busy |= self.publish(shard)

    # ---- what the coordinator does ----------------------------------------------------------------------------------
    def trigger(self, *shards: int) -> int:
        self.sequence += 1
        checkpoint = checkpoint_id(self.incarnation, self.sequence)
        for shard in shards:
            self.cores[shard].on_control(Trigger(self.incarnation, checkpoint))
        return checkpoint

    def prepared(self, checkpoint: int) -> list[Prepared]:
        return [m for sent in self.sent for m in sent if isinstance(m, Prepared) and m.checkpoint == checkpoint]

    def abort(self, checkpoint: int) -> None:
        for shard, core in enumerate(self.cores):
            core.on_control(Abort(self.incarnation, checkpoint))
            self.perform(shard)

    def decide(self, checkpoint: int, *, end: bool = False) -> None:
        """The manifest is durable."""
        assert len(self.prepared(checkpoint)) == 2
        self.complete = checkpoint
        for shard, core in enumerate(self.cores):
            core.on_control(Complete(self.incarnation, checkpoint, end))
            self.perform(shard)
            assert Applied(self.incarnation, checkpoint) in self.sent[shard]

    def checkpoint(self, *, end: bool = False) -> list[Prepared]:
        """A whole one, triggered at shard 0 only: shard 1 learns of it by the barrier."""
        checkpoint = self.trigger(0)
        while len(self.prepared(checkpoint)) < 2:
            for shard in (0, 1):
                self.send(shard)
                self.receive(shard)
                self.cores[shard].checkpoint_work()
                self.perform(shard)
        self.decide(checkpoint, end=end)
        return self.prepared(checkpoint)

    # ---- what came out ----------------------------------------------------------------------------------------------
    def counts(self) -> dict[str, dict[str, int]]:
        """The stored states of all addresses."""
        return {
            address.id: cbor2.loads(raw)
            for store in self.stores
            for key, raw in store.items()
            if (address := parse_state_key(key)) is not None
        }
