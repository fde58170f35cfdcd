"""Every setting of a node: its name, type, range, default and meaning. The only place where a default is written.

One frozen struct per section. The key in the file is the name of the attribute without its unit: ``interval_s`` is read from
``interval = "200 ms"``, ``cache_bytes`` from ``cache = "256 MiB"``. The sentence below each attribute is what the reference
file ``conf/shardfun.toml`` says about it. Nothing here knows how a file is read or where a value came from.

A check that spans settings stands in ``__post_init__`` and raises ``ConfigurationError`` with a problem that begins with the
key and a colon, from which the loader finds the line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from shardfun.config.kinds import Group, load_kind
from shardfun.config.listening import parse_listen
from shardfun.config.units import Duration, Size, format_size, toml_key
from shardfun.errors import ConfigurationError, DefinitionError
from shardfun.model.address import check_typename

SHARDS_MAX: Final = 64
RETRIES_MAX: Final = 100
POISON_DEATHS_MAX: Final = 1000
SPARES_MAX: Final = 4
RESERVED_BUFFER_FRAMES: Final = 8
"""Slots of a link's buffer that data frames never take, so that a barrier or a credit frame always finds room."""

Name: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="1 to 64 letters, digits, '.', '_' or '-'")
]
AppPath: TypeAlias = Annotated[
    str, Meta(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$", description="'package.module:attribute'")
]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=toml_key):
    """What all sections have in common."""


class CheckpointConfig(Section, frozen=True, kw_only=True):
    """Checkpoints: how often the state of the whole node is made durable, which is also when results are published."""

    interval_s: Annotated[float, Duration(0.01, 3600)] = 0.2
    """Time from the start of one checkpoint to the start of the next. About the latency of an exactly-once result."""
    timeout_s: Annotated[float, Duration(0.1, 3600)] = 30.0
    """A checkpoint that is not prepared by all shards after this time is aborted; the next one is tried."""
    idle_interval_s: Annotated[float, Duration(0.01, 3600)] = 5.0
    """A checkpoint is forced after this time even if nothing changed: it finds a lost last frame on an idle link."""
    loop_share: Annotated[float, Meta(ge=0.001, le=1.0)] = 0.1
    """The largest share of a shard's time that may go into checkpoints: after one that cost C seconds of the loop, the
    next one does not start before C / loop_share."""


class StateConfig(Section, frozen=True, kw_only=True):
    """State: the memory each shard may use."""

    cache_bytes: Annotated[int, Size(1 << 20)] = 256 << 20
    """State records and entries of maps kept in memory, per shard. What is beyond it is read from disk again when it is needed."""
    write_buffer_bytes: Annotated[int, Size(64 << 10, 1 << 30)] = 8 << 20
    """LevelDB's write buffer, per shard."""
    dirty_soft_bytes: Annotated[int, Size(64 << 10)] = 64 << 20
    """Changes since the last checkpoint, per shard, that ask for a checkpoint before its interval is over."""
    dirty_hard_bytes: Annotated[int, Size(64 << 10)] = 256 << 20
    """Changes since the last checkpoint, per shard, at which no function runs until a checkpoint is applied."""

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        if self.dirty_hard_bytes < self.dirty_soft_bytes:
            raise ConfigurationError(
                f"dirty_hard: expected at least dirty_soft ({format_size(self.dirty_soft_bytes)}), "
                f"got {format_size(self.dirty_hard_bytes)}"
            )


class MeshConfig(Section, frozen=True, kw_only=True):
    """Mesh: how shards are connected with each other and with the supervisor."""

    transport: Literal["ipc", "tcp"] = "ipc"
    """"ipc": sockets in the file system, one machine. "tcp": needed only where these cannot be used."""
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """The address tcp sockets listen on. Anything but loopback lets others on that network reach the shards."""
    frame_messages: Annotated[int, Meta(ge=1, le=65_536)] = 1000
    """The most messages in one frame."""
    window_frames: Annotated[int, Meta(ge=1, le=4096)] = 24
    """Credit of a link: how many frames may be on their way or wait in the receiver's inbox."""
    buffer_frames: Annotated[int, Meta(ge=9, le=8192)] = 32
    """Frames the socket of a link buffers. At least window_frames + 8, so that a barrier never waits for room."""

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        least = self.window_frames + RESERVED_BUFFER_FRAMES
        if self.buffer_frames < least:
            raise ConfigurationError(
                f"buffer_frames: expected at least window_frames + {RESERVED_BUFFER_FRAMES} = {least}, got {self.buffer_frames}"
            )


class FlowConfig(Section, frozen=True, kw_only=True):
    """Flow: how many messages may wait in a shard."""

    backlog_high: Annotated[int, Meta(ge=1)] = 50_000
    """Waiting messages, per shard, at which no more is read from ingresses."""
    backlog_low: Annotated[int, Meta(ge=0)] = 20_000
    """Waiting messages, per shard, below which reading goes on."""
    backlog_limit: Annotated[int, Meta(ge=1)] = 2_000_000
    """Waiting messages, per shard, at which the node stops: the application floods itself, a restart would not help."""
    egress_pending_bytes: Annotated[int, Size(64 << 10)] = 16 << 20
    """Results of one egress, per shard, that wait for their sink; beyond it no more is read from ingresses."""
    ingress_batch: Annotated[int, Meta(ge=1, le=65_536)] = 1000
    """The most records read from an ingress at once."""

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        if self.backlog_low >= self.backlog_high:
            raise ConfigurationError(
                f"backlog_low: expected less than backlog_high ({self.backlog_high}), got {self.backlog_low}"
            )
        if self.backlog_limit <= self.backlog_high:
            raise ConfigurationError(
                f"backlog_limit: expected more than backlog_high ({self.backlog_high}), got {self.backlog_limit}"
            )


class FailureConfig(Section, frozen=True, kw_only=True):
    """Failure: what happens to a message whose function raises."""

    retries: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] = 3
    """Extra attempts before the message is parked as a dead letter."""
    poison_deaths: Annotated[int, Meta(ge=1, le=POISON_DEATHS_MAX)] = 3
    """Deaths of a shard process in a row inside the same message after which that message is parked. A death by a signal
    that may have come from outside, as SIGKILL, counts half. Twice this should be below restarts_without_checkpoint."""
    validate_sends: bool = False
    """Check every field of every message sent, not only its class. Slower; finds wrong values where they are made."""


class CallsConfig(Section, frozen=True, kw_only=True):
    """Calls: async and blocking functions, and operations, which run beside the loop of a shard."""

    concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] = 4000
    """Calls under way at once, per shard. What is beyond it waits."""
    concurrency_per_type: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Invocations of one async function type at once, per shard, unless the function says otherwise."""
    threads: Annotated[int, Meta(ge=1, le=4096)] = 16
    """Threads for blocking code, per shard; also how many invocations of one blocking function type run at once."""


class TimersConfig(Section, frozen=True, kw_only=True):
    """Timers: messages that functions send later."""

    at_end: Literal["keep", "wait", "fire"] = "keep"
    """What becomes of them when all ingresses are at their end. "keep": the run ends, they stay stored and fire no more.
    "wait": the run ends when none is pending. "fire": they fire at once, in order, and the run ends when none is pending."""


class SupervisionConfig(Section, frozen=True, kw_only=True):
    """Supervision: when a shard counts as dead, and when the node gives up."""

    heartbeat_interval_s: Annotated[float, Duration(0.01, 60)] = 0.25
    """Each shard tells the supervisor this often that its process is alive, and what it is running."""
    heartbeat_timeout_s: Annotated[float, Duration(0.05, 3600)] = 5.0
    """A shard that is silent for longer is killed and replaced."""
    spares: Annotated[int, Meta(ge=0, le=SPARES_MAX)] = 1
    """Processes that wait with the application imported, so that a dead shard is replaced within milliseconds."""
    restarts_without_checkpoint: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """Recoveries in a row without a completed checkpoint after which the node gives up."""
    start_timeout_s: Annotated[float, Duration(1, 3600)] = 60.0
    """Time a shard has to import the application and restore its state."""
    stop_timeout_s: Annotated[float, Duration(0.1, 3600)] = 30.0
    """Time a clean stop has, its last checkpoint included, before processes are killed."""
    invocation_timeout_s: Annotated[float, Duration(0.1, 86_400)] = 300.0
    """A function that runs for longer is stuck: its shard is killed and replaced."""

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        if self.heartbeat_timeout_s < 2 * self.heartbeat_interval_s:
            raise ConfigurationError(
                f"heartbeat_timeout: expected at least twice heartbeat_interval ({self.heartbeat_interval_s:g} s), "
                f"got {self.heartbeat_timeout_s:g} s"
            )


class LogConfig(Section, frozen=True, kw_only=True):
    """Log: what the node says of itself."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is written."""
    file: Path | None = None
    """Write JSON lines to this file, rotated by size, instead of to standard error."""
    format: Literal["console", "json"] = "console"
    """"console" is for reading, "json" is one object a line. A file is always JSON."""


class HttpConfig(Section, frozen=True, kw_only=True):
    """HTTP: a process that serves the node over HTTP. Without this section there is none."""

    listen: str = "127.0.0.1:8484"
    """The address and port; port 0 takes a free one, which the log and the status name. Beyond loopback a token_file is
    needed: without one whoever reaches the port may do everything."""
    token_file: Path | None = None
    """A private file (mode 0600) with the token that clients send as 'Authorization: Bearer TOKEN'."""
    tls_certificate: Path | None = None
    """The certificate chain (PEM). With it and tls_key the door speaks HTTPS only."""
    tls_key: Path | None = None
    """The private key (PEM, a private file) of the certificate."""
    body_bytes: Annotated[int, Size(1 << 10, 64 << 20)] = 1 << 20
    """The largest body of a request, and the longest line of a stream of records."""
    backlog_bytes: Annotated[int, Size(1 << 20)] = 64 << 20
    """Accepted messages, requests and records that no complete checkpoint has read yet; beyond it clients are told to come
    back later (429)."""
    wait_max_s: Annotated[float, Duration(0.1, 3600)] = 60.0
    """The longest time a request may wait for its reply ('?wait=')."""
    idempotency_window_s: Annotated[float, Duration(1, 365 * 86_400)] = 86_400.0
    """How long an Idempotency-Key and its reply are remembered after their last use. A function that takes longer to reply has
    nobody to reply to."""
    connections: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Open connections; one more is answered with 503."""
    read_timeout_s: Annotated[float, Duration(0.1, 3600)] = 30.0
    """Time a client has to send a whole request; of a stream of records, the longest silence."""
    write_timeout_s: Annotated[float, Duration(0.1, 3600)] = 30.0
    """Time a client has to take a piece of an answer, before its connection is closed."""
    keep_alive_s: Annotated[float, Duration(0.1, 3600)] = 75.0
    """An idle connection is closed after this time."""
    heartbeat_s: Annotated[float, Duration(0.1, 3600)] = 15.0
    """A stream of events that has nothing to say sends a comment this often."""
    access_log: bool = False
    """Log each request: method, route, status and time. Never its id, its body or its token."""

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        try:
            listen = parse_listen(self.listen)
        except ValueError as error:
            raise ConfigurationError(f"listen: {error}") from error
        if self.token_file is None and not listen.loopback:
            raise ConfigurationError(
                f"listen: expected a token_file beside an address beyond loopback, got {self.listen!r} without one; "
                "whoever reaches the port could do everything"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            key = "tls_key" if self.tls_key is None else "tls_certificate"
            raise ConfigurationError(f"{key}: required: a certificate and its key belong together")


class IngressConfig(Section, frozen=True, kw_only=True):
    """One ingress: where events come from."""

    kind: str
    """The kind of source."""
    target: str | None = None
    """Every record goes to this function type; instead of a router in the application."""
    id_field: Annotated[str, Meta(min_length=1)] | None = msgspec.field(default=None, name="id")
    """The field of the record that holds the id of the address; with ``target``."""
    options: Any
    """An instance of the kind's options struct. In the file, its keys stand beside ``kind``."""

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        if self.target is not None:
            try:
                check_typename(self.target)
            except DefinitionError as error:
                raise ConfigurationError(f"target: {error}") from error
        elif self.id_field is not None:
            raise ConfigurationError(
                "id: expected 'target' beside it; without a target a router of the application picks the address"
            )


class EgressConfig(Section, frozen=True, kw_only=True):
    """One egress: where results go to."""

    kind: str
    """The kind of sink."""
    options: Any
    """An instance of the kind's options struct. In the file, its keys stand beside ``kind``."""


class Config(Section, frozen=True, kw_only=True):
    """All settings of a node. Paths are absolute.

    ``load_config`` makes one from a file and checks ranges; made by hand, only the checks across settings run.
    """

    app: AppPath
    """The application: package.module:attribute."""
    name: Name
    """The name of the node. By default the name of this file without its ending."""
    data_dir: Path
    """The folder for all durable data. By default data/NAME. Relative paths, here and in [log], [ingress.NAME] and
    [egress.NAME], are relative to the folder of this file."""
    shards: Annotated[int, Meta(ge=1, le=SHARDS_MAX)] = 2
    """Shard processes. A data directory keeps the number it was made with."""
    endless: bool = False
    """Run until stopped, also when all ingresses are at their end: messages may come from outside. With [http], and when the
    node is embedded in a program, it always does."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    state: StateConfig = StateConfig()
    mesh: MeshConfig = MeshConfig()
    flow: FlowConfig = FlowConfig()
    failure: FailureConfig = FailureConfig()
    calls: CallsConfig = CallsConfig()
    timers: TimersConfig = TimersConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    log: LogConfig = LogConfig()
    http: HttpConfig | None = None
    ingress: dict[str, IngressConfig] = {}
    egress: dict[str, EgressConfig] = {}

    def to_dict(self) -> dict[str, Any]:
        """As plain values that CBOR knows: durations are float seconds, sizes are bytes, paths are texts."""
        plain = msgspec.to_builtins(self, enc_hook=_encode_path)
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``; imports the kinds of its ingresses and egresses.

        Raises:
            ConfigurationError: ``plain`` did not come from ``to_dict`` of this version, or a kind is not installed.
        """
        try:
            config = msgspec.convert(plain, cls, dec_hook=_decode_path)
            ingress = {name: _with_options("ingress", entry) for name, entry in config.ingress.items()}
            egress = {name: _with_options("egress", entry) for name, entry in config.egress.items()}
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"configuration from another process: {error}; are both of the same version?") from error
        return msgspec.structs.replace(config, ingress=ingress, egress=egress)


_Entry = TypeVar("_Entry", IngressConfig, EgressConfig)


def _with_options(group: Group, entry: _Entry) -> _Entry:
    options = msgspec.convert(entry.options, load_kind(group, entry.kind).options, dec_hook=_decode_path)
    return msgspec.structs.replace(entry, options=options)


def _encode_path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"expected a path or a type msgspec knows, got {type(value).__name__}")


def _decode_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected the text of a path for {kind.__name__}, got {type(value).__name__}")
