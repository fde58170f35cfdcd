"""What questions about state are answered, held against complete checkpoints, and against memory at the instant of the question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cbor2
import msgspec

from shardfun.core.function import CompiledFunction, parse_state_key
from shardfun.core.shard import ShardCore
from shardfun.model.address import EVERY_NAME, Address
from shardfun.model.control import Found, LookAt
from shardfun.model.delta import checkpoint_name
from shardfun.model.json_like import json_like
from shardfun.model.questions import ListAnswer, ListQuestion, StateAnswer, StateQuestion
from shardfun.simulation.truth import records_in_memory
from shardfun.simulation.violation import wrong

Fields = dict[str, Any]


class QueryTruth:
    """See the module.

    Args:
        functions: by typename.
        states: by address, the fields in the newest complete checkpoint; kept by the checker.
    """

    def __init__(self, functions: dict[str, CompiledFunction], states: dict[Address, Fields]) -> None:
        self._functions = functions
        self._states = states
        self._complete: list[int] = [0]
        self._live: dict[tuple[int, int, int], Fields] = {}

    def completed(self, checkpoint: int) -> None:
        """One more complete checkpoint."""
        self._complete.append(checkpoint)

    def addresses(self, typename: str) -> list[Address]:
        """Those of a type that have something stored."""
        return [address for address in self._states if address.typename == typename]

    def _function(self, typename: str) -> CompiledFunction:
        return self._functions.get(typename) or self._functions[typename.partition("/")[0] + EVERY_NAME]

    def _comparable(self, typename: str) -> bool:
        """Whether what is stored is what is shown: nothing of it expires."""
        spec = self._function(typename).spec
        return spec.options.expire_idle_ms is None and all(field.expiry is None for field in spec.fields)

    # ---- live -----------------------------------------------------------------------------------------------------------
    def asked(self, core: ShardCore, message: LookAt, stored: Iterator[tuple[bytes, bytes]]) -> None:
        """A shard looks now: write down what it has to find."""
        if message.at != "live" or not self._comparable(message.target):
            return
        records = {key: value for key, value in stored if parse_state_key(key) is not None} | records_in_memory(core)
        address = Address(message.target, message.id)
        for key, raw in records.items():
            if parse_state_key(key) == address:
                self._live[core.identity.shard, message.incarnation, message.request] = {} if raw is None else cbor2.loads(raw)
                return
        self._live[core.identity.shard, message.incarnation, message.request] = {}

    def found(self, shard: int, message: Found) -> None:
        """The shard's answer."""
        expected = self._live.pop((shard, message.incarnation, message.request), None)
        if expected is not None and not message.code:
            answer = msgspec.json.decode(message.answer, type=StateAnswer)
            self._compare(f"{answer.address}, live", answer, expected)

    def _compare(self, what: str, answer: StateAnswer, expected: Fields) -> None:
        found = {name: answer.fields.get(name) for name in expected if name in answer.fields}
        shown = {name: json_like(value) for name, value in expected.items() if name in answer.fields}
        if found != shown or (answer.exists and not expected and not answer.parts):
            wrong(f"{what} is shown as {found}, and is {shown}")

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    def answered(self, question: StateQuestion, answer: StateAnswer) -> None:
        """Answered to the operator: never from beyond the newest complete checkpoint.

        Raises:
            Violation: otherwise.
        """
        names = {checkpoint_name(checkpoint) for checkpoint in self._complete}
        if answer.checkpoint not in names:
            wrong(f"{answer.address} is shown as of {answer.checkpoint}, which is not complete")
        newest = checkpoint_name(self._complete[-1])
        if question.at == "checkpoint" and answer.checkpoint == newest and self._comparable(question.target):
            expected = self._states.get(Address(question.target, question.id), {})
            self._compare(f"{answer.address} as of {newest}", answer, expected)

    def listed(self, question: ListQuestion, answer: ListAnswer) -> None:
        """Ids of a type: in the newest complete checkpoint, and without a gap, if they are of that.

        Raises:
            Violation: otherwise.
        """
        if answer.checkpoint != checkpoint_name(self._complete[-1]) or not self._comparable(question.typename):
            return
        if self._function(question.typename).spec.collections:
            return
        there = {address.id for address in self.addresses(question.typename)}
        if not set(answer.ids) <= there or (answer.next is None and set(answer.ids) != there):
            wrong(f"ids of {question.typename} as of {answer.checkpoint}: listed {answer.ids}, there are {sorted(there)}")
        if len(set(answer.ids)) != len(answer.ids):
            wrong(f"ids of {question.typename}: {answer.ids} has one twice")
