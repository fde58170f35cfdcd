"""Log lines carry what is known, hide what is secret, and never fail their caller."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio

from shardfun.errors import ConfigurationError
from shardfun.telemetry.files import LOG_FILES_KEPT, LogFile
from shardfun.telemetry.logs import FORWARDED_TEXT_MAX, configure_logging, forward_line, open_log_context


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def _json(stream: io.StringIO, level: str = "info") -> None:
    configure_logging(level=level, json=True, stream=stream)


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_have_time_level_event_and_fields(stream: io.StringIO) -> None:
    _json(stream)
    structlog.get_logger().info("checkpoint complete", bytes=12, path=Path("/x"))
    [line] = _lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {"level": "info", "event": "checkpoint complete", "bytes": 12, "path": repr(Path("/x"))}


def test_level_filters(stream: io.StringIO) -> None:
    _json(stream, "warning")
    structlog.get_logger().info("no")
    structlog.get_logger().error("yes")
    assert [line["event"] for line in _lines(stream)] == ["yes"]


def test_console_is_readable_and_plain_when_not_a_terminal(stream: io.StringIO) -> None:
    configure_logging(level="info", json=False, stream=stream)
    structlog.get_logger().info("shard ready", shard=1)
    assert "shard ready" in stream.getvalue()
    assert "shard=1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_has_no_local_variables(stream: io.StringIO, *, as_json: bool) -> None:
    configure_logging(level="info", json=as_json, stream=stream)
    local = "local-value"
    try:
        int(local[:5])
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: invalid literal" in stream.getvalue()
    assert "local-value" not in stream.getvalue()


def test_secrets_are_redacted_at_any_depth(stream: io.StringIO) -> None:
    _json(stream)
    structlog.get_logger().info("open", options={"password": "p1", "list": [{"API-Key": "p2"}]}, access_token="p3", user="u")
    text = stream.getvalue()
    assert not any(secret in text for secret in ("p1", "p2", "p3"))
    assert text.count("<redacted>") == 3
    assert _lines(stream)[0]["user"] == "u"


def test_a_cyclic_value_ends(stream: io.StringIO) -> None:
    _json(stream)
    cyclic: list[object] = []
    cyclic.append(cyclic)
    structlog.get_logger().info("odd", value=cyclic)
    assert _lines(stream)[0]["event"] == "odd"


async def test_children_see_what_the_owner_of_the_context_learns_later(stream: io.StringIO) -> None:
    _json(stream)
    go = trio.Event()

    async def child() -> None:
        await go.wait()
        structlog.get_logger().info("child")

    async with trio.open_nursery() as nursery:
        context = open_log_context(shard=3)
        nursery.start_soon(child)
        await trio.testing.wait_all_tasks_blocked()
        context.incarnation, context.checkpoint = 2, (2 << 32) | 41
        structlog.get_logger().info("owner", checkpoint=7)
        await trio.to_thread.run_sync(structlog.get_logger().info, "thread")
        go.set()
    owner, thread, late = _lines(stream)
    assert (owner["shard"], owner["incarnation"], owner["checkpoint"]) == (3, 2, 7)
    assert (thread["shard"], thread["incarnation"], thread["checkpoint"]) == (3, 2, "2.41")
    assert (late["shard"], late["incarnation"], late["checkpoint"]) == (3, 2, "2.41")


def test_the_standard_library_ends_up_here(stream: io.StringIO) -> None:
    _json(stream)
    _json(stream)
    logging.getLogger("app.part").warning("took %d s", 3)
    logging.getLogger("app.part").log(25, "between")
    logging.getLogger("app.part").debug("filtered")
    took, between = _lines(stream)
    assert (took["event"], took["level"], took["logger"]) == ("took 3 s", "warning", "app.part")
    assert between["level"] == "info"


def test_forwarded_json_keeps_time_level_and_fields(stream: io.StringIO) -> None:
    inner = io.StringIO()
    _json(inner)
    structlog.get_logger().error("cut late", milliseconds=9, shard=7)
    [written] = _lines(inner)
    _json(stream)
    forward_line(inner.getvalue().encode(), 1)
    assert _lines(stream) == [written | {"shard": 1}]


def test_forwarded_levels_are_filtered_here(stream: io.StringIO) -> None:
    _json(stream, "error")
    forward_line(b'{"event": "x", "level": "info"}', 0)
    forward_line(b'{"event": "y", "level": "critical"}', 0)
    assert [line["event"] for line in _lines(stream)] == ["y"]


@pytest.mark.parametrize("line", [b"Segmentation fault", b"[1, 2]", b'{"a": 1}', b"\xff\x00", b"[" * 100_000, b'"\\ud800"'])
def test_anything_else_is_output(stream: io.StringIO, line: bytes) -> None:
    _json(stream)
    forward_line(line + b"\n", None)
    [event] = _lines(stream)
    assert (event["event"], event["level"]) == ("output", "warning")
    assert "shard" not in event


def test_output_is_bounded_and_harmless(stream: io.StringIO) -> None:
    _json(stream)
    forward_line(b"\x1b[2J" + b"x" * 100_000, 2)
    forward_line(b"  \r\n", 2)
    [event] = _lines(stream)
    text = str(event["text"])
    assert "\x1b" not in text
    assert len(text) < FORWARDED_TEXT_MAX + 50
    assert text.endswith(f"({100_004 - FORWARDED_TEXT_MAX} more bytes)")


def test_hostile_field_names_are_dropped(stream: io.StringIO) -> None:
    _json(stream)
    fields = {"event": "e", "level": "nonsense", "self": 1, "method_name": 1, "exc_info": True, "stack_info": True, "args": 1}
    forward_line(json.dumps(fields).encode(), 0)
    [event] = _lines(stream)
    assert event.keys() == {"timestamp", "level", "event", "args", "shard"}
    assert event["level"] == "info"


def test_a_file_is_json_private_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "node.log"
    configure_logging(level="info", json=False, file=path, stream=sys.stderr)
    structlog.get_logger().info("hello")
    assert json.loads(path.read_text())["event"] == "hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    log = LogFile(path, bytes_max=100)
    for number in range(20):
        log.write_line(f"{number:040}")
    log.close()
    log.close()
    assert len(list(path.parent.iterdir())) == 1 + LOG_FILES_KEPT
    assert all(file.stat().st_size <= 100 for file in path.parent.iterdir())
    assert path.read_text().endswith("19\n")


def test_a_file_that_cannot_be_opened_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"log\.file: .*Is a directory"):
        configure_logging(level="info", json=False, file=tmp_path, stream=sys.stderr)


class _Broken(io.StringIO):
    broken = True

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


def test_a_broken_stream_loses_lines_not_the_caller_and_says_so() -> None:
    stream = _Broken()
    _json(stream)
    structlog.get_logger().info("one")
    structlog.get_logger().info("two")
    stream.broken = False
    structlog.get_logger().info("three")
    three, lost = _lines(stream)
    assert (three["event"], lost["event"], lost["count"]) == ("three", "log lines lost", 2)


def test_a_full_disk_loses_lines_not_the_caller() -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")
    log = LogFile(Path("/dev/full"))
    log.write_line("lost")
    assert log.lost == 1
    log.close()
