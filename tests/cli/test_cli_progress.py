"""What a person sees of a running node, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from cli_samples import node_status
from rich.console import Console
from rich.live import Live

from shardfun.cli.figures import count, counted, duration, rate, size
from shardfun.cli.node_view import node_line, node_view
from shardfun.cli.progress import LineDisplay, LiveDisplay, NoDisplay, open_display
from shardfun.cli.rates import WINDOW_S, Rates
from shardfun.model.status import CheckpointStatus, FunctionStatus, NodeStatus, ShardStatus


def _shown(status: NodeStatus, rates: Rates | None = None) -> str:
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(node_view(status, rates))
    return console.export_text()


def _moving() -> tuple[NodeStatus, Rates]:
    rates = Rates()
    rates.add(node_status(), 100.0)
    after = node_status(records_in=2500, published=70, per_shard=[1600, 1400])
    rates.add(after, 101.0)
    return after, rates


# ---- the table -----------------------------------------------------------------------------------------------------------
def test_a_node_at_work() -> None:
    text = _shown(*_moving())
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:2] == ["shop", "running"]
    assert ["records", "in", "2,500", "2,000/s"] in lines
    assert ["invocations", "3,000", "2,000/s"] in lines
    assert ["0", "running", "4000", "0", "1,600", "1,000/s", "0", "0", "50.0", "MiB"] in lines
    assert ["1", "running", "4001", "1", "1,400", "1,000/s", "1,234", "0", "50.0", "MiB"] in lines
    assert "3.17" in text
    assert "120 ms ago, took 21 ms, 78.1 KiB; 90 complete, 1 aborted" in text


def test_one_status_alone_has_no_rates() -> None:
    text = _shown(node_status())
    assert "/s" not in text


def test_a_status_has_a_row_for_each_function_type_that_has_done_something() -> None:
    functions = [
        FunctionStatus("shop/cart", messages_in=1200, out_local=3, out_remote=4, out_egress=5, invocations=1201, retries=1),
        FunctionStatus("shop/idle"),
        FunctionStatus("shop/[wild]", backlog=7, invocations=9),
    ]
    lines = [line.split() for line in _shown(node_status(functions=functions)).splitlines()]
    head = next(line for line in lines if line[:1] == ["function"])
    assert head == ["function", "in", "out", "local", "out", "remote", "egress", "invocations", "retries", "backlog"]
    assert ["shop/cart", "1,200", "3", "4", "5", "1,201", "1", "0"] in lines
    assert ["shop/[wild]", "0", "0", "0", "0", "9", "0", "7"] in lines
    assert "shop/idle" not in _shown(node_status(functions=functions))
    assert "function" not in _shown(node_status())


def test_a_dead_shard_and_its_recovery_are_seen() -> None:
    dead = ShardStatus(shard=0, pid=0, state="dead", restarts=1)
    text = _shown(node_status(shards=[dead], recoveries=1, last_recovery_ms=93.0, last_fault="shard 0 died (SIGKILL)"))
    assert "dead" in text
    assert "the last took 93 ms; shard 0 died (SIGKILL)" in text


def test_what_fails_at_the_doors_is_shown() -> None:
    failing = ShardStatus(shard=1, pid=7, state="running", troubles=["egress 'hook': https://[::1]/ answered 500"])
    assert "shard 1: egress 'hook': https://[::1]/ answered 500" in _shown(node_status(shards=[failing]))
    assert "1 ingress or egress failing" in node_line(node_status(shards=[failing]), Rates())


def test_brackets_are_text_not_markup() -> None:
    stuck = ShardStatus(shard=0, pid=1, state="running", running="a/b[/red] for 3.0 s")
    text = _shown(node_status(shards=[stuck], dead_letters=2, recoveries=1, last_fault="OSError: [Errno 28]"))
    assert "in a/b[/red] for 3.0 s" in text
    assert "/srv/[shop]/data --dead-letters" in text
    assert "[Errno 28]" in text


def test_a_known_total_gets_a_bar() -> None:
    text = _shown(node_status(records_total=1000))
    assert "500 of 1,000" in text
    assert "━" in text


def test_before_the_first_checkpoint() -> None:
    assert "none" in _shown(node_status(checkpoint=CheckpointStatus()))


# ---- the line ------------------------------------------------------------------------------------------------------------
def test_the_line_is_one_plain_line() -> None:
    status, rates = _moving()
    line = node_line(status, rates)
    assert line == (
        "shop running  records 2,500 (2,000/s)  invocations 3,000 (2,000/s)  published 70  "
        "checkpoint 3.17 (120 ms ago, took 21 ms)"
    )


def test_the_line_names_what_is_wrong() -> None:
    down = [ShardStatus(shard=0, pid=1, state="running"), ShardStatus(shard=1, pid=0, state="dead")]
    line = node_line(node_status(shards=down, recoveries=2, dead_letters=1), Rates())
    assert line.endswith("1 dead letter  2 recoveries  shard 1 dead")


# ---- displays ------------------------------------------------------------------------------------------------------------
def test_the_live_display_follows_the_node() -> None:
    console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True)
    with Live("", console=console, auto_refresh=False) as live:
        display = LiveDisplay(live)
        for second, records in enumerate((100, 250, 400)):
            display.show(node_status(records_in=records), float(second))
    text = console.export_text()
    assert all(figure in text for figure in ("100", "250", "400", "150/s"))


def test_a_terminal_that_went_away_does_not_stop_the_node() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(5, "Input/output error")

    live = Live("", console=Console(file=Gone(), force_terminal=True), auto_refresh=False)
    LiveDisplay(live).show(node_status(), 0.0)


def test_without_a_terminal_lines_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display(wanted=True, stdout_has_records=False) as display:
        assert isinstance(display, LineDisplay)
        display.show(node_status(), 0.0)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("shop running  ")
    assert output.err.count("\n") == 1


def test_no_progress_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display(wanted=False, stdout_has_records=False) as display:
        assert isinstance(display, NoDisplay)
        display.show(node_status(), 0.0)
    assert capsys.readouterr() == ("", "")


# ---- rates ---------------------------------------------------------------------------------------------------------------
def test_rates_need_two_statuses() -> None:
    rates = Rates()
    assert rates.records is None
    rates.add(node_status(), 0.0)
    assert rates.records is None


def test_rates_forget_what_is_older_than_their_window() -> None:
    rates = Rates()
    for second in range(20):
        rates.add(node_status(records_in=1000 * second if second < 10 else 10_000), float(second))
    assert rates.records == 0
    assert WINDOW_S < 10


def test_a_recovery_shows_no_negative_rate_and_no_leap() -> None:
    rates = Rates()
    rates.add(node_status(records_in=900), 0.0)
    rates.add(node_status(records_in=1000), 1.0)
    half_back = [ShardStatus(shard=0, pid=1, state="running", incarnation=4), ShardStatus(shard=1, pid=2, state="running")]
    rates.add(node_status(records_in=300, incarnation=4, shards=half_back), 2.0)
    assert rates.records is None
    rates.add(node_status(records_in=950, incarnation=4), 3.0)
    assert rates.records is None
    rates.add(node_status(records_in=1050, incarnation=4), 4.0)
    assert rates.records == 100


def test_counters_that_go_back_within_an_incarnation_start_anew() -> None:
    rates = Rates()
    rates.add(node_status(records_in=900), 0.0)
    rates.add(node_status(records_in=100), 1.0)
    assert rates.records is None


# ---- figures -------------------------------------------------------------------------------------------------------------
def test_figures_as_people_read_them() -> None:
    assert count(1234567) == "1,234,567"
    assert [counted(1, "recovery", "recoveries"), counted(2, "recovery", "recoveries"), counted(0, "shard")] == [
        "1 recovery",
        "2 recoveries",
        "0 shards",
    ]
    assert [rate(None), rate(0), rate(2.5), rate(12345.6)] == ["-", "0/s", "2.5/s", "12,346/s"]
    assert [size(0), size(1023), size(1024), size(80_000), size(300 << 20), size(5 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "78.1 KiB",
        "300 MiB",
        "5120 TiB",
    ]
    assert [duration(0), duration(0.093), duration(4.25), duration(75), duration(3723)] == [
        "0 ms",
        "93 ms",
        "4.2 s",
        "1 min 15 s",
        "1 h 02 min",
    ]
