"""The limits of a store, in one place. No code: the in-memory store must not import LevelDB for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store uses memory and disk.

    Args:
        write_buffer_bytes: a larger one takes longer to replay at open (8 MiB: about 60 ms), a smaller one stalls writes.
        cache_bytes: blocks of tables kept decompressed. Small: the shard caches decoded states itself.
        bloom_bits: per key; 10 give 1 % of needless table reads for absent keys.
        open_files_max: table files held open.
        flush_deltas: force a flush after this many applied deltas ...
        flush_bytes: ... or this many bytes of them, whichever comes first.
    """

    write_buffer_bytes: int = 8 << 20
    cache_bytes: int = 4 << 20
    bloom_bits: int = 10
    open_files_max: int = 200
    flush_deltas: int = 16
    flush_bytes: int = 64 << 20
