"""Stateful functions in Python, exactly once. This module is the public API and imports nothing heavy."""
