"""What is fuzzed: one ``Target`` for each decoder of bytes or text that come from outside a process.

Tests (``test_fuzz_decoders.py``) and the command ``tools/fuzz`` drive the same list, ``all_targets()``. The targets themselves are in
the modules ``fuzz_*`` beside this one, by the part of the product that they belong to.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

SECONDS_MAX: Final = 5.0
"""CPU time for one input of a few kilobytes. The machine may be busy, so far more than anything should take."""

MESSAGE_CHARACTERS_MAX: Final = 4000
"""Of an error: it may quote the input, and must not repeat all of it."""

MODULES: Final = (
    "model",
    "values",
    "stored",
    "files",
    "intake",
    "egress",
    "ingress",
    "config",
    "control",
    "door",
    "command_line",
)


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder.

    Args:
        run: the decoder, and what makes sure that its value is a good one.
        errors: the documented ones.
        seeds: valid inputs; called once, when they are needed.
        encode: of a decoder with an encoder, the way back.
        words: short pieces that are likely to mean something in an input.
        message_max: characters of an error's message.
    """

    name: str
    run: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]
    encode: Callable[[Any], bytes] | None = None
    words: tuple[bytes, ...] = field(default=())
    message_max: int = MESSAGE_CHARACTERS_MAX


class Refused:
    """The outcome of an input that got a documented error."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def outcome(target: Target, data: bytes) -> Any:
    """Run a decoder once: its value, or ``Refused``.

    Raises:
        Exception: what the decoder should not have raised, and did; ``AssertionError``: it took too long, or its error says too much.
    """
    started = time.process_time()
    try:
        value: Any = target.run(data)
    except target.errors as error:
        value = Refused(error)
    took_s = time.process_time() - started
    assert took_s < SECONDS_MAX, f"{took_s:.1f} s for {len(data)} bytes"
    if isinstance(value, Refused):
        text = str(value.error)
        assert text, f"an error without a message: {value.error!r}"
        assert len(text) <= target.message_max, f"a message of {len(text)} characters: {text[:100]}"
    return value


def round_trip(target: Target, data: bytes) -> None:
    """What was decoded and encoded again is decoded to the same, if there is an encoder."""
    value = outcome(target, data)
    if target.encode is None or isinstance(value, Refused):
        return
    encoded = target.encode(value)
    again = target.encode(target.run(encoded))
    assert encoded == again, f"{encoded!r:.200} is read as another value: {again!r:.200}"


def targets_of(module: str) -> dict[str, Target]:
    """The targets of one of ``MODULES`` by name."""
    return {target.name: target for target in import_module(f"fuzz_{module}").TARGETS}


@cache
def all_targets() -> dict[str, Target]:
    """Every target by name."""
    found: dict[str, Target] = {}
    for module in MODULES:
        targets = targets_of(module)
        assert not found.keys() & targets.keys(), "two targets have the same name"
        found |= targets
    return found


@cache
def seeds_of(name: str) -> tuple[bytes, ...]:
    """Valid inputs of a target."""
    return tuple(all_targets()[name].seeds())


@cache
def scratch() -> Path:
    """A folder for decoders that read files; in memory where that can be, and gone when the process ends."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="shardfun-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def file_with(name: str, data: bytes) -> Path:
    """A file of the scratch folder with this content."""
    path = scratch() / name
    path.write_bytes(data)
    return path


def empty_folder(name: str) -> Path:
    """A folder with nothing in it."""
    path = scratch() / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def pieces(data: bytes, count: int) -> list[bytes]:
    """One input as several: each but the last has its length (two bytes) in front; what is missing is empty."""
    found: list[bytes] = []
    for _ in range(count - 1):
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return [*found, data]


def joined(*parts: bytes) -> bytes:
    """The inverse of ``pieces``."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts[:-1]) + parts[-1]
