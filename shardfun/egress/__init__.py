"""Where published records go: one module per kind, found through the entry points ``shardfun.egress``."""
