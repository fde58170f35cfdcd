"""Messages from outside become durable here, and their replies come back: one log per process that takes them in.

An *owner* (the supervisor's process: ``local``; the door: ``http``) appends to its log and returns when it is on the disk. Shards
read the logs as ingresses, with positions in the checkpoint. Knows nothing of HTTP, of supervisors and of shards.
"""
