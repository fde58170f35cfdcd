"""The records of an application's ingresses, read into memory once and shared among the shards of a run.

They are read as if there were one shard, so that runs with any number of shards have the same records. Whoever reads a record gets a
copy of it: a router may change it, and after a recovery it is read again.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from shardfun.config.kinds import load_kind
from shardfun.config.schema import Config
from shardfun.errors import ConfigurationError
from shardfun.ingress.file import FileIngress, FileIngressOptions
from shardfun.model.doors import IngressBatch, Reject
from shardfun.model.keyspace import owner_of
from shardfun.ports import IngressReader, Partition
from shardfun.sdk.app import App
from shardfun.sources import Ingress
from shardfun.testing.generators import READ_SECONDS, read_ingress

HTTP_KIND: Final = "http"
EMPTY_READS_MAX: Final = 1000
FAR_S: Final = 1e6  # between two reads, so that no rate holds anything up
ALONE: Final = Partition(0, 1, lambda _key: True, "5eed" * 8)


class Item(NamedTuple):
    """One record of an ingress.

    Args:
        id: with it ``value`` goes to that instance of the target; without, ``value`` is a record for a router.
        reject: it could not be read; ``value`` means nothing then.
    """

    value: Any
    id: str | None = None
    reject: Reject | None = None


class Input(NamedTuple):
    """The records of one ingress, in order.

    Args:
        partition_by: the field whose value decides which shard reads a record; ``None``: they go round.
        alone: one shard reads all of them.
    """

    name: str
    items: list[Item]
    partition_by: str | None = None
    alone: bool = False

    def cut(self, records: int) -> Input:
        """Only the first ones."""
        return self._replace(items=self.items[:records])

    def shared(self, shards: int) -> list[list[Item]]:
        """The records of each shard."""
        parts: list[list[Item]] = [[] for _ in range(shards)]
        for number, item in enumerate(self.items):
            parts[self._shard(item, number, shards)].append(item)
        return parts

    def _shard(self, item: Item, number: int, shards: int) -> int:
        if self.alone:
            return owner_of(self.name, shards)
        if self.partition_by is not None and item.reject is None and isinstance(item.value, Mapping):
            return owner_of(str(item.value.get(self.partition_by)), shards)
        return number % shards


def batch_of(items: list[Item], position: int, place: str) -> IngressBatch:
    """Some records of one shard as its core takes them in."""
    rejects = [item.reject for item in items if item.reject is not None]
    readable = [item for item in items if item.reject is None]
    if any(item.id is not None for item in readable):
        ids, values = [item.id or "" for item in readable], [copy.deepcopy(item.value) for item in readable]
        return IngressBatch(position, ids=ids, values=values, rejects=rejects, place=place)
    return IngressBatch(position, [copy.deepcopy(item.value) for item in readable], rejects=rejects, place=place)


# ---- where they come from ------------------------------------------------------------------------------------------------
def from_records(name: str, records: Iterable[Any], partition_by: str | None, limit: int) -> Input:
    """Records that a program has made.

    Raises:
        ConfigurationError: none of them has the field ``partition_by``.
    """
    items: list[Item] = []
    for record in records:
        if len(items) == limit:
            break
        items.append(Item(record))
    return _partitioned(name, items, partition_by)


def from_file(name: str, path: Path, partition_by: str | None, limit: int) -> Input:
    """The records of a file.

    Raises:
        IngressError: it cannot be read.
        ConfigurationError: its format is unknown, or none of its records has the field ``partition_by``.
    """
    options = FileIngressOptions(path=path, partition_by=partition_by)
    return _partitioned(name, list(_read(FileIngress(name, options, ALONE), limit)), partition_by)


def _partitioned(name: str, items: list[Item], partition_by: str | None) -> Input:
    """Records that the shards share by the value of a field: if none has it, one shard would read all of them."""
    readable = [item.value for item in items if item.reject is None]
    if partition_by is not None and readable and not any(isinstance(v, Mapping) and partition_by in v for v in readable):
        raise ConfigurationError(
            f"ingress {name!r}: partition_by: expected a field of its records, and none of {len(readable)} has {partition_by!r}; "
            f"the first is {readable[0]!r:.200}"
        )
    return Input(name, items, partition_by)


def from_configuration(config: Config, app: App, limit: int) -> list[Input]:
    """The records of all ingresses of a node, sources in the application itself included.

    Raises:
        ConfigurationError: a kind of ingress cannot be read here.
        IngressError: one cannot be read.
    """
    found = []
    for name, entry in config.ingress.items():
        if entry.kind == HTTP_KIND:
            raise ConfigurationError(
                f"ingress {name!r} gets its records over HTTP, which are not there in a simulation; "
                f"give it records with --input {name}=FILE, or with Simulation(inputs=...)"
            )
        cls = load_kind("ingress", entry.kind)
        items = _pairs(cls, name, entry.options, limit) if issubclass(cls, Ingress) else _read(_reader(cls, name, entry), limit)
        found.append(_partitioned(name, list(items), getattr(entry.options, "partition_by", None)))
    return found + [from_application(app, name, limit) for name in app.ingresses if name not in config.ingress]


def from_application(app: App, name: str, limit: int) -> Input:
    """The records of a source that is declared with ``@app.ingress``. It really runs, and may wait for files or sockets.

    Raises:
        ConfigurationError: it gives too few records in time.
    """
    try:
        pairs = read_ingress(app, name, limit=limit)
    except trio.TooSlowError as error:
        raise ConfigurationError(
            f"ingress {name!r}: expected {limit} records or its end within {READ_SECONDS:g} s; "
            f"ask for fewer with --records N, or give it others with --input {name}=FILE"
        ) from error
    takes_partition = "partition" in inspect.signature(app.ingresses[name].function).parameters
    return Input(name, [Item(record) for _, record in pairs], alone=not takes_partition)


def _reader(cls: type[Any], name: str, entry: Any) -> IngressReader:
    reader: IngressReader = cls(name, entry.options, ALONE)
    return reader


def _read(reader: IngressReader, limit: int) -> Iterator[Item]:
    reader.open(None)
    found = empty = 0
    now = 0.0
    while found < limit and not reader.finished and empty < EMPTY_READS_MAX:
        batch = reader.read(limit - found, now)
        now += FAR_S
        items = [] if batch is None else list(_items(batch))
        empty = 0 if items else empty + 1
        yield from items
        found += len(items)
    reader.close()


def _items(batch: IngressBatch) -> Iterator[Item]:
    if batch.ids is not None:
        for id, value in zip(batch.ids, batch.values or [], strict=True):
            yield Item(value, id)
    for record in batch.records:
        yield Item(record)
    for reject in batch.rejects:
        yield Item(None, reject=reject)


def _pairs(cls: type[Ingress], name: str, options: Any, limit: int) -> Iterator[Item]:
    """The records of a class of the user, in this thread."""
    source = cls(name, options, ALONE)
    source.open(None)
    found = empty = 0
    while found < limit and empty < EMPTY_READS_MAX:
        pairs = source.read(limit - found)
        if pairs is None:
            break
        items = [Item(record) for _, record in pairs]
        empty = 0 if items else empty + 1
        yield from items
        found += len(items)
    source.close()


def drawn(function: Callable[[random.Random], Any], seed: int, partition_by: Mapping[str, str], limit: int) -> list[Input]:
    """The records that an application's own function makes for a seed.

    Raises:
        ConfigurationError: it gives something else than records by ingress.
    """
    made = function(random.Random(seed))
    if not isinstance(made, Mapping):
        raise ConfigurationError(f"Simulation: inputs: expected a mapping from ingresses to records, got {made!r:.100}")
    return [from_records(name, records, partition_by.get(name), limit) for name, records in made.items()]
