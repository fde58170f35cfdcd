"""The network of the shells by itself."""

from __future__ import annotations

import random
import weakref

import trio
import trio.testing
from shell_channels import Net


class _Process:
    """Somebody whose frame is on its way."""


async def test_what_is_on_its_way_when_the_network_ends_holds_nobody(autojump_clock: trio.testing.MockClock) -> None:
    net = Net(random.Random(1))
    process = _Process()
    kept = weakref.ref(process)
    async with trio.open_nursery() as nursery:
        await nursery.start(net.run)
        net.at(trio.current_time() + 10, lambda process=process: None)
        del process
        await trio.sleep(1)
        assert kept() is not None
        nursery.cancel_scope.cancel()
    assert kept() is None
