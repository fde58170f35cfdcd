"""What the processes of a node need to know of the program that started it, to import the application as that program has.

``shardfun run`` needs nothing of it: its processes import the application by name, from the same folder. A program that embeds a
node may have changed ``sys.path``, and may have the application in the script itself, which is called ``__main__`` only there. Such
a script is run again in each process of the node, under another name, so that what stands below ``if __name__ == "__main__":``
is not; the standard library's ``multiprocessing`` does the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
from importlib.machinery import ModuleSpec
from itertools import pairwise
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType
from typing import Final

import msgspec

from shardfun.errors import ApplicationImportError
from shardfun.model.payload import MAIN_ELSEWHERE
from shardfun.sdk.importing import failure_of

CHILDREN: Final = MappingProxyType({"shardfun.shard": "a shard process", "shardfun.door": "the process of the HTTP door"})
"""What a node starts, by module."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """See the module.

    Args:
        sys_path: the program's ``sys.path``; empty: leave it as it is.
        main_path: the script, if the application or a part of it is in it; else empty.
        main_module: its name, if it was started with ``python -m``.
        modules: others that hold functions of the application.
    """

    sys_path: list[str] = []
    main_path: str = ""
    main_module: str = ""
    modules: list[str] = []


def child_name() -> str | None:
    """What this process is, if a node has started it; ``None`` for a program of the user."""
    arguments = sys.orig_argv[1:]
    module = next((name for flag, name in pairwise(arguments) if flag == "-m"), "")
    return CHILDREN.get(module)


def prepare(launch: Launch) -> None:
    """Make importable in this process what the program that started the node has imported.

    Raises:
        ApplicationImportError: something of it cannot be imported.
    """
    if launch.sys_path:
        sys.path[:] = launch.sys_path
    what = launch.main_path
    try:
        if launch.main_path:
            _load_main(launch)
        for what in launch.modules:
            importlib.import_module(what)
    except BaseException as error:  # SystemExit, too
        raise ApplicationImportError(f"{what} cannot be imported: {failure_of(error)}") from error


def _load_main(launch: Launch) -> None:
    """Run the script as a module. It also takes the place of ``__main__``, where its references, as ``__main__:app``, lead to."""
    spec = importlib.util.find_spec(launch.main_module) if launch.main_module else None
    module = ModuleType(MAIN_ELSEWHERE)
    module.__file__ = launch.main_path
    module.__package__ = None if spec is None else spec.parent
    # Before it runs: type hints of its classes are looked up by the name of their module.
    sys.modules[MAIN_ELSEWHERE] = sys.modules["__main__"] = module
    exec(_code(launch, spec), module.__dict__)  # noqa: S102 - the user's own program


def _code(launch: Launch, spec: ModuleSpec | None) -> CodeType:
    if spec is not None and spec.loader is not None and hasattr(spec.loader, "get_code"):
        found = spec.loader.get_code(launch.main_module)
        if isinstance(found, CodeType):
            return found
    with io.open_code(str(Path(launch.main_path).absolute())) as file:
        return compile(file.read(), launch.main_path, "exec")
