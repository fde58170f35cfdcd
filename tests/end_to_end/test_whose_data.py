"""A data directory that is not this node's: refused, untouched, and ``--fresh`` deletes what is ours and nothing else."""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest
from real_node import FILE_EGRESS, Node, error_lines, file_ingress, wait_for

from shardfun.state.directory import _JOB_FORM
from shardfun.state.files import write_checked

RECORDS = [{"id": f"a{i % 3}", "n": i} for i in range(30)]
TOTALS = {f"a{k}": sum(range(k, 30, 3)) for k in range(3)}


def totals(node: Node) -> dict[str, int]:
    out = node.out()
    assert len(out) == len({record["id"] for record in out}), "published twice"
    return {record["id"]: record["total"] for record in out}


def content(folder: Path) -> dict[str, str]:
    """All files but those that say who runs here."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {"lock", "LOCK", "LOG", "LOG.old"}
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that has finished; tests copy it."""
    node = Node(tmp_path_factory.mktemp("finished"))
    try:
        node.configure(file_ingress() + FILE_EGRESS)
        node.lines("in.jsonl", RECORDS)
        assert node.finish()["verdict"] == "finished"
        assert totals(node) == TOTALS
        yield node
    finally:
        node.close()


@pytest.fixture
def old(finished: Node, node: Node) -> Node:
    shutil.copytree(finished.folder, node.folder, dirs_exist_ok=True)
    return node


def refused(node: Node, code: int, *arguments: str) -> str:
    """Run a node that has to refuse, with one line, and without touching anything."""
    before = content(node.folder)
    done = node.run(*arguments)
    assert done.returncode == code, done.stderr
    (line,) = error_lines(done.stderr)
    assert content(node.folder) == before
    assert node.processes() == []
    return line


def test_data_of_another_application_shard_count_or_format_is_refused(old: Node) -> None:
    text = old.config.read_text()
    old.config.write_text(text.replace("rowdy:app", "rowdy:csv_app"))
    line = refused(old, 4)
    assert line.endswith(
        "belongs to application 'rowdy:app', not to 'rowdy:csv_app'; use another data directory, or delete this one"
    )
    line = refused(old, 4, "--set", "app=rowdy:app", "--set", "shards=3")
    assert "was made for 1 shards, and 3 are configured; the number cannot change" in line
    write_checked(old.data / "job", _JOB_FORM, cbor2.dumps({"format": 99, "something": "new"}))
    line = refused(old, 4, "--set", "app=rowdy:app")
    assert "expected data of format 1, got format 99; use the release of shardfun that wrote it" in line


def test_a_folder_that_is_not_ours_is_refused_and_never_deleted(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS)
    node.lines("in.jsonl", RECORDS)
    (node.data / "letters").mkdir(parents=True)
    (node.data / "letters" / "dear.txt").write_text("dear")
    for arguments in ((), ("--fresh", "--yes")):
        line = refused(node, 4, *arguments)
        assert "expected a shardfun data directory or an empty folder, found letters; use another folder" in line
    assert (node.data / "letters" / "dear.txt").read_text() == "dear"


def test_a_finished_run_finishes_at_once_and_publishes_nothing_twice(old: Node) -> None:
    before = old.outputs()
    summary = old.finish()
    assert (summary["verdict"], summary["records"], summary["dead_letters"]) == ("finished", 30, 0)
    assert old.outputs() == before


def test_fresh_begins_anew_and_leaves_foreign_files_alone(old: Node) -> None:
    line = refused(old, 2, "--fresh")
    assert line.startswith("--fresh: expected --yes beside it, since there is no terminal to ask on; it deletes the state in")
    (old.data / "notes.txt").write_text("mine")
    (old.folder / "out-7.jsonl").write_text("of a shard that does not exist\n")
    old.lines("in.jsonl", RECORDS * 2)
    assert old.finish("--fresh", "--yes")["records"] == 60
    (old.folder / "out-7.jsonl").unlink()
    assert totals(old) == {name: 2 * total for name, total in TOTALS.items()}
    assert (old.data / "notes.txt").read_text() == "mine"
    assert old.finish("--fresh", "--yes", "--set", "shards=2")["records"] == 60  # what is anew may be otherwise


def test_output_that_is_not_ours_is_refused_and_kept(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS)
    node.lines("in.jsonl", RECORDS)
    (node.folder / "out-0.jsonl").write_text('{"result": "of last year"}\n')
    line = refused(node, 6)
    assert "out-0.jsonl already has 27 bytes, which this data directory did not write; move it away, or use --fresh" in line
    assert node.leftovers() == ["in.jsonl", "out-0.jsonl"]


def test_output_that_is_shorter_than_what_was_published_is_refused(old: Node) -> None:
    old.finish()  # now a checkpoint knows what the run before has published
    (old.folder / "out-0.jsonl").write_text("")
    done = old.run()
    assert done.returncode == 6
    (line,) = error_lines(done.stderr)
    assert old.out() == []
    assert "(3 records) were published to it; put the whole file back, or start afresh with --fresh" in line


def test_a_second_supervisor_is_refused_and_the_first_is_undisturbed(node: Node) -> None:
    node.configure(file_ingress(more="follow = true") + FILE_EGRESS)
    node.lines("in.jsonl", RECORDS)
    first = node.start("--json")
    wait_for(lambda: (node.data / "manifests").is_dir() and any((node.data / "manifests").iterdir()), "a checkpoint")
    for arguments in ((), ("--fresh", "--yes")):
        second = node.run(*arguments)
        assert second.returncode == 5
        (line,) = error_lines(second.stderr)
        assert f"in use by another supervisor (pid {first.pid}); stop it, or use another data directory" in line
    code, stderr = node.end(first, signal.SIGINT)
    assert code == 0
    assert "died" not in stderr
    for id, total in TOTALS.items():
        assert node.inspect(f"test/worker:{id}")["state"]["total"] == total
