"""Control messages: the only way in which supervisor and shard know each other.

Frozen structs, a closed union for each direction, CBOR arrays that begin with the kind. Everything that decides something in
the checkpoint protocol carries the incarnation, and a receiver ignores other incarnations.
"""

from __future__ import annotations

from typing import Any, Literal

import cbor2
import msgspec

from shardfun.errors import ProtocolError
from shardfun.model.cbor import load_cbor

CONTROL_BYTES_MAX = 16 << 20


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


# ---- supervisor to shard -------------------------------------------------------------------------------------------------
class Assign(_Message, frozen=True, array_like=True, tag="assign"):
    """A warm process becomes shard ``shard`` of ``shards``."""

    shard: int
    shards: int
    job: str
    directory: str


class Poison(_Message, frozen=True, array_like=True):
    """A message that has ended its process again and again: park it. ``key`` as in ``core.careful``."""

    key: bytes
    deaths: int
    reason: str


class Reset(_Message, frozen=True, array_like=True, tag="reset"):
    """Drop everything newer than checkpoint ``complete``, load it, listen for peers, answer ``Ready``.

    ``digest`` is that of this shard's delta of ``complete``; ``nonce`` names this start of the mesh. ``careful``: leave
    breadcrumbs, and park what is ``poison``; calls of ``suspects`` (keys of messages) run with nothing beside them.
    """

    incarnation: int
    complete: int
    digest: bytes
    nonce: str
    careful: bool = False
    poison: list[Poison] = []
    suspects: list[bytes] = []


class Start(_Message, frozen=True, array_like=True, tag="start"):
    """All shards are ready: dial ``peers`` (urls by shard number of those that listen for this one) and run."""

    incarnation: int
    peers: dict[int, str]


class Trigger(_Message, frozen=True, array_like=True, tag="trigger"):
    """Cut ``checkpoint``."""

    incarnation: int
    checkpoint: int


class Abort(_Message, frozen=True, array_like=True, tag="abort"):
    """``checkpoint`` will never be complete: merge its frozen changes back and go on."""

    incarnation: int
    checkpoint: int


class Complete(_Message, frozen=True, array_like=True, tag="complete"):
    """The manifest of ``checkpoint`` is durable: apply it. ``end``: the bounded input is used up, run ``on_end``."""

    incarnation: int
    checkpoint: int
    end: bool


class Finish(_Message, frozen=True, array_like=True, tag="finish"):
    """Publish what the last complete checkpoint holds, then exit with code 0."""

    incarnation: int


class Letters(_Message, frozen=True, array_like=True, tag="letters"):
    """Find dead letters, or change some; the answer is ``LettersDone``.

    ``list`` and ``show`` look at the store: at those with ``keys`` (names, as in ``model.letters``; none: all), for functions of
    ``typename`` if given, the newest ``limit``. ``replay`` and ``drop`` change those with ``keys`` (as stored).
    """

    incarnation: int
    request: int
    action: Literal["list", "show", "replay", "drop"]
    keys: list[bytes]
    typename: str | None
    limit: int


class LookAt(_Message, frozen=True, array_like=True, tag="look-at"):
    """Read the state of an address; the answer is ``Found``.

    ``after``: where a page of ``part`` begins, as in the token of an earlier answer.
    """

    incarnation: int
    request: int
    target: str
    id: str
    at: Literal["live", "checkpoint"]
    part: str | None
    after: str | None
    limit: int


class ListIds(_Message, frozen=True, array_like=True, tag="list-ids"):
    """Find ids of a type that have something stored, from a place in the order of all (slot and id) on; the answer is ``Found``."""

    incarnation: int
    request: int
    typename: str
    slot: int
    after: bytes
    limit: int


ToShard = Assign | Reset | Start | Trigger | Abort | Complete | Finish | Letters | LookAt | ListIds


# ---- shard to supervisor -------------------------------------------------------------------------------------------------
class Warm(_Message, frozen=True, array_like=True, tag="warm"):
    """The process has imported the application and waits for ``Assign``."""

    pid: int


class Ready(_Message, frozen=True, array_like=True, tag="ready"):
    """``Reset`` is done; ``listening``: urls by the number of the peer that shall dial."""

    incarnation: int
    listening: dict[int, str]
    notes: list[str]


class Prepared(_Message, frozen=True, array_like=True, tag="prepared"):
    """This shard's delta of ``checkpoint`` is durable.

    ``at_end``: all its ingresses are used up; ``quiet``: no message is waiting or on its way in this shard's part; ``ended``:
    the ``on_end`` messages were sent in an earlier checkpoint; ``published``: no egress record waits. ``loop_s``: seconds of the loop that the checkpoint took.
    ``parked``: the keys of the ``poison`` whose letters are part of it. ``suspects``: careful mode goes on after it.
    """

    incarnation: int
    checkpoint: int
    digest: bytes
    size_bytes: int
    records: int
    at_end: bool
    quiet: bool
    ended: bool
    published: bool
    loop_s: float
    positions: dict[str, Any]
    parked: list[bytes] = []
    suspects: bool = False


class Refused(_Message, frozen=True, array_like=True, tag="refused"):
    """The delta of ``checkpoint`` could not be written (disk full): abort it; nothing is lost."""

    incarnation: int
    checkpoint: int
    reason: str


class Applied(_Message, frozen=True, array_like=True, tag="applied"):
    """``checkpoint`` is in this shard's store; it may cut the next one."""

    incarnation: int
    checkpoint: int


class Changed(_Message, frozen=True, array_like=True, tag="changed"):
    """Something has happened since the last cut: a checkpoint would have something to keep. Sent once per cut.

    ``urgent``: changed state has passed its soft limit.
    """

    incarnation: int
    urgent: bool


class Loss(_Message, frozen=True, array_like=True, tag="loss"):
    """A frame of ``peer`` is missing or the channel is gone: the incarnation has to end."""

    incarnation: int
    peer: int
    reason: str


class Fatal(_Message, frozen=True, array_like=True, tag="fatal"):
    """The node has to stop: trying again would fail in the same way. ``exit_code`` and ``code`` as in ``errors``."""

    code: str
    exit_code: int
    reason: str
    detail: str


class Heartbeat(_Message, frozen=True, array_like=True, tag="heartbeat"):
    """From a thread of the shard, also while a function runs for long. Figures as in ``status.ShardStatus``.

    ``loop_age_s``: how long the invocation that runs now has been seen to run; ``running``: its address, ``""``: none runs.
    """

    incarnation: int
    loop_age_s: float
    running: str
    records_in: int
    invocations: int
    emitted: int
    published: int
    backlog: int
    dead_letters: int
    cached_bytes: int
    resident_bytes: int
    resumed_at: float
    """``time.time()`` of the first invocation in this incarnation, 0 before: for the recovery benchmark."""
    calls: int = 0
    blocked: int = 0
    metrics: list[list[Any]] = []
    """``[typename, name, kind, value]`` of what functions count themselves (see ``core.metrics``)."""
    timers: int = 0
    dirty_bytes: int = 0
    cpu_s: float = 0.0
    running_s: float = 0.0
    functions: list[list[Any]] = []
    """The fields of ``status.FunctionStatus`` in their order; at most one more than ``core.totals.TYPES_MAX``."""
    ingress: list[list[Any]] = []
    egress: list[list[Any]] = []
    troubles: list[str] = []
    waits_for_space: bool = False
    """The disk is full, and the shard cannot restore before it has room."""


class LettersDone(_Message, frozen=True, array_like=True, tag="letters-done"):
    """The answer to ``Letters``.

    ``found``: key and content of letters; ``total``: how many fit. ``outcomes``: for each key of a change, as in ``core.letters``;
    it is part of every checkpoint of this incarnation behind ``cut``. ``error``: why there is no answer.
    """

    incarnation: int
    request: int
    found: list[tuple[bytes, bytes]]
    total: int
    outcomes: list[str]
    cut: int
    error: str


class Found(_Message, frozen=True, array_like=True, tag="found"):
    """The answer to ``LookAt`` (JSON of ``questions.StateAnswer``) or ``ListIds`` (JSON of ``Ids``).

    ``code``: why there is none, as in ``errors``; ``reason``: for people.
    """

    incarnation: int
    request: int
    answer: bytes
    code: str
    reason: str


class Ids(msgspec.Struct, frozen=True):
    """Some ids of one shard, as of the applied ``checkpoint``. More may follow from ``slot`` on, and in it behind ``after``."""

    ids: list[str]
    slot: int
    after: bytes
    checkpoint: int


ToSupervisor = Warm | Ready | Prepared | Refused | Applied | Changed | Loss | Fatal | Heartbeat | LettersDone | Found


def encode_control(message: ToShard | ToSupervisor) -> bytes:
    """A control message as CBOR."""
    return cbor2.dumps(msgspec.to_builtins(message, builtin_types=(bytes,)))


def decode_to_shard(raw: bytes) -> ToShard:
    """Raises ProtocolError if it is not a message for a shard."""
    message: ToShard = _decode(raw, ToShard)
    return message


def decode_to_supervisor(raw: bytes) -> ToSupervisor:
    """Raises ProtocolError if it is not a message for the supervisor."""
    message: ToSupervisor = _decode(raw, ToSupervisor)
    return message


def _decode(raw: bytes, expected: Any) -> Any:
    if len(raw) > CONTROL_BYTES_MAX:
        msg = f"control message of {len(raw)} bytes: expected at most {CONTROL_BYTES_MAX}"
        raise ProtocolError(msg)
    try:
        return msgspec.convert(load_cbor(raw), expected)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # ``ValidationError`` is one of the first
        msg = f"control message: {error}"
        raise ProtocolError(msg) from error
