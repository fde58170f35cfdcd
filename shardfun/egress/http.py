"""Egress kind ``http``: a stream that the node's HTTP door serves, as server-sent events, at ``/v1/egress/NAME``.

The same sink as ``stream``. It is a kind of its own so that a configuration says which results leave the node this way.
"""

from __future__ import annotations

from shardfun.egress.stream import StreamEgress


class HttpEgress(StreamEgress):
    """See the module."""
