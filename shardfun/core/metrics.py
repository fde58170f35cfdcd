"""Figures that functions keep of themselves: counters, gauges, histograms, by function type and name.

They belong to a process, not to the exactly-once world: a failed attempt has counted, a recovery starts from nothing in a process that
is new. The heartbeat carries them to the supervisor.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from shardfun.errors import InvocationError

METRICS_MAX = 1000  # of one shard
NAME_CHARACTERS_MAX = 100
INT_BITS_MAX = 63  # a larger number is kept as a float; the status as JSON cannot have any number of digits
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 1000.0)
"""Upper bounds of a histogram's buckets, the bound included; what is larger counts in the last one, without bound."""


def _number(value: Any) -> float:
    """A figure as the heartbeat can carry it.

    Raises:
        InvocationError: it is none.
    """
    if type(value) is float or (type(value) is int and value.bit_length() <= INT_BITS_MAX):
        return value
    if isinstance(value, str):
        value = None  # ``float`` would read it
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        msg = f"metric: expected a number, got {value!r:.100}"
        raise InvocationError(msg) from None


class Counter:
    """Only goes up."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def increment(self, by: float = 1) -> None:
        """Add ``by``, which must not be negative.

        Raises:
            InvocationError: it is, or is no number.
        """
        by = _number(by)
        if by < 0:
            msg = f"counter: expected an increment of 0 or more, got {by!r}; a gauge may go down"
            raise InvocationError(msg)
        self.value += by


class Gauge:
    """Goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        """It is ``value`` now."""
        self.value = _number(value)

    def add(self, by: float) -> None:
        """Move it by ``by``."""
        self.value += _number(by)


class Histogram:
    """How often which sizes were seen."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        """One more."""
        value = _number(value)
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.sum += value


Metric = Counter | Gauge | Histogram


class Metrics:
    """All metrics of one shard. ``of`` gives those of one function type."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Metric] = {}
        self._views: dict[str, FunctionMetrics] = {}

    def of(self, typename: str) -> FunctionMetrics:
        """The metrics of a function type."""
        view = self._views.get(typename)
        if view is None:
            view = self._views[typename] = FunctionMetrics(self, typename)
        return view

    def find(self, typename: str, name: str, kind: type[Any]) -> Any:
        """A metric, made at its first use.

        Raises:
            InvocationError: the name is of another kind, or malformed, or there are too many.
        """
        found = self._found.get((typename, name))
        if found is None:
            if type(name) is not str or not name.isidentifier() or len(name) > NAME_CHARACTERS_MAX:
                msg = f"metric {name!r:.120}: expected a name of letters, digits and underscores, at most {NAME_CHARACTERS_MAX}"
                raise InvocationError(msg)
            if len(self._found) >= METRICS_MAX:
                msg = f"metric {name!r}: expected at most {METRICS_MAX} metrics in a shard; names must not be made of data"
                raise InvocationError(msg)
            found = self._found[typename, name] = kind()
        if type(found) is not kind:
            msg = f"metric {name!r} of {typename} is a {type(found).__name__.lower()}, not a {kind.__name__.lower()}"
            raise InvocationError(msg)
        return found

    def snapshot(self) -> list[list[Any]]:
        """``[typename, name, kind, value]`` of each; the value of a histogram is ``[sum, counts]``. From any thread."""
        found: list[list[Any]] = []
        for (typename, name), metric in list(self._found.items()):
            value = [metric.sum, list(metric.counts)] if isinstance(metric, Histogram) else metric.value
            found.append([typename, name, type(metric).__name__.lower(), value])
        return found


class FunctionMetrics:
    """What ``ctx.metrics`` is."""

    __slots__ = ("_metrics", "_typename")

    def __init__(self, metrics: Metrics, typename: str) -> None:
        self._metrics = metrics
        self._typename = typename

    def counter(self, name: str) -> Counter:
        """The counter of that name, of this function type in this shard.

        Raises:
            InvocationError: the name is of another kind, or malformed, or there are too many.
        """
        found: Counter = self._metrics.find(self._typename, name, Counter)
        return found

    def gauge(self, name: str) -> Gauge:
        """The gauge of that name. Raises as ``counter``."""
        found: Gauge = self._metrics.find(self._typename, name, Gauge)
        return found

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name. Raises as ``counter``."""
        found: Histogram = self._metrics.find(self._typename, name, Histogram)
        return found
