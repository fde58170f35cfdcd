"""A node's status for people: the table of a terminal, and the one line of a log. Pure: values in, what is shown out.

Texts that come from elsewhere (paths, faults, names of functions) are ``Text``: rich would read brackets in a ``str`` as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shardfun.cli.figures import NOTHING, count, counted, duration, rate, size
from shardfun.cli.rates import Rates
from shardfun.model.status import FunctionStatus, NodeStatus, ShardStatus

STATE_STYLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "running": "green",
        "ready": "green",
        "finished": "green",
        "starting": "yellow",
        "restoring": "yellow",
        "recovering": "yellow",
        "finishing": "yellow",
        "stopping": "yellow",
        "stopped": "yellow",
        "dead": "red",
    }
)
HEALTHY: Final = ("running", "ready", "finished")
"""States of shards that the line does not mention."""
BAR_WIDTH: Final = 30
FUNCTION_COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "in": "messages_in",
        "out local": "out_local",
        "out remote": "out_remote",
        "egress": "out_egress",
        "invocations": "invocations",
        "failures": "failures",
        "retries": "retries",
        "dead letters": "dead_letters",
        "backlog": "backlog",
        "blocked": "blocked",
        "calls": "calls",
        "operations": "operations",
    }
)
"""Heads of columns, and the attributes of ``FunctionStatus``."""
ALWAYS: Final = ("in", "out local", "out remote", "egress", "invocations", "backlog")


def node_view(status: NodeStatus, rates: Rates | None = None) -> RenderableType:
    """Everything about a node: figures, then a row for each shard, then one for each function type.

    Args:
        rates: without them the columns of rates are left out (one status alone has no rate). With them the function types are: a
            display that is drawn again and again has to fit on a screen.
    """
    parts: list[RenderableType] = [_headline(status), _figures(status, rates), _shards(status, rates), *_troubles(status)]
    return Group(*parts) if rates else Group(*parts, *_functions(status))


def node_line(status: NodeStatus, rates: Rates) -> str:
    """The same on one line, for logs and pipes."""
    parts = [
        f"{status.name} {status.state}",
        f"records {_records(status)} ({rate(rates.records)})",
        f"invocations {count(status.invocations)} ({rate(rates.invocations)})",
        f"published {count(status.published)}",
        f"checkpoint {_checkpoint(status)}",
    ]
    if status.dead_letters:
        parts.append(counted(status.dead_letters, "dead letter"))
    if status.recoveries:
        parts.append(counted(status.recoveries, "recovery", "recoveries"))
    if troubles := sum(len(shard.troubles) for shard in status.shards):
        parts.append(f"{counted(troubles, 'ingress or egress', 'ingresses or egresses')} failing: see shardfun status")
    if down := [f"shard {shard.shard} {shard.state}" for shard in status.shards if shard.state not in HEALTHY]:
        parts.append(", ".join(down))
    return "  ".join(parts)


def _troubles(status: NodeStatus) -> Iterator[Text]:
    """What the doors of the shards fail with now."""
    for shard in status.shards:
        for trouble in shard.troubles:
            yield Text(f"shard {shard.shard}: {trouble}", style="yellow")


def _headline(status: NodeStatus) -> Text:
    return Text.assemble(
        (status.name, "bold"),
        "  ",
        (status.state, STATE_STYLES.get(status.state, "")),
        f"  {status.app}  pid {status.pid}  up {duration(status.uptime_s)}  incarnation {status.incarnation}",
        f"  {status.http}" if status.http else "",
    )


def _figures(status: NodeStatus, rates: Rates | None) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    records, invocations, published = (
        ("", "", "") if rates is None else map(rate, (rates.records, rates.invocations, rates.published))
    )
    table.add_row("records in", _records(status), records, _bar(status))
    table.add_row("invocations", count(status.invocations), invocations, "")
    table.add_row("egress out", count(status.published), published, _waiting(status))
    table.add_row("checkpoint", status.checkpoint.name, "", _checkpoint_figures(status))
    if status.dead_letters:
        hint = f"see: shardfun inspect {status.data_dir} --dead-letters (once the node has stopped)"
        table.add_row("dead letters", Text(count(status.dead_letters), "red"), "", Text(hint))
    if status.recoveries:
        table.add_row("recoveries", count(status.recoveries), "", Text(_recovery(status)))
    return table


def _shards(status: NodeStatus, rates: Rates | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("shard", justify="right")
    table.add_column("state")
    for name in ("pid", "restarts", "invocations", *(["inv/s"] if rates else []), "backlog", "timers", "memory"):
        table.add_column(name, justify="right")
    table.add_column("")
    for shard in status.shards:
        speed = [rate(rates.shard(shard.shard))] if rates else []
        table.add_row(
            str(shard.shard),
            Text(shard.state, STATE_STYLES.get(shard.state, "")),
            str(shard.pid or NOTHING),
            str(shard.restarts),
            count(shard.invocations),
            *speed,
            count(shard.backlog),
            count(shard.timers),
            size(shard.resident_bytes) if shard.resident_bytes else NOTHING,
            Text(_remark(shard)),
        )
    return table


def _functions(status: NodeStatus) -> Iterator[RenderableType]:
    """By function type, of those that have had anything to do. Columns in which nothing has ever happened are left out."""
    found = [row for row in status.functions if any(figure for _, figure in _figures_of(row))]
    if not found:
        return
    columns = [name for name in FUNCTION_COLUMNS if name in ALWAYS or any(dict(_figures_of(row))[name] for row in found)]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("function")
    for name in columns:
        table.add_column(name, justify="right")
    for row in found:
        figures = dict(_figures_of(row))
        table.add_row(Text(row.function), *(count(figures[name]) for name in columns))
    yield ""
    yield table


def _figures_of(row: FunctionStatus) -> Iterator[tuple[str, int]]:
    return ((column, getattr(row, field)) for column, field in FUNCTION_COLUMNS.items())


def _records(status: NodeStatus) -> str:
    if status.records_total is None:
        return count(status.records_in)
    return f"{count(status.records_in)} of {count(status.records_total)}"


def _bar(status: NodeStatus) -> RenderableType:
    total = status.records_total
    return "" if not total else ProgressBar(total=total, completed=min(status.records_in, total), width=BAR_WIDTH)


def _waiting(status: NodeStatus) -> str:
    waiting = status.emitted - status.published
    return f"{count(waiting)} wait for their checkpoint" if waiting > 0 else ""


def _checkpoint(status: NodeStatus) -> str:
    last = status.checkpoint
    if not last.checkpoint:
        return last.name
    return f"{last.name} ({duration(last.age_s)} ago, took {duration(last.duration_ms / 1000)})"


def _checkpoint_figures(status: NodeStatus) -> str:
    last = status.checkpoint
    if not last.checkpoint:
        return ""
    aborted = f", {count(last.aborted)} aborted" if last.aborted else ""
    return (
        f"{duration(last.age_s)} ago, took {duration(last.duration_ms / 1000)}, {size(last.bytes)}; "
        f"{count(last.completed)} complete{aborted}"
    )


def _recovery(status: NodeStatus) -> str:
    took = "" if status.last_recovery_ms is None else f"the last took {duration(status.last_recovery_ms / 1000)}"
    return "; ".join(part for part in (took, status.last_fault) if part)


def _remark(shard: ShardStatus) -> str:
    return f"in {shard.running}" if shard.running else ""
