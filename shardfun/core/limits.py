"""Every maximum of the core, by name. Nothing in the core is unbounded; what is not here is bounded by something that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shardfun.model.frames import FRAME_BYTES_MAX

MIB = 1 << 20

AtEnd = Literal["keep", "wait", "fire"]
"""What becomes of pending timers when a bounded run is at its end: they stay stored, are waited for, or fire at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one shard.

    Args:
        frame_messages: messages per frame; also when a peer's outbox counts as full and is flushed.
        frame_bytes: above this a link puts fewer messages into a frame, since a long one holds up the barrier behind it.
        frame_bytes_max: no frame is larger; what does not fit alone is parked.
        window_frames: data frames that may be under way to a peer without being taken out of its inbox. Smaller than the
            transport's buffer by a reserve for control frames, so that a barrier never waits for space.
        mailbox_refill: frames move from inboxes to mailboxes while fewer messages than this wait there.
        cache_bytes: estimated bytes of state records and entries of maps kept in memory.
        dirty_soft_bytes: changed state that asks for a checkpoint at once; ``dirty_hard_bytes``: stops executing until one
            is applied (never receiving, never the checkpoint).
        retries: further attempts before a message that fails is parked.
        backlog_limit: messages waiting in a shard (mailbox, inboxes, outboxes) at which the node stops.
        owner_cache: ids whose owner is remembered; the cache is cleared when full.
        encode_records: records per piece of checkpoint work on the loop (about 0.3 ms).
        traceback_bytes: of a traceback kept in a dead letter.
        egress_pending_bytes: records of one egress that wait for their sink; more stops the ingress.
        calls: invocations and operations beside the loop at once; ``calls_per_type`` of one async function type,
            ``blocking_calls_per_type`` of one blocking one, unless it says otherwise.
        wildcard_types_max: names of namespaces with a function (``shop/*``) that a shard meets; each becomes a function type.
        timers_near: pending timers in memory, about; at most twice as many.
        timers_load: timers read from the store in one piece of work (about 1 ms).
        timers_fire: timers fired in one piece of work (about 2 ms), if the queues have room (``mailbox_refill``).
        timers_at_end: see ``AtEnd``.
        expiry_round_ms: what is stored is looked at for what has expired not more often than this.
        expiry_keys: stored keys looked at in one piece of that (about 0.5 ms); ``expiry_pause_ms``: pause between two pieces.
        validate_sends: also check the fields of payloads when they are sent.
    """

    frame_messages: int = 1000
    frame_bytes: int = MIB
    frame_bytes_max: int = FRAME_BYTES_MAX
    window_frames: int = 24
    mailbox_refill: int = 4000
    cache_bytes: int = 256 * MIB
    dirty_soft_bytes: int = 64 * MIB
    dirty_hard_bytes: int = 256 * MIB
    retries: int = 3
    backlog_limit: int = 2_000_000
    owner_cache: int = 200_000
    encode_records: int = 500
    traceback_bytes: int = 16_384
    egress_pending_bytes: int = 16 * MIB
    calls: int = 4000
    calls_per_type: int = 1000
    blocking_calls_per_type: int = 16
    wildcard_types_max: int = 1000
    timers_near: int = 10_000
    timers_load: int = 500
    timers_fire: int = 200
    timers_at_end: AtEnd = "keep"
    expiry_round_ms: int = 60_000
    expiry_keys: int = 200
    expiry_pause_ms: int = 10
    validate_sends: bool = False
