"""All metrics of a node in one table: name, type, labels, what it says, and where its values come from.

The text that Prometheus reads and the table in the documentation are both made from it. Names follow Prometheus' conventions: base
units, the unit last, ``_total`` for counters. Counters never go down while the process that counts lives. Those of a shard begin anew
with its process, those of the node with the supervisor's, those of HTTP with the door's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

from shardfun.model.status import NodeStatus, ShardStatus
from shardfun.telemetry.http_figures import DURATION_BOUNDS_S, HttpFigures

Kind = Literal["counter", "gauge", "summary", "histogram"]
Number = int | float

NODE_STATES: Final = ("starting", "recovering", "running", "finishing", "stopping", "finished", "stopped")


class Distribution(NamedTuple):
    """The value of a summary, without ``bounds``, or of a histogram.

    Args:
        counts: by bucket, not cumulative; one more than ``bounds``. Of a summary: one number.
        bounds: upper bounds of the buckets, included.
    """

    sum: Number
    counts: tuple[int, ...]
    bounds: tuple[float, ...] = ()


class Sample(NamedTuple):
    """One series.

    Args:
        labels: the values, in the order of the definition.
    """

    labels: tuple[str, ...]
    value: Number | Distribution


class Scrape(NamedTuple):
    """What is known at one moment: of the node, and of the door that is asked, if one is."""

    status: NodeStatus
    http: HttpFigures | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Args:
        help: one sentence.
        source: whose figure it is, for the documentation.
        samples: its series now.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    source: str
    samples: Callable[[Scrape], Iterable[Sample]]


def _node(name: str, kind: Kind, help: str, value: Callable[[NodeStatus], Any]) -> Definition:
    """A figure of the node. ``value``: ``None``: there is none yet."""

    def samples(scrape: Scrape) -> Iterator[Sample]:
        found = value(scrape.status)
        if found is not None:
            yield Sample((), found)

    return Definition(name, kind, (), help, "supervisor", samples)


def _shard(name: str, kind: Kind, help: str, value: str | Callable[[ShardStatus], Number]) -> Definition:
    """A figure of each shard that has a process. ``value``: an attribute of its status, or a function of it."""
    get = attrgetter(value) if isinstance(value, str) else value

    def samples(scrape: Scrape) -> Iterator[Sample]:
        return (Sample((str(shard.shard),), get(shard)) for shard in scrape.status.shards if shard.pid or shard.functions)

    return Definition(name, kind, ("shard",), help, "shard", samples)


def _part(part: Literal["function", "ingress", "egress"], name: str, kind: Kind, help: str, value: str) -> Definition:
    """A figure of each function type, ingress or egress in each shard."""
    rows = attrgetter("functions" if part == "function" else part)
    get, name_of = attrgetter(value), attrgetter(part)

    def samples(scrape: Scrape) -> Iterator[Sample]:
        for shard in scrape.status.shards:
            yield from (Sample((str(shard.shard), name_of(row)), get(row)) for row in rows(shard))

    return Definition(name, kind, ("shard", part), help, "shard", samples)


def _http(
    name: str, kind: Kind, labels: tuple[str, ...], help: str, samples_of: Callable[[HttpFigures], Iterable[Sample]]
) -> Definition:
    def samples(scrape: Scrape) -> Iterable[Sample]:
        return () if scrape.http is None else samples_of(scrape.http)

    return Definition(name, kind, labels, help, "door", samples)


def _info(scrape: Scrape) -> Iterator[Sample]:
    yield Sample((scrape.status.name, scrape.status.app), 1)


def _states(scrape: Scrape) -> Iterator[Sample]:
    return (Sample((state,), int(state == scrape.status.state)) for state in NODE_STATES)


def _checkpoints(scrape: Scrape) -> Iterator[Sample]:
    last = scrape.status.checkpoint
    yield Sample(("completed",), last.completed)
    yield Sample(("aborted",), last.aborted)


def _ups(scrape: Scrape) -> Iterator[Sample]:
    return (Sample((str(shard.shard),), int(shard.state == "running")) for shard in scrape.status.shards)


def _restarts(scrape: Scrape) -> Iterator[Sample]:
    return (Sample((str(shard.shard),), shard.restarts) for shard in scrape.status.shards)


def _intake(scrape: Scrape) -> Iterator[Sample]:
    return (Sample((owner,), offset) for owner, offset in sorted(scrape.status.intake.items()))


def _requests(http: HttpFigures) -> Iterator[Sample]:
    return (Sample((route, method, str(code)), count) for (route, method, code), count in sorted(http.requests.items()))


def _durations(http: HttpFigures) -> Iterator[Sample]:
    for route, found in sorted(http.durations.items()):
        yield Sample((route,), Distribution(found.sum_s, tuple(found.counts), DURATION_BOUNDS_S))


DEFINITIONS: Final[tuple[Definition, ...]] = (
    # ---- the node -------------------------------------------------------------------------------------------------------
    Definition("shardfun_node_info", "gauge", ("name", "app"), "Which node this is; always 1.", "supervisor", _info),
    Definition(
        "shardfun_node_state", "gauge", ("state",), "1 for the state the node is in, 0 for others.", "supervisor", _states
    ),
    _node("shardfun_node_uptime_seconds", "gauge", "Time since the node was started.", lambda n: n.uptime_s),
    _node("shardfun_node_spares", "gauge", "Processes that wait to replace a dead shard.", lambda n: n.spares),
    _node(
        "shardfun_recoveries_total",
        "counter",
        "Falls back to the last checkpoint, for whatever reason.",
        lambda n: n.recoveries,
    ),
    _node(
        "shardfun_last_recovery_duration_seconds",
        "gauge",
        "How long the last recovery took, from the failure until all shards ran again; missing before the first one.",
        lambda n: None if n.last_recovery_ms is None else n.last_recovery_ms / 1000,
    ),
    Definition(
        "shardfun_checkpoints_total", "counter", ("result",), "Checkpoints by what became of them.", "supervisor", _checkpoints
    ),
    _node(
        "shardfun_checkpoint_duration_seconds",
        "summary",
        "Time from the trigger of a checkpoint until it was complete.",
        lambda n: Distribution(n.checkpoint.duration_total_s, (n.checkpoint.completed,)),
    ),
    _node(
        "shardfun_checkpoint_bytes_total",
        "counter",
        "Bytes written by complete checkpoints.",
        lambda n: n.checkpoint.bytes_total,
    ),
    _node(
        "shardfun_last_checkpoint_age_seconds",
        "gauge",
        "Time since the last checkpoint was complete; missing before the first one of this run. An idle node takes few.",
        lambda n: n.checkpoint.age_s if n.checkpoint.completed else None,
    ),
    _node(
        "shardfun_last_checkpoint_duration_seconds",
        "gauge",
        "How long the last complete checkpoint took.",
        lambda n: n.checkpoint.duration_ms / 1000 if n.checkpoint.completed else None,
    ),
    _node(
        "shardfun_last_checkpoint_bytes",
        "gauge",
        "Size of the last complete checkpoint.",
        lambda n: n.checkpoint.bytes if n.checkpoint.completed else None,
    ),
    Definition(
        "shardfun_intake_consumed_bytes_total",
        "counter",
        ("owner",),
        "How far complete checkpoints have read the intake log of an owner (local: embedding and the command line; http: the door).",
        "supervisor",
        _intake,
    ),
    # ---- shards ---------------------------------------------------------------------------------------------------------
    Definition("shardfun_shard_up", "gauge", ("shard",), "1 while the shard runs functions, else 0.", "supervisor", _ups),
    Definition(
        "shardfun_shard_restarts_total", "counter", ("shard",), "Deaths of the shard's process.", "supervisor", _restarts
    ),
    _shard("shardfun_shard_heartbeat_age_seconds", "gauge", "Time since the last heartbeat.", "heartbeat_age_s"),
    _shard("shardfun_shard_backlog_messages", "gauge", "Messages that wait in the shard, inboxes included.", "backlog"),
    _shard("shardfun_shard_timers", "gauge", "Messages that are to be sent later.", "timers"),
    _shard("shardfun_shard_dead_letters", "gauge", "Dead letters that are stored now.", "dead_letters"),
    _shard("shardfun_shard_cache_bytes", "gauge", "State in memory, as estimated.", "cached_bytes"),
    _shard(
        "shardfun_shard_dirty_bytes",
        "gauge",
        "Changed state that is in no complete checkpoint yet, as estimated.",
        "dirty_bytes",
    ),
    _shard("shardfun_shard_resident_memory_bytes", "gauge", "Resident memory of the process.", "resident_bytes"),
    _shard("shardfun_shard_cpu_seconds_total", "counter", "Processor time of the process.", "cpu_s"),
    _shard(
        "shardfun_shard_running_seconds_total",
        "counter",
        "Time in which functions ran that do not await, their reads and writes of state included.",
        "running_s",
    ),
    # ---- ingresses and egresses -----------------------------------------------------------------------------------------
    _part("ingress", "shardfun_ingress_records_total", "counter", "Records read.", "records"),
    _part("ingress", "shardfun_ingress_rejected_records_total", "counter", "Records that became dead letters.", "rejected"),
    _part("egress", "shardfun_egress_published_records_total", "counter", "Records that the sink has taken.", "published"),
    _part(
        "egress",
        "shardfun_egress_pending_records",
        "gauge",
        "Records that wait for their checkpoint or for the sink.",
        "pending",
    ),
    _part("egress", "shardfun_egress_pending_bytes", "gauge", "Size of these.", "pending_bytes"),
    # ---- functions ------------------------------------------------------------------------------------------------------
    _part(
        "function",
        "shardfun_function_messages_in_total",
        "counter",
        "Messages taken up for processing, each once, however often tried.",
        "messages_in",
    ),
    _part(
        "function",
        "shardfun_function_messages_out_local_total",
        "counter",
        "Messages sent to addresses of the same shard; delayed ones when they are due.",
        "out_local",
    ),
    _part(
        "function",
        "shardfun_function_messages_out_remote_total",
        "counter",
        "The same to addresses of other shards.",
        "out_remote",
    ),
    _part("function", "shardfun_function_records_out_egress_total", "counter", "Records emitted to egresses.", "out_egress"),
    _part("function", "shardfun_function_invocations_total", "counter", "Runs of the function's code.", "invocations"),
    _part(
        "function",
        "shardfun_function_failures_total",
        "counter",
        "Invocations that raised, or did not end in time.",
        "failures",
    ),
    _part(
        "function",
        "shardfun_function_retries_total",
        "counter",
        "Invocations that were not the first of their message.",
        "retries",
    ),
    _part(
        "function",
        "shardfun_function_dead_letters_total",
        "counter",
        "Messages for the function that were parked.",
        "dead_letters",
    ),
    _part(
        "function",
        "shardfun_function_backlog_messages",
        "gauge",
        "Messages that wait for it; not those in frames that just came.",
        "backlog",
    ),
    _part(
        "function",
        "shardfun_function_blocked_addresses",
        "gauge",
        "Addresses busy with a call, or waiting for another attempt.",
        "blocked",
    ),
    _part("function", "shardfun_function_inflight_calls", "gauge", "Async and blocking invocations under way.", "calls"),
    _part(
        "function",
        "shardfun_function_inflight_async_operations",
        "gauge",
        "Operations that it has started and that have not ended.",
        "operations",
    ),
    # ---- HTTP -----------------------------------------------------------------------------------------------------------
    _http(
        "shardfun_http_requests_total", "counter", ("route", "method", "code"), "Requests answered, by status code.", _requests
    ),
    _http(
        "shardfun_http_request_duration_seconds",
        "histogram",
        ("route",),
        "From the first byte of a request to the last of its answer.",
        _durations,
    ),
    _http("shardfun_http_active_requests", "gauge", (), "Requests that are being answered.", lambda h: [Sample((), h.active)]),
    _http("shardfun_http_event_streams", "gauge", (), "Open streams of server-sent events.", lambda h: [Sample((), h.streams)]),
    _http(
        "shardfun_http_intake_backlog_bytes",
        "gauge",
        (),
        "Accepted by the door, and in no complete checkpoint yet.",
        lambda h: [Sample((), h.intake_backlog_bytes)],
    ),
)

USER_PREFIX: Final = "shardfun_user_"
USER_LABELS: Final = ("shard", "function")
USER_DEFINITIONS: Final[tuple[tuple[str, Kind, str], ...]] = (
    (USER_PREFIX + "NAME_total", "counter", "A counter of `ctx.metrics`."),
    (USER_PREFIX + "NAME", "gauge", "A gauge of `ctx.metrics`."),
    (USER_PREFIX + "NAME", "histogram", "A histogram of `ctx.metrics`."),
)
"""For the documentation: what functions count themselves."""
