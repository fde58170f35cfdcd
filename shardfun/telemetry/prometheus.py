"""A node's figures in Prometheus' text format, version 0.0.4. Pure: a status in, a text out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain
from typing import Final

from shardfun.model.status import NodeStatus
from shardfun.telemetry.http_figures import HttpFigures
from shardfun.telemetry.metric_table import DEFINITIONS, USER_LABELS, Distribution, Kind, Number, Sample, Scrape
from shardfun.telemetry.user_metrics import user_families

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def render_metrics(status: NodeStatus, http: HttpFigures | None = None) -> str:
    """All metrics of a node.

    Args:
        http: of the door that answers, if one does.
    """
    scrape = Scrape(status, http)
    lines: list[str] = []
    for metric in DEFINITIONS:
        lines += _family(metric.name, metric.kind, metric.help, metric.labels, metric.samples(scrape))
    for name, kind, help, samples in user_families(status.shards):
        lines += _family(name, kind, help, USER_LABELS, samples)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: Kind, help: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of one metric; none if it has no series."""
    rest = iter(samples)
    first = next(rest, None)
    if first is None:
        return
    text = help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for values, value in chain((first,), rest):
        pairs = [f'{label}="{_escaped(text)}"' for label, text in zip(labels, values, strict=True)]
        if isinstance(value, Distribution):
            yield from _distribution(name, pairs, value)
        else:
            yield _line(name, pairs, value)


def _distribution(name: str, pairs: list[str], value: Distribution) -> Iterator[str]:
    """Buckets of the format are cumulative; the last one holds all."""
    total = sum(value.counts)
    if value.bounds:
        for bound, count in zip((*value.bounds, math.inf), accumulate(value.counts), strict=True):
            yield _line(f"{name}_bucket", [*pairs, f'le="{_number(bound)}"'], count)
    yield _line(f"{name}_sum", pairs, value.sum)
    yield _line(f"{name}_count", pairs, total)


def _line(name: str, pairs: list[str], value: Number) -> str:
    labels = f"{{{','.join(pairs)}}}" if pairs else ""
    return f"{name}{labels} {_number(value)}"


def _number(value: Number) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
