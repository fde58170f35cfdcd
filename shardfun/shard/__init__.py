"""A shard process: the driver that moves bytes between the core and the world.

In reading order: ``process`` (start, assignment, incarnations), ``loop`` (one iteration of the hot loop), ``doors`` (ingress readers
and egress publishers), ``worker`` (what blocks), ``heartbeat`` (what runs beside the loop), ``program`` (application and
configuration to what the core runs).
"""
