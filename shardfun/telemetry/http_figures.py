"""What an HTTP door counts of itself, for ``render_metrics``. It belongs to the door's process and starts from nothing with it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

DURATION_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of request durations, the bound included; what takes longer counts in one more."""
KNOWN_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER_METHOD: Final = "other"
"""Clients choose the method: any other text would make new series without end."""


@dataclass(slots=True)
class Durations:
    """How long requests took. ``counts`` has one more than ``DURATION_BOUNDS_S``, for what is beyond."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


@dataclass(slots=True)
class HttpFigures:
    """Filled by the door.

    Args:
        requests: by route, method and status code. A route is a template as in the documentation, never a path with ids.
        durations: by route; of a stream, until its end.
        active: requests that are being answered now; ``streams``: of these, open streams of server-sent events.
        intake_backlog_bytes: accepted by this door, and not read by a complete checkpoint yet.
    """

    requests: dict[tuple[str, str, int], int] = field(default_factory=dict)
    durations: dict[str, Durations] = field(default_factory=dict)
    active: int = 0
    streams: int = 0
    intake_backlog_bytes: int = 0

    def done(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request has been answered.

        Args:
            route: the template, such as ``/v1/functions/{namespace}/{type}/{id}``; one and the same for all unknown paths.
            seconds: from its first byte to the last one of the answer.
        """
        key = (route, method if method in KNOWN_METHODS else OTHER_METHOD, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        durations = self.durations.get(route)
        if durations is None:
            durations = self.durations[route] = Durations()
        durations.observe(seconds)
