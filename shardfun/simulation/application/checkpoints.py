"""What an application's own checks get to see of a complete checkpoint: values of its types instead of stored bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import cbor2
import msgspec

from shardfun.core.cell_keys import BUFFER_KIND, MAP_KIND, REGISTERED_KIND, CellKey, parse_cell_key, value_in
from shardfun.core.function import DEAD_LETTER_KIND, CompiledFunction
from shardfun.core.timer_cells import StoredTimer
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.model.address import EVERY_NAME, Address
from shardfun.model.letters import letter_of
from shardfun.model.ordered_keys import decode_key
from shardfun.simulation.view import CheckpointView
from shardfun.testing.results import Sent
from shardfun.testing.simulated import Checkpoint


class Decoder:
    """Makes them.

    Args:
        functions: of the application, compiled.
    """

    def __init__(self, functions: Sequence[CompiledFunction]) -> None:
        self._functions = {function.spec.typename: function for function in functions}

    def checkpoint(self, view: CheckpointView, admitted: dict[str, list[Any]], *, last: bool) -> Checkpoint:
        """The checkpoint behind a view."""
        return Checkpoint(
            admitted=admitted,
            states=self.states(view),
            waiting=[Sent(item.target, item.value) for item in view.waiting] + list(self._delayed(view)),
            emitted={name: [line for part in parts for line in map(decode_line, part)] for name, parts in view.records.items()},
            dead_letters=[
                letter_of(key, raw) for cells in view.cells for key, raw in cells.items() if key[2:3] == DEAD_LETTER_KIND
            ],
            last=last,
        )

    def states(self, view: CheckpointView) -> dict[Address, SimpleNamespace]:
        """The states of all addresses."""
        found: dict[Address, SimpleNamespace] = {}
        for address, fields in view.states.items():
            if (function := self._of(address.typename)) is not None:
                found[address] = _state(function, address, fields)
        for cells in view.cells:
            for key, raw in cells.items():
                parsed = parse_cell_key(key)
                function = None if parsed is None else self._of(parsed.address.typename)
                if parsed is not None and function is not None:
                    if parsed.address not in found:
                        found[parsed.address] = _state(function, parsed.address, {})
                    _add_cell(function, found[parsed.address], parsed, raw)
        return found

    def _of(self, typename: str) -> CompiledFunction | None:
        return self._functions.get(typename) or self._functions.get(typename.partition("/")[0] + EVERY_NAME)

    def _delayed(self, view: CheckpointView) -> Iterator[Sent]:
        for cells in view.cells:
            for key, raw in cells.items():
                if not key.startswith(TIMER_PREFIX):
                    continue
                timer = StoredTimer(key[len(TIMER_PREFIX) :], raw)
                function = self._of(timer.typename)
                described = None if function is None else function.payloads.by_name.get(timer.payload_type)
                value = timer.payload if described is None else described.decode_item(timer.payload)
                yield Sent(Address(timer.typename, timer.id), value)


def decode_line(record: bytes) -> Any:
    """A record of an egress."""
    return msgspec.json.decode(record)


def _state(function: CompiledFunction, address: Address, fields: Mapping[str, Any]) -> SimpleNamespace:
    record = function.blank(address.id)
    function.fill(record, cbor2.dumps(fields))
    found = {field.name: getattr(record, field.name) for field in function.spec.fields}
    empty: dict[str, Any] = {each.name: {} if each.kind == "map" else [] for each in function.spec.collections}
    return SimpleNamespace(**found, **empty)


def _add_cell(function: CompiledFunction, state: SimpleNamespace, parsed: CellKey, raw: bytes) -> None:
    name = parsed.name.partition(".")[0]
    spec = next((each for each in function.spec.collections if each.name == name), None)
    if spec is None:
        return
    if parsed.kind == REGISTERED_KIND:
        getattr(state, name).append(parsed.suffix.decode())
        return
    if "." in parsed.name:  # of something registered
        return
    plain = cbor2.loads(value_in(raw))
    value = plain if spec.item is None else spec.item.from_plain(plain)
    if parsed.kind == MAP_KIND:
        getattr(state, name)[decode_key(parsed.suffix)] = value
    elif parsed.kind == BUFFER_KIND:
        getattr(state, name).append(value)
