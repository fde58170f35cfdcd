"""Compare what the flights application published with the result of the plain program.

    python -m shardfun.examples.flights.compare PUBLISHED PLAIN

``PUBLISHED`` is the folder of the egress files, ``PLAIN`` the folder that the plain program wrote. Exit code 0 if they are
equal, 1 if they differ, 2 if the plain result cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shardfun.examples.compare import Comparison, compare_folder, read_records

EGRESSES = ("late", "totals")
ADDRESS = "address"
EQUAL = "equal to the single-threaded result"
EXIT_DIFFERENT = 1
EXIT_UNREADABLE = 2


def compare_results(published: Path, plain: Path) -> list[Comparison]:
    """One comparison for each egress.

    Raises:
        OSError: a file of the plain result is missing.
        ValueError: a file of the plain result is damaged.
    """
    comparisons: list[Comparison] = []
    for egress in EGRESSES:
        expected, damaged = read_records(plain / f"{egress}.jsonl")
        if damaged:
            raise ValueError(damaged[0])
        comparisons.append(compare_folder(published, egress, expected, address=ADDRESS))
    return comparisons


def report(comparisons: list[Comparison]) -> bool:
    """Print counts, the first differences and the verdict; return whether all is equal."""
    for comparison in comparisons:
        print(f"{comparison.egress}: {comparison.records} records published, {comparison.count} differences")
        for difference in comparison.differences:
            print(f"  {difference}")
    equal = all(comparison.equal for comparison in comparisons)
    print(EQUAL if equal else "NOT equal to the single-threaded result")
    return equal


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("published", type=Path, help="folder of the egress files")
    parser.add_argument("plain", type=Path, help="folder that the plain program wrote")
    options = parser.parse_args(arguments)
    try:
        comparisons = compare_results(options.published, options.plain)
    except (OSError, ValueError) as error:
        print(f"compare: expected the result of the plain program in {options.plain}: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    return 0 if report(comparisons) else EXIT_DIFFERENT


if __name__ == "__main__":
    sys.exit(main())
