"""Testing your functions: one function alone (``FunctionTest``), a router alone (``route``), a whole node (``LocalNode``).

None of them needs a process, a socket, a file or a second of waiting. ``Simulation`` tells ``shardfun simulate`` how to run an
application under faults. ``shardfun.testing.plugin`` has fixtures for pytest.

The names are loaded at their first use: pytest imports this package in every project that has shardfun installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardfun.model.letters import DeadLetter
    from shardfun.testing.function_test import FunctionTest, route
    from shardfun.testing.generators import read_ingress
    from shardfun.testing.local_node import LocalNode
    from shardfun.testing.results import Delayed, Emitted, NotQuietError, Result, Sent, StartedOperation
    from shardfun.testing.simulated import Checkpoint, Simulation

__all__ = [
    "Checkpoint",
    "DeadLetter",
    "Delayed",
    "Emitted",
    "FunctionTest",
    "LocalNode",
    "NotQuietError",
    "Result",
    "Sent",
    "Simulation",
    "StartedOperation",
    "read_ingress",
    "route",
]


def __getattr__(name: str) -> Any:
    import importlib

    modules = {
        "FunctionTest": "function_test",
        "route": "function_test",
        "LocalNode": "local_node",
        "read_ingress": "generators",
        "Checkpoint": "simulated",
        "Simulation": "simulated",
    }
    if name == "DeadLetter":
        module = importlib.import_module("shardfun.model.letters")
    elif name in __all__:
        module = importlib.import_module(f"shardfun.testing.{modules.get(name, 'results')}")
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(module, name)
