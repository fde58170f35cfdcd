"""The comparison finds every kind of difference, and nothing where only the interleaving differs."""

import json

import pytest

from shardfun.examples.compare import DIFFERENCES_MAX, compare, compare_folder, read_published
from shardfun.examples.flights import compare as flights_compare

A1, A2, B1 = ({"address": address, "n": n} for address, n in (("a", 1), ("a", 2), ("b", 1)))


def compared(published, expected):
    return compare("late", published, expected, address="address")


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_another_interleaving_of_addresses_is_equal():
    """Only the order for each address counts; so does not the order of keys in a record."""
    assert compared([B1, {"n": 1, "address": "a"}, A2], [A1, A2, B1]).equal


@pytest.mark.parametrize(
    ("published", "sentence"),
    [
        ([A1, B1], 'late: missing: {"address":"a","n":2}'),
        ([A1, A2, A2, B1], 'late: published too often: {"address":"a","n":2}'),
        ([A1, A2, A2, A2, B1], 'late: published too often 2 times: {"address":"a","n":2}'),
        ([A1, A2, B1, {"address": "c", "n": 1}], 'late: not expected: {"address":"c","n":1}'),
        ([A2, A1, B1], "late: wrong order at a, record 1"),
    ],
)
def test_each_kind_of_difference_is_found_and_named(published, sentence):
    """One difference, one sentence that begins with its kind."""
    comparison = compared(published, [A1, A2, B1])
    assert comparison.count == 1
    assert comparison.differences[0].startswith(sentence)


def test_a_changed_value_is_missing_and_not_expected():
    """Integers and floats, numbers and texts are told apart."""
    assert compared([{"address": "a", "n": "1"}], [A1]).count == 2
    assert compared([{"address": "a", "n": 1.0}], [A1]).count == 2


def test_all_differences_are_counted_but_only_the_first_described():
    """A report stays readable."""
    comparison = compared([], [{"address": "a", "n": n} for n in range(50)])
    assert (comparison.count, len(comparison.differences)) == (50, DIFFERENCES_MAX)


def test_files_of_all_partitions_are_read_and_others_are_not(tmp_path):
    """``late-early-0.jsonl`` belongs to another egress."""
    write_lines(tmp_path / "late-0.jsonl", [A1])
    write_lines(tmp_path / "late-10.jsonl", [A2, B1])
    write_lines(tmp_path / "late-early-0.jsonl", [A1])
    assert read_published(tmp_path, "late") == ([A1, A2, B1], [])


@pytest.mark.parametrize("tail", ['{"address": "a", "n"', '{"address": "a", "n": 2}', "[1]\n", "\x00\x00\n", "\n"])
def test_a_torn_or_foreign_line_is_a_difference(tmp_path, tail):
    """A record without its line end may be the first part of a longer one."""
    (tmp_path / "late-0.jsonl").write_text(json.dumps(A1) + "\n" + tail)
    comparison = compare_folder(tmp_path, "late", [A1], address="address")
    assert comparison.count == 1
    assert "late-0.jsonl, line 2" in comparison.differences[0]


def test_nothing_published_is_not_equal_to_something_expected(tmp_path):
    """No files, no records."""
    assert compare_folder(tmp_path / "none", "late", [A1], address="address").count == 1


def test_the_command_gives_the_verdict_as_text_and_exit_code(tmp_path, capsys):
    """Equal, different, unreadable."""
    for egress in ("late", "totals"):
        write_lines(tmp_path / "plain" / f"{egress}.jsonl", [A1, A2])
        write_lines(tmp_path / "out" / f"{egress}-0.jsonl", [A1, A2])
    arguments = [str(tmp_path / "out"), str(tmp_path / "plain")]
    assert flights_compare.main(arguments) == 0
    assert capsys.readouterr().out.endswith("\nequal to the single-threaded result\n")
    write_lines(tmp_path / "out" / "totals-1.jsonl", [A1])
    assert flights_compare.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "totals: published too often" in printed
    assert printed.endswith("NOT equal to the single-threaded result\n")
    (tmp_path / "plain" / "late.jsonl").unlink()
    assert flights_compare.main(arguments) == 2
