"""Command trees, the commands for maps, buffers, registries, and for what goes away by itself.

The sums of a map and of a buffer are kept in single values beside them: each invocation sees whether both agree, and so does each
checkpoint. Of what expires, the time of the last write (or read) is kept in values that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from shardfun.core.buffers import Buffer
from shardfun.core.maps import Map
from shardfun.core.registry import Registry
from shardfun.sdk.policies import after_access, after_write
from shardfun.sdk.state import State, Value, buffer, mapping, registry, value
from shardfun.simulation.workloads.trees_values import Base, Command, Plain, Stage, amounts_of

NOTES_MAX = 3
NOTARY = "trees/notary"
LIFE_MS = 700
"""Of everything that expires."""
RENEWED_LATE = 16
"""A read puts the end off only if that moves it by more than such a part of the time to live."""


class Item(msgspec.Struct, frozen=True):
    """In a buffer. ``number`` counts the items appended."""

    number: int
    n: int


class Hoard(State):
    """A map and a buffer. ``taken``, ``drained_items``: the sums of what went out of them again; the others: of what is in."""

    prices: Map[str, int] = mapping()
    price_sum: Value[int] = value(0)
    taken: Value[int] = value(0)
    recent: Buffer[Item] = buffer()
    appended: Value[int] = value(0)
    recent_sum: Value[int] = value(0)
    drained_items: Value[int] = value(0)


class Rich(Plain, Hoard):
    """A map of mutable values and a registry besides."""

    notes: Map[tuple[int, str], list[int]] = mapping()
    noted_away: Value[int] = value(0)
    extra: Registry = registry()


class Mortal(Base, Hoard):
    """Is deleted now and then."""


class Fading(Plain):
    """Everything that expires, beside values that tell when it has to.

    Args:
        sparks_until: by key, until when the entry lives; ``glow_until`` and ``ashes_until`` likewise.
    """

    fades: Value[int] = value(0)
    glow: Value[int] = value(0, expire=after_write(seconds=LIFE_MS / 1000))
    glow_last: Value[int] = value(0)
    glow_until: Value[int] = value(0)
    ember: Value[list[int]] = value(default_factory=list, expire=after_access(seconds=LIFE_MS / 1000))
    ember_last: Value[list[int]] = value(default_factory=list)
    ember_used: Value[int] = value(0)
    sparks: Map[str, int] = mapping(expire=after_write(seconds=LIFE_MS / 1000))
    sparks_until: Value[dict[str, int]] = value(default_factory=dict)
    ashes: Buffer[int] = buffer(expire=after_write(seconds=LIFE_MS / 1000))
    ashes_until: Value[list[list[int]]] = value(default_factory=list)


class Passing(State):
    """Is deleted when no message has come for a while."""

    count: Value[int] = value(0)


class Estate(msgspec.Struct, frozen=True):
    """What an instance had when it was deleted. ``amounts``: what, and how much."""

    place: str
    amounts: tuple[tuple[str, int], ...]


class Books(State):
    """The notary's, by place: what the deleted had; when it was last told of a visit, and the how manieth it was."""

    estates: Value[dict[str, dict[str, int]]] = value(default_factory=dict)
    visits: Value[dict[str, list[int]]] = value(default_factory=dict)
    visited: Value[dict[str, int]] = value(default_factory=dict)


# ---- maps ----------------------------------------------------------------------------------------------------------------
class Put(Command, frozen=True):
    """Add to an entry of a map."""

    key: str
    n: int

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state = stage.state
        state.prices[self.key] = state.prices.get(self.key, 0) + self.n
        state.price_sum += self.n

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "prices", self.n


class Take(Command, frozen=True):
    """Delete the first entry of a map, if there is one."""

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state = stage.state
        key = next(iter(state.prices), None)
        if key is not None:
            n = state.prices.pop(key)
            stage.expect("entry that was taken", key in state.prices, expected=False)
            state.price_sum -= n
            state.taken += n


class Note(Command, frozen=True):
    """Change a mutable entry of a map in place."""

    key: int
    n: int

    def perform(self, stage: Stage) -> None:
        """See the class."""
        notes = stage.state.notes
        found = notes.setdefault((self.key, "notes"), [])
        found.append(self.n)
        if len(found) > NOTES_MAX:
            stage.state.noted_away += sum(found)
            del notes[self.key, "notes"]

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "notes", self.n


class Look(Command, frozen=True):
    """Look at a map and a buffer as a whole."""

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state = stage.state
        items = list(state.prices.items())
        keys = [key for key, _ in items]
        stage.expect("order of the keys", keys, sorted(keys))
        stage.expect("sum of the map", sum(n for _, n in items), state.price_sum)
        stage.expect("entries", (state.prices.count(), bool(state.prices)), (len(items), bool(items)))
        for key in keys[:1]:
            stage.expect("rest of the keys", list(state.prices.keys(start=key + "\0")), keys[1:])
        numbers = [item.number for item in state.recent.view()]
        stage.expect("items", numbers, list(range(state.appended - len(numbers) + 1, state.appended + 1)))
        stage.expect("number of items", len(state.recent), len(numbers))
        stage.expect("sum of the buffer", sum(item.n for item in state.recent.view()), state.recent_sum)


# ---- buffers -------------------------------------------------------------------------------------------------------------
class Append(Command, frozen=True):
    """Append to a buffer."""

    n: int

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state = stage.state
        state.appended += 1
        state.recent_sum += self.n
        state.recent.append(Item(state.appended, self.n))

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "recent", self.n


class Drain(Command, frozen=True):
    """Empty a buffer, or replace what is in it by its last item."""

    how: Literal["clear", "replace"]

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state = stage.state
        items = list(state.recent.view())
        kept = items[-1:] if self.how == "replace" else []
        if self.how == "clear":
            state.recent.clear()
        else:
            state.recent.replace(kept)
        dropped = sum(item.n for item in items) - sum(item.n for item in kept)
        state.recent_sum -= dropped
        state.drained_items += dropped


# ---- registries, lives ---------------------------------------------------------------------------------------------------
class Register(Command, frozen=True):
    """Add to states that are registered by name, one of each kind."""

    name: str
    n: int

    def perform(self, stage: Stage) -> None:
        """See the class."""
        extra = stage.state.extra
        single = extra.value(f"value {self.name}", int, default=0)
        single.set(single.get() + self.n)
        entries = extra.map(f"map {self.name}", str, int)
        entries[self.name] = entries.get(self.name, 0) + self.n
        extra.buffer(f"buffer {self.name}", int).append(self.n)

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "extra", 3 * self.n


class Delete(Command, frozen=True):
    """Tell the notary what there is, then delete the instance."""

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state, ctx = stage.state, stage.ctx
        fields = {name: getattr(state, name) for name in SINGLE}
        amounts = amounts_of(fields) | hoard_amounts(fields, list(state.prices.values()), [item.n for item in state.recent])
        ctx.send(NOTARY, ctx.self.id, Estate(stage.place, tuple(amounts.items())))
        ctx.delete_instance()
        left = [name for name in SINGLE if getattr(state, name)]
        stage.expect("what a deleted instance has", (left, bool(state.prices), len(state.recent)), ([], False, 0))


SINGLE = ("nodes", "total", "stamps", "answers", "emitted", "taken", "drained_items")


def hoard_amounts(fields: Mapping[str, Any], prices: list[int], recent: list[int]) -> dict[str, int]:
    """The amounts of a ``Hoard``; ``prices``, ``recent``: what is in its map and its buffer."""
    return {
        "prices": sum(prices) + fields.get("taken", 0),
        "recent": sum(recent) + fields.get("drained_items", 0),
    }


# ---- what goes away by itself --------------------------------------------------------------------------------------------
class Fade(Command, frozen=True):
    """Look at everything that expires, and write it anew."""

    key: str

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state, now, n = stage.state, stage.now_ms, stage.tag
        gone = now >= state.glow_until or (state.glow == 0 and stage.may_be_over(state.glow_until))
        stage.expect("glow", state.glow, 0 if gone else state.glow_last)
        state.glow = state.glow_last = n
        state.glow_until = now + LIFE_MS
        self._check_ember(stage, now)
        state.ember.append(n)
        state.ember_last = list(state.ember)
        state.ember_used = now
        found = list(state.sparks)
        until = {
            key: end for key, end in state.sparks_until.items() if now < end and (key in found or not stage.may_be_over(end))
        }
        stage.expect("sparks", found, sorted(until))
        state.sparks[self.key] = n
        # What is over may be seen again when the clock is set back, so its end is kept.
        state.sparks_until = state.sparks_until | {self.key: now + LIFE_MS}
        left, ashes = list(state.ashes.view()), [pair for pair in state.ashes_until if now < pair[1]]
        if stage.around.went_back():  # in a buffer nothing is over before what is in front of it
            ashes = [pair for pair in state.ashes_until if pair[0] in left]
        stage.expect("ashes", left, [ash for ash, _ in ashes])
        state.ashes.append(n)
        state.ashes_until = [*ashes, [n, now + LIFE_MS]]
        state.fades += 1

    @staticmethod
    def _check_ember(stage: Stage, now: int) -> None:
        state = stage.state
        if stage.around.went_back():  # when it was used is not when it would be over, then
            return
        unused = now - state.ember_used
        if unused >= LIFE_MS:
            stage.expect("ember", state.ember, [])
        elif unused < LIFE_MS - LIFE_MS // RENEWED_LATE - 1:
            stage.expect("ember", state.ember, state.ember_last)

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "fades", 1


def take_visit(stage: Stage, place: str, at_ms: int, count: int) -> None:
    """At the notary: somebody was visited who goes away when nobody comes."""
    state = stage.state
    if stage.around.went_back():
        state.visited[place] = state.visited.get(place, 0) + 1
        return
    before_ms, before = state.visits.get(place, (-LIFE_MS, 0))
    unseen = at_ms - before_ms
    if unseen >= LIFE_MS:
        stage.expect(f"visits of {place}, which had expired", count, 1)
    elif unseen < LIFE_MS - LIFE_MS // RENEWED_LATE - 1:
        stage.expect(f"visits of {place}", count, before + 1)
    state.visits[place] = [at_ms, count]
    state.visited[place] = state.visited.get(place, 0) + 1


def take_estate(stage: Stage, estate: Estate) -> None:
    """At the notary: somebody was deleted."""
    kept = stage.state.estates.setdefault(estate.place, {})
    for what, n in estate.amounts:
        kept[what] = kept.get(what, 0) + n
