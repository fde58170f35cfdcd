"""A start that cannot work: one clear error, the right exit code, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_node import FILE_EGRESS, Node, error_lines, file_ingress

from shardfun.errors import ApplicationImportError, DefinitionError
from shardfun.sdk.importing import import_app

EVENTS = file_ingress() + FILE_EGRESS
UNROUTED = EVENTS.replace("events", "evnts")
MISSPELT = file_ingress(more='target = "test/wroker"\nid = "id"') + FILE_EGRESS
NO_INPUT = file_ingress("gone.jsonl") + FILE_EGRESS
APP = "from shardfun import App\napp = App('bad')\n"

# What the application's module says, and what the error has to name; FILE stands for the module's path.
APPLICATIONS = {
    "import": ("import os\n\nimport not_there\n", "ModuleNotFoundError: No module named 'not_there' (FILE:3)"),
    "syntax": ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax (FILE:2)"),
    "raises": ("def f():\n    raise ValueError('no')\n\nf()\n", "ValueError: no (FILE:2)"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3 (FILE:2)"),
    "interrupt": ("raise KeyboardInterrupt\n", "KeyboardInterrupt (FILE:1)"),
    "attribute": ("from shardfun import App\nmine = App('x')\n", "FILE has no attribute 'app'; did you mean 'mine'?"),
    "no app": ("app = 3\n", "expected 'app' in FILE to be a shardfun.App, got int"),
    "typename": (f"{APP}@app.function('nope')\ndef f(c, m): pass\n", "as in 'shop/cart' (FILE:3)"),
    "generator": (f"{APP}@app.function('a/b')\ndef f(c, m): yield\n", "function 'a/b': f (FILE:3) must not be a generator"),
}


@pytest.mark.parametrize(("text", "expected"), APPLICATIONS.values(), ids=APPLICATIONS)
def test_an_application_that_cannot_be_imported_is_reported_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    file = tmp_path / f"{tmp_path.name}_app.py"
    file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((ApplicationImportError, DefinitionError)) as caught:
        import_app(f"{file.stem}:app")
    assert expected.replace("FILE", str(file)) in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        (
            f"{EVENTS}[flow]\nbacklog_hihg = 3\n",
            2,
            "node.toml:20: flow.backlog_hihg: no such setting; did you mean 'backlog_high'?",
        ),
        (f"{EVENTS}[flow]\nbacklog_high = 'x'\n", 2, "node.toml:20: flow.backlog_high: expected a whole number, got 'x'"),
        (None, 2, "node.toml: expected a TOML configuration file, got: No such file or directory"),
    ],
    ids=["unknown key", "wrong type", "no file"],
)
def test_a_wrong_configuration_is_refused_before_anything_starts(
    node: Node, text: str | None, code: int, expected: str
) -> None:
    if text is not None:
        node.configure(text)
    done = node.run()
    assert done.returncode == code
    (line,) = error_lines(done.stderr)
    assert expected in line
    assert node.leftovers() == []


def test_what_only_a_shard_can_find_stops_the_node_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """All at once, since most of their time is the start of Python."""
    raises, exits, ends = (
        "def f():\n    raise ValueError('no\\nlines')\n\nf()\n",
        "import sys\nsys.exit(3)\n",
        "import os\nos._exit(9)\n",
    )
    cases = {
        "raises": (EVENTS, "bad:app", raises, 3, "cannot be imported: ValueError: no lines ({folder}/bad.py:2)"),
        "exits": (EVENTS, "bad:app", exits, 3, "cannot be imported: SystemExit: 3 ({folder}/bad.py:2)"),
        "ends": (EVENTS, "bad:app", ends, 8, "(exit code 9), while it imported 'bad:app'"),
        "missing": (EVENTS, "gone:app", "", 3, "No module named 'gone'; expected it in the current folder ({folder})"),
        "unrouted": (
            UNROUTED,
            "rowdy:app",
            "",
            2,
            "ingress.evnts: expected a router in the application (@app.router('evnts'))",
        ),
        "misspelt": (MISSPELT, "rowdy:app", "", 2, "no function 'test/wroker'; did you mean 'test/worker'?"),
        "input": (
            NO_INPUT,
            "rowdy:app",
            "",
            6,
            "cannot read {folder}/gone.jsonl: No such file or directory; put the file there",
        ),
    }
    nodes = {name: Node(tmp_path / name) for name in cases}
    for name, (text, app, module, _, _) in cases.items():
        nodes[name].folder.mkdir()
        nodes[name].configure(text, app=app)
        nodes[name].lines("in.jsonl", [{"id": "a"}])
        (nodes[name].folder / "bad.py").write_text(module)
    running = {name: each.start() for name, each in nodes.items()}
    for name, (_, _, _, code, expected) in cases.items():
        each = nodes[name]
        ended, stderr = each.end(running[name])
        assert ended == code, (name, stderr)
        (line,) = error_lines(stderr)
        assert expected.format(folder=each.folder) in line, name
        assert each.leftovers() == ["in.jsonl"], name
        each.close()
