"""Upgrades: values that an earlier version of a class has left in a checkpoint are brought to its present form when they are read.

A message type's version stands behind its name in frames and queues: ``pkg.Add`` is version 1, ``pkg.Add@2`` version 2. What is
sent always has the present version, so only restored messages are ever upgraded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shardfun.errors import PayloadTypeError
from shardfun.model.cbor import load_cbor, shown
from shardfun.model.scalars import plain_values

if TYPE_CHECKING:
    from shardfun.model.payload import PayloadType

FIRST_VERSION = 1

Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Upgrade:
    """How the author brings plain fields of an earlier version to the present one.

    Args:
        name: of the class, without a version, for people.
        version: the present one.
        formerly: full names that the class had earlier.
        function: called with a version below the present one and the plain fields of that version.
    """

    name: str
    version: int
    function: Callable[[int, Fields], Fields]
    formerly: tuple[str, ...] = ()

    def apply(self, version: int, fields: Fields) -> Fields:
        """The fields as of the present version.

        Raises:
            PayloadTypeError: the function raised or returned something else, or the version is a later one.
        """
        if version == self.version:
            return fields
        if version > self.version:
            raise PayloadTypeError(newer(self.name, version, self.version))
        try:
            upgraded: Any = self.function(version, fields)
        except BaseException as error:  # user code may raise SystemExit too; it must not take the shard down
            msg = f"{self._what(version)} failed: {type(error).__qualname__}: {_said(error)}"
            raise PayloadTypeError(msg) from error
        if type(upgraded) is not dict:
            msg = f"{self._what(version)}: expected it to return the fields as a dict, got {type(upgraded).__qualname__}"
            raise PayloadTypeError(msg)
        return upgraded

    def _what(self, version: int) -> str:
        return f"the upgrade of {self.name} from version {version} to {self.version}"


def newer(name: str, version: int, present: int) -> str:
    """What is wrong with a value of a later version than the application knows."""
    return f"version {version} of {name} is newer than this application's, which is {present}"


def versioned(name: str, version: int) -> str:
    """The name of a version of a type, as in frames and queues."""
    return name if version == FIRST_VERSION else f"{name}@{version}"


def split_version(name: str) -> tuple[str, int]:
    """Undo ``versioned``."""
    base, at, version = name.rpartition("@")
    return (base, int(version)) if at and version.isdecimal() else (name, FIRST_VERSION)


class EarlierType:
    """Reads values of an earlier version of a payload type, or under an earlier name, as of the present one."""

    __slots__ = ("_attributes", "_encoded", "_present", "_tag", "_upgrade", "_version")

    def __init__(self, present: PayloadType, upgrade: Upgrade, version: int) -> None:
        self._present = present
        self._upgrade = upgrade
        self._version = version
        cls: Any = present.cls
        struct = issubclass(cls, msgspec.Struct)
        encoded = cls.__struct_encode_fields__ if struct else ()
        self._attributes: dict[str, str] = dict(zip(encoded, cls.__struct_fields__, strict=True)) if struct else {}
        self._encoded = dict(zip(self._attributes.values(), encoded, strict=True))
        self._tag: str = (cls.__struct_config__.tag_field or "") if struct else ""

    def decode_column(self, data: Any) -> Sequence[Any]:
        """As in ``PayloadType``."""
        return [self.decode_item(item) for item in plain_values(data)]

    decode_stored = decode_column

    def decode_item(self, item: Any) -> Any:
        """As in ``PayloadType``. The author sees and gives fields by attribute name, whatever they are called in the encoding.

        Raises:
            PayloadTypeError: the upgrade failed, or what it gave does not fit.
        """
        try:
            plain: Any = load_cbor(item) if type(item) is bytes else item
        except ValueError as error:
            msg = f"{self._present.name}: damaged encoding: {error}"
            raise PayloadTypeError(msg) from error
        if type(plain) is not dict:
            msg = f"{self._present.name}: expected the fields of version {self._version} by name, got {shown(plain)}"
            raise PayloadTypeError(msg)
        fields: dict[Any, Any] = {self._attributes.get(name, name): value for name, value in plain.items() if self._tag != name}
        fields = self._upgrade.apply(self._version, fields)
        if not self._present.fields:
            fields = {self._encoded.get(name, name): value for name, value in fields.items()}
        return self._present.decode_item(fields)


def earlier_types(present: PayloadType, upgrade: Upgrade) -> dict[str, EarlierType]:
    """What reads the earlier versions and names of a payload type, by the names in queues."""
    found = {
        versioned(name, version): EarlierType(present, upgrade, version)
        for name in (upgrade.name, *upgrade.formerly)
        for version in range(FIRST_VERSION, upgrade.version + 1)
    }
    del found[present.name]
    return found


def is_upgradable(cls: Any) -> bool:
    """Whether values of a class are encoded as fields by name."""
    try:
        info = msgspec.inspect.type_info(cls)
    except (TypeError, NameError, ValueError, AttributeError):
        return False
    if isinstance(info, msgspec.inspect.StructType):
        return not info.array_like
    if isinstance(info, msgspec.inspect.CustomType):
        return not getattr(info.cls, "__pydantic_root_model__", True)
    return isinstance(info, msgspec.inspect.DataclassType)


def _said(error: BaseException) -> str:
    try:
        return f"{error!s:.200}"
    except Exception as broken:  # noqa: BLE001 - even ``str`` may be user code
        return f"<{type(broken).__name__} in str()>"
