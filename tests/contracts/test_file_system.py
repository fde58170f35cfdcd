"""What every ``FileSystem`` promises, run against the operating system and against the simulated disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardfun.errors import StorageError
from shardfun.simulation.files import ProcessFiles, SimulatedDisk
from shardfun.state.files import FileForm, make_directory, read_checked, remove_temporaries, write_checked
from shardfun.state.filesystem import FileSystem, RealFileSystem

FORM = FileForm(b"sftest-\n", 1, "test file")


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A file system, and an empty folder of it."""
    if request.param == "real":
        return RealFileSystem(), tmp_path
    files = SimulatedDisk().process()
    make_directory(Path("/data"), files)
    return files, Path("/data")


def static_check(real: RealFileSystem, simulated: ProcessFiles) -> tuple[FileSystem, FileSystem]:
    """For mypy: both are a ``FileSystem``."""
    return real, simulated


Place = tuple[FileSystem, Path]


def write(files: FileSystem, path: Path, content: bytes) -> None:
    descriptor = files.create(path)
    done = 0
    while done < len(content):
        done += files.write(descriptor, content[done:])
    files.fsync(descriptor)
    files.close(descriptor)


def test_what_is_written_is_read_and_has_its_size(place: Place) -> None:
    files, folder = place
    write(files, folder / "f", b"0123456789" * 100)
    assert files.size(folder / "f") == 1000
    assert files.read(folder / "f", 0, 5000) == b"0123456789" * 100
    assert files.read(folder / "f", 995, 3) == b"567"
    assert files.read(folder / "f", 998, 100) == b"89"
    assert files.read(folder / "f", 2000, 1) == b""


def test_a_file_is_created_once(place: Place) -> None:
    files, folder = place
    write(files, folder / "f", b"")
    with pytest.raises(FileExistsError):
        files.create(folder / "f")


@pytest.mark.parametrize("call", ["size", "unlink", "names"])
def test_what_is_not_there_is_not_found(place: Place, call: str) -> None:
    files, folder = place
    with pytest.raises(FileNotFoundError):
        getattr(files, call)(folder / "none")
    with pytest.raises(FileNotFoundError):
        files.read(folder / "none", 0, 1)
    with pytest.raises(FileNotFoundError):
        files.rename(folder / "none", folder / "other")
    with pytest.raises(FileNotFoundError):
        files.create(folder / "none" / "f")
    with pytest.raises(FileNotFoundError):
        files.sync_folder(folder / "none")


def test_a_file_is_no_folder(place: Place) -> None:
    files, folder = place
    write(files, folder / "f", b"")
    for call in (files.names, files.sync_folder):
        with pytest.raises(NotADirectoryError):
            call(folder / "f")
    with pytest.raises(FileExistsError):
        files.make_folder(folder / "f")
    with pytest.raises(IsADirectoryError):
        files.unlink(folder)
    assert not files.is_folder(folder / "f")
    assert files.is_folder(folder)
    assert files.exists(folder / "f")
    assert not files.exists(folder / "g")


def test_a_rename_replaces(place: Place) -> None:
    files, folder = place
    write(files, folder / "old", b"old")
    write(files, folder / "new", b"new")
    files.rename(folder / "new", folder / "old")
    assert files.names(folder) == ["old"]
    assert files.read(folder / "old", 0, 10) == b"new"


def test_an_open_file_outlives_its_name(place: Place) -> None:
    files, folder = place
    descriptor = files.create(folder / "f")
    files.unlink(folder / "f")
    assert files.write(descriptor, b"x") == 1
    files.fsync(descriptor)
    files.close(descriptor)
    assert files.names(folder) == []


def test_a_closed_descriptor_is_none(place: Place) -> None:
    files, folder = place
    descriptor = files.create(folder / "f")
    files.close(descriptor)
    with pytest.raises(OSError, match="descriptor"):
        files.write(descriptor, b"x")


def test_a_tree_goes_as_a_whole(place: Place) -> None:
    files, folder = place
    make_directory(folder / "a" / "b", files)
    write(files, folder / "a" / "b" / "f", b"")
    write(files, folder / "a" / "g", b"")
    files.remove_tree(folder / "a")
    assert files.names(folder) == []


def test_there_is_room(place: Place) -> None:
    files, folder = place
    assert files.free_bytes(folder) > 0
    assert files.boot() == files.boot() != b""


def test_durable_files_work_on_it(place: Place) -> None:
    """The code that storage uses, on either."""
    files, folder = place
    assert read_checked(folder / "f", FORM, files) is None
    write_checked(folder / "f", FORM, b"one", files)
    write_checked(folder / "f", FORM, b"two", files)
    assert read_checked(folder / "f", FORM, files) == b"two"
    write(files, folder / "g.tmp", b"half")
    remove_temporaries(folder, files)
    assert files.names(folder) == ["f"]
    with pytest.raises(StorageError, match="f"):
        make_directory(folder / "f", files)
