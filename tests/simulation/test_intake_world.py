"""The simulated intake: its disk loses what was not fsynced, its door dies, and what clients were told is held against the tills."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from shardfun.errors import CorruptionError
from shardfun.intake.log import LogWriter
from shardfun.intake.log_files import scan
from shardfun.simulation.files import ProcessDeath, SimulatedDisk
from shardfun.simulation.options import draw
from shardfun.simulation.world import World

FOLDER = Path("/data/intake/http")


def contents(machine: SimulatedDisk) -> list[bytes]:
    """What the log holds after a start."""
    hands = machine.process()
    writer = LogWriter(FOLDER, 100, hands)
    writer.open()
    writer.close()
    return [frame.content for frame in scan(FOLDER, 0, writer.durable, hands)]


@pytest.mark.parametrize("seed", range(40))
def test_what_was_appended_survives_power_cuts_and_deaths_in_the_middle_of_an_append(seed: int) -> None:
    """What the writer has said is durable is there; of an append that a death cut short all or nothing is."""
    chance, machine = random.Random(seed), SimulatedDisk()
    promised: list[bytes] = []
    for number in range(12):
        hands = machine.process()
        writer = LogWriter(FOLDER, 100, hands)
        hands.begin_job(dies_at=chance.randint(1, 60))
        try:
            writer.open()
            for index in range(4):
                content = b"%d-%d" % (number, index)
                writer.append([(1, content)])
                promised.append(content)
        except ProcessDeath:
            pass
        hands.kill()
        if chance.random() < 0.5:
            machine.power_loss(chance)
    found = contents(machine)
    assert [content for content in found if content in promised] == promised
    assert len(set(found)) == len(found)


def test_a_log_that_is_not_fsynced_loses_what_it_has_promised() -> None:
    """The disk is as mean as it says: without the fsync of the writer the same runs lose entries."""
    lost = 0
    for seed in range(20):
        machine = SimulatedDisk()
        hands = machine.process()
        hands.sync_data = lambda _descriptor: None  # type: ignore[method-assign, misc, assignment]
        writer = LogWriter(FOLDER, 10_000, hands)
        writer.open()
        writer.append([(1, b"promised")])
        hands.kill()
        machine.power_loss(random.Random(seed))
        try:
            lost += contents(machine) != [b"promised"]
        except CorruptionError:
            lost += 1
    assert lost


def test_a_world_with_a_door_answers_its_clients() -> None:
    """Orders are taken, replied, asked again, and the log is trimmed behind them."""
    outcome = World(replace(draw(3, "ring"), orders=40)).run()
    assert outcome.kind == "ok", outcome.what
    for figure in ("posts", "replies", "repeated_posts", "trimmed_segments"):
        assert outcome.figures[figure] > 0, figure
