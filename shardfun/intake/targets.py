"""What may be sent to an application from outside, and in what form: the way between Python or JSON values and payloads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cbor2
import msgspec

from shardfun.core.dispatch import unknown_target
from shardfun.core.function import CompiledFunction
from shardfun.errors import PayloadTypeError
from shardfun.model.address import EVERY_NAME, ID_BYTES_MAX
from shardfun.model.cbor import load_cbor
from shardfun.model.conversion import is_pydantic_model, plain_of, value_of
from shardfun.model.payload import END_TYPE, SCALARS, Encoded, Payloads, PayloadType, type_name
from shardfun.sdk.app import App

_CONTAINERS = (list, dict, set, tuple, frozenset)


class Targets:
    """The functions of an application by name, with the payload types they take.

    Args:
        functions: as ``App.compile`` gives them.
    """

    def __init__(self, functions: Sequence[CompiledFunction]) -> None:
        self._functions = {function.spec.typename: function for function in functions}
        self._by_class: dict[type, PayloadType] = {}
        self._by_name: dict[str, Any] = {}
        for function in functions:
            for item in _declared(function.payloads):
                if item.cls not in _CONTAINERS:  # ``list[int]`` says nothing of another list
                    self._by_class.setdefault(item.cls, item)
            for name, reader in function.payloads.by_name.items():
                self._by_name.setdefault(name, reader)

    @classmethod
    def of(cls, app: App) -> Targets:
        """Those of an application.

        Raises:
            DefinitionError: it does not compile.
        """
        return cls(app.compile())

    def encode(self, typename: str, id: str, value: Any) -> tuple[str, bytes]:
        """A Python value as a message to an address: name of its type and CBOR.

        Raises:
            UnknownTargetError: there is no such function.
            PayloadTypeError: it does not take such a value, or the id is none.
        """
        payloads = self._payloads(typename)
        check_id(id)
        found = payloads.by_class.get(type(value))
        if found is None or found is END_TYPE:
            payloads.prepare(value)  # raises, with what would be right
            raise AssertionError
        found.validate(value)
        return found.name, _encoded(found, value)

    def from_json(self, typename: str, id: str, body: Any, type: str | None = None) -> tuple[str, bytes]:
        """What JSON carries as a message to an address: name of its type and CBOR.

        Args:
            body: decoded JSON. Bytes are base64 texts in it, dates ISO 8601.
            type: the name of one of the payload types, with or without its module; needed if the body fits several.

        Raises:
            UnknownTargetError: there is no such function.
            PayloadTypeError: the body is of none of its types, or of several; or the id is none.
        """
        candidates = list(_declared(self._payloads(typename)))
        check_id(id)
        if type is not None:
            candidates = [
                item for item in candidates if type in {item.name, item.name.rpartition(".")[2], item.cls.__qualname__}
            ]
            if len(candidates) != 1:
                raise PayloadTypeError(
                    f"{typename} accepts {self._accepted(typename)}; {type!r} is not the name of one of them"
                )
        fitting, problems = _fitting(candidates, body)
        if len(fitting) == 1:
            item, value = fitting[0]
            return item.name, _encoded(item, value)
        accepted = self._accepted(typename)
        if not fitting:
            reason = f": {problems[0]}" if len(problems) == 1 else ""
            raise PayloadTypeError(f"{typename} accepts {accepted}, and the message is none of these{reason}")
        names = ", ".join(item.name for item, _ in fitting)
        raise PayloadTypeError(f"{typename}: the message could be any of {names}; name its type")

    def message(self, typename: str, type: str, payload: bytes) -> Any:
        """The value of a message, as the target function will see it.

        Raises:
            UnknownTargetError, PayloadTypeError: the application has changed since it was sent.
        """
        reader = self._payloads(typename).by_name.get(type)
        if reader is None:
            raise PayloadTypeError(f"{typename} accepts {self._accepted(typename)}, not {type}, of which a message was sent")
        return _read(reader, payload)

    def reply(self, value: Any) -> tuple[str, bytes]:
        """What a function replies, which may be a value of any class: name of its type and CBOR.

        Raises:
            PayloadTypeError: it cannot be encoded.
        """
        cls = type(value)
        found = self._by_class.get(cls)
        if found is not None:
            return found.name, found.encode(value)
        try:
            return type_name(cls), cbor2.dumps(plain_of(value))
        except (TypeError, ValueError, RecursionError, cbor2.CBOREncodeError) as error:
            raise PayloadTypeError(f"reply: {type_name(cls)}: the value cannot be encoded: {error}") from error

    def decode(self, type: str, payload: bytes) -> Any:
        """A reply as a Python value: of the declared class, if a function takes such messages, else plain.

        Raises:
            PayloadTypeError: it is no reply, or of another version of its type.
        """
        reader = self._by_name.get(type)
        return _plain(payload) if reader is None else _read(reader, payload)

    def to_json(self, type: str, payload: bytes) -> Any:
        """A reply as what JSON carries: scalars, lists and maps with texts as keys. Bytes become base64 texts.

        Raises:
            PayloadTypeError: as ``decode``.
        """
        value = self.decode(type, payload)
        try:
            plain = plain_of(value)  # with what pydantic does to its models
            return msgspec.to_builtins(plain, str_keys=True)
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadTypeError(f"reply: {type} has no form in JSON: {error}") from error

    def describe(self) -> list[dict[str, Any]]:
        """All functions: ``typename`` (``namespace/*`` for whole namespaces), ``types``: for each payload type ``name`` and
        JSON ``schema`` (none: anything), ``state``: the name of the state class.
        """
        return [
            {
                "typename": typename,
                "types": [{"name": item.name, "schema": _schema(item)} for item in function.spec.accepts],
                "state": type_name(function.spec.state_class),
            }
            for typename, function in self._functions.items()
        ]

    # ---- how ------------------------------------------------------------------------------------------------------------
    def _payloads(self, typename: str) -> Payloads:
        namespace, slash, name = typename.partition("/")
        found = self._functions.get(typename) if name != "*" else None
        if found is None and slash and name and "/" not in name and name != "*":
            found = self._functions.get(namespace + EVERY_NAME)
        if found is None:
            raise unknown_target("function", typename, self._functions)
        return found.payloads

    def _accepted(self, typename: str) -> str:
        return " | ".join(item.name for item in _declared(self._payloads(typename)))


def check_id(id: Any) -> None:
    """Raise PayloadTypeError if ``id`` is not the id of an address."""
    try:
        fits = type(id) is str and 0 < len(id.encode()) <= ID_BYTES_MAX
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise PayloadTypeError(f"id: expected a text of 1 to {ID_BYTES_MAX} bytes, got {id!r:.100}")


def _declared(payloads: Payloads) -> Iterator[PayloadType]:
    return (item for item in payloads.by_class.values() if item is not END_TYPE)


def _fitting(candidates: list[PayloadType], body: Any) -> tuple[list[tuple[PayloadType, Any]], list[str]]:
    """The types that the body can be, with its value as each; and what is wrong with it as the others.

    A scalar is of its own class before all else (a text may look like a date). Of records those count first that take all of the
    body's fields.
    """
    fitting: list[tuple[PayloadType, Any]] = []
    whole: list[tuple[PayloadType, Any]] = []
    problems: list[str] = []
    for item in candidates:
        if item.cls is type(body) and item.cls in SCALARS:
            return [(item, body)], []
        try:
            value = value_of(body, item.annotation)
            ignored = body.keys() - item.to_plain(value).keys() if type(body) is dict else ()
        except Exception as error:  # noqa: BLE001 - a constructor may be user code
            problems.append(str(error))
            continue
        fitting.append((item, value))
        if not ignored:
            whole.append((item, value))
    return whole if len(fitting) > 1 and whole else fitting, problems


def _encoded(item: PayloadType, value: Any) -> bytes:
    """A value as CBOR that can be read again: what is nested too deeply can be written, and not read."""
    payload = item.encode(value)
    if not item.fields and item.cls not in SCALARS:
        item.decode(payload)
    return payload


def _read(reader: Any, payload: bytes) -> Any:
    """A value of a present type or an ``EarlierType``."""
    if isinstance(reader, PayloadType):
        return reader.decode(payload)
    value = reader.decode_item(payload)
    return value.type.decode(value.data) if type(value) is Encoded else value


def _plain(payload: bytes) -> Any:
    try:
        return load_cbor(payload)
    except ValueError as error:
        raise PayloadTypeError(f"reply: damaged encoding: {error}") from error


def _schema(item: PayloadType) -> dict[str, Any]:
    return msgspec.json.schema(item.annotation, schema_hook=_foreign_schema)


def _foreign_schema(cls: Any) -> dict[str, Any]:
    if is_pydantic_model(cls):
        schema: dict[str, Any] = cls.model_json_schema(by_alias=False)
        return schema
    return {}
