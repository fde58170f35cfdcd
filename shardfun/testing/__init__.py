"""Testing your functions: one function alone (``FunctionTest``), a router alone (``route``), a whole node (``LocalNode``).

None of them needs a process, a socket, a file or a second of waiting. ``shardfun.testing.plugin`` has fixtures for pytest.
"""

from shardfun.model.letters import DeadLetter
from shardfun.testing.function_test import FunctionTest, route
from shardfun.testing.local_node import LocalNode
from shardfun.testing.results import Delayed, Emitted, NotQuietError, Result, Sent, StartedOperation

__all__ = [
    "DeadLetter",
    "Delayed",
    "Emitted",
    "FunctionTest",
    "LocalNode",
    "NotQuietError",
    "Result",
    "Sent",
    "StartedOperation",
    "route",
]
