"""The function of requests, in a real core: executed once, replied whenever asked, conflicts told, anonymous ones forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest

from shardfun import App, Context, State, Value, value
from shardfun.config.schema import Config, HttpConfig, IngressConfig
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.errors import ConfigurationError, DefinitionError
from shardfun.ingress.http import HttpIngressOptions
from shardfun.intake.entries import Entry, MessageEntry, RecordEntry, RequestEntry
from shardfun.intake.replies import REPLIES, ReplyRecord, ReplySink, _decode
from shardfun.intake.request import REQUEST
from shardfun.intake.targets import Targets
from shardfun.model.doors import IngressBatch
from shardfun.sdk.app import Message
from shardfun.shard.program import Application, limits_of
from shardfun.state.memory import MemoryStore

WINDOW_S = 100
START = StartPoint(1, 0, b"", EMPTY_QUEUES)


class Add(msgspec.Struct, frozen=True):
    amount: int


class Total(msgspec.Struct, frozen=True):
    total: int


class Listed(msgspec.Struct):
    """Mutable, and declared by no function."""

    items: list[int]


class Sum(State):
    total: Value[int] = value(0)


def application(reply: Callable[[Context[Sum], Add], Any] = lambda ctx, _: Total(ctx.state.total)) -> App:
    app = App("requests")

    @app.function("t/sum")
    def add(ctx: Context[Sum], message: Add | Total) -> None:
        if isinstance(message, Add):
            ctx.state.total += message.amount
            if ctx.caller is not None:
                ctx.reply(reply(ctx, message))

    @app.function("t/slow")
    def later(ctx: Context[Sum], message: int) -> None:
        """Replies when the next message comes, to whoever asked first."""
        if message:
            ctx.send("t/hand", ctx.self.id, [*ctx.caller] if ctx.caller else [])
        else:
            ctx.send("t/hand", ctx.self.id, [])

    @app.function("t/hand")
    def hand(ctx: Context[Kept], message: list[str]) -> None:
        if message:
            ctx.state.waiting = message
        elif ctx.state.waiting:
            ctx.send(*ctx.state.waiting, "late")
            ctx.send(*ctx.state.waiting, "later still")

    @app.router("events")
    def route(record: Any) -> Any:
        for amount in record["amounts"]:
            yield Message("t/sum", record["id"], Add(amount))

    return app


class Kept(State):
    waiting: Value[list[str]] = value(default_factory=list)


class Running:
    """One shard, and what it replies."""

    def __init__(self, app: App, **settings: Any) -> None:
        config = Config(app="some:app", name="test", data_dir=Path("/nowhere"), **settings)
        self.targets = Targets.of(app)
        application = Application(config, app)
        sink = ReplySink(Path("/nowhere"))
        store = MemoryStore(job="ab" * 16, shard=0, shards=1)
        self.core = ShardCore(ShardIdentity("j", 0, 1), START, application.program({REPLIES: sink}), limits_of(config), store)
        self._replied = 0
        self.now = 1000.0

    def take_in(self, *entries: Entry, owner: str = "http") -> list[ReplyRecord]:
        """Entries of a log; the replies to them."""
        self.core.ingest(f"~{owner}", IngressBatch(1, records=list(entries)))
        return self.run()

    def run(self) -> list[ReplyRecord]:
        self.core.advance(self.now)
        while self.core.run(1000) is not None:
            pass
        pending = self.core.egress[REPLIES].pending
        found = [_decode(record[1:]) for record in pending[self._replied :]]
        self._replied = len(pending)
        return found

    def request(
        self, key: str, amount: int = 1, *, digest: bytes = b"d", anonymous: bool = False, owner: str = "http"
    ) -> RequestEntry:
        type, payload = self.targets.encode("t/sum", "a", Add(amount))
        return RequestEntry(key, anonymous, digest, "t/sum", "a", type, payload, owner)

    def total(self, id: str = "a") -> int:
        return self.state("t/sum", id).total

    def state(self, typename: str, id: str) -> Any:
        return self.core.dispatcher.find(self.core.dispatcher.types[typename], id, None, None, None)

    @property
    def letters(self) -> int:
        return self.core.dispatcher.letters.count


@pytest.fixture
def shard() -> Running:
    return Running(application())


def test_a_message_runs_as_if_it_came_from_an_ingress(shard: Running) -> None:
    type, payload = shard.targets.encode("t/sum", "a", Add(5))
    assert shard.take_in(MessageEntry("t/sum", "a", type, payload), owner="local") == []
    assert shard.total() == 5


def test_a_request_is_replied_with_the_targets_reply(shard: Running) -> None:
    (reply,) = shard.take_in(shard.request("k", 3))
    assert (reply.key, reply.owner, reply.digest, reply.status) == ("k", "http", b"d", "reply")
    assert shard.targets.decode(reply.type, reply.payload) == Total(3)


def test_the_same_request_runs_once_and_is_replied_each_time(shard: Running) -> None:
    (first,) = shard.take_in(shard.request("k", 3))
    assert shard.take_in(shard.request("k", 3), shard.request("k", 3)) == [first, first]
    assert shard.total() == 3


def test_the_reply_goes_to_every_process_that_waits_for_it_and_later_to_the_one_that_asks(shard: Running) -> None:
    type, payload = shard.targets.encode("t/slow", "a", 1)
    ask = RequestEntry("k", False, b"d", "t/slow", "a", type, payload, "http")
    assert shard.take_in(ask, ask._replace(owner="local"), ask) == []
    replies = shard.take_in(MessageEntry("t/slow", "a", *shard.targets.encode("t/slow", "a", 0)))
    assert [reply.owner for reply in replies] == ["http", "local"]
    assert [reply.owner for reply in shard.take_in(ask._replace(owner="local"))] == ["local"]


def test_another_request_with_the_same_key_is_a_conflict_and_does_not_run(shard: Running) -> None:
    shard.take_in(shard.request("k", 3))
    (conflict,) = shard.take_in(shard.request("k", 4, digest=b"other"))
    assert conflict == ReplyRecord("http", "k", b"other", "conflict", "", b"")
    (again,) = shard.take_in(shard.request("k", 3))
    assert again.status == "reply"
    assert shard.total() == 3


def test_an_anonymous_request_is_forgotten_when_it_is_replied(shard: Running) -> None:
    (reply,) = shard.take_in(shard.request("~1", anonymous=True))
    assert reply.status == "reply"
    assert not shard.state(REQUEST, "~1").owner
    shard.take_in(shard.request("k"))
    assert shard.state(REQUEST, "k").replied


def test_a_late_reply_is_given_and_what_follows_it_is_nobodys(shard: Running) -> None:
    type, payload = shard.targets.encode("t/slow", "a", 1)
    ask = RequestEntry("k", False, b"d", "t/slow", "a", type, payload, "http")
    assert shard.take_in(ask, ask) == []
    assert not shard.state(REQUEST, "k").replied
    (reply,) = shard.take_in(MessageEntry("t/slow", "a", *shard.targets.encode("t/slow", "a", 0)))
    assert shard.targets.decode(reply.type, reply.payload) == "late"
    assert shard.take_in(ask) == [reply]


def test_a_reply_for_a_forgotten_request_is_nobodys(shard: Running) -> None:
    type, payload = shard.targets.encode("t/slow", "a", 1)
    assert shard.take_in(RequestEntry("~1", True, b"d", "t/slow", "a", type, payload, "http")) == []
    message = MessageEntry("t/slow", "a", *shard.targets.encode("t/slow", "a", 0))
    assert [reply.key for reply in shard.take_in(message)] == ["~1"]
    assert shard.take_in(message) == []
    assert shard.letters == 0


def test_a_key_is_forgotten_after_its_window() -> None:
    shard = Running(application(), http=HttpConfig(idempotency_window_s=WINDOW_S))
    shard.take_in(shard.request("k"))
    shard.now += WINDOW_S - 1
    assert len(shard.take_in(shard.request("k"))) == 1
    assert shard.total() == 1
    shard.now += WINDOW_S + 1
    assert len(shard.take_in(shard.request("k"))) == 1
    assert shard.total() == 2


@pytest.mark.parametrize(
    ("replied", "type", "plain"),
    [
        (None, "NoneType", None),
        (True, "bool", True),
        ("text", "str", "text"),
        (b"\0", "bytes", b"\0"),
        ([1, {"a": b"x"}], "list", [1, {"a": b"x"}]),
        (Listed([1]), f"{__name__}.Listed", {"items": [1]}),
        (Total(1), f"{__name__}.Total", {"total": 1}),
    ],
)
def test_a_reply_may_be_of_any_class(replied: Any, type: str, plain: Any) -> None:
    shard = Running(application(lambda _ctx, _message: replied))
    (reply,) = shard.take_in(shard.request("k"))
    assert (reply.type, cbor2.loads(reply.payload)) == (type, plain)


def test_a_reply_that_cannot_be_encoded_fails_the_target_and_not_the_request() -> None:
    shard = Running(application(lambda _ctx, _message: object()))
    assert shard.take_in(shard.request("k")) == []
    assert shard.letters == 1
    assert shard.total() == 0
    assert shard.state(REQUEST, "k").owner == "http"


def test_what_no_longer_fits_the_application_is_parked(shard: Running) -> None:
    gone = MessageEntry("t/gone", "a", "int", cbor2.dumps(1))
    other = MessageEntry("t/sum", "a", "shop.Old", cbor2.dumps({}))
    damaged = MessageEntry("t/sum", "a", f"{__name__}.Add", cbor2.dumps({"amount": "x"}))
    record = RecordEntry("nothing", {"a": 1})
    assert shard.take_in(gone, other, damaged, record) == []
    assert shard.letters == 4
    assert shard.take_in(shard.request("k")._replace(target="t/gone")) == []
    assert shard.letters == 5


def test_records_go_to_the_routers_of_their_ingress() -> None:
    entry = IngressConfig(kind="http", options=HttpIngressOptions())
    shard = Running(application(), ingress={"events": entry}, http=HttpConfig())
    shard.take_in(RecordEntry("events", {"id": "b", "amounts": [1, 2]}), RecordEntry("events", {"id": "b", "amounts": [4]}))
    assert shard.total("b") == 7
    targeted = IngressConfig(kind="http", options=HttpIngressOptions(), target="t/hand", id_field="id")
    shard = Running(application(), ingress={"events": targeted}, http=HttpConfig())
    shard.take_in(RecordEntry("events", {"id": "b"}))
    assert shard.letters == 1, "a dict is no list of texts"


def test_an_ingress_of_kind_http_needs_a_door() -> None:
    entry = IngressConfig(kind="http", options=HttpIngressOptions())
    with pytest.raises(
        ConfigurationError, match=r"ingress\.events: its records come over HTTP, and there is no section \[http\]"
    ):
        Running(application(), ingress={"events": entry})


# ---- the end of a run ----------------------------------------------------------------------------------------------------
def test_the_logs_do_not_hold_a_bounded_run_open(shard: Running) -> None:
    assert not shard.core.at_end, "without any ingress there is no end"
    assert shard.core.finished == {}


@pytest.mark.parametrize("settings", [{"endless": True}, {"http": HttpConfig()}])
def test_they_hold_open_a_node_that_runs_until_it_is_stopped(settings: dict[str, Any]) -> None:
    assert Running(application(), **settings).core.finished == {"~local": False, "~http": False}


def test_no_application_can_declare_a_function_of_the_runtime() -> None:
    app = App("mine")

    with pytest.raises(DefinitionError, match="namespace 'shardfun' is the runtime's own"):

        @app.function("shardfun/request")
        def request(ctx: Context[Sum], message: int) -> None:
            """Never declared."""


def test_the_runtimes_functions_cannot_be_sent_to_from_outside(shard: Running) -> None:
    assert REQUEST not in {each["typename"] for each in shard.targets.describe()}
