"""What questions about state and letters are answered, held against complete checkpoints, and against memory at the instant of the
question. An answer has to be all of what is there: what it leaves out is as wrong as what it makes up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import cbor2
import msgspec

from shardfun.core.cell_keys import BUFFER_KIND, MAP_KIND, REGISTERED_KIND, parse_cell_key, value_in
from shardfun.core.function import CompiledFunction, parse_state_key
from shardfun.core.looking import shown_key
from shardfun.core.registered import KIND, TYPE, VALUE
from shardfun.core.shard import ShardCore
from shardfun.model.address import EVERY_NAME, Address
from shardfun.model.control import Found, LookAt
from shardfun.model.delta import checkpoint_name
from shardfun.model.json_like import json_like
from shardfun.model.keyspace import owner_of, slot_of
from shardfun.model.ordered_keys import decode_key
from shardfun.model.page_tokens import ids_place, place_of
from shardfun.model.questions import ListAnswer, ListQuestion, StateAnswer, StateQuestion
from shardfun.simulation.truth import cells_now, records_in_memory
from shardfun.simulation.violation import wrong

KEPT = 16
"""Checkpoints that are remembered: an answer may come long after it was given."""
KINDS = {"map": MAP_KIND, "buffer": BUFFER_KIND, "registry": REGISTERED_KIND}

Fields = dict[str, Any]


class Kept(NamedTuple):
    """A complete checkpoint: the fields of every address that has some, and by shard all else that is stored."""

    checkpoint: int
    states: dict[Address, Fields]
    cells: list[dict[bytes, bytes]]


class _Stored(NamedTuple):
    """What is stored of one address: its fields, and its cells by key."""

    fields: Fields
    cells: dict[bytes, bytes]


class _Page(NamedTuple):
    """Which part of an address was asked for, from where on, and how many items of each part at most."""

    part: str | None
    after: str | None
    limit: int


class QueryTruth:
    """See the module.

    Args:
        functions: by typename.
    """

    def __init__(self, functions: dict[str, CompiledFunction], shards: int) -> None:
        self._functions = functions
        self._shards = shards
        self._complete = {checkpoint_name(0): 0}
        self._kept = deque([Kept(0, {}, [{} for _ in range(shards)])], KEPT)
        self._live: dict[tuple[int, int, int], tuple[Address, _Page, _Stored]] = {}

    def completed(self, checkpoint: int, states: Mapping[Address, Fields], cells: list[dict[bytes, bytes]]) -> None:
        """One more complete checkpoint.

        Args:
            cells: by shard; they never change.
        """
        self._complete[checkpoint_name(checkpoint)] = checkpoint
        self._kept.append(Kept(checkpoint, dict(states), cells))

    @property
    def oldest_applied(self) -> int:
        """The checkpoint that every shard has applied now: the newest, or the one before."""
        return self._kept[max(0, len(self._kept) - 2)].checkpoint

    def candidates(self, since: int, name: str) -> list[Kept]:
        """The checkpoints from ``since`` to the named one, which an answer to a question may show; empty: too long ago to know.

        Raises:
            Violation: the one that is named is not complete, or is older than what everybody had applied.
        """
        checkpoint = self._complete.get(name)
        if checkpoint is None or checkpoint < since:
            wrong(
                f"an answer is as of {name}, which is not complete, or older than {checkpoint_name(since)}, which all had applied"
            )
        if since < self._kept[0].checkpoint:
            return []
        return [kept for kept in self._kept if since <= kept.checkpoint <= checkpoint]

    def addresses(self, typename: str) -> list[Address]:
        """Those of a type that have fields in the newest complete checkpoint."""
        return [address for address in self._kept[-1].states if address.typename == typename]

    def parts(self, typename: str) -> list[str]:
        """The maps, buffers and registries of a type."""
        return [each.name for each in self._function(typename).spec.collections]

    def _function(self, typename: str) -> CompiledFunction:
        return self._functions.get(typename) or self._functions[typename.partition("/")[0] + EVERY_NAME]

    def _comparable(self, typename: str) -> bool:
        """Whether what is stored is what is shown: nothing of it expires."""
        spec = self._function(typename).spec
        fields_stay = all(field.expiry is None for field in spec.fields)
        return spec.options.expire_idle_ms is None and fields_stay and all(each.expiry is None for each in spec.collections)

    # ---- live -----------------------------------------------------------------------------------------------------------
    def asked(self, core: ShardCore, message: LookAt, stored: Iterator[tuple[bytes, bytes]]) -> None:
        """A shard looks now: write down what it has to find."""
        if message.at != "live" or not self._comparable(message.target):
            return
        address, there = Address(message.target, message.id), dict(stored)
        records = {key: value for key, value in there.items() if parse_state_key(key) is not None} | records_in_memory(core)
        raw = next((value for key, value in records.items() if parse_state_key(key) == address), None)
        found = _Stored({} if raw is None else cbor2.loads(raw), _cells_of(address, cells_now(core, there)))
        page = _Page(message.part, message.after, message.limit)
        self._live[core.identity.shard, message.incarnation, message.request] = address, page, found

    def found(self, shard: int, message: Found) -> None:
        """The shard's answer."""
        expected = self._live.pop((shard, message.incarnation, message.request), None)
        if expected is not None and not message.code:
            answer = msgspec.json.decode(message.answer, type=StateAnswer)
            self._compare("live", answer, *expected)

    # ---- states ---------------------------------------------------------------------------------------------------------
    def answered(self, question: StateQuestion, answer: StateAnswer, since: int) -> None:
        """Answered to the operator: never from beyond the newest complete checkpoint, and nothing that had been replaced everywhere.

        Args:
            since: ``oldest_applied`` when the question was asked.

        Raises:
            Violation: otherwise.
        """
        candidates = self.candidates(since, answer.checkpoint)
        address = Address(question.target, question.id)
        if question.at == "checkpoint" and candidates and self._comparable(question.target):
            kept = candidates[-1]
            cells = _cells_of(address, kept.cells[owner_of(question.id, self._shards)])
            page = _Page(question.part, question.after, question.limit)
            expected = _Stored(kept.states.get(address, {}), cells)
            self._compare(f"as of {answer.checkpoint}", answer, address, page, expected)

    def _compare(self, when: str, answer: StateAnswer, address: Address, page: _Page, stored: _Stored) -> None:
        """All fields, all parts that were asked for, and whether anything is there."""
        spec, what = self._function(address.typename).spec, f"{address}, {when},"
        defaults = {field.name: cbor2.loads(field.encode(field.default)) for field in spec.fields}
        fields = {name: stored.fields.get(name, default) for name, default in defaults.items()}
        kinds = {each.name: each.kind for each in spec.collections}
        chosen = kinds if page.part is None else [page.part]
        cells = _by_part(stored.cells)
        parts, following = {}, None
        for name in chosen:
            start = place_of(page.after, KINDS[kinds[name]])
            there = [(suffix, raw) for suffix, raw in cells.get(name, []) if suffix >= start]
            following = there[page.limit][0] if len(there) > page.limit else None
            shown = answer.parts.get(name)
            place = None if shown is None or shown.next is None else place_of(shown.next, KINDS[kinds[name]])
            if shown is not None and place != following:
                wrong(f"{what} part {name}: goes on at {place!r}, expected {following!r}")
            parts[name] = [_item(kinds[name], suffix, raw) for suffix, raw in there[: page.limit]]
        exists = fields != defaults or any(cells.get(name) for name in kinds) or page.after is not None
        expected: tuple[Any, ...] = (
            str(address),
            exists,
            {name: json_like(value) for name, value in fields.items()},
            parts,
            {},
        )
        shown_parts = {name: [(item.key, item.value) for item in part.items] for name, part in answer.parts.items()}
        found = (answer.address, answer.exists, answer.fields, shown_parts, answer.expires)
        if found != expected:
            wrong(f"{what} is shown as {found}, and is {expected}")
        if page.part is not None and answer.next != answer.parts[page.part].next:
            wrong(f"{what} part {page.part}: goes on at {answer.parts[page.part].next}, the answer at {answer.next}")

    # ---- ids ------------------------------------------------------------------------------------------------------------
    def listed(self, question: ListQuestion, answer: ListAnswer, since: int) -> None:
        """Ids of a type, on one page: in their order, all that a complete checkpoint has between its beginning and its end.

        The shards are asked one after the other, so each may show a checkpoint of its own, none of them older than that of the answer.

        Args:
            since: as above.

        Raises:
            Violation: otherwise.
        """
        self.candidates(since, answer.checkpoint)
        oldest = self._complete[answer.checkpoint]
        kept = [each for each in self._kept if each.checkpoint >= oldest]
        places = [_place(id) for id in answer.ids]
        first, last = ids_place(question.after), None if answer.next is None else ids_place(answer.next)
        if places != sorted(set(places)) or len(places) > question.limit:
            wrong(f"ids of {question.typename}: {answer.ids} are twice, too many or out of order")
        for shard in range(self._shards):
            shown = [id for id in answer.ids if owner_of(id, self._shards) == shard]
            there = [self._ids(question.typename, each, shard) for each in kept]
            there = [[id for id in ids if _place(id) > first and (last is None or _place(id) <= last)] for ids in there]
            if shown not in there:
                wrong(
                    f"ids of {question.typename} in shard {shard} as of {answer.checkpoint}: listed {shown}, there are {there}"
                )

    def _ids(self, typename: str, kept: Kept, shard: int) -> list[str]:
        """What is stored of a type in a shard, in the order of pages."""
        found = {address.id for address in kept.states if address.typename == typename}
        parsed = (parse_cell_key(key) for key in kept.cells[shard])
        found |= {each.address.id for each in parsed if each is not None and each.address.typename == typename}
        return sorted((id for id in found if owner_of(id, self._shards) == shard), key=_place)


def _place(id: str) -> tuple[int, bytes]:
    return slot_of(id), id.encode()


def _cells_of(address: Address, cells: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    name = address.id.encode()
    some = ((key, raw, parse_cell_key(key)) for key, raw in cells.items() if name in key)
    return {key: raw for key, raw, parsed in some if parsed is not None and parsed.address == address}


def _by_part(cells: Mapping[bytes, bytes]) -> dict[str, list[tuple[bytes, bytes]]]:
    """By the name of a map, a buffer or a registry: suffixes of keys in their order, and what is stored."""
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    for key, raw in sorted(cells.items()):
        parsed = parse_cell_key(key)
        if parsed is not None:
            found.setdefault(parsed.name, []).append((parsed.suffix, raw))
    return found


def _item(kind: str, suffix: bytes, raw: bytes) -> tuple[Any, Any]:
    """Key and value of an item as they are shown."""
    keys: dict[str, Callable[[bytes], Any]] = {
        "map": lambda key: shown_key(decode_key(key)),
        "buffer": lambda key: int.from_bytes(key, "big"),
        "registry": bytes.decode,
    }
    value = cbor2.loads(value_in(raw))
    if kind == "registry":
        value = {name: value[name] for name in (KIND, TYPE, VALUE) if name in value}
    return keys[kind](suffix), json_like(value)
