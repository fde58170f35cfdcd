"""Transfers between accounts: the example in which every lost or repeated message is missing money.

Two applications of the same function. ``app`` lets accounts go below zero: no decision depends on how transfers of different
accounts interleave, so all results are those of the plain computation in ``check``, whatever fails. ``strict`` refuses what is
not covered, which does depend on it; its results are checked against each other: money is conserved, no balance is negative,
and each balance is what the published outcomes say.
"""

from shardfun.examples.bank.functions import app, strict
from shardfun.examples.bank.simulated import simulation, strict_simulation

__all__ = ["app", "simulation", "strict", "strict_simulation"]
