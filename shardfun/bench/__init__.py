"""Benchmarks behind ``shardfun bench``: real nodes with everything on, beside a reference measured in the same run.

Absolute figures of one machine say little and move from run to run; ratios against the bare loop of the same run, and CPU time per
invocation, say more. So every result has both.
"""
