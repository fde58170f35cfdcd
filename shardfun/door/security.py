"""Who may ask: the bearer token, and no web page.

A browser sends requests to loopback for whatever page it shows. Without a token only two things tell such a request from one of a
program: it names the page's origin, or (if the page's own name was pointed to 127.0.0.1) a host that is not this one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Final

from shardfun.door.problems import ProblemError

_CHALLENGE: Final = ((b"www-authenticate", b'Bearer realm="shardfun"'),)


class Guard:
    """Checks each request.

    Args:
        token: ``None``: none is needed, since only programs of this machine reach the door.
    """

    def __init__(self, token: bytes | None) -> None:
        self._digest = None if token is None else _digest(token)

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raises ProblemError if the request is not allowed."""
        if b"origin" in headers or headers.get(b"sec-fetch-site") in {b"cross-site", b"same-site"}:
            raise ProblemError("foreign-origin", "the door is not for web pages: expected no 'Origin'")
        if self._digest is None:
            self._check_host(headers.get(b"host", b""))
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise ProblemError("unauthorized", "expected 'Authorization: Bearer TOKEN'", headers=_CHALLENGE)
        # of digests, so that not even the length of the token shows in the time it takes
        if not hmac.compare_digest(_digest(given.strip()), self._digest):
            headers_ = ((b"www-authenticate", b'Bearer realm="shardfun", error="invalid_token"'),)
            raise ProblemError("unauthorized", "the token is a wrong one", headers=headers_)

    @staticmethod
    def _check_host(host: bytes) -> None:
        """Names can be pointed to this machine by anybody, addresses cannot."""
        if host.startswith((b"127.0.0.1:", b"localhost:")) or host == b"127.0.0.1":
            return
        name = host.decode("latin-1")
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        try:
            if name.lower() == "localhost" or name == "" or ipaddress.ip_address(name):
                return
        except ValueError:
            pass
        raise ProblemError("foreign-origin", f"expected 'Host' to be localhost or an address, got {name[:80]!r}")


def _digest(token: bytes) -> bytes:
    return hashlib.blake2b(token, digest_size=32).digest()
