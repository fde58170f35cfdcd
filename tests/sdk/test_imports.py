"""``import shardfun`` is light: an application's module, its tests and the command line do not pay for what they do not use."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"trio", "pynng", "plyvel", "rich", "structlog", "leveldb"}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


def test_the_public_module_imports_nothing_heavy() -> None:
    assert not HEAVY & modules_after("import shardfun; app = shardfun.App('x')")


def test_the_core_and_the_model_do_no_io() -> None:
    loaded = modules_after("import shardfun.core.shard, shardfun.core.coordinator, shardfun.model.frames, shardfun.ports")
    assert not (HEAVY | {"socket", "asyncio"}) & loaded
