"""Token ring: tokens go round a ring of nodes for a given number of hops and end with a record.

Records come in ready columns. Each token is in exactly one place, and the nodes together were visited as often as the tokens have
hopped. State is immutable, so the fastest generated runner is used.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shardfun.core.shard import IngressRoute
from shardfun.model.doors import IngressBatch
from shardfun.sdk.app import App
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value
from shardfun.simulation.options import Options
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.workloads.workload import MAIN, Workload, each_once, same, share

NODES = 9
HOPS = 32


class Token(msgspec.Struct, frozen=True):
    """``hops`` are left to go."""

    name: str
    hops: int


class Node(State):
    """``done``: tokens that ended here; ``closed``: its last record is out."""

    visits: Value[int] = value(0)
    done: Value[tuple[str, ...]] = value(())
    closed: Value[int] = value(0)


class Ring(Workload):
    """See the module."""

    egress = "arrivals"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._tokens = [
            [f"token-{partition}-{i}" for i in range(share(options.records, partition, options.shards))]
            for partition in range(options.shards)
        ]

    def declare(self, app: App) -> None:
        """One function type."""

        @app.function("ring/node")
        def node(ctx: Context[Node], token: Token) -> None:
            ctx.state.visits += 1
            if token.hops:
                following = (int(ctx.self.id) + 1) % NODES
                ctx.send("ring/node", str(following), msgspec.structs.replace(token, hops=token.hops - 1))
            else:
                ctx.state.done = (*ctx.state.done, token.name)
                ctx.emit("arrivals", token.name)

        @app.on_end("ring/node")
        def close(ctx: Context[Node]) -> None:
            ctx.state.closed += 1
            ctx.emit("arrivals", [ctx.self.id, ctx.state.visits])

    @property
    def routes(self) -> dict[str, IngressRoute]:
        """The main ingress has a target instead of a router."""
        return super().routes | {MAIN: IngressRoute(target="ring/node")}

    def total(self, partition: int) -> int:
        """See ``Workload``."""
        return len(self._tokens[partition])

    def batch(self, partition: int, start: int, stop: int) -> IngressBatch:
        """See ``Workload``."""
        names = self._tokens[partition][start:stop]
        ids = [str((start + i) % NODES) for i in range(len(names))]
        return IngressBatch(position=stop, ids=ids, values=[Token(name, HOPS) for name in names])

    def check(self, view: CheckpointView) -> None:
        """See ``Workload``."""
        self.check_balls(view)
        admitted = [
            name for partition in range(self.shards) for name in self._tokens[partition][: view.position(MAIN, partition)]
        ]
        under_way = [waiting.value for waiting in view.waiting if type(waiting.value) is Token]
        nodes = [fields for _, fields in view.of_type("ring/node")]
        done = [name for fields in nodes for name in fields["done"]]
        each_once("tokens", [token.name for token in under_way] + done, admitted)
        hopped = sum(HOPS - token.hops for token in under_way) + (HOPS + 1) * len(done)
        same("visits", sum(fields["visits"] for fields in nodes), hopped)
        same("arrivals", view.emitted["arrivals"], len(done) + sum(fields["closed"] for fields in nodes))

    def check_end(self, view: CheckpointView, published: list[Any], *, ended: bool) -> None:
        """See ``Workload``."""
        names = [name for tokens in self._tokens for name in tokens]
        each_once("published tokens", [item for item in published if type(item) is str], names)
        visits = [tuple(item) for item in published if type(item) is list]
        expected = [(id, fields["visits"]) for id, fields in view.of_type("ring/node")] if ended else []
        each_once("published visits", visits, expected)
