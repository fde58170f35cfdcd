"""Where the HTTP door listens, as people write it: ``127.0.0.1:8484``, ``[::1]:8484``, ``localhost:0``.

Addresses only, no names: what a name stands for is decided by others, and may be another thing tomorrow.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>\d{1,5})")
PORT_MAX: Final = 65_535


class Listen(NamedTuple):
    """``host`` is an address as text, without brackets; ``port`` 0: any free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """An address and a port from ``127.0.0.1:8484``.

    Raises:
        ValueError: it is none.
    """
    expected = 'expected an address and a port, such as "127.0.0.1:8484", "[::1]:8484" or "localhost:8484"'
    found = _LISTEN.fullmatch(text)
    if found is None or int(found["port"]) > PORT_MAX:
        raise ValueError(f"{expected}, got {text!r:.100}")
    host = found["six"] or found["host"]
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"{expected}, got {text!r}") from error
    return Listen(host, int(found["port"]))
