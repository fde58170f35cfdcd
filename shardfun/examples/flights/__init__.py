"""Flights out of New York: rotations of aircraft, statistics of airports and carriers.

An example with real data whose result can be checked: what it publishes depends only on the order of the events of one aircraft
and on integer sums, so it is the same in every run, whatever the interleaving, the number of shards and the failures. ``plain``
computes the same without shardfun; ``compare`` holds the two side by side; ``demo`` kills a shard and then compares.
"""

from shardfun.examples.flights.functions import app

__all__ = ["app"]
