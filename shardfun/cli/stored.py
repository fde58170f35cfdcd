"""What a data directory holds, as values: for ``shardfun inspect``, and without the application.

Reads only. While a node runs, its stores change under the reader; then only what is written whole can be told: manifests and
the sizes of files. Stored values are CBOR maps with the names of fields, so no class of the application is needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from shardfun.cli.store_view import is_locked, open_store_view
from shardfun.cli.stored_state import AddressCounter, StoredCollection, collections_of, deadlines_of, fields_of
from shardfun.core.function import DEAD_LETTER_KIND, state_key
from shardfun.core.timer_cells import StoredTimer
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.errors import ConfigurationError, CorruptionError, DirectoryInUseError, StorageError
from shardfun.intake.entries import is_internal
from shardfun.model.address import Address
from shardfun.model.delta import checkpoint_name
from shardfun.model.keyspace import owner_of, slot_of, slot_range
from shardfun.model.letters import DeadLetter, LetterName, decoded, is_for_type, letter_of, plain
from shardfun.model.questions import LettersAnswer
from shardfun.state.directory import DataDirectory, JobIdentity
from shardfun.state.manifest import Manifest
from shardfun.state.store import LevelDBStore

_KIND: Final = slice(2, 3)  # of a key, after the slot
_SLOT_AND_KIND: Final = b"\0\0" + DEAD_LETTER_KIND  # in front of a letter's name; which slot does not matter for showing it


class StoredCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest.

    Args:
        created_at: unix seconds.
        bytes: of all shards' deltas; ``records``: keys changed by them.
        damage: why it cannot be read; then the rest is not known.
    """

    checkpoint: int
    name: str
    created_at: float = 0.0
    bytes: int = 0
    records: int = 0
    figures: dict[str, int] = {}
    damage: str = ""


class ShardFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one shard."""

    shard: int
    leveldb_bytes: int
    delta_bytes: int
    deltas: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told without opening a store, running node or not."""

    data_dir: str
    app: str
    job: str
    shards: int
    incarnation: int | None
    in_use: str
    """Who has the data open; empty if nobody."""
    checkpoints: list[StoredCheckpoint]
    """The newest first."""
    positions: dict[str, list[Any]]
    """Of the newest checkpoint: for each ingress, one position per partition."""
    files: list[ShardFiles]


class PendingTimer(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is to be sent later.

    Args:
        due: unix seconds.
        token: by which it can be cancelled; empty: it cannot.
    """

    due: float
    target: str
    sender: str
    token: str
    payload_type: str
    payload: Any


class Timers(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent later, as of the newest complete checkpoint."""

    checkpoint: str
    timers: int
    pending: list[PendingTimer]
    """Those due first; as many as were asked for."""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the stores, as of the newest complete checkpoint."""

    checkpoint: str
    addresses: dict[str, int]
    """How many have stored state, by typename."""
    timers: int
    dead_letters: int
    letters: list[DeadLetter]
    """The newest first; as many as were asked for."""


class StoredState(msgspec.Struct, frozen=True, kw_only=True):
    """One address.

    Args:
        state: its fields; ``None`` if all are at their defaults.
        expires: when fields expire, by name, in unix seconds; ``""`` is the instance.
        collections: maps, buffers, registries that are not empty.
    """

    address: str
    checkpoint: str
    shard: int
    slot: int
    state: dict[str, Any] | None
    expires: dict[str, float] = {}
    collections: list[StoredCollection] = []

    @property
    def exists(self) -> bool:
        """Whether anything is stored for the address."""
        return self.state is not None or bool(self.collections)


class StoredNode:
    """A data directory that is looked at.

    Raises:
        ConfigurationError: it is none, or was never used.
        CorruptionError: it is damaged where it says whose it is.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._data = DataDirectory(path)
        identity = self._data.identity() if path.is_dir() else None
        if identity is None:
            raise ConfigurationError(
                f"{path}: expected a data directory of shardfun, but there is none; has the node ever been started?"
            )
        self._identity: JobIdentity = identity

    # ---- without opening a store -----------------------------------------------------------------------------------------
    def overview(self) -> Overview:
        """What can always be told."""
        checkpoints = [self._checkpoint(checkpoint) for checkpoint in self._data.manifests.checkpoints()]
        newest = self._newest() if checkpoints and not checkpoints[0].damage else None
        return Overview(
            data_dir=str(self._data.path),
            app=self._identity.app,
            job=self._identity.job,
            shards=self._identity.shards,
            incarnation=self._incarnation(),
            in_use=self.in_use(),
            checkpoints=checkpoints,
            positions={}
            if newest is None
            else {name: list(map(plain, each)) for name, each in newest.ingress.items() if not is_internal(name)},
            files=[self._files(shard) for shard in range(self._identity.shards)],
        )

    def in_use(self) -> str:
        """Who has the data open, for people; empty if nobody."""
        if is_locked(self._data.path / "lock", by_flock=True):
            node = self._data.read_node()
            return "a node runs here" + ("" if node is None else f" (pid {node.pid})")
        for shard in range(self._identity.shards):
            if is_locked(self._data.shard(shard) / "leveldb" / "LOCK", by_flock=False):
                return f"a process of an earlier run still has LevelDB of shard {shard} locked"
        return ""

    def _checkpoint(self, checkpoint: int) -> StoredCheckpoint:
        name = checkpoint_name(checkpoint)
        try:
            manifest = self._data.manifests.read(checkpoint)
        except CorruptionError as error:
            return StoredCheckpoint(checkpoint=checkpoint, name=name, damage=str(error))
        return StoredCheckpoint(
            checkpoint=checkpoint,
            name=name,
            created_at=manifest.created_at,
            bytes=sum(delta.size_bytes for delta in manifest.shards),
            records=sum(delta.records for delta in manifest.shards),
            figures=manifest.figures,
        )

    def _newest(self) -> Manifest | None:
        """The manifest that a start would go on from.

        Raises:
            CorruptionError: it is damaged.
        """
        checkpoints = self._data.manifests.checkpoints()
        return self._data.manifests.read(checkpoints[0]) if checkpoints else None

    def _incarnation(self) -> int | None:
        return self._data.incarnation()

    def _files(self, shard: int) -> ShardFiles:
        folder = self._data.shard(shard)
        deltas = _sizes(folder / "deltas")
        return ShardFiles(
            shard=shard, leveldb_bytes=sum(_sizes(folder / "leveldb")), delta_bytes=sum(deltas), deltas=len(deltas)
        )

    # ---- from the stores -------------------------------------------------------------------------------------------------
    def contents(self, letters: int | None, *, on_shard: Callable[[int], None] = lambda _: None) -> Contents:
        """Count what is stored, and fetch dead letters.

        Args:
            letters: at most so many, the newest; ``None``: all.
            on_shard: called with each shard before it is read, which may take long.

        Raises:
            DirectoryInUseError: a node runs there.
            CorruptionError: a start of the node would be refused.
            StorageError: something cannot be read.
        """
        addresses = AddressCounter()
        parked: list[tuple[bytes, bytes]] = []
        dead = timers = 0
        newest = self._newest_unused()
        for shard in range(self._identity.shards):
            on_shard(shard)
            with self._store(shard, newest) as store:
                for key, value in store.scan():
                    kind = key[_KIND]
                    if key.startswith(TIMER_PREFIX):
                        timers += 1
                    elif kind == DEAD_LETTER_KIND:
                        dead += 1
                        parked.append((key[3:], value))  # after slot and kind: checkpoint and number, which tell the order
                        if letters is not None and len(parked) >= 2 * letters + 1000:
                            parked = heapq.nlargest(letters, parked)
                    else:
                        addresses.add(key)
        wanted = sorted(parked, reverse=True)[:letters]
        return Contents(
            checkpoint=_name(newest),
            addresses=dict(sorted(addresses.counts.items())),
            timers=timers,
            dead_letters=dead,
            letters=[letter_of(_SLOT_AND_KIND + name, value) for name, value in wanted],
        )

    def timers(self, limit: int | None) -> Timers:
        """What is to be sent later, the next first.

        Args:
            limit: at most so many; ``None``: all.

        Raises:
            DirectoryInUseError, CorruptionError, StorageError: as ``contents``.
        """
        newest = self._newest_unused()
        count = 0
        found: list[StoredTimer] = []
        for shard in range(self._identity.shards):
            with self._store(shard, newest) as store:
                for number, (key, value) in enumerate(store.scan(TIMER_PREFIX)):
                    count += 1
                    if limit is None or number < limit:
                        found.append(StoredTimer(key[len(TIMER_PREFIX) :], value))
        found.sort(key=lambda timer: timer.due_ms)
        return Timers(checkpoint=_name(newest), timers=count, pending=list(map(_pending, found[:limit])))

    def letters(self, names: Sequence[LetterName], typename: str | None, limit: int | None) -> LettersAnswer:
        """Dead letters, the newest first.

        Args:
            names: which ones; empty: all.
            typename: only those for functions of that type.
            limit: at most so many; ``None``: all.

        Raises:
            DirectoryInUseError, CorruptionError, StorageError: as ``contents``.
        """
        wanted = frozenset(name.encode() for name in names)
        newest = self._newest_unused()
        total = 0
        found: list[tuple[bytes, bytes]] = []
        for shard in range(self._identity.shards):
            with self._store(shard, newest) as store:
                for key, value in store.scan_kind(DEAD_LETTER_KIND, slot_range(shard, self._identity.shards)):
                    if (wanted and key[3:] not in wanted) or (typename is not None and not is_for_type(value, typename)):
                        continue
                    total += 1
                    found.append((key[3:], value))
                    if limit is not None and len(found) >= 2 * limit + 1000:
                        found = heapq.nlargest(limit, found)
        letters = [letter_of(_SLOT_AND_KIND + name, value) for name, value in sorted(found, reverse=True)[:limit]]
        there = {name for name, _ in found}
        unknown = [str(name) for name in names if name.encode() not in there]
        return LettersAnswer(checkpoint=_name(newest), total=total, letters=letters, unknown=unknown)

    def state_of(self, address: Address, entries: int) -> StoredState:
        """The stored state of one address.

        Args:
            entries: of each map, buffer or registry, at most.

        Raises:
            DirectoryInUseError: a node runs there.
            CorruptionError: a start of the node would be refused.
            StorageError: something cannot be read.
        """
        newest = self._newest_unused()
        shard = owner_of(address.id, self._identity.shards)
        with self._store(shard, newest) as store:
            value = store.get(state_key(*address))
            try:
                collections = collections_of(store, address, entries)
            except (ValueError, LookupError, TypeError) as error:
                raise CorruptionError(f"the state of {address} is damaged: {error!r:.200}") from error
        record = None if value is None else decoded(value, f"the state of {address}")
        return StoredState(
            address=str(address),
            checkpoint=_name(newest),
            shard=shard,
            slot=slot_of(address.id),
            state=None if record is None else plain(fields_of(record)),
            expires={} if record is None else deadlines_of(record),
            collections=collections,
        )

    @contextmanager
    def _store(self, shard: int, newest: Manifest | None) -> Iterator[LevelDBStore]:
        """A node that is started meanwhile is not hindered. It makes the view fail, or not, but never wrong."""
        try:
            with open_store_view(self._data.shard(shard), self._identity, shard, newest) as store:
                yield store
        except StorageError as error:
            if reason := self.in_use():
                raise self._in_use_error(reason) from error
            raise

    def _newest_unused(self) -> Manifest | None:
        if reason := self.in_use():
            raise self._in_use_error(reason)
        return self._newest()

    def _in_use_error(self, reason: str) -> DirectoryInUseError:
        return DirectoryInUseError(
            f"{self._data.path}: {reason}, so LevelDB is locked; stop it to look at stored state, or ask it with 'shardfun status'"
        )


def _pending(timer: StoredTimer) -> PendingTimer:
    return PendingTimer(
        due=timer.due_ms / 1000,
        target=str(Address(timer.typename, timer.id)),
        sender=str(timer.sender),
        token=timer.token,
        payload_type=timer.payload_type,
        payload=plain(timer.plain_payload),
    )


def _name(manifest: Manifest | None) -> str:
    return checkpoint_name(0 if manifest is None else manifest.checkpoint)


def _sizes(folder: Path) -> list[int]:
    """The sizes of the files in a folder; those that go away meanwhile count as nothing."""
    sizes = []
    try:
        for entry in folder.iterdir():
            try:
                sizes.append(entry.stat().st_size)
            except FileNotFoundError:
                continue
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"{folder}: cannot list: {error.strerror}; check owner and mode of the folder") from error
    return sizes
