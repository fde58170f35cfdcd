"""Where the segments of a stream are, and what their names say.

A partition of a stream is a folder of files of JSON lines. The name of a file says how many records, and how many bytes of
records, come before it, so that a position is found by names alone, and what was deleted in front changes nothing behind.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

STREAMS_FOLDER: Final = "streams"
JOB_DIGITS: Final = 8

_NAME: Final = re.compile(r"(\d{16})-(\d{18})-([0-9a-f]{8})\.jsonl", re.ASCII)


class Segment(NamedTuple):
    """One file of a partition.

    Args:
        records: of the partition before this file.
        bytes: of the partition before this file.
        job: the first digits of the job that wrote it.
    """

    records: int
    bytes: int
    job: str
    path: Path


def partition_folder(data_dir: Path, name: str, partition: int) -> Path:
    """The folder of one partition of the stream of egress ``name``."""
    return data_dir / STREAMS_FOLDER / name / str(partition)


def segment_at(folder: Path, records: int, size: int, job: str) -> Segment:
    """The segment that begins there, whether it exists or not."""
    return Segment(records, size, job, folder / f"{records:016d}-{size:018d}-{job}.jsonl")


def segments_in(folder: Path) -> list[Segment]:
    """All segments, oldest first; none if there is no folder.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        found = [(entry, _NAME.fullmatch(entry.name)) for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(Segment(int(match[1]), int(match[2]), match[3], entry) for entry, match in found if match is not None)
