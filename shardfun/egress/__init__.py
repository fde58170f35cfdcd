"""Where published records go: one module per kind, found by ``config.kinds``."""
