"""Run what ``@app.ingress`` declares by itself, to see what it gives and that it goes on where it should."""

from __future__ import annotations

import inspect
from contextlib import aclosing
from typing import Any, cast

import cbor2
import trio

from shardfun.model.keyspace import owner_of
from shardfun.ports import Partition
from shardfun.sdk.app import App

READ_SECONDS = 10.0


def read_ingress(
    app: App,
    name: str,
    *,
    position: Any = None,
    limit: int = 1000,
    shard: int = 0,
    shards: int = 1,
    timeout: float = READ_SECONDS,
) -> list[tuple[Any, Any]]:
    """What an ingress gives behind ``position``: pairs of position and record. For tests without a running Trio loop.

    Args:
        limit: it is stopped after so many; before, if it ends.
        shard: the partition, of ``shards``.
        timeout: in seconds.

    Raises:
        ValueError: the application declares no such ingress.
        TypeError: it gives something else than pairs, or a position that cannot be stored.
        trio.TooSlowError: it took longer.
    """
    if name not in app.ingresses:
        known = ", ".join(app.ingresses) or "none"
        raise ValueError(f"ingress {name!r}: expected one of @app.ingress; declared: {known}")
    function = app.ingresses[name].function
    partition = Partition(shard, shards, lambda key: owner_of(key, shards) == shard)
    more = {"partition": partition} if "partition" in inspect.signature(function).parameters else {}

    async def read() -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []
        with trio.fail_after(timeout):
            async with aclosing(cast("Any", function(position, **more))) as generator:
                async for item in generator:
                    if type(item) is not tuple or len(item) != 2:
                        raise TypeError(f"ingress {name!r}: expected pairs (position, record), got {item!r:.80}")
                    found.append((cbor2.loads(cbor2.dumps(item[0])), item[1]))
                    if len(found) == limit:
                        break
        return found

    return trio.run(read)
