"""Durable state: delta files, manifests, the data directory, and the key-value store. The only place that imports plyvel."""
