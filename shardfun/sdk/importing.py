"""Import the application that a configuration names, and what else is named as ``package.module:attribute``. Whatever goes wrong in
it becomes one line that says where.

Every process that knows the application does it: shards, the HTTP door, and commands.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from shardfun.errors import ApplicationImportError, DefinitionError
from shardfun.sdk.app import App


def import_app(reference: str) -> App:
    """Import the application ``package.module:attribute``.

    Raises:
        ApplicationImportError: it cannot be imported, or is no ``App``.
        DefinitionError: it is defined wrongly.
    """
    what = f"application {reference!r}"
    found = import_object(reference, what, App)
    if not isinstance(found, App):
        module_name, _, attribute = reference.partition(":")
        file = _file_of(sys.modules[module_name])
        msg = f"{what}: expected {attribute!r} in {file} to be a shardfun.App, got {type(found).__qualname__}"
        raise ApplicationImportError(msg)
    return found


def import_object(reference: str, what: str, wanted: type | None = None) -> Any:
    """Import ``package.module:attribute``.

    Args:
        what: how messages call it.
        wanted: the class of objects that are suggested if there is none of this name.

    Raises:
        ApplicationImportError: it cannot be imported.
        DefinitionError: an application in it is defined wrongly.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except DefinitionError as error:
        place = "" if ".py:" in str(error) else _place(error)  # most of them name the function's own place already
        raise DefinitionError(f"{error}{place}") from error
    except BaseException as error:  # SystemExit, too: the import of an application may not end the process
        msg = f"{what} cannot be imported: {_said(error)}{_place(error)}{_search_hint(module_name, error)}"
        raise ApplicationImportError(msg) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            such = [] if wanted is None else [name for name, value in vars(module).items() if isinstance(value, wanted)]
            near = such or difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            msg = f"{what}: {_file_of(module)} has no attribute {part!r}{hint}"
            raise ApplicationImportError(msg)
        found = getattr(found, part)
    return found


def search_here() -> None:
    """Search the current folder for modules, too: the processes of a node do it, since they are started with ``python -m``."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def failure_of(error: BaseException) -> str:
    """What has gone wrong in code of the user, and where, on one line; of a group, the first error in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{_said(error)}{_place(error)}"


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _said(error: BaseException) -> str:
    text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """Where in the application an import failed: the last line that is neither of the machinery of importing nor ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    outside = [frame for frame in traceback.extract_tb(error.__traceback__) if _of_application(frame.filename)]
    return f" ({outside[-1].filename}:{outside[-1].lineno})" if outside else ""


def _of_application(file: str) -> bool:
    ours = f"{Path(__file__).parent.parent}/"
    return "importlib" not in file and (not file.startswith(ours) or file.startswith(f"{ours}examples/"))


def _search_hint(module_name: str, error: BaseException) -> str:
    """What to do if it is the application's own module that is missing."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is None or not f"{module_name}.".startswith(f"{missing}."):
        return ""
    return f"; expected it in the current folder ({Path.cwd()}), on PYTHONPATH or installed"
