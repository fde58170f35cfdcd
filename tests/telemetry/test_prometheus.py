"""The text for Prometheus: read by its own parser, and held against its rules for names, types and series."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from shardfun.core import metrics as core_metrics
from shardfun.core.metrics import BUCKETS, Metrics
from shardfun.model.status import (
    CheckpointStatus,
    EgressStatus,
    FunctionStatus,
    IngressStatus,
    NodeStatus,
    ShardStatus,
)
from shardfun.telemetry.http_figures import DURATION_BOUNDS_S, HttpFigures
from shardfun.telemetry.metric_table import DEFINITIONS
from shardfun.telemetry.prometheus import render_metrics

UNITS = ("_seconds", "_bytes", "_messages", "_records")
SMALLER_UNITS = ("_ms", "_milliseconds", "_kib", "_mb", "_minutes")


def user_metrics() -> list[list[Any]]:
    metrics = Metrics()
    cart, late = metrics.of("shop/cart"), metrics.of("flights/late")
    cart.counter("orders").increment(3)
    late.counter("orders").increment(0.5)
    cart.gauge("size").set(-2)
    for observed in (0.001, 0.3, 0.3, 7e6):
        cart.histogram("paid").observe(observed)
    return metrics.snapshot()


def shard_status(shard: int, **changes: Any) -> ShardStatus:
    values: dict[str, Any] = {
        "shard": shard,
        "pid": 100 + shard,
        "state": "running",
        "restarts": shard,
        "backlog": 10,
        "cached_bytes": 1 << 20,
        "resident_bytes": 50 << 20,
        "heartbeat_age_s": 0.25,
        "timers": 4,
        "cpu_s": 1.5,
        "functions": [FunctionStatus("shop/cart", *range(1, 13)), FunctionStatus("shardfun/request")],
        "ingress": [IngressStatus("events", 7, 1)],
        "egress": [EgressStatus("out", 5, 2, 300)],
        "metrics": user_metrics(),
    }
    return ShardStatus(**(values | changes))


def node_status(**changes: Any) -> NodeStatus:
    values: dict[str, Any] = {
        "name": "shop",
        "app": "shop.app:app",
        "data_dir": "/srv/data",
        "pid": 99,
        "state": "running",
        "incarnation": 2,
        "uptime_s": 12.5,
        "recoveries": 1,
        "last_recovery_ms": 93.0,
        "shards": [shard_status(0), shard_status(1)],
        "checkpoint": CheckpointStatus(
            checkpoint=3,
            age_s=0.5,
            duration_ms=20.0,
            bytes=1000,
            completed=9,
            aborted=1,
            duration_total_s=0.3,
            bytes_total=9000,
        ),
        "intake": {"http": 4096, "local": 0},
    }
    return NodeStatus(**(values | changes))


def http_figures() -> HttpFigures:
    http = HttpFigures(active=2, streams=1, intake_backlog_bytes=77)
    http.done("/v1/functions/{ns}/{type}/{id}", "POST", 202, 0.004)
    http.done("/v1/functions/{ns}/{type}/{id}", "POST", 202, 0.02)
    http.done("/v1/functions/{ns}/{type}/{id}", "BREW", 405, 99.0)
    http.done("/healthz", "GET", 200, 0.001)
    return http


Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Series:
    """Every series by name and labels, as the parser sees it; each only once."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value_of(series: Series, name: str, /, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def check_rules(text: str) -> None:
    """What ``promtool check metrics`` looks at, and that nothing but known lines is there."""
    assert text.endswith("\n")
    assert "\n\n" not in text
    helped, typed, order = Counter[str](), dict[str, str](), list[str]()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, words = line.removeprefix("# HELP ").partition(" ")
            helped[name] += 1
            assert words
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name not in typed
            typed[name] = kind
            order.append(name)
            assert kind in {"counter", "gauge", "histogram", "summary"}
            assert re.fullmatch(r"shardfun_[a-zA-Z0-9_]+", name)
            assert (kind == "counter") == name.endswith("_total"), name
            if kind in {"gauge", "counter"}:
                assert not name.endswith(("_count", "_sum", "_bucket")) or name.startswith("shardfun_user_"), name
            assert not any(unit in name for unit in SMALLER_UNITS) or name.startswith("shardfun_user_"), name
        else:
            found = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)", line)
            assert found, line
            of = order[-1]
            suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}.get(typed[of], ("",))
            assert found[1] in {of + suffix for suffix in suffixes}, line
    assert set(helped) == set(typed)
    assert set(helped.values()) == {1}
    assert order == list(dict.fromkeys(order))


def check_histograms(text: str) -> int:
    """Buckets are cumulative and end with all; how many histograms there are."""
    seen = 0
    for family in text_string_to_metric_families(text):
        if family.type != "histogram":
            continue
        groups: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
        counts: dict[frozenset[tuple[str, str]], float] = {}
        for sample in family.samples:
            labels = frozenset((name, text) for name, text in sample.labels.items() if name != "le")
            if sample.name.endswith("_bucket"):
                groups.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                counts[labels] = sample.value
        assert groups.keys() == counts.keys()
        for labels, buckets in groups.items():
            assert [bound for bound, _ in buckets] == sorted({bound for bound, _ in buckets})
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert buckets[-1] == (math.inf, counts[labels])
            seen += 1
    return seen


# ---- the whole -----------------------------------------------------------------------------------------------------------
def test_the_text_follows_the_rules() -> None:
    text = render_metrics(node_status(), http_figures())
    check_rules(text)
    assert check_histograms(text) == 4
    names = {family.name for family in text_string_to_metric_families(text)}
    for metric in DEFINITIONS:
        assert metric.name.removesuffix("_total") in names, metric.name


def test_every_figure_is_where_it_belongs() -> None:
    series = read(render_metrics(node_status(), http_figures()))
    assert value_of(series, "shardfun_node_info", name="shop", app="shop.app:app") == 1
    assert value_of(series, "shardfun_node_state", state="running") == 1
    assert value_of(series, "shardfun_node_state", state="recovering") == 0
    assert value_of(series, "shardfun_last_recovery_duration_seconds") == 0.093
    assert value_of(series, "shardfun_checkpoints_total", result="completed") == 9
    assert value_of(series, "shardfun_checkpoint_duration_seconds_sum") == 0.3
    assert value_of(series, "shardfun_checkpoint_duration_seconds_count") == 9
    assert value_of(series, "shardfun_last_checkpoint_duration_seconds") == 0.02
    assert value_of(series, "shardfun_intake_consumed_bytes_total", owner="http") == 4096
    assert value_of(series, "shardfun_shard_up", shard="1") == 1
    assert value_of(series, "shardfun_shard_restarts_total", shard="1") == 1
    assert value_of(series, "shardfun_shard_cpu_seconds_total", shard="0") == 1.5
    assert value_of(series, "shardfun_ingress_rejected_records_total", shard="0", ingress="events") == 1
    assert value_of(series, "shardfun_egress_pending_bytes", shard="0", egress="out") == 300
    cart = {"shard": "1", "function": "shop/cart"}
    names = ("messages_in_total", "messages_out_local_total", "messages_out_remote_total", "records_out_egress_total")
    names += ("invocations_total", "failures_total", "retries_total", "dead_letters_total", "backlog_messages")
    names += ("blocked_addresses", "inflight_calls", "inflight_async_operations")
    assert [value_of(series, f"shardfun_function_{name}", **cart) for name in names] == list(range(1, 13))


def test_requests_by_route_method_and_code() -> None:
    series = read(render_metrics(node_status(), http_figures()))
    route = "/v1/functions/{ns}/{type}/{id}"
    assert value_of(series, "shardfun_http_requests_total", route=route, method="POST", code="202") == 2
    assert value_of(series, "shardfun_http_requests_total", route=route, method="other", code="405") == 1
    buckets = [
        value_of(series, "shardfun_http_request_duration_seconds_bucket", route=route, le=repr(bound))
        for bound in DURATION_BOUNDS_S
    ]
    assert buckets == [0, 0, 1, 1, 2, *[2] * (len(DURATION_BOUNDS_S) - 5)]
    assert value_of(series, "shardfun_http_request_duration_seconds_bucket", route=route, le="+Inf") == 3
    assert value_of(series, "shardfun_http_request_duration_seconds_bucket", route="/healthz", le="0.001") == 1
    assert value_of(series, "shardfun_http_active_requests") == 2
    assert value_of(series, "shardfun_http_event_streams") == 1
    assert value_of(series, "shardfun_http_intake_backlog_bytes") == 77


def test_without_a_door_there_is_nothing_of_http() -> None:
    assert "shardfun_http_" not in render_metrics(node_status())


def test_a_node_that_has_just_started_has_no_figures_that_would_mean_nothing() -> None:
    starting = [ShardStatus(shard=0, pid=0, state="starting"), ShardStatus(shard=1, pid=0, state="dead", restarts=2)]
    text = render_metrics(
        node_status(state="starting", shards=starting, checkpoint=CheckpointStatus(), last_recovery_ms=None, intake={})
    )
    check_rules(text)
    series = read(text)
    assert value_of(series, "shardfun_shard_up", shard="1") == 0
    assert value_of(series, "shardfun_shard_restarts_total", shard="1") == 2
    names = {name for name, _ in series}
    assert "shardfun_last_checkpoint_age_seconds" not in names
    assert "shardfun_last_recovery_duration_seconds" not in names
    assert "shardfun_shard_backlog_messages" not in names


# ---- what functions count ------------------------------------------------------------------------------------------------
def test_metrics_of_functions_have_shard_and_function_as_labels() -> None:
    series = read(render_metrics(node_status()))
    cart = {"shard": "1", "function": "shop/cart"}
    assert value_of(series, "shardfun_user_orders_total", **cart) == 3
    assert value_of(series, "shardfun_user_orders_total", shard="0", function="flights/late") == 0.5
    assert value_of(series, "shardfun_user_size", **cart) == -2
    assert value_of(series, "shardfun_user_paid_count", **cart) == 4
    assert value_of(series, "shardfun_user_paid_bucket", le="0.001", **cart) == 1
    assert value_of(series, "shardfun_user_paid_bucket", le="0.25", **cart) == 1
    assert value_of(series, "shardfun_user_paid_bucket", le="0.5", **cart) == 3
    assert value_of(series, "shardfun_user_paid_bucket", le=repr(BUCKETS[-1]), **cart) == 3
    assert value_of(series, "shardfun_user_paid_bucket", le="+Inf", **cart) == 4


def test_the_same_name_of_different_kinds_is_told_apart() -> None:
    metrics = Metrics()
    metrics.of("a/a").counter("x").increment()
    metrics.of("a/b").gauge("x").set(2)
    metrics.of("a/c").histogram("x").observe(3)
    metrics.of("a/a").counter("y_total").increment(4)
    metrics.of("a/b").counter("y").increment(5)
    metrics.of("a/a").gauge("z_sum").set(6)
    metrics.of("a/b").histogram("z").observe(7)
    text = render_metrics(node_status(shards=[shard_status(0, metrics=metrics.snapshot())]))
    check_rules(text)
    assert check_histograms(text) == 2
    series = read(text)
    assert value_of(series, "shardfun_user_x_total", shard="0", function="a/a") == 1
    assert value_of(series, "shardfun_user_x_gauge", shard="0", function="a/b") == 2
    assert value_of(series, "shardfun_user_x_histogram_sum", shard="0", function="a/c") == 3
    assert {name for name, _ in series if name.startswith("shardfun_user_y")} == {
        "shardfun_user_y_total",
        "shardfun_user_y_counter_total",
    }
    assert value_of(series, "shardfun_user_z_sum", shard="0", function="a/a") == 6
    assert value_of(series, "shardfun_user_z_histogram_count", shard="0", function="a/b") == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(10**30, 1e30), (float("inf"), math.inf), (-float("inf"), -math.inf), (True, 1.0), (-1e-9, -1e-9)],
    ids=["large", "infinite", "minus infinite", "true", "small"],
)
def test_odd_numbers(value: Any, expected: float) -> None:
    metrics = Metrics()
    metrics.of("a/a").gauge("x").set(value)
    series = read(render_metrics(node_status(shards=[shard_status(0, metrics=metrics.snapshot())])))
    assert value_of(series, "shardfun_user_x", shard="0", function="a/a") == expected


def test_what_json_has_no_number_for_is_no_number() -> None:
    metrics = Metrics()
    metrics.of("a/a").gauge("x").set(float("nan"))
    metrics.of("a/a").histogram("h").observe(float("inf"))
    status = node_status(shards=[shard_status(0, metrics=metrics.snapshot())])
    over_json = msgspec.json.decode(msgspec.json.encode(status), type=NodeStatus)
    series = read(render_metrics(over_json))
    assert math.isnan(value_of(series, "shardfun_user_x", shard="0", function="a/a"))
    assert math.isnan(value_of(series, "shardfun_user_h_sum", shard="0", function="a/a"))
    assert value_of(series, "shardfun_user_h_count", shard="0", function="a/a") == 1


IDENTIFIERS = st.text(min_size=1, max_size=12).filter(str.isidentifier)


@settings(max_examples=60, deadline=None)
@example([("a", "counter"), ("a_total", "gauge"), ("a", "histogram"), ("a_count", "counter"), ("a_bucket", "gauge")])
@example([("é", "gauge"), ("_xe9_", "gauge")])
@given(st.lists(st.tuples(IDENTIFIERS, st.sampled_from(["counter", "gauge", "histogram"])), max_size=20))
def test_whatever_names_functions_choose(names: list[tuple[str, str]]) -> None:
    metrics = Metrics()
    for number, (name, kind) in enumerate(names):
        getattr(metrics.of(f"a/n{number}"), kind)(name)
    text = render_metrics(node_status(shards=[shard_status(0, metrics=metrics.snapshot())]))
    check_rules(text)
    series = read(text)
    of_users = {dict(labels)["function"] for name, labels in series if name.startswith("shardfun_user_")}
    assert of_users == {f"a/n{number}" for number in range(len(names))}


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")))
@example('"\\\n{}=,')
@example("\\n")
def test_texts_of_users_come_through_as_they_are(text: str) -> None:
    shard = shard_status(0, ingress=[IngressStatus(text, 1)], functions=[FunctionStatus(text, 5)], metrics=[])
    series = read(render_metrics(node_status(name=text, shards=[shard])))
    assert value_of(series, "shardfun_function_messages_in_total", shard="0", function=text) == 5
    assert value_of(series, "shardfun_node_info", name=text, app="shop.app:app") == 1


def test_a_full_shard_stays_within_bounds() -> None:
    metrics = Metrics()
    for number in range(core_metrics.METRICS_MAX):
        metrics.of("a/a").gauge(f"g{number}").set(number)
    functions = [FunctionStatus(f"shop/name-{number}", *[10**9] * 12) for number in range(251)]
    text = render_metrics(node_status(shards=[shard_status(0, metrics=metrics.snapshot(), functions=functions)]))
    check_rules(text)
    assert len(text) < 600_000


# ---- the table -----------------------------------------------------------------------------------------------------------
def test_definitions_say_what_they_are() -> None:
    names = [metric.name for metric in DEFINITIONS]
    assert len(names) == len(set(names))
    for metric in DEFINITIONS:
        assert re.fullmatch(r"[A-Z1].*[^.]\.", metric.help), metric.name
        assert metric.source in {"supervisor", "shard", "door"}
        if "bytes" in metric.help.lower() or "time" in metric.help.lower().split():
            assert any(unit in metric.name for unit in UNITS), metric.name
