"""Real drivers and a real supervisor in virtual time, under every kind of trouble: what is published is that of an undisturbed run."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import shell_faults
from shell_app import adds
from shell_faults import Disturbance, drawn, together
from shell_jobs import bank
from shell_world import run_world

RECORDS = 150
SEEDS = int(os.environ.get("SHELLS_SEEDS", "0"))
FIRST = int(os.environ.get("SHELLS_FIRST", "1"))
"""With ``SHELLS_SEEDS=500 SHELLS_FIRST=1000``, so many seeds of the mixed scenario from there on are run, and nothing else here."""


@pytest.mark.skipif(SEEDS > 0, reason="only seeds are wanted")
@pytest.mark.parametrize("kind", shell_faults.ALL, ids=lambda kind: kind.__name__)
def test_each_kind_of_trouble_by_itself(kind: Disturbance) -> None:
    options, _ = drawn(1)
    outcome = run_world(1, adds(RECORDS), replace(options, shards=2, faults_s=8.0), kind)
    assert outcome.world.faults, "nothing has happened"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + (SEEDS or 4)))
def test_some_kinds_of_trouble_together(seed: int) -> None:
    options, kinds = drawn(seed)
    job = bank(RECORDS) if seed % 4 == 0 else adds(RECORDS)
    run_world(seed, job, options, together(*kinds))
