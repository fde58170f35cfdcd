"""Egress kind ``webhook``: published records sent by POST, in order, each request again and again until it is accepted.

Whether a request was taken whose answer is lost can only be found out by sending it again. So a request is repeated unchanged,
under the same ``Idempotency-Key``, also after a crash (see ``egress.journal``): a receiver that remembers the last key of each
partition processes each record exactly once. At most one request per partition is ever repeated.
"""

from __future__ import annotations

import http.client
import ipaddress
import random
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, assert_never
from urllib.parse import SplitResult, urlsplit

import msgspec
import structlog

from shardfun.config.units import Duration, Size, toml_key
from shardfun.egress.journal import Attempt, Form, Journal
from shardfun.egress.jsonlines import encode_line
from shardfun.egress.post import Answer, Poster, read_token
from shardfun.errors import ConfigurationError, EgressError
from shardfun.ports import Partition, PublishedPosition

WEBHOOKS_FOLDER: Final = "webhooks"
SLICE_S: Final = 1.0
"""About so long is one call of ``publish``: a recovery has to wait for its end."""

BACKOFF_S: Final = 0.1
BACKOFF_DOUBLINGS_MAX: Final = 30
TEMPORARY: Final = (408, 425, 429)

log = structlog.get_logger("shardfun.egress")


class WebhookEgressOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename=toml_key):
    """Settings of a webhook.

    Args:
        url: where records are sent to; http or https.
        batch: the most records in one request. With 1 the body is the record.
        batch_bytes: a request with several records is not larger than this.
        format: how several records go into one body: a JSON array, or one a line ("ndjson").
        timeout_s: the longest wait for a connection, and for the next piece of an answer.
        retry_max_s: the longest pause between two attempts; the first ones are much shorter.
        refused: what to do when the receiver refuses a request for good (a 3xx or 4xx status but 408, 425, 429): go on trying, and hold
            back what follows; or drop its records, say so in the log, and go on.
        token_file: a private file (mode 0600) with a token that is sent as "Authorization: Bearer TOKEN".
        ca_file: certificates (PEM) to trust, instead of those of the system.
        fsync: whether the beginning of each request outlives a power cut. Without it a batch may come again in other pieces then.
    """

    url: str
    batch: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    batch_bytes: Annotated[int, Size(1 << 10, 64 << 20)] = msgspec.field(default=1 << 20, name="batch_size")
    format: Literal["json", "ndjson"] = "json"
    timeout_s: Annotated[float, Duration(0.1, 600)] = 30.0
    retry_max_s: Annotated[float, Duration(0.1, 3600)] = 60.0
    refused: Literal["retry", "drop"] = "retry"
    token_file: Path | None = None
    ca_file: Path | None = None
    fsync: bool = True

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that cannot work."""
        try:
            url = urlsplit(self.url)
            port_fits = url.port is None or url.port > 0
        except ValueError as error:
            raise ConfigurationError(
                f"url: expected an address such as https://example.org/hook, got {self.url!r}: {error}"
            ) from error
        if (
            url.scheme not in ("http", "https")
            or not url.hostname
            or not port_fits
            or not self.url.isprintable()
            or " " in self.url
        ):
            raise ConfigurationError(f"url: expected an address such as https://example.org/hook, got {self.url!r}")
        if url.username is not None or url.password is not None:
            raise ConfigurationError("url: expected no name or password in it; put a token into a token_file")
        if url.fragment:
            raise ConfigurationError(f"url: expected no '#' in it, got {self.url!r}")
        if self.token_file is not None and url.scheme == "http" and not _is_loopback(url.hostname):
            raise ConfigurationError("token_file: expected an https url with it, else the token travels readable for everybody")


class WebhookEgress:
    """The requests of one partition."""

    options: ClassVar[type[WebhookEgressOptions]] = WebhookEgressOptions

    def __init__(self, name: str, options: WebhookEgressOptions, partition: Partition) -> None:
        self._label = f"egress {name!r}"
        self._options = options
        self._url: SplitResult = urlsplit(options.url)
        self._prefix = f"{partition.job}/{name}/{partition.index}"
        folder = partition.data_dir / WEBHOOKS_FOLDER / name
        self._journal = Journal(folder / str(partition.index), partition.job, fsync=options.fsync)
        self._poster: Poster | None = None
        self._headers: dict[str, str] = {}
        self._next = 0
        """The number of the next record."""
        self._attempt: Attempt | None = None
        """A request that may have been taken: it has to be repeated as it was."""
        self._failures = 0
        self._failure = ""
        self._not_before = 0.0
        self._interrupted = False

    @classmethod
    def check(cls, options: WebhookEgressOptions, partitions: int) -> str | None:  # noqa: ARG003 - same for all kinds
        """What is wrong with the files of the options, as one sentence; ``None``: nothing."""
        try:
            if options.token_file is not None:
                read_token(options.token_file)
            _context_of(options)
        except EgressError as error:
            return str(error)
        except OSError as error:
            file = options.token_file if options.ca_file is None else options.ca_file
            return f"cannot use {error.filename or file}: {error.strerror or error}"
        return None

    @classmethod
    def remove_outputs(cls, options: WebhookEgressOptions, partitions: int) -> None:
        """Nothing: what was sent cannot be taken back, and the journal is in the data directory."""

    def encode(self, value: Any) -> bytes:
        """The value as a line of JSON.

        Raises:
            TypeError: something in the value has no form in JSON.
        """
        return encode_line(value)

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        """Find out from the journal how many of the ``pending`` records were taken. Sends nothing.

        Raises:
            EgressError: the journal, the token or the certificates cannot be read.
        """
        self.close()
        self._interrupted = False
        self._failures, self._failure, self._not_before = 0, "", 0.0
        try:
            attempt = self._journal.open()
            self._poster = Poster(self._url, self._options.timeout_s, _context_of(self._options))
            self._headers = self._fixed_headers()
        except OSError as error:
            self.close()
            msg = f"{self._label}: cannot use {error.filename or 'its files'}: {error.strerror or error}"
            raise EgressError(msg, errno=error.errno) from error
        except EgressError as error:
            self.close()
            raise EgressError(f"{self._label}: {error}") from error
        end = published.records + len(pending)
        # A journal from elsewhere: of a restored backup, or of a checkpoint that was given up.
        if attempt is not None and not (published.records <= attempt.first and attempt.first + attempt.records <= end):
            attempt = None
        self._attempt = attempt
        self._next = published.records if attempt is None else attempt.first
        return self._next - published.records

    def publish(self, records: Sequence[bytes]) -> int:
        """Send records for about a second; how many were accepted. What was not is to be given again.

        Raises:
            EgressError: the next request was not accepted; ``retry_s`` says when to try again.
        """
        done = 0
        until = time.monotonic() + SLICE_S
        while done < len(records) and not (done and time.monotonic() > until):
            if time.monotonic() < self._not_before:
                raise EgressError(self._failure, retry_s=self._not_before - time.monotonic())
            attempt = self._attempt or Attempt(self._next, self._fitting(records, done), self._form)
            try:
                self._send(attempt, records[done : done + attempt.records])
            except EgressError:
                if done:
                    return done
                raise
            done += attempt.records
        return done

    def interrupt(self) -> None:
        """From another thread: end a call of ``publish`` soon; the next one is ``open`` or ``close``."""
        self._interrupted = True
        if self._poster is not None:
            self._poster.interrupt()

    def close(self) -> None:
        """Close the connection and the journal. Safe to call twice."""
        if self._poster is not None:
            self._poster.close()
            self._poster = None
        self._journal.close()

    # ---- requests -------------------------------------------------------------------------------------------------------
    def _fixed_headers(self) -> dict[str, str]:
        headers = {"User-Agent": "shardfun"}
        if self._options.token_file is not None:
            headers["Authorization"] = f"Bearer {read_token(self._options.token_file)}"
        return headers

    @property
    def _form(self) -> Form:
        return "single" if self._options.batch == 1 else self._options.format

    def _fitting(self, records: Sequence[bytes], first: int) -> int:
        """How many records go into the next request: at least one."""
        size, count = 0, 0
        for record in records[first : first + self._options.batch]:
            size += len(record)
            if count and size > self._options.batch_bytes:
                break
            count += 1
        return count

    def _send(self, attempt: Attempt, records: Sequence[bytes]) -> None:
        assert len(records) == attempt.records, "what was tried once is tried as a whole again"
        assert self._poster is not None, "open() comes first"
        key = f"{self._prefix}/{attempt.first}"
        if attempt.form != "single":
            key += f"-{attempt.first + attempt.records - 1}"
        if attempt is not self._attempt:
            try:
                self._journal.write(attempt)
            except OSError as error:
                raise self._failed(f"cannot write its journal: {error.strerror or error}", None) from error
            self._attempt = attempt
        kind, body = _body(attempt.form, records)
        try:
            answer = self._poster.post(body, self._headers | {"Content-Type": kind, "Idempotency-Key": key})
        except (OSError, http.client.HTTPException) as error:
            text = getattr(error, "strerror", None) or f"{type(error).__name__} {error}".strip()
            raise self._failed(f"{self._shown_url} cannot be reached: {text:.200}", None) from error
        if not 200 <= answer.status < 300:
            self._rejected(key, answer)
        self._next = attempt.first + attempt.records
        self._attempt = None
        self._failures = 0

    def _rejected(self, key: str, answer: Answer) -> None:
        """Raise the error after which the request is repeated; or, for a refusal, count it as done if that is wanted."""
        said = f"{answer.status} {answer.reason}" + (f" ({answer.text})" if answer.text else "")
        if answer.status >= 500 or answer.status in TEMPORARY:
            raise self._failed(f"{self._shown_url} answered {said}", answer.retry_after_s)
        if self._options.refused == "drop":
            log.error("refused by its receiver, dropped", egress=self._label, key=key, answer=said)
            return
        text = f"{self._shown_url} refuses {key} with {said}; nothing that follows is sent until it is accepted: "
        raise self._failed(f"{text}correct the receiver, or set refused = 'drop'", answer.retry_after_s)

    def _failed(self, text: str, retry_after_s: float | None) -> EgressError:
        """The next attempt comes after a pause that doubles each time, by chance half or once more as long."""
        doublings = min(self._failures, BACKOFF_DOUBLINGS_MAX)
        pause = BACKOFF_S * 2**doublings * random.uniform(0.5, 1.5)  # noqa: S311 - so that not all come at once
        pause = min(max(pause, retry_after_s or 0.0), self._options.retry_max_s)
        self._failures += 1
        self._failure = f"{self._label}: {text}" if not self._interrupted else f"{self._label}: interrupted by a recovery"
        self._not_before = time.monotonic() + pause
        return EgressError(self._failure, retry_s=pause)

    @property
    def _shown_url(self) -> str:
        """Without what may be a secret."""
        return self._url._replace(query="").geturl()


def _body(form: Form, records: Sequence[bytes]) -> tuple[str, bytes]:
    """Content type and body of a request."""
    match form:
        case "single":
            return "application/json", records[0].removesuffix(b"\n")
        case "json":
            return "application/json", b"[" + b",".join(record.removesuffix(b"\n") for record in records) + b"]"
        case "ndjson":
            return "application/x-ndjson", b"".join(records)
        case _:
            assert_never(form)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _context_of(options: WebhookEgressOptions) -> ssl.SSLContext | None:
    """Certificates and host names are always checked."""
    if urlsplit(options.url).scheme != "https":
        return None
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except ssl.SSLError as error:
        raise EgressError(f"ca_file: expected certificates (PEM) in {options.ca_file}: {error.reason or error}") from error
