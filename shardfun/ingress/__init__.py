"""Where records come from: one module per kind, found through the entry points ``shardfun.ingress``."""
