"""The trace: lines that a person can read, and a digest that is the run's."""

from __future__ import annotations

from shardfun.simulation.trace import HEADER, Event, Trace


def test_columns_are_fixed_and_what_fails_is_marked() -> None:
    """Every part stands under its heading."""
    killed = Event(812, 3.5, 4, (4 << 32) + 7, "shard 1", "killed", "idle").line()
    for heading, part in (("checkpoint", "4.7"), ("who", "shard 1"), ("event", "killed"), ("detail", "idle")):
        assert killed.index(part) == HEADER.index(heading)
    assert killed[HEADER.index("who") - 1] == "!"
    quiet = Event(813, 3.501, 0, 0, "supervisor", "boot", "").line()
    assert "!" not in quiet
    assert quiet.index("supervisor") == HEADER.index("who")


def test_what_is_said_aside_does_not_count() -> None:
    """An address can be followed through a run, which stays the run it is; anything else is another one."""
    digests = []
    for aside, detail in ((False, ""), (True, ""), (False, "x")):
        told: list[Event] = []
        trace = Trace(told.append)
        trace.note("world", "heals", detail)
        if aside:
            trace.aside("shard 0", "gets", "shop/cart:1")
        assert len(told) == 1 + aside
        assert len(trace.last) == 1 + aside
        digests.append(trace.digest)
    assert digests[0] == digests[1] != digests[2]
