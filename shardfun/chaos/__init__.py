"""Real nodes under real faults: processes killed and stopped at random moments and at named steps, a disk that is full; and whether
the results are those of an undisturbed run.

``run_chaos`` does it, ``shardfun chaos`` is the command, ``shardfun.chaos.plugin`` a fixture for pytest.

In reading order: ``trial`` (one trial, from a configuration to a verdict), ``folder`` (what stays), ``sandbox`` and ``inputs`` (the private copy), ``plan`` and
``points`` (what shall be done), ``node``, ``run``, ``armory``, ``disk`` (doing it), ``published`` and ``stored`` (the verdict),
``recoveries`` and ``report``. The names are loaded at their first use: pytest imports this package in every project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardfun.chaos.inputs import Input, Records
    from shardfun.chaos.plan import Counts, Kind
    from shardfun.chaos.report import Report
    from shardfun.chaos.trial import run_chaos
    from shardfun.errors import InconclusiveError

__all__ = ["Counts", "InconclusiveError", "Input", "Kind", "Records", "Report", "run_chaos"]


def __getattr__(name: str) -> Any:
    import importlib

    modules = {
        "Counts": "chaos.plan",
        "InconclusiveError": "errors",
        "Input": "chaos.inputs",
        "Kind": "chaos.plan",
        "Records": "chaos.inputs",
        "Report": "chaos.report",
        "run_chaos": "chaos.trial",
    }
    if name not in modules:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"shardfun.{modules[name]}"), name)
