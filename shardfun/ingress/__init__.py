"""Where records come from: one module per kind, found by ``config.kinds``."""
