"""A node inside a program without an event loop."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from embedding_apps import COUNTER, FAST, Add, Fail, Total, app
from leftovers import Leftovers

from shardfun import BlockingSupervisor, Message
from shardfun.config import Config, load_config
from shardfun.embedding.supervisor import Started
from shardfun.errors import BacklogLimitError, ConfigurationError, UnavailableError


def test_everything_that_a_node_can_be_asked(leftovers: Leftovers, tmp_path: Path) -> None:
    with BlockingSupervisor(app, data_dir=tmp_path / "data", shards=2, **FAST) as node:
        node.send_all([Message(COUNTER, "a", Add(n)) for n in range(10)])
        assert node.ask(COUNTER, "b", Add(5), reply_type=Total, timeout=30) == Total(5)
        stream = node.egress("totals")
        assert sum(next(stream)["n"] for _ in range(11)) == 50
        assert node.query(COUNTER, "a").fields["total"] == 45
        assert sorted(node.scan(COUNTER)) == ["a", "b"]
        assert node.list(COUNTER).next is None
        assert node.kill_shard(1)
        assert node.ask(COUNTER, "b", Add(5), reply_type=Total) == Total(10)
        assert node.checkpoint() != "none"
        assert node.statistics().recoveries == 1
        with pytest.raises(TimeoutError):
            node.wait(0.1)
        assert node.stop().state == "stopped"
        assert [record["total"] for record in stream] == [10], "what is published can be read to its end"
    leftovers.check()
    with BlockingSupervisor(app, data_dir=tmp_path / "data", shards=2, **FAST) as node:
        node.send(COUNTER, "a", Add(1000))
        assert next(node.egress("totals", after=stream.position))["n"] == 1000


def test_many_threads_may_use_it(leftovers: Leftovers) -> None:
    with BlockingSupervisor(app, shards=1, **FAST) as node:

        def work() -> None:
            for _ in range(20):
                node.ask(COUNTER, "a", Add(1))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert node.ask(COUNTER, "a", Add(0), reply_type=Total) == Total(80)


def test_two_nodes_in_one_program(leftovers: Leftovers, tmp_path: Path) -> None:
    with (
        BlockingSupervisor(app, data_dir=tmp_path / "one", shards=1, **FAST) as one,
        BlockingSupervisor(app, data_dir=tmp_path / "two", shards=1, **FAST) as two,
    ):
        assert one.ask(COUNTER, "a", Add(1), reply_type=Total) == Total(1)
        assert two.ask(COUNTER, "a", Add(2), reply_type=Total) == Total(2)


def test_a_node_that_was_given_up_before_it_began_is_over(leftovers: Leftovers) -> None:
    """As after a Ctrl-C between two steps of the start."""
    started = Started(app, None, {"shards": 1}, fresh=False)
    thread = started.thread
    thread.give_up()
    with pytest.raises(UnavailableError):
        thread.ended.result(0)
    thread.start()
    thread.join()
    thread.give_up()
    with pytest.raises(UnavailableError):
        started.calls.checkpoint().result.result(0)
    started.clean_up()


def test_the_end_of_a_block_by_an_error(leftovers: Leftovers, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^mine$"), BlockingSupervisor(app, data_dir=tmp_path / "d", shards=1, **FAST) as node:
        node.send(COUNTER, "a", Add(1))
        raise ValueError("mine")
    leftovers.check()
    limits = {"backlog_low": 10, "backlog_high": 20, "backlog_limit": 1000}
    with pytest.raises(BacklogLimitError), BlockingSupervisor(app, shards=1, flow=limits, **FAST) as node:
        node.send("demo/flood", "f", Fail("x"))
        with pytest.raises(BacklogLimitError):
            node.wait()
        with pytest.raises(BacklogLimitError):
            node.send(COUNTER, "a", Add(1))


def test_settings_come_from_a_file_a_mapping_and_arguments(
    leftovers: Leftovers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDFUN_CHECKPOINT__IDLE_INTERVAL", "7 s")
    file = tmp_path / "shop.toml"
    file.write_text('app = "embedding_apps:app"\ndata_dir = "kept"\nshards = 1\n[checkpoint]\ninterval = "1 s"\n')
    with BlockingSupervisor(config=file, checkpoint={"timeout": "9 s"}, supervision={"spares": 0}) as node:
        status = node.statistics()
        config = node._calls.thread.node.config
        assert (status.name, status.app, len(status.shards)) == ("shop", "embedding_apps:app", 1)
        assert Path(status.data_dir) == tmp_path / "kept"
        checkpoint = config.checkpoint
        assert (checkpoint.interval_s, checkpoint.timeout_s, checkpoint.idle_interval_s) == (1.0, 9.0, 7.0)
        assert config.egress["totals"].kind == "stream"
        assert config.endless
    assert (tmp_path / "kept").is_dir(), "a file says where the data is, so it stays"
    whole: Config = load_config(file, settings={"egress": {"totals": {"kind": "stream"}}})
    with BlockingSupervisor(app, whole, data_dir=tmp_path / "other") as node:
        assert Path(node.statistics().data_dir) == tmp_path / "other"
        place = Path(node.statistics().data_dir)
    assert place.is_dir()
    with pytest.raises(ConfigurationError, match="inside the Config"), BlockingSupervisor(app, whole, checkpoint={}):
        pytest.fail("must not start")
    with BlockingSupervisor("embedding_apps:app", {"shards": 1, "supervision": {"spares": 0}}) as node:
        place = Path(node.statistics().data_dir)
        assert node.statistics().name == "node"
        assert place.is_dir()
    assert not place.parent.exists(), "it was temporary"
    with pytest.raises(UnavailableError):
        node.send(COUNTER, "a", Add(1))


def test_a_declared_egress_may_be_configured_otherwise(leftovers: Leftovers, tmp_path: Path) -> None:
    egress = {"totals": {"kind": "file", "path": tmp_path / "totals-{partition}.jsonl"}}
    with BlockingSupervisor(app, shards=1, egress=egress, **FAST) as node:
        node.ask(COUNTER, "a", Add(1))
        with pytest.raises(ConfigurationError, match="of kind 'file'"):
            node.egress("totals")
    assert '"total":1' in (tmp_path / "totals-0.jsonl").read_text().replace(" ", "")
