"""The world in one thread: the real core of all shards and of the supervisor, everything around them simulated from a seed.

A seed decides everything: how many shards there are, how small their limits, what fails and when, and which of the things that
could happen next does. So a run that fails is repeated exactly by its seed. No sockets, processes, threads, files or clock here.

A run has two phases. In the *safety* phase things fail. Then the world heals, and in the *liveness* phase everything that was
admitted must come to its end, and another checkpoint must complete. Checks run all the time; the thorough ones at every complete
checkpoint, against a truth that is kept apart from the core.

In reading order: ``options`` (what a seed decides), ``world`` (what happens next), ``node`` and ``supervisor`` and ``process``
(drivers of the core), ``network``, ``disk`` and ``sinks`` (what they meet), ``faults``, ``checker`` and ``truth`` and ``view``
(what must hold), ``workloads`` (what runs), ``mutations`` (whether the checks find anything), ``campaign`` (many seeds).
"""
