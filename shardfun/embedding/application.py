"""Find the application of a program by what other processes can import it by: they cannot be given an object.

An ``App`` is a global variable of some module; that module and the variable's name are its reference, as in a configuration. Of the
script itself the name is ``__main__`` here and nowhere else, so the processes of the node are told which file it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from shardfun.errors import DefinitionError
from shardfun.model.payload import MAIN_ELSEWHERE
from shardfun.sdk.app import App
from shardfun.sdk.launch import Launch

MAIN: Final = "__main__"
_ALIASES: Final = frozenset({MAIN_ELSEWHERE, "__mp_main__"})
"""Other names of a ``__main__``, not to be imported by."""


class Located(NamedTuple):
    """Where an application is.

    Args:
        reference: ``package.module:attribute``.
        launch: what else the processes of its node need to know.
    """

    reference: str
    launch: Launch


def locate(app: App, also: Iterable[str] = ()) -> Located:
    """The reference of an application in this process.

    Args:
        also: other modules that the processes need, such as those of kinds of ingress and egress.

    Raises:
        DefinitionError: no module has it as a global variable, or it is in a script without a file.
    """
    reference = _reference(app)
    module = reference.partition(":")[0]
    needed = [name for name in dict.fromkeys((*app.modules, *also)) if name != module]
    path = [str(Path(entry or ".").absolute()) for entry in sys.path]
    others = [name for name in needed if name != MAIN]
    if MAIN not in (module, *needed):
        return Located(reference, Launch(sys_path=path, modules=others))
    main = sys.modules[MAIN]
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        msg = (
            f"application {app.name!r}: expected it, and its functions, in a file that the processes of the node can load, "
            "but it was typed in at a prompt, a notebook or 'python -c'; save it as a module and import it from there"
        )
        raise DefinitionError(msg)
    spec = getattr(main, "__spec__", None)
    name = "" if spec is None else str(spec.name)
    return Located(reference, Launch(sys_path=path, main_path=str(Path(file).absolute()), main_module=name, modules=others))


def is_at(app: App, reference: str) -> bool:
    """Whether a reference leads to this application, as far as its module is imported already."""
    module, _, attribute = reference.partition(":")
    found: object = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found is app


def _reference(app: App) -> str:
    """Rather where its functions are than elsewhere, and rather in any module than in the script, which may run under many names."""
    places = sorted(_places(app), key=lambda place: _rank(app, place[0]))
    if places:
        module, attribute = places[0]
        return f"{module}:{attribute}"
    msg = (
        f"application {app.name!r}: expected it as a global variable of a module, where the processes of the node can find it, "
        "as in 'app = App(...)' at the beginning of a line; it is in no module that is imported (made inside a function?)"
    )
    raise DefinitionError(msg)


def _places(app: App) -> Iterable[tuple[str, str]]:
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and name not in _ALIASES:
            for attribute, value in list(vars(module).items()):
                if value is app and attribute.isidentifier():
                    yield name, attribute


def _rank(app: App, module: str) -> tuple[bool, int, int, str]:
    holders = app.modules
    order = holders.index(module) if module in holders else len(holders)
    return module == MAIN and MAIN not in holders, order, module.count("."), module
