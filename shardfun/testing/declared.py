"""Stored values as they can be compared: two equal sets may have been stored in different orders."""

from __future__ import annotations

import contextlib
from typing import Any

from shardfun.core.function import FieldSpec
from shardfun.errors import PayloadTypeError
from shardfun.model.address import EVERY_NAME
from shardfun.model.conversion import sorted_plain_of
from shardfun.sdk.app import App


class Declared:
    """The types of stored values, as an application declares them: only they say what is a set."""

    def __init__(self, app: App) -> None:
        self._functions = {function.spec.typename: function.spec for function in app.compile()}

    def comparable(self, typename: str, name: str, raw: Any) -> Any:
        """The value of a field, or one of a collection, as plain values that are the same for equal ones.

        Args:
            raw: as it is stored, decoded.
        """
        item = self._item(typename, name)
        if item is not None and not item.scalar:
            # Else it is of an earlier version of the state, or has a set of what cannot be put in order.
            with contextlib.suppress(PayloadTypeError, TypeError, ValueError, RecursionError):
                return sorted_plain_of(item.from_plain(raw))
        return raw

    def _item(self, typename: str, name: str) -> FieldSpec | None:
        functions = self._functions
        spec = functions.get(typename) or functions.get(typename.partition("/")[0] + EVERY_NAME)
        if spec is None:
            return None
        items = {field.name: field for field in spec.fields}
        items |= {collection.name: collection.item for collection in spec.collections if collection.item is not None}
        return items.get(name)
