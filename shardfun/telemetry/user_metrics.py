"""What functions count themselves (``ctx.metrics``), as families that Prometheus can take.

Function types choose names independently of each other, so the same name may be a counter here and a gauge there. For Prometheus a
name has one type, and a histogram takes three more names. What would collide gets its kind as a further suffix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from shardfun.core.metrics import BUCKETS
from shardfun.model.status import ShardStatus
from shardfun.telemetry.metric_table import USER_PREFIX, Distribution, Kind, Sample

KINDS: Final[tuple[Kind, ...]] = ("counter", "gauge", "histogram")
HISTOGRAM_SUFFIXES: Final = ("", "_bucket", "_sum", "_count")


class Family(NamedTuple):
    """All series of one name and kind."""

    name: str
    kind: Kind
    help: str
    samples: list[Sample]


def user_families(shards: Iterable[ShardStatus]) -> list[Family]:
    """The metrics of all functions in all shards, by name."""
    found: dict[tuple[Kind, str], dict[tuple[str, str], Any]] = {}
    for shard in shards:
        for typename, name, kind, value in shard.metrics:
            if kind in KINDS:
                found.setdefault((kind, name), {})[str(shard.shard), typename] = value
    taken: set[str] = set()
    families = []
    for kind in KINDS:  # in the order of what is told most of all by its name
        for name in sorted(name for of_kind, name in found if of_kind == kind):
            family = _free_name(name, kind, taken)
            taken |= _names_of(family, kind)
            samples = [Sample(labels, _value(value)) for labels, value in sorted(found[kind, name].items())]
            families.append(Family(family, kind, f"The {kind} {name!r} of functions.", samples))
    return sorted(families)


def _free_name(name: str, kind: Kind, taken: set[str]) -> str:
    family = USER_PREFIX + re.sub(r"[^a-zA-Z0-9_]", lambda found: f"_x{ord(found[0]):x}_", name)
    if kind == "counter":
        family = family.removesuffix("_total") + "_total"
    while _names_of(family, kind) & taken:
        family = f"{family.removesuffix('_total')}_{kind}" + ("_total" if kind == "counter" else "")
    return family


def _names_of(family: str, kind: Kind) -> set[str]:
    """The names of its series, and for a counter what parsers call the family."""
    match kind:
        case "counter":
            return {family, family.removesuffix("_total")}
        case "histogram":
            return {family + suffix for suffix in HISTOGRAM_SUFFIXES}
        case _:
            return {family}


def _value(value: Any) -> float | Distribution:
    """What JSON has no word for (not a number, infinite) comes as ``None``."""
    if isinstance(value, list):
        total, counts = value
        return Distribution(float("nan") if total is None else total, tuple(counts), BUCKETS)
    return float("nan") if value is None else value
