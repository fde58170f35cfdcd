"""The documents agree with the code: what they name exists, what they list is complete, what they print is made from it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from shardfun import errors
from shardfun.cli import main as command_line
from shardfun.config.loader import setting_paths
from shardfun.model import exits

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
DECISIONS = sorted(DOCS.glob("decisions/[0-9]*.md"))
PLACES = ("shardfun/", "tests/", "docs/", "tools/", "conf/", ".ci/")
SECTIONS = ("checkpoint", "state", "mesh", "flow", "failure", "supervision", "log")
OUTSIDE = re.compile(r"(?<![\w.)/\]:])/(?:work|home|root|tmp|usr|opt|var|mnt|Users)\b")
DECISION_PARTS = ["What", "Why", "What it costs", "When to look again"]

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def prose_of(document: Path) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def quoted_in(document: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose_of(document))


@cache
def anchors_of(document: Path) -> frozenset[str]:
    """As GitHub makes them: lower case, without punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", prose_of(document), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@cache
def sources() -> str:
    files = [*ROOT.glob("shardfun/**/*.py"), ROOT / "pyproject.toml", *ROOT.glob("conf/*.toml")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@cache
def shown_in(document: Path) -> frozenset[str]:
    """The files that a document shows whole for its reader to save: ``file=NAME`` at a block, or NAME in front of one."""
    text = document.read_text(encoding="utf-8")
    marked = re.findall(r"^```\w+ file=(\S+)$", text, re.MULTILINE)
    announced = re.findall(r"^`([\w.-]+)`\..*(?:\n.+)*\n\n```", text, re.MULTILINE)
    return frozenset(marked + announced)


def exit_code_rows() -> dict[int, str]:
    """The rows of all tables of exit codes, by code; a code of both tables has both rows."""
    rows: dict[int, str] = {}
    for code, rest in re.findall(r"^\| (\d+) \|(.*)$", prose_of(DOCS / "OPERATIONS.md"), re.MULTILINE):
        rows[int(code)] = rows.get(int(code), "") + rest
    return rows


def glossary() -> list[str]:
    return re.findall(r"^- \*\*(.+?)\*\*: ", prose_of(DOCS / "GLOSSARY.md"), re.MULTILINE)


# ---- names ---------------------------------------------------------------------------------------------------------------
@each_document
def test_quoted_files_exist(document: Path) -> None:
    """A file name in backticks is a file of the repository, or one that the document shows whole."""
    missing = [
        name
        for name in quoted_in(document)
        if (name.startswith(PLACES) or re.fullmatch(r"[\w.-]+\.(?:py|md|toml)", name))
        and not (ROOT / name).exists()
        and name not in shown_in(document)
    ]
    assert not missing


@each_document
def test_links_resolve(document: Path) -> None:
    """Every link into the repository leads to a file in it, and every anchor to a heading."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(document)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        found = path.exists() and path.is_relative_to(ROOT)
        if not found or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert not broken


@each_document
def test_no_line_names_a_path_outside_of_the_repository(document: Path) -> None:
    """What lies on the machine of an author means nothing to a reader."""
    assert not [line for line in document.read_text(encoding="utf-8").splitlines() if OUTSIDE.search(line)]


@each_document
def test_quoted_settings_exist(document: Path) -> None:
    """``section.key`` in backticks is a setting."""
    known = {".".join(path) for path in setting_paths()}
    quoted = [name.partition(" =")[0] for name in quoted_in(document)]
    pattern = rf"(?:{'|'.join(SECTIONS)})\.[a-z_]+"
    assert not [name for name in quoted if re.fullmatch(pattern, name) and name not in known]


@each_document
def test_commands_exist(document: Path) -> None:
    """``shardfun COMMAND``, in backticks or typed, is a command."""
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|\$ |\$\()shardfun ([a-z][\w-]*)", text)
    assert not set(named) - set(command_line.COMMANDS)


@each_document
def test_quoted_names_of_the_code_exist(document: Path) -> None:
    """A class, state or function in backticks is still called that in the code."""
    names = [
        name for name in quoted_in(document) if re.fullmatch(r"[A-Z][A-Za-z]{3,}|[a-z]+(?:_[a-z]+)+|[A-Z][A-Za-z]+\.\w+", name)
    ]
    unknown = [name for name in names if not all(re.search(rf"\b{re.escape(part)}\b", sources()) for part in name.split("."))]
    assert not unknown


def test_every_document_is_found_from_the_readme() -> None:
    """Following links from README leads to each of them: a page that nobody finds is not read, and not kept right."""
    found = [ROOT / "README.md"]
    for document in found:
        for name in re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", prose_of(document)):
            path = (document.parent / name).resolve()
            if path in DOCUMENTS and path not in found:
                found.append(path)
    assert sorted(found) == DOCUMENTS


# ---- completeness --------------------------------------------------------------------------------------------------------
def test_every_exit_code_is_documented() -> None:
    """Each class in ``errors`` stands, by its code, in the row of its exit code; so do the exit codes of processes."""
    rows = exit_code_rows()
    classes = [errors.ShardfunError]
    for cls in classes:
        classes += cls.__subclasses__()
    undocumented = {cls.code: cls.exit_code for cls in classes if f"`{cls.code}`" not in rows.get(cls.exit_code, "")}
    assert not undocumented
    constants = [
        value
        for module in (command_line, exits)
        for name, value in vars(module).items()
        if name.startswith("EXIT_") and isinstance(value, int)
    ]
    assert len(constants) >= 4
    assert not set(constants) - set(rows)


def test_the_glossary_is_in_order_and_in_use() -> None:
    """One entry for each term, sorted, and each term is used in another document."""
    terms = glossary()
    assert terms == sorted(set(terms))
    others = "\n".join(prose_of(document).lower() for document in DOCUMENTS if document.name != "GLOSSARY.md")
    assert not [term for term in terms if not re.search(rf"\b{term}(?:s|es)?\b", others)]


def test_decisions_are_numbered_listed_and_complete() -> None:
    """001, 002, ... without a gap; each page has its four parts, and the list names all."""
    assert [int(page.name[:3]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for page in DECISIONS:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.name[:3]}: ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == DECISION_PARTS, page.name
    listed = re.findall(r"\((\d{3}[^)]+\.md)\)", (DOCS / "decisions" / "README.md").read_text(encoding="utf-8"))
    assert listed == [page.name for page in DECISIONS]


def test_the_layers_shown_are_the_layers_checked() -> None:
    """ARCHITECTURE prints the layers of import-linter's contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    assert "```text\n" + "\n".join(contract["layers"]) + "\n```" in (DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_every_package_is_on_the_map() -> None:
    """ARCHITECTURE has a row for each folder of the package."""
    rows = "\n".join(re.findall(r"^\| \[.*$", prose_of(DOCS / "ARCHITECTURE.md"), re.MULTILINE))
    packages = [folder.parent.name for folder in ROOT.glob("shardfun/*/__init__.py")]
    assert packages
    assert not [name for name in packages if f"`shardfun/{name}`" not in rows]


def test_the_transition_tables_are_those_of_the_code() -> None:
    """CHECKPOINTS prints the tables that the machines run on."""
    tool = ROOT / "tools" / "transition_tables"
    result = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    """METRICS lists what the text for Prometheus is made from."""
    tool = ROOT / "tools" / "metrics_table"
    result = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
