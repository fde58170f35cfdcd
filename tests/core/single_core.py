"""A ShardCore without a driver: an application, a dict for a store, and eyes for what is inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cbor2

from shardfun import App, Context
from shardfun.core.careful import Breadcrumb
from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.runner import compile_runner, run_plain
from shardfun.core.shard import IngressRoute, Program, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.model.columns import Batch
from shardfun.model.payload import Encoded

START = StartPoint(1, 0, b"", EMPTY_QUEUES)
JOB = "ab" * 16


def encode_record(value: Any) -> bytes:
    if type(value) is object:
        msg = "no record"
        raise TypeError(msg)
    return repr(value).encode()


def program_of(app: App, *, plain: bool = False, routes: dict[str, IngressRoute] | None = None) -> Program:
    functions = app.compile()
    runners: Sequence[Any] = [run_plain if plain else compile_runner(function) for function in functions]
    return Program(functions, runners, routes or {}, {"out": encode_record}, Context)


class DictStore:
    """What the core reads of a store."""

    def __init__(self, stored: dict[bytes, bytes]) -> None:
        self.stored = stored

    def get(self, key: bytes) -> bytes | None:
        return self.stored.get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(item for item in self.stored.items() if item[0].startswith(prefix) and item[0] >= prefix + start))


def core_of(
    app: App,
    *,
    plain: bool = False,
    shard: int = 0,
    shards: int = 1,
    limits: Limits | None = None,
    stored: dict[bytes, bytes] | None = None,
    start: StartPoint = START,
    routes: dict[str, IngressRoute] | None = None,
    previous: ShardCore | None = None,
    breadcrumb: Breadcrumb | None = None,
) -> ShardCore:
    return ShardCore(
        ShardIdentity(JOB, shard, shards),
        start,
        program_of(app, plain=plain, routes=routes),
        limits or Limits(retries=0),
        DictStore({} if stored is None else stored),
        previous,
        breadcrumb=breadcrumb,
    )


def put(core: ShardCore, typename: str, *messages: tuple[str, Any], sender: Any = None) -> None:
    """Messages into the mailbox, prepared as ``send`` does it."""
    target = core.dispatcher.types[typename]
    values = [value if type(value) in target.shared else target.payloads.prepare(value) for _, value in messages]
    senders = None if sender is None else [sender] * len(messages)
    target.mailbox.append(Batch([id for id, _ in messages], senders, None, values))


def run_all(core: ShardCore) -> None:
    while core.run(1000) is not None:
        pass


def record_of(core: ShardCore, typename: str, id: str) -> Any:
    return core.table.generations[typename].find(id)


def cells_of(core_or_table: Any) -> dict[bytes, bytes | None]:
    """The cells that have changed since the last cut, by key."""
    table = getattr(core_or_table, "table", core_or_table)
    return {prefix + suffix: value for prefix, group in table.cells._layers[0].items() for suffix, value in group.items()}


def dirty_of(core: ShardCore) -> list[tuple[str, str]]:
    return [tuple(record._address) for record in core.table.dirty]


def waiting_of(core: ShardCore, shard: int) -> list[tuple[str, str, Any, Any]]:
    """What waits for a shard: target type, id, sender, value."""
    found = []
    for target in core.dispatcher.order:
        for batch in target.queues[shard].snapshot():
            senders = batch.senders or [None] * len(batch.ids)
            for id, sender, value in zip(batch.ids, senders, batch.values, strict=True):
                plain = value.type.decode(value.data) if type(value) is Encoded else value
                found.append((target.typename, id, sender, plain))
    return found


def letters_of(writes: dict[bytes, bytes | None]) -> list[dict[str, Any]]:
    return [cbor2.loads(raw) for key, raw in writes.items() if key[2:3] == DEAD_LETTER_KIND and raw is not None]
