"""Imports structlog without rich. A process that logs for the supervisor imports this before all else.

structlog takes rich if it is there, to show tracebacks on terminals. That is an eighth of what a shard process imports before it
can serve, and a shard shows nothing to anybody. An application that imports rich itself gets it.
"""

from __future__ import annotations

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # which the import system takes for "not there"
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
