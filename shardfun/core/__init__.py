"""Every decision of the runtime, as plain synchronous objects: events in, effects out.

House rules: no Trio, nng, LevelDB, clock, file, thread or log here; time and randomness are handed in. No iteration over sets and no
``hash()`` or ``id()``: two runs with the same inputs must be identical, because the simulator repeats a failure from its seed.
Work comes and goes in batches of columns; there is no object per message.

In reading order: ``function`` (what can run), ``queue`` (what waits), ``records`` (state in memory), ``runner`` (one batch),
``dispatch`` (routing and failures), ``link`` (a channel to a peer), ``participant`` (a shard's side of a checkpoint), ``snapshot``
(what a checkpoint holds), ``shard`` (all of these together), ``coordinator`` and ``membership`` (the supervisor's side).
"""
