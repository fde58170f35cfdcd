"""A node's figures in Prometheus' text format, version 0.0.4. Pure: a status in, a text out."""

from __future__ import annotations

from typing import Final

from shardfun.model.status import NodeStatus
from shardfun.telemetry.http_figures import HttpFigures

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def render_metrics(status: NodeStatus, http: HttpFigures | None = None) -> str:
    """All metrics of a node.

    Args:
        http: of the door that answers, if one does.
    """
    lines = ["# HELP shardfun_uptime_seconds Seconds since the node was started.", "# TYPE shardfun_uptime_seconds gauge"]
    lines.append(f"shardfun_uptime_seconds {status.uptime_s}")
    del http
    return "\n".join(lines) + "\n"
