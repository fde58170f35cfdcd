"""Write transfers for the bank, or check what a bank published.

    python -m shardfun.examples.bank --write FILE --transfers N --accounts A --seed S
    python -m shardfun.examples.bank --check FOLDER --of FILE [--strict]

Exit code 0 if written or correct, 1 if something differs, 2 if a file cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shardfun.examples.bank.check import check_exact, check_strict
from shardfun.examples.bank.transfers import Record, make_transfers, read_transfers, write_transfers
from shardfun.examples.compare import DIFFERENCES_MAX

EXIT_DIFFERENT = 1
EXIT_UNUSABLE = 2


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shardfun.examples.bank", description=(__doc__ or "").partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE", help="write transfers as JSON lines, gzipped if FILE ends in .gz")
    action.add_argument("--check", type=Path, metavar="FOLDER", help="check the egress files in FOLDER")
    parser.add_argument("--transfers", type=int, default=20_000, metavar="N", help="with --write (default 20000)")
    parser.add_argument("--accounts", type=int, default=200, metavar="A", help="with --write (default 200)")
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="with --write (default 7)")
    parser.add_argument("--of", type=Path, metavar="FILE", help="with --check: the transfers that the bank read")
    parser.add_argument("--strict", action="store_true", help="with --check: the bank refuses what is not covered")
    options = parser.parse_args(arguments)
    if options.check is not None and options.of is None:
        parser.error("--check: expected --of FILE beside it, the transfers that the bank read")
    try:
        if options.write is not None:
            written = write_transfers(options.write, make_transfers(options.transfers, options.accounts, options.seed))
            print(f"{options.write}: {written} transfers")
            return 0
        transfers = list(read_transfers(options.of))
    except (OSError, ValueError) as error:
        print(f"bank: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    assert options.check is not None, "the parser wants one of the two"
    count, sentences = _differences(options.check, transfers, strict=options.strict)
    for sentence in sentences[:DIFFERENCES_MAX]:
        print(f"  {sentence}")
    print(f"{count} differences" if count else f"correct: {len(transfers)} transfers, no money lost or made")
    return EXIT_DIFFERENT if count else 0


def _differences(published: Path, transfers: list[Record], *, strict: bool) -> tuple[int, list[str]]:
    """How many differences there are, and at least the first ones as sentences."""
    if strict:
        sentences = check_strict(published, transfers)
        return len(sentences), sentences
    comparisons = check_exact(published, transfers)
    return sum(found.count for found in comparisons), [sentence for found in comparisons for sentence in found.differences]


if __name__ == "__main__":
    sys.exit(main())
