"""Which message is poison: decided from deaths and breadcrumbs alone."""

from __future__ import annotations

import random

import pytest

from shardfun.core.coordinator import Coordinator, RaiseIncarnation, Send, Timing
from shardfun.core.poison import Cause, Death, Suspicion
from shardfun.model.control import Ready, Reset
from shardfun.model.crumbs import Crumb

BAD = Crumb(b"bad", 1, "test/worker:bad")
OTHER = Crumb(b"other", 1, "test/worker:other")


def inside(*crumbs: Crumb) -> Death:
    return Death(Cause.INSIDE, crumbs, "SIGSEGV")


def outside(*crumbs: Crumb) -> Death:
    return Death(Cause.OUTSIDE, crumbs, "SIGKILL")


def after(suspicion: Suspicion, *deaths: Death) -> list[Crumb | None]:
    """Each death of shard 0 followed by a new incarnation of which no checkpoint completes."""
    found = []
    for death in deaths:
        found.append(suspicion.died(0, death))
        suspicion.incarnation_began()
    return found


def test_so_many_deaths_in_a_row_inside_a_message_make_it_poison() -> None:
    suspicion = Suspicion(2, 3)
    assert after(suspicion, Death(Cause.INSIDE)) == [None]
    assert suspicion.is_careful(0)
    assert not suspicion.is_careful(1), "a survivor is not careful"
    assert after(suspicion, *[inside(BAD)] * 3) == [None, None, BAD]
    (poison,) = suspicion.poison(0)
    assert (poison.key, poison.deaths) == (b"bad", 3)
    assert "3 times in a row" in poison.reason
    assert "SIGSEGV" in poison.reason
    assert suspicion.poison(1) == []


def test_the_first_death_names_nobody_whatever_lies_in_its_file() -> None:
    suspicion = Suspicion(1, 1)
    assert after(suspicion, inside(BAD)) == [None], "the process was not in careful mode"
    assert after(suspicion, inside(BAD)) == [BAD]


def test_a_death_outside_of_the_message_begins_the_count_anew() -> None:
    suspicion = Suspicion(1, 3)
    deaths = [Death(Cause.INSIDE), inside(BAD), inside(BAD), inside(OTHER), inside(BAD), inside(BAD), inside(), inside(BAD)]
    assert after(suspicion, *deaths) == [None] * 8


def test_a_process_that_had_not_come_far_enough_says_nothing() -> None:
    suspicion = Suspicion(1, 3)
    assert after(suspicion, Death(Cause.INSIDE), inside(BAD), inside(BAD), Death(Cause.OUTSIDE), inside(BAD))[-1] == BAD


def test_an_explained_death_neither_counts_nor_makes_careful() -> None:
    suspicion = Suspicion(1, 2)
    assert after(suspicion, Death(Cause.EXPLAINED, (BAD,))) == [None]
    assert not suspicion.is_careful(0)
    explained = Death(Cause.EXPLAINED, (OTHER,))
    assert after(suspicion, Death(Cause.INSIDE), inside(BAD), explained, inside(BAD)) == [None, None, None, BAD]


def test_what_may_have_come_from_outside_counts_half() -> None:
    suspicion = Suspicion(1, 3)
    assert after(suspicion, outside(BAD), *[outside(BAD)] * 6) == [None] * 6 + [BAD]
    assert after(suspicion, inside(OTHER), outside(OTHER), inside(OTHER), outside(OTHER))[-1] == OTHER


def test_of_several_that_were_always_there_none_is_blamed() -> None:
    suspicion = Suspicion(1, 3)
    assert after(suspicion, Death(Cause.INSIDE), *[inside(BAD, OTHER)] * 5) == [None] * 6
    assert after(suspicion, inside(BAD)) == [BAD], "now there is one that was in all of them"


def test_a_message_that_cannot_be_told_from_others_is_never_blamed() -> None:
    suspicion = Suspicion(1, 1)
    assert after(suspicion, *[inside(Crumb(b"", 1, "test/worker:x"))] * 5) == [None] * 5


def test_careful_mode_ends_with_the_second_complete_checkpoint() -> None:
    suspicion = Suspicion(1, 3)
    after(suspicion, Death(Cause.INSIDE), inside(BAD), inside(BAD))
    suspicion.checkpoint_completed([((), False)])
    assert suspicion.is_careful(0), "the first is cut at the very start and shows nothing"
    suspicion.incarnation_began()
    suspicion.checkpoint_completed([((), False)])
    assert suspicion.is_careful(0), "it counts in each incarnation"
    suspicion.checkpoint_completed([((), False)])
    assert not suspicion.is_careful(0)
    assert after(suspicion, inside(BAD), inside(BAD), inside(BAD)) == [None, None, None], "the count began anew"


def test_a_count_outlives_the_first_checkpoint_which_may_have_nothing_new() -> None:
    suspicion = Suspicion(1, 3)
    found = []
    for death in (Death(Cause.INSIDE), inside(BAD), inside(BAD), inside(BAD)):
        found += after(suspicion, death)
        suspicion.checkpoint_completed([((), False)])
    assert found == [None, None, None, BAD]


def test_a_number_among_equals_means_nothing_for_another_checkpoint() -> None:
    second = Crumb(b"second of its kind", 2, "test/worker:hot")
    suspicion = Suspicion(1, 2)
    after(suspicion, Death(Cause.INSIDE), inside(second))
    suspicion.checkpoint_completed([((), False)])
    assert after(suspicion, inside(second)) == [None]
    assert after(suspicion, inside(second)) == [second], "with the same checkpoint it does"
    suspicion = Suspicion(1, 1)
    suspicion.died(0, inside())
    assert suspicion.died(0, inside(second)) == second
    suspicion.checkpoint_completed([((), False)])  # while the death waits for the decision
    assert suspicion.poison(0) == []


def test_poison_is_remembered_until_a_checkpoint_holds_its_letter() -> None:
    suspicion = Suspicion(2, 1)
    after(suspicion, inside())
    assert suspicion.died(0, inside(BAD)) == BAD
    suspicion.checkpoint_completed([((), False), ((BAD.key,), False)])  # the other shard's letters are its own
    suspicion.incarnation_began()
    assert after(suspicion, outside()) == [None]
    assert [item.key for item in suspicion.poison(0)] == [b"bad"]
    suspicion.checkpoint_completed([((BAD.key,), False), ((), False)])
    assert suspicion.poison(0) == []
    assert suspicion.is_careful(0)
    assert after(suspicion, inside(BAD)) == [BAD], "an equal one behind it begins from nothing"


def test_two_poisons_one_behind_the_other() -> None:
    suspicion = Suspicion(1, 2)
    assert after(suspicion, inside(), inside(BAD), inside(BAD)) == [None, None, BAD]
    assert after(suspicion, inside(OTHER), inside(OTHER)) == [None, OTHER]
    assert [item.key for item in suspicion.poison(0)] == [b"bad", b"other"], "the first letter is in no checkpoint yet"


@pytest.mark.parametrize("seed", range(20))
def test_random_kills_of_a_busy_shard_convict_nobody(seed: int) -> None:
    chance = random.Random(seed)
    suspicion = Suspicion(1, 3)
    for _ in range(200):
        running = [Crumb(b"%d" % chance.randrange(100), 1, "test/worker:x") for _ in range(chance.randrange(2))]
        assert suspicion.died(0, outside(*running)) is None
        for _ in range(chance.randrange(3)):
            suspicion.checkpoint_completed([((), False)])
        suspicion.incarnation_began()


def test_the_coordinator_tells_the_next_process_and_only_that_one() -> None:
    coordinator = Coordinator(2, Timing(), 0, [b"", b""], "job" * 8, poison_deaths=1)
    incarnation = 0

    def world_up(now: float) -> dict[int, Reset]:
        nonlocal incarnation
        assert RaiseIncarnation() in coordinator.take_effects()
        incarnation += 1
        coordinator.incarnation_raised(incarnation)
        for shard, member in enumerate(coordinator.membership.members):
            if member.name == "VACANT":
                coordinator.assigned(shard)
        resets = {
            e.shard: e.message for e in coordinator.take_effects() if isinstance(e, Send) and isinstance(e.message, Reset)
        }
        for shard in (0, 1):
            coordinator.on_ready(shard, Ready(incarnation, {}, []), now)
        coordinator.take_effects()
        return resets

    coordinator.start(0.0)
    assert not any(reset.careful for reset in world_up(0.0).values())
    coordinator.suspicion.died(1, Death(Cause.INSIDE))
    coordinator.failure(1, "died", 1.0)
    resets = world_up(1.0)
    assert [(resets[k].careful, resets[k].poison) for k in (0, 1)] == [(False, []), (True, [])]
    coordinator.suspicion.died(1, inside(BAD))
    coordinator.failure(1, "died", 2.0)
    resets = world_up(2.0)
    assert [(resets[k].careful, [p.key for p in resets[k].poison]) for k in (0, 1)] == [(False, []), (True, [b"bad"])]


def test_calls_that_are_always_under_way_together_run_alone_next_time() -> None:
    suspicion = Suspicion(1)
    suspicion.died(0, Death(Cause.INSIDE))
    together = Death(Cause.INSIDE, (BAD, OTHER))
    assert suspicion.suspects(0) == []
    suspicion.died(0, together)
    assert suspicion.suspects(0) == [], "once is no reason"
    suspicion.died(0, together)
    assert sorted(suspicion.suspects(0)) == sorted([BAD.key, OTHER.key])
    suspicion.checkpoint_completed([((), True)])
    suspicion.checkpoint_completed([((), True)])
    assert suspicion.is_careful(0), "as long as the shard says so"
    assert suspicion.died(0, Death(Cause.INSIDE, (BAD,))) == BAD
    assert suspicion.suspects(0) == []
