"""What a function counts, and how its log lines say whose they are."""

from __future__ import annotations

import pytest
from single_core import cells_of, core_of, letters_of, put, run_all
from structlog.testing import capture_logs

from shardfun import App, Context
from shardfun.core import metrics as core_metrics
from shardfun.core.metrics import BUCKETS, Counter, Histogram, Metrics
from shardfun.errors import InvocationError


def test_metrics_are_by_function_type_and_name() -> None:
    app = App("metrics")

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None:
        ctx.metrics.counter("messages").increment()
        ctx.metrics.gauge("last").set(message)
        ctx.metrics.histogram("size").observe(message / 1000)

    @app.function("t/g")
    def g(ctx: Context, message: int) -> None:
        ctx.metrics.counter("messages").increment(2)

    core = core_of(app)
    put(core, "t/f", ("a", 1), ("b", 7))
    put(core, "t/g", ("a", 1))
    run_all(core)
    found = {(typename, name): (kind, figure) for typename, name, kind, figure in core.dispatcher.metrics.snapshot()}
    counts = [0] * (len(BUCKETS) + 1)
    counts[0] = counts[3] = 1
    assert found == {
        ("t/f", "messages"): ("counter", 2),
        ("t/f", "last"): ("gauge", 7),
        ("t/f", "size"): ("histogram", [0.008, counts]),
        ("t/g", "messages"): ("counter", 2),
    }


def test_a_bucket_holds_its_bound_and_the_last_one_the_rest() -> None:
    histogram = Histogram()
    for observed in (0.001, 0.0011, 1000.0, 1e9):
        histogram.observe(observed)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-2], histogram.counts[-1]) == (1, 1, 1, 1)


def test_wrong_use_is_an_error_of_the_invocation(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Metrics().of("t/f")
    found.counter("n")
    with pytest.raises(InvocationError, match="'n' of t/f is a counter, not a gauge"):
        found.gauge("n")
    with pytest.raises(InvocationError, match="expected a name of letters"):
        found.counter("not a name")
    with pytest.raises(InvocationError, match="expected an increment of 0 or more"):
        Counter().increment(-1)
    with pytest.raises(InvocationError, match="expected a number"):
        Counter().increment(10**400)
    monkeypatch.setattr(core_metrics, "METRICS_MAX", 2)
    found.gauge("g")
    with pytest.raises(InvocationError, match="at most 2 metrics"):
        found.gauge("h")


def test_log_lines_say_whose_they_are() -> None:
    app = App("logs")

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None:
        ctx.log.info("seen", number=message)

    core = core_of(app)
    put(core, "t/f", ("a", 1), ("b", 2))
    put(core, "t/f", ("a", 3))
    with capture_logs() as lines:
        run_all(core)
    assert [(line["address"], line["message"], line["number"]) for line in lines] == [
        ("t/f:a", "0-1", 1),
        ("t/f:b", "0-2", 2),
        ("t/f:a", "0-3", 3),
    ]
    assert letters_of(cells_of(core)) == []
