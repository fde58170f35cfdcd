"""The file ingress: faults in the data, files that change, and lines without end."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import ConfigurationError, IngressError
from shardfun.ingress import file as file_module
from shardfun.ingress import formats, lines
from shardfun.ingress.file import FOLLOW_INTERVAL_S, FileIngress, FileIngressOptions
from shardfun.ingress.registry import find_kind
from shardfun.model.keyspace import owner_of
from shardfun.ports import Partition, Reject


def reader(path: Path, index: int = 0, count: int = 1, **options: Any) -> FileIngress:
    partition = Partition(index, count, lambda key: owner_of(key, count) == index)
    return FileIngress("events", FileIngressOptions(path=path, **options), partition)


def drain(source: FileIngress, limit: int = 100) -> tuple[list[Any], list[Reject], Any]:
    """Records, rejects and the last position, until nothing comes."""
    records: list[Any] = []
    rejects: list[Reject] = []
    position = None
    while batch := source.read(limit, 0.0):
        records += batch.records
        rejects += batch.rejects
        position = batch.position
    return records, rejects, position


def read_file(
    path: Path, position: Any = None, index: int = 0, count: int = 1, **options: Any
) -> tuple[list[Any], list[Reject], Any]:
    source = reader(path, index, count, **options)
    source.open(position)
    try:
        return drain(source)
    finally:
        source.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 16 bytes, records of at most 64, of which 32 are kept if they are rejected."""
    monkeypatch.setattr(lines, "CHUNK_BYTES", 16)
    for module in (lines, formats):
        monkeypatch.setattr(module, "REJECT_BYTES", 32)
    for module in (lines, formats, file_module):
        monkeypatch.setattr(module, "RECORD_BYTES", 64)


# ---- settings ----------------------------------------------------------------------------------------------------------
def test_found_by_its_name() -> None:
    assert find_kind("file") is FileIngress
    with pytest.raises(ConfigurationError, match="did you mean 'generator'"):
        find_kind("generater")


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match=r"^format: .*\.txt"):
        FileIngressOptions(path=Path("events.txt"))
    with pytest.raises(ConfigurationError, match=r"^follow: "):
        FileIngressOptions(path=Path("events.csv.gz"), follow=True)
    assert FileIngressOptions(path=Path("events.txt"), format="csv").format == "csv"


@pytest.mark.parametrize("name", ["missing.csv", ".", "folder.csv"])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IngressError, match=r"ingress 'events': .*"):
        reader(tmp_path / name, format="csv").open(None)


def test_a_pipe_has_no_positions(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    keeper = os.open(tmp_path / "pipe.csv", os.O_RDWR)
    with pytest.raises(IngressError, match="not a regular file"):
        reader(tmp_path / "pipe.csv").open(None)
    os.close(keeper)


# ---- CSV ---------------------------------------------------------------------------------------------------------------
CSV_FAULTS = (
    b"id,n\n"  # 1
    b"a,0\n"  # 2
    b"b,1,extra\n"  # 3
    b"\n"  # 4
    b"c\n"  # 5
    b"\xff,3\n"  # 6
    b'"d\nd",4\n'  # 7, 8
    b'"e"x,5\n'  # 9
    b",6\n"  # 10
    b"f,7\r\n"  # 11
    b"g\rh,8\n"  # 12
    b"i,9"  # 13
)


def test_csv_faults_are_reported_once_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(CSV_FAULTS)
    for count in (1, 2, 3):
        records: list[Any] = []
        rejects: list[Reject] = []
        for index in range(count):
            found, bad, _ = read_file(path, index=index, count=count, partition_by="id")
            records += found
            rejects += bad
        assert sorted(int(record["n"]) for record in records) == [0, 4, 7, 9]
        assert {"id": "d\nd", "n": "4"} in records
        rejects.sort(key=lambda item: int(item.position.split(":")[1].split()[0]))
        assert [item.position for item in rejects] == [
            "e.csv:3 (record 2)",
            "e.csv:5 (record 3)",
            "e.csv:6 (record 4)",
            "e.csv:9 (record 6)",
            "e.csv:10 (record 7)",
            "e.csv:12 (record 9)",
        ]
        reasons = [
            "expected 2 columns",
            "expected 2 columns",
            "not valid UTF-8",
            "not valid CSV",
            "got an empty",
            "not valid CSV",
        ]
        assert all(reason in item.reason for reason, item in zip(reasons, rejects, strict=True))
        assert rejects[0].raw == b"b,1,extra\n"


def test_csv_without_a_key_goes_round_and_faults_too(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(CSV_FAULTS)
    parts = [read_file(path, index=index, count=3) for index in range(3)]
    assert sorted(int(record["n"]) for records, _, _ in parts for record in records) == [0, 4, 6, 7, 9]
    assert sum(len(rejects) for _, rejects, _ in parts) == 5


def test_missing_keys_are_the_first_partitions(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b"id,n\n" + b",1\n" * 5)
    assert [len(read_file(tmp_path / "e.csv", index=i, count=2, partition_by="id")[1]) for i in range(2)] == [5, 0]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"a,a\n1,2\n", "'a' is there twice"),
        (b"a,b\n1,2\n", "expected the column 'id'"),
        (b"\xff,id\n", "UTF-8"),
        (b'"id', "CSV"),
    ],
)
def test_headers_that_cannot_be(tmp_path: Path, header: bytes, message: str) -> None:
    (tmp_path / "e.csv").write_bytes(header)
    source = reader(tmp_path / "e.csv", partition_by="id")
    source.open(None)
    with pytest.raises(IngressError, match=message):
        drain(source)
    source.close()


def test_blank_lines_without_end_are_no_header(tmp_path: Path, small: None) -> None:
    (tmp_path / "e.csv").write_bytes(b"\n" * 100 + b"id,n\n")
    with pytest.raises(IngressError, match="only blank lines"):
        read_file(tmp_path / "e.csv")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"id,n\n", b"\xef\xbb\xbf"])
def test_files_without_records(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e.csv").write_bytes(content)
    records, rejects, position = read_file(tmp_path / "e.csv")
    assert (records, rejects) == ([], [])
    assert read_file(tmp_path / "e.csv", position)[0] == []


def test_byte_order_mark_and_blank_lines_before_the_header(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b"\xef\xbb\xbf\r\n\nid,n\na,1\nb,2\n")
    source = reader(tmp_path / "e.csv", partition_by="id")
    source.open(None)
    positions = []
    while batch := source.read(1, 0.0):
        positions.append((batch.position, len(batch.records)))
    source.close()
    left = 2
    for position, found in positions:
        left -= found
        assert len(read_file(tmp_path / "e.csv", position, partition_by="id")[0]) == left
    assert left == 0


def test_a_quote_that_nothing_closes_costs_one_line(tmp_path: Path, small: None) -> None:
    rest = b"".join(b"k,%d\n" % n for n in range(100))
    (tmp_path / "e.csv").write_bytes(b'id,n\n"open,1\n' + rest)
    records, rejects, _ = read_file(tmp_path / "e.csv")
    assert len(records) == 100
    assert [item.position for item in rejects] == ["e.csv:2 (record 1)"]
    (tmp_path / "e.csv").write_bytes(b'id,n\n"open,1\nk,2\n')
    records, rejects, _ = read_file(tmp_path / "e.csv")
    assert records == [{"id": "k", "n": "2"}]
    assert [item.raw for item in rejects] == [b'"open,1\n']


def test_a_quoted_record_longer_than_the_window(tmp_path: Path) -> None:
    text = "line\n" * 2000
    (tmp_path / "e.csv").write_bytes(f'id,n\na,1\nb,"{text}"\nc,3\n'.encode())
    for limit in (1, 2, 512):
        source = reader(tmp_path / "e.csv")
        source.open(None)
        records, rejects, _ = drain(source, limit)
        source.close()
        assert [record["id"] for record in records] == ["a", "b", "c"]
        assert records[1]["n"] == text
        assert not rejects


# ---- JSON lines --------------------------------------------------------------------------------------------------------
def test_json_faults_are_reported_once_with_their_line(tmp_path: Path) -> None:
    good = [b'{"id": "a", "n": 0}', b'{"id": 7, "n": 1}', b'{"id": true, "n": 2}', b'\t{"id": "b", "n": 3} \r']
    bad = [
        b'{"n": 4',
        b"[1]",
        b'{"id": "\xff"}',
        b'{"n": 5}',
        b'{"id": ""}',
        b'{"id": null}',
        b'{"id": {"x": 1}}',
        b"[" * 100_000,
    ]
    (tmp_path / "e.jsonl").write_bytes(b"\n".join([*good[:2], *bad, b"", b"  ", *good[2:]]))
    for count in (1, 2):
        parts = [read_file(tmp_path / "e.jsonl", index=index, count=count, partition_by="id") for index in range(count)]
        assert sorted(record["n"] for records, _, _ in parts for record in records) == [0, 1, 2, 3]
        positions = sorted(item.position for _, rejects, _ in parts for item in rejects)
        assert positions == sorted(f"e.jsonl:{line} (record {line})" for line in range(3, 11))
        assert all(len(item.raw) <= lines.REJECT_BYTES for _, rejects, _ in parts for item in rejects)


def test_numbers_are_keys(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_bytes(b"".join(b'{"id": %d}\n' % n for n in range(50)))
    parts = [read_file(tmp_path / "e.jsonl", index=index, count=2, partition_by="id")[0] for index in range(2)]
    assert sum(map(len, parts)) == 50
    assert all(owner_of(str(record["id"]), 2) == index for index, part in enumerate(parts) for record in part)


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz"])
@pytest.mark.parametrize("length", [61, 62, 63, 64, 65, 80, 200])
def test_lines_too_long_are_judged_alike_wherever_a_reader_begins(tmp_path: Path, small: None, name: str, length: int) -> None:
    text = b'{"n": 1}\n' + b'{"n":"' + b"x" * (length - 9) + b'"}\n' + b'{"n": 2}\n{"n": 3}'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    source = reader(tmp_path / name)
    source.open(None)
    records: list[Any] = []
    rejects: list[Reject] = []
    seen = []
    while batch := source.read(1, 0.0):
        records += batch.records
        rejects += batch.rejects
        seen.append((batch.position, len(records), len(rejects)))
    source.close()
    assert len(records) + len(rejects) == 4
    assert len(rejects) == (length > 64)
    for position, kept, bad in seen:
        again = read_file(tmp_path / name, position)
        assert (again[0], again[1]) == (records[kept:], rejects[bad:])


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.sampled_from([b'{"id": "a"}', b'{"id": 1}', b"", b" ", b"x", b'{"id": ""}', b"[]", b'{"id": "\xe9"}']), max_size=12
    ),
    limits=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    count=st.integers(1, 3),
    key=st.sampled_from([None, "id"]),
)
def test_fast_and_careful_ways_decide_alike(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], limits: list[int], count: int, key: str | None
) -> None:
    """Batches of one record take the fast way or the careful one for each record alone; the outcome must not depend on it."""
    path = tmp_path_factory.mktemp("f") / "e.jsonl"
    path.write_bytes(b"\n".join(rows))
    for index in range(count):
        whole = read_file(path, index=index, count=count, partition_by=key)
        source = reader(path, index, count, partition_by=key)
        for limit in limits:
            source.open(None)
            again = drain(source, limit)
            assert again[:2] == whole[:2]
        source.close()


@settings(deadline=None, max_examples=80)
@given(
    text=st.lists(st.sampled_from(["a", "b", ",", '"', "\n", "\r\n", "\r", "é", "", '"x\ny",1\n', "a,1\n"]), max_size=25).map(
        "".join
    ),
    limit=st.integers(1, 5),
    count=st.integers(1, 3),
)
def test_any_text_as_csv_is_read_the_same_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, text: str, limit: int, count: int
) -> None:
    path = tmp_path_factory.mktemp("f") / "e.csv"
    path.write_bytes(b"id,n\n" + text.encode())
    for index in range(count):
        records, rejects, _ = read_file(path, index=index, count=count, partition_by="id")
        source = reader(path, index, count, partition_by="id")
        source.open(None)
        kept = bad = 0
        while batch := source.read(limit, 0.0):
            assert batch.records == records[kept : kept + len(batch.records)]
            kept += len(batch.records)
            bad += len(batch.rejects)
            again = read_file(path, batch.position, index, count, partition_by="id")
            assert (again[0], again[1]) == (records[kept:], rejects[bad:])
        source.close()
        assert (kept, bad) == (len(records), len(rejects))


# ---- positions and files that change -----------------------------------------------------------------------------------
def position_in(path: Path, limit: int = 2, **options: Any) -> Any:
    source = reader(path, **options)
    source.open(None)
    batch = source.read(limit, 0.0)
    source.close()
    assert batch is not None
    return batch.position


def test_a_copy_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_bytes(b'{"n": 1}\n{"n": 2}\n{"n": 3}\n')
    position = position_in(tmp_path / "e.jsonl")
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "e.jsonl").read_bytes() + b'{"n": 4}\n')
    assert [record["n"] for record in read_file(tmp_path / "copy.jsonl", position)[0]] == [3, 4]


def test_another_beginning_or_a_shorter_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    content = b"".join(b'{"n": %d}\n' % n for n in range(1000))
    path.write_bytes(content)
    source = reader(path)
    source.open(None)
    position = drain(source)[2]
    source.close()
    path.write_bytes(content[:5000])
    with pytest.raises(IngressError, match=f"has 5000 bytes, but was already read up to byte {len(content)}"):
        reader(path).open(position)
    path.write_bytes(b"x" + content)
    with pytest.raises(IngressError, match=r"was overwritten since it was read.*--fresh"):
        reader(path).open(position)
    (tmp_path / "new").write_bytes(b"y" + content)
    (tmp_path / "new").rename(path)
    with pytest.raises(IngressError, match="is another file"):
        reader(path).open(position)


def test_a_shorter_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 10))
    source = reader(path)
    source.open(None)
    position = drain(source)[2]
    source.close()
    position["offset"] += 1
    with pytest.raises(IngressError, match="has 90 bytes, but was already read up to byte 91"):
        reader(path).open(position)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"no gzip" + data, lambda data: data[:30] + b"\0\0\0" + data[33:]]
)
def test_a_damaged_gzip_file_is_an_error(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "e.jsonl.gz"
    path.write_bytes(damage(gzip.compress(b"".join(b'{"n": %d}\n' % n for n in range(500)))))
    source = reader(path)
    source.open(None)
    with pytest.raises(IngressError, match="not a whole gzip file"):
        drain(source)
    source.close()


def test_another_way_of_reading_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(b"id,n\na,1\nb,2\n")
    position = position_in(path, partition_by="id")
    with pytest.raises(IngressError, match="partition_by = 'id' so far"):
        reader(path, partition_by="n").open(position)
    with pytest.raises(IngressError, match="partitions = 1 so far"):
        reader(path, 0, 2, partition_by="id").open(position)


def test_a_bounded_file_that_is_cut_while_it_is_read(tmp_path: Path, small: None) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"n": 1}\n' * 20)
    source = reader(path)
    source.open(None)
    assert source.read(1, 0.0) is not None
    path.write_bytes(b"")
    with pytest.raises(IngressError, match="it was truncated"):
        drain(source)
    source.close()


# ---- growing files -----------------------------------------------------------------------------------------------------
def test_follows_a_growing_file(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(b"")
    source = reader(path, follow=True)
    source.open(None)
    expected: list[str] = []
    for piece, complete in [
        (b"id", []),
        (b",n\na,", []),
        (b"1", []),
        (b"\nb,2\n", ["a", "b"]),
        (b'"c\n', []),
        (b'd",3\n', ["c\nd"]),
    ]:
        with path.open("ab") as file:
            file.write(piece)
        found: list[str] = []
        while batch := source.read(10, 5.0):
            found += [record["id"] for record in batch.records]
            position = batch.position
        assert found == complete
        assert not source.finished
        assert source.wake_at == 5.0 + FOLLOW_INTERVAL_S
        expected += found
    source.close()
    assert position["file"]["head_bytes"] == path.stat().st_size
    path.write_bytes(b"id,n\nother,1\nthing,2\n" + b"x,1\n" * 20)
    with pytest.raises(IngressError, match="overwritten"):
        reader(path, follow=True).open(position)


@pytest.mark.parametrize("change", ["truncate", "replace", "remove", "overwrite"])
def test_a_followed_file_that_is_not_the_same_any_more(tmp_path: Path, change: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2}\n')
    source = reader(path, follow=True)
    source.open(None)
    assert len(drain(source)[0]) == 2
    if change == "truncate":
        os.truncate(path, 5)
    elif change == "replace":
        (tmp_path / "new").write_bytes(b'{"n": 3}\n')
        (tmp_path / "new").rename(path)
    elif change == "remove":
        path.unlink()
    else:
        path.write_bytes(b'{"n": 7}\n{"n": 8}\n')
    with pytest.raises(IngressError, match=r"truncated|replaced|removed|overwritten"):
        drain(source)
    source.close()


def test_an_endless_line_of_a_growing_file(tmp_path: Path, small: None) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"y" * 200)
    source = reader(path, follow=True)
    source.open(None)
    assert drain(source)[:2] == ([], [])
    with path.open("ab") as file:
        file.write(b'y\n{"n": 1}\n')
    records, rejects, _ = drain(source)
    source.close()
    assert records == [{"n": 1}]
    assert [item.position for item in rejects] == ["e.jsonl:1 (record 1)"]
    assert "got 202" in rejects[0].reason
