"""Where the log of a supervisor goes that lives in somebody else's program."""

from __future__ import annotations

import contextvars
import json
import logging
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shardfun.telemetry.files import LogFile
from shardfun.telemetry.node_log import Destination, NodeLog, ToFile, ToLogging, log_to


def embedded(destination: Destination, level: int, event: str, **fields: object) -> None:
    def run() -> None:
        log_to(destination)
        NodeLog("shardfun.supervisor").log(level, event, **fields)

    contextvars.Context().run(run)


def test_lines_are_records_of_logging_and_structlog_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with capture_logs() as lines, caplog.at_level(logging.INFO, "shardfun"):
        embedded(ToLogging(), logging.WARNING, "shard 1 died", pid=17, token="hidden", text="100 % of it")
        embedded(ToLogging(), logging.DEBUG, "not asked for")
    assert lines == []
    [record] = caplog.records
    assert (record.name, record.levelname) == ("shardfun", "WARNING")
    assert record.getMessage() == "shard 1 died pid=17 token=<redacted> text=100 % of it"


def test_elsewhere_it_is_structlog_as_before() -> None:
    with capture_logs() as lines:
        NodeLog("shardfun.supervisor").warning("recovered", shard=1)
    assert [(line["event"], line["log_level"], line["shard"]) for line in lines] == [("recovered", "warning", 1)]


def test_a_file_of_its_own_has_lines_of_json_from_a_level_on(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "node.log")
    embedded(ToFile(file, logging.INFO), logging.INFO, "running", shards=2, password="hidden")
    embedded(ToFile(file, logging.INFO), logging.DEBUG, "not asked for")
    file.close()
    [line] = map(json.loads, (tmp_path / "node.log").read_text().splitlines())
    assert (line["level"], line["event"], line["shards"], line["password"]) == ("info", "running", 2, "<redacted>")
