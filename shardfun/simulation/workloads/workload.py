"""What all workloads share: an application, its input, and checks of complete checkpoints.

A check does not compare with a second run. It uses relations that hold at every consistent cut, whatever the order of execution:
what was admitted is either waiting or done, what was sent was either received or is on its way, nothing is in two places.

Ping-pong: an ingress of its own brings balls that are hit to and fro for ever, inside one shard and between two. They must
neither keep checkpoints from completing nor get lost or doubled.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cbor2
import msgspec

from shardfun.core.dispatch import Dispatcher, InvocationContext
from shardfun.core.function import CompiledFunction
from shardfun.core.shard import IngressRoute
from shardfun.intake.replies import REPLIES, encode_reply
from shardfun.model.doors import IngressBatch
from shardfun.model.keyspace import owner_of
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value
from shardfun.simulation.calls import Beside, InTurns
from shardfun.simulation.clock import WallClock
from shardfun.simulation.options import Options
from shardfun.simulation.trace import Trace
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.violation import wrong
from shardfun.simulation.workloads.orders import Orders

MAIN = "main"
BALLS = "balls"


class Ball(msgspec.Struct, frozen=True):
    """Goes to and fro between a server of ``home`` and a returner of ``away``."""

    home: str
    away: str


class Player(State):
    """``hits``: of all balls."""

    hits: Value[int] = value(0)


class Workload(ABC):
    """See the module.

    Args:
        options: decide how many records there are, and whether balls are in play.

    ``violations`` fills while functions run; the world looks at it after every piece of work.
    """

    egress: str

    def __init__(self, options: Options) -> None:
        self.shards = options.shards
        self.violations: list[str] = []
        self.clock = WallClock(Trace())
        """What functions see; the world puts its own here."""
        self.ping_pong = options.ping_pong
        self.orders: Orders | None = None
        self.app = self.make_app(options)
        self.declare(self.app)
        if self.ping_pong:
            self._declare_balls(self.app)
        if options.orders:
            self.orders = Orders(self.app, options.orders, options.seed, self.violations)

    # ---- what a workload is made of -------------------------------------------------------------------------------------
    def make_app(self, options: Options) -> App:
        """The application, in which ``declare`` declares functions."""
        return App(options.workload)

    @abstractmethod
    def declare(self, app: App) -> None:
        """Declare functions and routers."""

    @abstractmethod
    def total(self, partition: int) -> int:
        """Records of the main ingress in one partition."""

    @abstractmethod
    def batch(self, partition: int, start: int, stop: int) -> IngressBatch:
        """These records of the main ingress."""

    @abstractmethod
    def check(self, view: CheckpointView) -> None:
        """Judge a complete checkpoint.

        Raises:
            Violation: something is lost, doubled, or half done.
        """

    @abstractmethod
    def check_end(self, view: CheckpointView, published: list[Any], *, ended: bool) -> None:
        """Judge the last checkpoint of a run, and all that was published.

        Args:
            ended: the input has come to its end, and functions were told so; otherwise the node was only stopped.

        Raises:
            Violation: as above.
        """

    def context(self, dispatcher: Dispatcher) -> InvocationContext:
        """What functions get to see, of a new dispatcher."""
        return Context(dispatcher)

    def calls_beside(self, chance: random.Random) -> Beside:
        """What runs functions that await or block."""
        return InTurns(chance)

    # ---- doors ----------------------------------------------------------------------------------------------------------
    @property
    def routes(self) -> dict[str, IngressRoute]:
        """How records become messages."""
        names = (MAIN, BALLS) if self.ping_pong else (MAIN,)
        routes = {name: IngressRoute(self.app.routers(name)) for name in names}
        return routes if self.orders is None else routes | self.orders.routes()

    @property
    def egresses(self) -> dict[str, Callable[[Any], bytes]]:
        """Encoders of the egress records."""
        own: dict[str, Callable[[Any], bytes]] = {self.egress: _encode_record}
        return own if self.orders is None else own | {REPLIES: encode_reply}

    def records(self, ingress: str, partition: int) -> int:
        """Records of an ingress in one partition."""
        if ingress == MAIN:
            return self.total(partition)
        return len(self._balls(partition))

    def read(self, ingress: str, partition: int, start: int, stop: int) -> IngressBatch:
        """Records of an ingress."""
        if ingress == MAIN:
            return self.batch(partition, start, stop)
        return IngressBatch(position=stop, records=self._balls(partition)[start:stop])

    # ---- balls ----------------------------------------------------------------------------------------------------------
    def _balls(self, partition: int) -> list[Ball]:
        """One that stays in a shard and one that crosses, of the first partition: enough to keep the world busy for ever."""
        if partition:
            return []
        home = "court-0"
        away = next(name for i in range(1, 1000) if self._crosses(home, name := f"court-{i}"))
        return [Ball(home, home), Ball(home, away)]

    def _crosses(self, home: str, away: str) -> bool:
        return self.shards == 1 or owner_of(home, self.shards) != owner_of(away, self.shards)

    @staticmethod
    def _declare_balls(app: App) -> None:
        @app.function("tennis/server")
        def serve(ctx: Context[Player], ball: Ball) -> None:
            ctx.state.hits += 1
            ctx.send("tennis/returner", ball.away, ball)

        @app.function("tennis/returner")
        def give_back(ctx: Context[Player], ball: Ball) -> None:
            ctx.state.hits += 1
            ctx.send("tennis/server", ball.home, ball)

        @app.router(BALLS)
        def throw_in(ball: Ball) -> Iterable[Message]:
            yield Message("tennis/server", ball.home, ball)

    def check_balls(self, view: CheckpointView) -> None:
        """Each ball in play is in exactly one place."""
        if not self.ping_pong:
            return
        found = Counter(waiting.value for waiting in view.waiting if type(waiting.value) is Ball)
        for partition in range(self.shards):
            found.subtract(self._balls(partition)[: view.position(BALLS, partition)])
        same("balls in play", {ball: count for ball, count in found.items() if count}, {})

    def judge_end(self, view: CheckpointView, published: Mapping[tuple[str, int], list[bytes]]) -> None:
        """Judge the last checkpoint of a run.

        Args:
            published: by egress and shard, what its sink holds.

        Raises:
            Violation: as above.
        """
        own = (records for (name, _), records in published.items() if name == self.egress)
        decoded = [cbor2.loads(record) for records in own for record in records]
        self.check_end(view if self.orders is None else self.orders.take_out(view), decoded, ended=not self.endless)

    def restored(self, shard: int, pending: Iterable[bytes]) -> None:  # noqa: B027 - as below
        """A shard has restored a complete checkpoint, in which these operations are pending: keys that never come again."""

    def replayed(self, letter: dict[str, Any]) -> None:  # noqa: B027 - most need not know
        """From now on a dead letter may be sent again, behind messages that were sent after it."""

    # ---- orders ---------------------------------------------------------------------------------------------------------
    @property
    def endless(self) -> bool:
        """Whether a run does not come to its end by itself."""
        return self.ping_pong or self.orders is not None

    def functions(self) -> list[CompiledFunction]:
        """What runs."""
        compiled = self.app.compile()
        return compiled if self.orders is None else self.orders.functions(compiled)

    def judge(self, view: CheckpointView) -> None:
        """Judge a complete checkpoint, orders and all."""
        self.check(view if self.orders is None else self.orders.take_out(view))

    def settled_all(self, view: CheckpointView) -> bool:
        """``settled``, with the orders."""
        if self.orders is None:
            return self.settled(view)
        return self.orders.settled(view) and self.settled(self.orders.take_out(view))

    # ---- for the world --------------------------------------------------------------------------------------------------
    def settled(self, view: CheckpointView) -> bool:
        """Whether everything but balls has come to its end in this checkpoint."""
        admitted = all(view.position(MAIN, partition) == self.total(partition) for partition in range(self.shards))
        return admitted and all(type(waiting.value) is Ball for waiting in view.waiting)


def same(what: str, found: Any, expected: Any) -> None:
    """Compare.

    Raises:
        Violation: they differ.
    """
    if found != expected:
        wrong(f"{what}: expected {_short(expected)}, found {_short(found)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "..."


def each_once(what: str, found: Iterable[Any], expected: Iterable[Any]) -> None:
    """Every expected item is found once, and no other.

    Raises:
        Violation: naming what is lost, doubled or strange.
    """
    counts = Counter(found)
    wanted = Counter(expected)
    if counts != wanted:
        wrong(
            f"{what}: lost {_short(sorted((wanted - counts).elements()))}, too many {_short(sorted((counts - wanted).elements()))}"
        )


def share(total: int, partition: int, partitions: int) -> int:
    """How many of ``total`` records a partition has."""
    return total // partitions + (1 if partition < total % partitions else 0)


def _encode_record(record: Any) -> bytes:
    return cbor2.dumps(record)
