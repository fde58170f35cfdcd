"""A tier that finds nothing proves nothing: deliberate mistakes in the drivers and in the supervisor are found within a few seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from shell_app import adds
from shell_faults import Disturbance, drawn, full_disk, kills, network, spares, together
from shell_world import Violation, run_world

from shardfun.shard import doors
from shardfun.shard.doors import Egress
from shardfun.shard.process import ShardProcess
from shardfun.shard.storage import Storage
from shardfun.supervisor.pool import Pool

SEEDS_MAX = 12
RECORDS = 60

Mistake = Callable[[pytest.MonkeyPatch], None]


def sinks_are_not_reopened(patch: pytest.MonkeyPatch) -> None:
    original, seen = Egress._reopen, set[int]()

    def once(self: Egress, core: Any, publisher: Any, published: Any, pending: list[bytes]) -> int:
        if id(publisher.sink) in seen:
            return 0
        seen.add(id(publisher.sink))
        return original(self, core, publisher, published, pending)

    patch.setattr(Egress, "_reopen", once)


def losses_are_not_reported(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ShardProcess, "_report_loss", lambda self, reason, peer: None)


def apply_fails_and_is_not_tried_again(patch: pytest.MonkeyPatch) -> None:
    original = Storage._apply

    def apply(self: Storage, effect: object, restore: int) -> object:
        try:
            return original(self, effect, restore)  # type: ignore[arg-type]
        except Exception:
            return {}

    patch.setattr(Storage, "_apply", apply)


def spares_that_died_are_given_out(patch: pytest.MonkeyPatch) -> None:
    original = Pool._forget

    def forget(self: Pool, handle: object) -> None:
        warm = handle in self._warm
        original(self, handle)  # type: ignore[arg-type]
        if warm:
            self._warm.append(handle)  # type: ignore[arg-type]

    patch.setattr(Pool, "_forget", forget)


def positions_are_not_followed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(doors, "_open_at", lambda name, reader, position: reader.open(None))


MISTAKES = [
    (sinks_are_not_reopened, (kills, network), 1),
    pytest.param(losses_are_not_reported, (network,), 9, marks=pytest.mark.long),
    pytest.param(apply_fails_and_is_not_tried_again, (full_disk, kills), 1, marks=pytest.mark.long),
    (spares_that_died_are_given_out, (spares,), 1),
    pytest.param(positions_are_not_followed, (kills,), 1, marks=pytest.mark.long),
]
"""With the seed from which on it is looked for."""


@pytest.mark.parametrize(("mistake", "kinds", "first"), MISTAKES)
def test_a_mistake_is_found(
    mistake: Mistake, kinds: tuple[Disturbance, ...], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    with pytest.raises(Violation):
        for seed in range(first, first + SEEDS_MAX):
            options, _ = drawn(seed)
            shards = max(2, options.shards)
            run_world(seed, adds(RECORDS), replace(options, shards=shards, faults_s=6.0, liveness_s=200.0), together(*kinds))
