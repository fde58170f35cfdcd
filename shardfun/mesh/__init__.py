"""Channels over nng: between shards, and between each shard and the supervisor. The only place that imports pynng."""
