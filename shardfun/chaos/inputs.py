"""What goes into a node under chaos: bounded, countable, slow enough, and readable again for whoever judges the result."""

from __future__ import annotations

import csv
import gzip
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import msgspec

from shardfun.config.schema import IngressConfig
from shardfun.errors import ConfigurationError
from shardfun.ingress.file import FileIngress, FileIngressOptions, format_of
from shardfun.ingress.generator import GeneratorIngress, GeneratorOptions
from shardfun.ports import IngressBatch, IngressReader, Partition

BATCH: Final = 10_000


class Input(NamedTuple):
    """Records that an application gets instead of what its configuration names.

    Args:
        records: a file (JSON lines or CSV, also ``.gz``), or the records themselves.
        partition_by: the field whose value keeps records in order, see the setting of that name.
        target: the function they go to, if no router takes them; ``id``: the field that holds the id.
    """

    records: Path | str | Iterable[Any]
    partition_by: str | None = None
    target: str | None = None
    id: str | None = None


class Records(Mapping[str, list[Any]]):
    """The records of each ingress, read when they are asked for. A generator's are pairs of id and value.

    Args:
        ingress: as the undisturbed run reads them.
        unreadable: names of those that only the node can read.
    """

    def __init__(self, ingress: Mapping[str, IngressConfig], unreadable: Iterable[str] = ()) -> None:
        self._ingress = ingress
        self._unreadable = frozenset(unreadable)
        self._read: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        """The records of an ingress.

        Raises:
            KeyError: there is no such ingress, or only the node can read it.
        """
        if name in self._unreadable:
            msg = f"ingress {name!r} is a source of the application's own: only the node reads it"
            raise KeyError(msg)
        if name not in self._read:
            self._read[name] = [record for batch in batches(name, self._ingress[name]) for record in _records_in(batch)]
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._ingress if name not in self._unreadable)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def is_paced(entry: IngressConfig) -> bool:
    """Whether it can be read here, counted and slowed down."""
    return isinstance(entry.options, FileIngressOptions | GeneratorOptions)


def paced(entry: IngressConfig, rate: float | None) -> IngressConfig:
    """The same ingress at so many records a second."""
    return msgspec.structs.replace(entry, options=msgspec.structs.replace(entry.options, rate=rate))


def count_records(name: str, entry: IngressConfig) -> int:
    """How many there are.

    Raises:
        IngressError: the file cannot be read.
    """
    if isinstance(entry.options, GeneratorOptions):
        return entry.options.count or 0
    return sum(batch.scanned for batch in batches(name, entry))


def batches(name: str, entry: IngressConfig) -> Iterator[IngressBatch]:
    """All that is in it, as one partition.

    Raises:
        IngressError: the file cannot be read.
    """
    partition = Partition(0, 1, lambda _: True)
    options = msgspec.structs.replace(entry.options, rate=None)
    reader: IngressReader = (FileIngress if isinstance(options, FileIngressOptions) else GeneratorIngress)(
        name, options, partition
    )
    with closing(reader):
        reader.open(None)
        while not reader.finished:
            batch = reader.read(BATCH, time.monotonic())
            if batch is not None:
                yield batch


def _records_in(batch: IngressBatch) -> Iterable[Any]:
    if batch.ids is None or batch.values is None:
        return batch.records
    return zip(batch.ids, batch.values, strict=True)


def with_input(name: str, given: Any, entry: IngressConfig | None, folder: Path) -> IngressConfig:
    """An ingress that reads what was given.

    Args:
        given: an ``Input``, or its ``records``.
        entry: of the configuration, whose target and field stay if nothing else is given.
        folder: for a copy of records.

    Raises:
        ConfigurationError: there is no such file, or the records cannot be written as JSON.
    """
    wanted = given if isinstance(given, Input) else Input(given)
    if isinstance(wanted.records, str | Path):
        path = Path(wanted.records).absolute()
        if not path.is_file():
            raise ConfigurationError(f"input {name!r}: expected a file of records, but there is none at {path}")
    else:
        path = folder / f"{name}.jsonl"
        _write_lines(name, wanted.records, path)
    partition_by = wanted.partition_by
    if entry is not None and partition_by is None:
        partition_by = getattr(entry.options, "partition_by", None)
    options = FileIngressOptions(path=path, partition_by=partition_by)
    target = wanted.target if wanted.target is not None or entry is None else entry.target
    id_field = wanted.id if wanted.id is not None or entry is None else entry.id_field
    return IngressConfig(kind="file", target=target, id_field=id_field, options=options)


def _write_lines(name: str, records: Iterable[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for number, record in enumerate(records, 1):
            try:
                line = msgspec.json.encode(record)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"input {name!r}: record {number} cannot be written as JSON: {error}") from error
            if not line.startswith(b"{"):
                raise ConfigurationError(
                    f"input {name!r}: expected records with fields (a dict or a struct), got {record!r:.80}"
                )
            file.write(line + b"\n")


def bounded(name: str, entry: IngressConfig, records: int | None, folder: Path) -> IngressConfig:
    """The ingress with an end: of a growing or long file a copy of its beginning, of a generator so many events.

    Args:
        records: at most so many; ``None``: all there are.

    Raises:
        ConfigurationError: it has no end, and nothing says where to cut it.
    """
    options = entry.options
    if isinstance(options, GeneratorOptions):
        if options.count is None and records is None:
            raise ConfigurationError(f"ingress.{name}: an endless generator; say how many events to take with --records")
        count = min(number for number in (options.count, records) if number is not None)
        return msgspec.structs.replace(entry, options=msgspec.structs.replace(options, count=count))
    if options.follow and records is None:
        raise ConfigurationError(f"ingress.{name}: it follows a growing file; say how many records to take with --records")
    if records is None:
        return entry
    form = options.format or format_of(options.path)
    path = folder / f"{name}.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(options.path) as source, path.open("w", encoding="utf-8", newline="") as copy:
            if form == "csv":
                csv.writer(copy).writerows(islice(csv.reader(source), records + 1))
            else:
                copy.writelines(islice((line for line in source if not line.isspace()), records))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:  # a packed file may be cut off or damaged
        raise ConfigurationError(f"ingress.{name}: {options.path} cannot be copied: {error}") from error
    return msgspec.structs.replace(entry, options=msgspec.structs.replace(options, path=path, format=form, follow=False))


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
