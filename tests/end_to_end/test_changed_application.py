"""An application changes while messages wait: what can be upgraded runs on, the rest is parked and the operator is told."""

from __future__ import annotations

import signal

from real_node import FILE_EGRESS, Node, file_ingress, wait_for

from shardfun.errors import UnavailableError
from shardfun.supervisor import query_status


def blocked(node: Node) -> int:
    """Addresses that wait for another attempt."""
    try:
        return sum(shard.blocked for shard in query_status(node.data, 1.0).shards)
    except UnavailableError:
        return 0


def test_messages_and_state_of_an_earlier_version_are_upgraded_and_what_is_gone_is_parked_and_said(node: Node) -> None:
    (node.folder / "version").write_text("1")
    node.configure(file_ingress() + FILE_EGRESS, app="changing:app")
    records = [{"to": f"shop/{name}", "id": "1", "kind": "add", "n": 5} for name in ("cart", "order")]
    records += [{"to": "shop/cart", "id": "1", "kind": "add", "n": n} for n in (1, 2)]
    records += [{"to": "shop/cart", "id": "1", "kind": "gone", "n": n} for n in (1, 2, 3)]
    records += [{"to": "shop/order", "id": "1", "kind": "seen", "n": n} for n in (7, "seven")]
    records += [{"to": "old/cart", "id": "1", "kind": "add", "n": 1}]
    node.lines("in.jsonl", records)
    process = node.start("--no-progress")
    wait_for(lambda: blocked(node) == 3, "each address to wait with what has failed")
    code, stderr = node.end(process, signal.SIGTERM)
    assert code == 0, stderr
    assert node.out() == []

    (node.folder / "version").write_text("2")
    done = node.run("--no-progress")
    assert done.returncode == 0, done.stderr
    said = (
        "3 restored messages for shop/cart are parked: the type changing.Gone does not exist any more",
        "1 restored message for old/cart is parked: the function old/cart does not exist any more",
        "1 restored message for shop/order is parked: stored or received value is not a changing.Seen: Expected `int`, got `str`",
    )
    for text in said:
        assert done.stderr.count(text) == 2, f"once as a warning, once in the summary: {text}\n{done.stderr}"
    assert sorted(node.out(), key=str) == sorted(
        [
            {"name": "shop/cart:1", "by": "version 1", "total": 6},
            {"name": "shop/cart:1", "by": "version 1", "total": 8},
            {"name": "shop/cart:1", "end": 8},
            {"name": "shop/order:1", "seen": 7, "total": 5},
            {"name": "shop/order:1", "end": 5},
        ],
        key=str,
    )
    assert sorted(letter["payload_type"] for letter in node.letters()) == [
        "changing.Add",
        *["changing.Gone"] * 3,
        "changing.Seen",
    ]
