"""A reset overtaken by a newer one, which is what a second death during a recovery means for the survivors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from shardfun.config import load_config
from shardfun.egress.file import FileEgress
from shardfun.mesh.channel import Channel
from shardfun.mesh.fabric import Endpoint
from shardfun.model.control import Assign, Fatal, Ready, Reset, ToShard, decode_to_supervisor, encode_control
from shardfun.sdk.importing import import_app
from shardfun.shard.process import ShardProcess
from shardfun.shard.program import Application
from shardfun.state.store import LevelDBStore

CONFIG = """
app = "shardfun.examples.bank:app"
data_dir = "data"
shards = 2
[ingress.transfers]
kind = "file"
path = "transfers.jsonl"
[egress.outcomes]
kind = "file"
path = "out/outcomes-{partition}.jsonl"
[egress.balances]
kind = "file"
path = "out/balances-{partition}.jsonl"
"""
OPEN_S = 0.1
RESTORE_S = 0.3


def slow_down(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, by_s: float) -> threading.Event:
    """Make a method slow; the event is set when it is called first."""
    original, called = getattr(owner, method), threading.Event()

    def slow(*arguments: Any) -> Any:
        called.set()
        time.sleep(by_s)
        return original(*arguments)

    monkeypatch.setattr(owner, method, slow)
    return called


async def test_second_reset_while_the_first_reopens_the_sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = slow_down(monkeypatch, FileEgress, "open", OPEN_S)
    slow_down(monkeypatch, LevelDBStore, "recover", RESTORE_S)
    (tmp_path / "node.toml").write_text(CONFIG)
    (tmp_path / "transfers.jsonl").touch()
    config = load_config(tmp_path / "node.toml")
    supervisor, control = Channel(16, lambda: None), Channel(16, lambda: None)
    control.dial(supervisor.listen("tcp://127.0.0.1:0"))
    endpoint = Endpoint("ipc", "127.0.0.1", tmp_path, config.mesh.buffer_frames)
    process = ShardProcess(Application(config, import_app(config.app)), control, endpoint)

    def tell(message: ToShard) -> None:
        assert supervisor.send(encode_control(message))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        tell(Assign(0, 2, "0" * 32, str(tmp_path / "shard-0")))
        tell(Reset(1, 0, b"", "nonce-1"))
        await trio.to_thread.run_sync(opening.wait)
        tell(Reset(2, 0, b"", "nonce-2"))
        with trio.fail_after(60):
            while True:
                message = decode_to_supervisor(await supervisor.wait_frame())
                assert not isinstance(message, Fatal), message
                if isinstance(message, Ready) and message.incarnation == 2:
                    break
        with trio.move_on_after(OPEN_S + RESTORE_S):  # nothing of the first may come late
            message = decode_to_supervisor(await supervisor.wait_frame())
            assert not isinstance(message, (Fatal, Ready)), message
        nursery.cancel_scope.cancel()
    supervisor.close()
    control.close()
