"""What comes in, goes out and is asked from outside; processes that are replaced; clocks: deliberate mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shardfun.core import letters
from shardfun.core.dispatch import Dispatcher
from shardfun.core.egress import EgressLog
from shardfun.core.letters import DONE, KEY_PREFIX_BYTES
from shardfun.core.shard import ShardCore
from shardfun.core.timers import Timers
from shardfun.intake import request
from shardfun.intake.request import Request, RequestState
from shardfun.intake.targets import Targets
from shardfun.model.control import Found, LookAt
from shardfun.sdk.context import Context
from shardfun.shard import queries as shard_queries
from shardfun.shard.queries import Queries
from shardfun.simulation import looks
from shardfun.simulation.files import ProcessFiles
from shardfun.simulation.mutations.patching import Mutation, Patch
from shardfun.simulation.node import Node
from shardfun.simulation.publisher import Publisher
from shardfun.supervisor.intake import IntakeKeeper
from shardfun.supervisor.queries import QueryDesk

EARLY_MS = 300


# ---- processes and clocks ------------------------------------------------------------------------------------------------
def _zombie_lives(original: Any) -> Any:
    def spawn(self: Node, shard: int) -> None:
        self.processes[shard] = None
        original(self, shard)

    return spawn


def _timers_by_another_clock(original: Any) -> Any:
    def until_ms(self: Timers, now_ms: int, **ending: bool) -> int | None:
        found: int | None = original(self, now_ms + EARLY_MS, **ending)
        return found

    return until_ms


def _double_end(original: Any) -> Any:
    """The messages at the end of the input are sent twice."""

    def delta_applied(self: ShardCore, checkpoint: int, stored: dict[str, list[str]]) -> None:
        before = self.ended
        original(self, checkpoint, stored)
        if self.ended and not before:
            for typename, ids in stored.items():
                self.dispatcher.send_end(typename, ids)

    return delta_applied


# ---- egress --------------------------------------------------------------------------------------------------------------
def _publish_before_complete(_original: Any) -> Any:
    def publishable(self: EgressLog, limit: int) -> list[bytes]:
        self.commit(self.emitted)
        return self.pending[:limit]

    return publishable


def _forget_published(original: Any) -> Any:
    """What was published since the last checkpoint is not in the next one, although its records are gone."""

    def snapshot(self: EgressLog) -> list[Any]:
        records, size, pending = original(self)
        return [max(0, records - 1), size, pending]

    return snapshot


def _failed_counts(original: Any) -> Any:
    """A sink that has failed counts as one that has everything."""

    def hand_over(self: Publisher) -> bool:
        original(self)
        return True

    return hand_over


# ---- dead letters and questions ------------------------------------------------------------------------------------------
def _replay_keeps(original: Any) -> Any:
    def replay(dispatcher: Dispatcher, keys: Sequence[bytes]) -> list[str]:
        cells = dispatcher.table.cells
        before = [cells.get(key[:KEY_PREFIX_BYTES], key[KEY_PREFIX_BYTES:]) for key in keys]
        outcomes: list[str] = original(dispatcher, keys)
        for key, raw, outcome in zip(keys, before, outcomes, strict=True):
            if outcome == DONE:
                cells.put(key[:KEY_PREFIX_BYTES], key[KEY_PREFIX_BYTES:], raw)
                dispatcher.letters.count += 1
        return outcomes

    return replay


def _replay_drops(_original: Any) -> Any:
    return letters.drop


def _look_ahead(original: Any) -> Any:
    def look_at(self: Queries, core: ShardCore, message: LookAt) -> Any:
        return original(self, core, msgspec.structs.replace(message, at="live"))

    return look_at


def _look_without_parts(original: Any) -> Any:
    def look(*arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = original(*arguments)
        return found | {"parts": {name: part | {"items": part["items"][:-1]} for name, part in found["parts"].items()}}

    return look


def _oldest_letter_not_shown(original: Any) -> Any:
    def find_letters(*arguments: Any) -> tuple[list[tuple[bytes, bytes]], int]:
        found, total = original(*arguments)
        return found[:-1], total

    return find_letters


def _answer_unheard(_original: Any) -> Any:
    def on_found(_self: QueryDesk, _shard: int, _message: Found) -> None:
        """It is lost."""

    return on_found


# ---- the intake ----------------------------------------------------------------------------------------------------------
def _request_twice(original: Any) -> Any:
    """A request whose key is known is asked again, as if it were the first."""

    def requested(ctx: Context[RequestState], asked: Request, targets: Targets) -> None:
        if ctx.state.replied and ctx.state.digest == asked.digest:
            ctx.state.owner = ""
        original(ctx, asked, targets)

    return requested


def _no_fsync(_original: Any) -> Any:
    def sync_data(_self: ProcessFiles, _descriptor: int) -> None:
        """Say that it is done."""

    return sync_data


def _trim_for_the_fastest(original: Any) -> Any:
    """The log is cut where the shard is that has read most of it."""

    def completed(self: IntakeKeeper, parts: Sequence[Any]) -> bool:
        far = max(parts, key=lambda part: part.get("~http") or 0)
        return bool(original(self, [far] * len(parts)))

    return completed


MUTATIONS: dict[str, Mutation] = {
    "zombie-lives": Mutation(
        "a shard is replaced without being killed",
        (Patch(Node, "_spawn", _zombie_lives),),
        r"correctness: shard \d+: its store is opened while another process",
    ),
    "timers-by-another-clock": Mutation(
        "timers follow a clock that is ahead of the one that functions see",
        (Patch(Timers, "until_ms", _timers_by_another_clock),),
    ),
    "double-end": Mutation("the end of the input is told twice", (Patch(ShardCore, "delta_applied", _double_end),)),
    "publish-before-complete": Mutation(
        "records go out before their checkpoint is complete", (Patch(EgressLog, "publishable", _publish_before_complete),)
    ),
    "forget-published": Mutation(
        "a checkpoint does not know how far an egress is published", (Patch(EgressLog, "snapshot", _forget_published),)
    ),
    "failed-publish-counts": Mutation(
        "records that a sink has refused count as published", (Patch(Publisher, "_hand_over", _failed_counts),)
    ),
    "replay-keeps-letter": Mutation(
        "a dead letter that is sent again stays, and may be sent again", (Patch(letters, "replay", _replay_keeps),)
    ),
    "replay-drops-letter": Mutation("a dead letter is deleted and not sent", (Patch(letters, "replay", _replay_drops),)),
    "look-ahead": Mutation(
        "a question about a checkpoint is answered from memory",
        (Patch(Queries, "_look_at", _look_ahead),),
        "correctness: .* (is shown as|goes on at) ",
    ),
    "look-is-short": Mutation(
        "the last item of maps and buffers is not shown",
        (Patch(shard_queries, "look", _look_without_parts),),
        "correctness: .* (is shown as|goes on at) ",
    ),
    "letter-not-shown": Mutation(
        "the oldest dead letter of a shard is not listed",
        (Patch(looks, "find_letters", _oldest_letter_not_shown),),
        r"correctness: dead letters of shard \d+ as of",
    ),
    "answer-unheard": Mutation(
        "answers of shards about state are lost",
        (Patch(QueryDesk, "on_found", _answer_unheard),),
        "liveness: .*; the operator waits for [A-Z]",
    ),
    "request-runs-again": Mutation(
        "a request that is repeated with its key is made again", (Patch(request, "_requested", _request_twice),)
    ),
    "intake-without-fsync": Mutation(
        "entries are acknowledged before they are durable", (Patch(ProcessFiles, "sync_data", _no_fsync),)
    ),
    "trim-for-the-fastest": Mutation(
        "the intake log is cut where one shard still reads", (Patch(IntakeKeeper, "completed", _trim_for_the_fastest),)
    ),
}
