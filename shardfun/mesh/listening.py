"""What an HTTP door needs from the machine: a listening socket, a token, a certificate.

The supervisor opens and checks them before anything starts, so that what is wrong is said at once and by one process; the door
gets the socket from it, and reads the files again.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import time
from pathlib import Path
from typing import Final

from shardfun.config.listening import parse_listen
from shardfun.config.schema import HttpConfig
from shardfun.errors import ConfigurationError, UnavailableError

LISTEN_BACKLOG: Final = 1024
TOKEN_CHARACTERS_MIN: Final = 16
TOKEN_CHARACTERS_MAX: Final = 4096
_PUBLIC: Final = stat.S_IRWXG | stat.S_IRWXO
TAKEN_WAIT_S: Final = 1.0
TAKEN_LOOK_S: Final = 0.05


def open_listener(http: HttpConfig) -> socket.socket:
    """The listening socket of ``http.listen``.

    Raises:
        UnavailableError: the address is taken, or is none of this machine.
    """
    listen = parse_listen(http.listen)
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _bind(made, (listen.host, listen.port))
        made.listen(LISTEN_BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            reason = "another program listens there already; stop it, or set another port (0: any free one)"
        elif error.errno == errno.EACCES:
            reason = "this user may not listen there; take a port of 1024 or more"
        else:
            reason = error.strerror or str(error)
        raise UnavailableError(f"http.listen: {listen}: {reason}") from error
    return made


def _bind(made: socket.socket, address: tuple[str, int]) -> None:
    """Bind, also if a node that was killed a moment ago has not let go of the address yet."""
    deadline = time.monotonic() + TAKEN_WAIT_S
    while True:
        try:
            made.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(TAKEN_LOOK_S)
        else:
            return


def url_of(http: HttpConfig, listener: socket.socket) -> str:
    """The address clients use, with the port there really is."""
    listen = parse_listen(http.listen)._replace(port=listener.getsockname()[1])
    return f"{'http' if http.tls_certificate is None else 'https'}://{listen}"


def read_token(path: Path) -> bytes:
    """The token in a private file.

    Raises:
        ConfigurationError: others may read the file, or it holds no token.
    """
    text = _private(path, "http.token_file").strip()
    if not TOKEN_CHARACTERS_MIN <= len(text) <= TOKEN_CHARACTERS_MAX or not all(0x21 <= byte < 0x7F for byte in text):
        msg = (
            f"http.token_file: {path}: expected one line of {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} printable ASCII "
            "characters without blanks; 'openssl rand -hex 32' makes one"
        )
        raise ConfigurationError(msg)
    return text


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server speaks HTTPS with: TLS 1.2 or newer, HTTP/1.1.

    Raises:
        ConfigurationError: others may read the key, or the files do not hold a certificate and its key.
    """
    _private(key, "http.tls_key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # an empty password: a key that has one is refused, where a terminal would be asked for it
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        msg = f"http.tls_certificate: expected a PEM certificate in {certificate} and its key without a password in {key}: {reason}"
        raise ConfigurationError(msg) from error
    return context


def check_files(http: HttpConfig) -> None:
    """Look at the files that are configured.

    Raises:
        ConfigurationError: as ``read_token`` and ``tls_context``.
    """
    if http.token_file is not None:
        read_token(http.token_file)
    if http.tls_certificate is not None and http.tls_key is not None:
        tls_context(http.tls_certificate, http.tls_key)


def _private(path: Path, setting: str) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(64 << 10)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path}: expected a readable file: {error.strerror or error}") from error
    if mode & _PUBLIC:
        raise ConfigurationError(f"{setting}: {path}: others may read it (mode {mode & 0o777:04o}); 'chmod 600 {path}'")
    return content
