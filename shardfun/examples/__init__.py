"""Runnable applications: what ``conf/`` starts, what the documentation shows, and what the tests put under SIGKILL."""
