"""Applications of users in the simulated world: where their input comes from, how they run, and what their results are held against.

In reading order: ``subject`` (what is run: application, input, checks), ``inputs`` (records, shared among the shards), ``workload``
(what the world sees), ``ending`` and ``checkpoints`` (what a run has led to), ``coroutines`` (code that awaits), ``child`` (a process
for each run), ``runs`` (an undisturbed run and a disturbed one, compared).
"""
