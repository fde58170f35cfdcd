"""What runs in the simulated world: real applications whose checkpoints can be judged without knowing what happened."""

from __future__ import annotations

from shardfun.simulation.options import Options
from shardfun.simulation.workloads.bank import Bank
from shardfun.simulation.workloads.pairs import Pairs
from shardfun.simulation.workloads.ring import Ring
from shardfun.simulation.workloads.trees import Trees
from shardfun.simulation.workloads.workload import Workload

__all__ = ["Workload", "make_workload"]


def make_workload(options: Options) -> Workload:
    """The workload of a run, made anew: its functions remember nothing of another run."""
    kinds: dict[str, type[Workload]] = {"pairs": Pairs, "bank": Bank, "ring": Ring, "trees": Trees}
    return kinds[options.workload](options)
