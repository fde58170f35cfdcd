"""Functions of a whole namespace: each name is a type of its own, at the sender and at the receiver, up to a limit."""

from __future__ import annotations

from typing import Any

import pytest
from single_core import cells_of, core_of, letters_of, put, record_of, run_all, waiting_of

from shardfun import App, Context, State, Value, value
from shardfun.core.limits import Limits
from shardfun.core.shard import IngressRoute, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES, decode_queues, encode_queues
from shardfun.errors import DefinitionError, InvocationError, UnknownTargetError
from shardfun.model.doors import IngressBatch
from shardfun.model.keyspace import owner_of


class Visits(State):
    log: Value[tuple[str, ...]] = value(())
    ended: Value[bool] = value(False)


def application() -> App:
    app = App("shop")

    @app.function("shop/*")
    def anything(ctx: Context[Visits], message: str) -> None:
        ctx.state.log += (f"{ctx.self.typename} {message}",)
        if "/" in message and not message.startswith("from "):
            ctx.send(message, ctx.self.id, f"from {ctx.self.typename}")

    @app.function("shop/exact")
    def exact(ctx: Context[Visits], message: str) -> None:
        ctx.state.log += (f"exactly {message}",)

    @app.on_end("shop/*")
    def end(ctx: Context[Visits]) -> None:
        ctx.state.ended = True
        ctx.emit("out", str(ctx.self))

    return app


LIMITS = Limits(retries=0, wildcard_types_max=3)


def log_of(core: ShardCore, typename: str, id: str = "1") -> Any:
    record = record_of(core, typename, id)
    return None if record is None else record.log


@pytest.mark.parametrize("plain", [True, False])
def test_each_name_has_a_state_of_its_own_and_an_exact_name_comes_first(*, plain: bool) -> None:
    core = core_of(application(), plain=plain)
    core.dispatcher.ingest_messages([("shop/cart", "1", "shop/order"), ("shop/exact", "1", "x")])
    core.dispatcher.route()
    run_all(core)
    assert log_of(core, "shop/cart") == ("shop/cart shop/order",)
    assert log_of(core, "shop/order") == ("shop/order from shop/cart",)
    assert log_of(core, "shop/exact") == ("exactly x",)
    assert list(core.dispatcher.types) == ["shop/exact", "shop/cart", "shop/order"]
    assert sorted(record._address.typename for record in core.table.dirty) == ["shop/cart", "shop/exact", "shop/order"]


@pytest.mark.parametrize(
    "typename", ["shop/*", "shop/a*", "shop/", "shop/a/b", "shop/a:b", "other/cart", "shop", "shop/" + "x" * 300]
)
def test_names_that_belong_to_no_function(typename: str) -> None:
    core = core_of(application())
    with pytest.raises(UnknownTargetError, match=r"unknown function type .*(did you mean|known: )"):
        core.dispatcher.resolve(typename)
    put(core, "shop/exact", ("1", "x"))
    core.dispatcher.ingest_messages([("shop/cart", "1", typename + "/" * ("/" not in typename))])
    core.dispatcher.route()
    run_all(core)
    assert core.dispatcher.letters.count == 1
    assert log_of(core, "shop/cart") == (), "the invocation that sent it had no effect"


def test_one_name_too_many_fails_the_invocation_that_sends_to_it() -> None:
    core = core_of(application(), limits=LIMITS)
    for target in ("shop/b", "shop/c", "shop/d", "shop/b"):
        core.dispatcher.ingest_messages([("shop/a", "1", target)])
    core.dispatcher.route()
    run_all(core)
    assert log_of(core, "shop/a") == ("shop/a shop/b", "shop/a shop/c", "shop/a shop/b")
    (letter,) = letters_of(cells_of(core))
    assert letter["target"] == ["shop/a", "1"]
    assert letter["reason"].startswith("InvocationError: function type 'shop/d': this shard has met 3 names")


def test_a_name_that_the_receiver_cannot_take_any_more_is_parked_there() -> None:
    core = core_of(application(), limits=LIMITS)
    for name in "abc":
        core.dispatcher.resolve(f"shop/{name}")
    core.dispatcher.accept_blocks([["shop/d", "1", None, None, [["str", "x"]], None]])
    (letter,) = letters_of(cells_of(core))
    assert letter["target"] == ["shop/d", "1"]
    assert "this shard has met 3 names" in letter["reason"]


def other_id() -> str:
    """An id that the second of two shards owns."""
    return next(str(n) for n in range(100) if owner_of(str(n), 2) == 1)


def test_the_receiver_meets_a_name_when_the_first_frame_comes() -> None:
    sender, receiver = (core_of(application(), shard=shard, shards=2) for shard in (0, 1))
    sender.dispatcher.ingest_messages([("shop/cart", other_id(), "hello")])
    sender.dispatcher.route()
    assert "shop/cart" not in receiver.dispatcher.types
    raw = sender.next_frame(1, flush=True)
    assert raw is not None
    receiver.receive(0, raw)
    receiver.fill_mailboxes()
    run_all(receiver)
    assert log_of(receiver, "shop/cart", other_id()) == ("shop/cart hello",)


def test_names_are_met_again_when_queues_are_restored() -> None:
    core = core_of(application(), shards=2)
    core.dispatcher.ingest_messages([("shop/a", "in", "x") if n else ("shop/b", other_id(), "y") for n in range(2)])
    core.dispatcher.route()
    *_, raw = encode_queues(core.take_cut(1))
    assert raw is not None
    again = core_of(application(), shards=2, start=StartPoint(2, 1, b"d", decode_queues(raw)))
    assert [(typename, id) for shard in (0, 1) for typename, id, _, _ in waiting_of(again, shard)] == [
        (typename, id) for shard in (0, 1) for typename, id, _, _ in waiting_of(core, shard)
    ]
    assert again.notes == []


def test_records_of_names_survive_an_incarnation_in_memory() -> None:
    core = core_of(application())
    core.dispatcher.ingest_messages([("shop/a", "1", "x")])
    core.dispatcher.route()
    run_all(core)
    core.table.dirty.clear()
    again = core_of(application(), previous=core)
    assert log_of(again, "shop/a") == ("shop/a x",)
    again.dispatcher.ingest_messages([("shop/a", "1", "y")])
    again.dispatcher.route()
    run_all(again)
    assert log_of(again, "shop/a") == ("shop/a x", "shop/a y")


def test_an_ingress_may_have_a_name_of_a_namespace_as_target() -> None:
    core = core_of(application(), routes={"in": IngressRoute(target="shop/cart")})
    core.ingest("in", IngressBatch(1, [], ids=["1", "2"], values=["x", "y"]))
    run_all(core)
    assert log_of(core, "shop/cart", "2") == ("shop/cart y",)


def test_every_name_is_told_of_the_end_but_not_an_exact_one_that_does_not_want_to_know() -> None:
    core = core_of(application(), limits=LIMITS)
    for typename in ("shop/a", "shop/exact", "gone/type", "shop/b", "shop/c", "shop/d"):
        core.dispatcher.send_end(typename, ["1"])
    run_all(core)
    assert [record_of(core, f"shop/{name}", "1").ended for name in "abc"] == [True] * 3
    (letter,) = letters_of(cells_of(core))
    assert letter["target"] == ["shop/d", "1"], "nothing is left out silently"


def test_a_namespace_function_among_other_things_is_declared_like_any_function() -> None:
    app = application()
    with pytest.raises(DefinitionError, match=r"function 'shop/\*' is declared twice"):
        app.function("shop/*")(lambda ctx, message: None)
    for typename in ("*/cart", "*/*", "shop/c*", "/*", "a/b/*", "*"):
        with pytest.raises(DefinitionError, match="expected 'namespace/name'"):
            App("x").function(typename)


def test_the_limit_counts_names_of_namespaces_only() -> None:
    core = core_of(application(), limits=LIMITS)
    for _ in range(5):
        core.dispatcher.resolve("shop/exact")
        core.dispatcher.resolve("shop/a")
    core.dispatcher.resolve("shop/b")
    core.dispatcher.resolve("shop/c")
    with pytest.raises(InvocationError, match="which is the limit"):
        core.dispatcher.resolve("shop/d")


def test_nothing_waits_at_the_start() -> None:
    assert core_of(application(), start=StartPoint(1, 0, b"", EMPTY_QUEUES)).notes == []
