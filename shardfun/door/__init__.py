"""The HTTP door: a process that serves a node over HTTP.

It takes messages in through an intake of its own, so what it acknowledges is durable whatever dies next, and asks the supervisor
through the node's question socket for everything else. It knows the application (to tell which functions there are and what they
accept), and nothing of shards.
"""
