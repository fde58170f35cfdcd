"""Importing in another process what a program has: its path, its script, its modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from shardfun.errors import ApplicationImportError
from shardfun.sdk.importing import import_app
from shardfun.sdk.launch import Launch, prepare
launch = Launch(sys_path=[*sys.path, {folder!r}], main_path={path!r}, main_module={module!r}, modules={modules!r})
try:
    prepare(launch)
    app = import_app("__main__:app")
except ApplicationImportError as error:
    print("refused:", error)
else:
    print(app.name, app.modules, sys.modules["__main__"].__name__)
"""
SCRIPT = """
from shardfun import App
app = App("found")
@app.function("a/b")
def b(ctx, message: int) -> None:
    pass
if __name__ == "__main__":
    raise SystemExit("below the guard")
"""


def prepared(folder: Path, path: Path, module: str = "", modules: tuple[str, ...] = ()) -> str:
    code = CODE.format(folder=str(folder), path=str(path), module=module, modules=list(modules))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def test_a_script_is_run_again_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert prepared(tmp_path, tmp_path / "script.py") == "found ('__shardfun_main__',) __shardfun_main__"


def test_so_is_a_module_of_a_package(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "side.py").write_text("N = 1\n")
    (tmp_path / "pack" / "__main__.py").write_text(f"from .side import N\n{SCRIPT}")
    found = prepared(tmp_path, tmp_path / "pack" / "__main__.py", "pack.__main__", ("pack.side",))
    assert found == "found ('__shardfun_main__',) __shardfun_main__"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ValueError('no')", "ValueError: no (SCRIPT:1)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (SCRIPT:2)"),
        ("def broken(:", "SyntaxError: invalid syntax (SCRIPT:1)"),
        ("raise ExceptionGroup('g', [KeyError('k')])", "KeyError: 'k'"),
    ],
)
def test_what_goes_wrong_in_it_is_one_line_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(text)
    found = prepared(tmp_path, path)
    assert found == f"refused: {path} cannot be imported: {said.replace('SCRIPT', str(path))}"


def test_a_module_that_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    found = prepared(tmp_path, tmp_path / "script.py", modules=("no_such_module",))
    assert found == "refused: no_such_module cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"
