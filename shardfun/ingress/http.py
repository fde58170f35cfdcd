"""Ingress kind ``http``: records that clients post to the door of the node.

There is no reader here: the door appends the records to its log, and the shards read that log (``shardfun.intake``), whatever was
posted. This class only makes the kind known to the configuration.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class HttpIngressOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """There is nothing to set."""


class HttpIngress:
    """Stands for the kind."""

    options: ClassVar[type[HttpIngressOptions]] = HttpIngressOptions
