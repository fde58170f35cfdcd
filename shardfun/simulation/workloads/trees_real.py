"""Command trees on a real node: the application with real waiting, and what a plain program says that its results have to be.

At the end of the input every address emits what it has. ``differences`` adds up all trees and compares.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import trio

from shardfun.sdk.app import App
from shardfun.sdk.context import Context
from shardfun.simulation.workloads.trees_app import (
    BRITTLE,
    FADING,
    FAST,
    HURRIED,
    LEAF,
    MORTAL,
    PASSING,
    PATIENT,
    PLAIN,
    RICH,
    SLOW,
    THREAD,
    all_nodes,
    declare_trees,
)
from shardfun.simulation.workloads.trees_collections import NOTARY, Books, hoard_amounts
from shardfun.simulation.workloads.trees_draw import draw_steps
from shardfun.simulation.workloads.trees_nodes import Node, Step
from shardfun.simulation.workloads.trees_values import EGRESS, Surroundings, amounts_of

INGRESS = "trees"
TYPES = (PLAIN, PATIENT, BRITTLE, LEAF, RICH, FADING, MORTAL, PASSING, SLOW, HURRIED, THREAD, FAST)
"""Those whose nodes never fail for good unless they are drawn so."""

PAUSE_S = 0.003
TIMEOUT_S = 60.0
SINGLE = (
    "nodes",
    "total",
    "stamps",
    "answers",
    "emitted",
    "cancels",
    "fades",
    "drained",
    "taken",
    "drained_items",
    "noted_away",
)
MUTABLE = ("log", "book", "ledger", "outcomes", "alarms")


async def _pause() -> None:
    await trio.sleep(PAUSE_S)


def _block() -> None:
    time.sleep(PAUSE_S)


def _clock_ms() -> int:
    """Of the machine: ``ctx.now()`` stands still for a moment, and the sender may be in another shard."""
    return int(time.time() * 1000)


def _make_app() -> App:
    app = App("trees")
    declare_trees(app, Surroundings(None, _pause, _block, _clock_ms, timeout_s=TIMEOUT_S), INGRESS, TYPES)
    for typename in TYPES:
        if typename not in {PASSING, LEAF}:
            app.on_end(typename)(_close)
    app.on_end("leaves/*")(_close)

    @app.on_end(NOTARY)
    def close_books(ctx: Context[Books]) -> None:
        for place, amounts in ctx.state.estates.items():
            ctx.emit(EGRESS, ["final", place, amounts, None])
        for place, n in ctx.state.visited.items():
            ctx.emit(EGRESS, ["final", place, {"nodes": n}, None])

    return app


def _close(ctx: Context) -> None:  # whatever the state
    state: Any = ctx.state
    fields = {name: getattr(state, name) for name in SINGLE if hasattr(state, name)}
    fields |= {name: msgspec.to_builtins(getattr(state, name)) for name in MUTABLE if hasattr(state, name)}
    amounts = amounts_of(fields)
    if hasattr(state, "prices"):
        amounts |= hoard_amounts(fields, list(state.prices.values()), [item.n for item in state.recent])
    if hasattr(state, "notes"):
        amounts["notes"] = sum(map(sum, state.notes.values())) + state.noted_away
        amounts["extra"] = sum(_registered(state.extra))
    ctx.emit(EGRESS, ["final", f"{ctx.self.typename}:{ctx.self.id}", amounts, fields.get("alarms")])


def _registered(extra: Any) -> Iterable[int]:
    for name in extra.names():
        kind = name.partition(" ")[0]
        if kind == "value":
            yield extra.value(name, int, default=0).get()
        elif kind == "map":
            yield from extra.map(name, str, int).values()
        else:
            yield from extra.buffer(name, int).view()


app = _make_app()


# ---- input and verdict ---------------------------------------------------------------------------------------------------
def make_steps(seed: int, count: int, partitions: int) -> list[Step]:
    """The records of a run, in the order of the file. Those of one ``origin`` have to stay in order."""
    chance = random.Random(seed)
    parts = [draw_steps(chance, TYPES, partition, count // partitions) for partition in range(partitions)]
    return [step for steps in zip(*parts, strict=True) for step in steps]


def encode_steps(steps: Iterable[Step]) -> bytes:
    """As JSON lines."""
    return b"".join(msgspec.json.encode(step) + b"\n" for step in steps)


def differences(steps: list[Step], published: Iterable[list[Any]]) -> list[str]:
    """What is wrong with the published records, one sentence each; empty if nothing is."""
    found = Counter[tuple[str, str]]()
    emitted = Counter[str]()
    alarms: list[dict[str, Any]] = []
    wrong: list[str] = []
    for record in published:
        match record:
            case ["final", place, amounts, of_place]:
                found.update({(place, what): n for what, n in amounts.items()})
                alarms += [] if of_place is None else [of_place]
            case ["violation", text]:
                wrong.append(text)
            case [place, _]:
                emitted[place] += 1
            case _:
                wrong.append(f"nobody emits {record!r}")
    nodes = all_nodes(steps)
    fired = Counter(tag for of_place in alarms for tag in of_place["fired"])
    expected = Counter[tuple[str, str]]()
    for node in (*(step.node for step in steps), *(nodes[tag] for tag in fired)):
        for (place, what), n in node.amounts():
            if place != "dead letters":
                expected[place, what] += n
    for place, what in sorted(found | expected):
        if found[place, what] != expected[place, what]:
            wrong.append(f"{what} of {place}: expected {expected[place, what]}, found {found[place, what]}")
    for (place, what), n in expected.items():
        if what == "emitted" and emitted[place] != n:
            wrong.append(f"{place} has emitted {n} records, {emitted[place]} are published")
    return wrong + _wrong_alarms(alarms, fired, nodes)


def _wrong_alarms(alarms: list[dict[str, Any]], fired: Counter[int], nodes: dict[int, Node]) -> list[str]:
    """What was sent later with a token has come once, unless it was cancelled; then perhaps."""
    wrong = []
    armed = Counter[int]()
    for of_place in alarms:
        cancelled = {*of_place["cancelled"]}
        for tags in of_place["armed"].values():
            armed.update(tags)
            missing = [tag for tag in tags if not fired[tag] and tag not in cancelled and not nodes[tag].dies]
            wrong += [f"node {tag} was not cancelled, and has not come" for tag in missing]
    wrong += [f"node {tag} was armed {armed[tag]} times, and has come {n} times" for tag, n in fired.items() if n > armed[tag]]
    return wrong + [f"node {tag} was armed {n} times" for tag, n in armed.items() if n > 1]
