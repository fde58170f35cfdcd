"""Clients that are slow, half there, too many or no HTTP at all: none of them takes more than its share, and each is told why."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from door_world import ADD, ADDRESS, World, read_answer, reply, serving

from shardfun.door.connection import BODY_WAITING_BYTES
from shardfun.errors import EventIdError, EventsGoneError
from shardfun.mesh.listening import tls_context

HEAD = b"POST " + ADDRESS.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(ADD) + ADD
SOON_S = 60.0  # a limit: machines are shared


@pytest.fixture(autouse=True)
async def _in_time() -> AsyncIterator[None]:
    """Nothing here may take long: what hangs has found a client that may hold the door."""
    with trio.fail_after(60):
        yield


async def closed(stream: trio.SocketStream) -> bytes:
    """Read until the door closes the connection."""
    data = b""
    with trio.fail_after(SOON_S):
        try:
            while piece := await stream.receive_some(65536):
                data += piece
        except trio.BrokenResourceError:
            pass
    return data


async def until(condition: Any) -> None:
    with trio.fail_after(SOON_S):
        while not condition():  # noqa: ASYNC110 - from outside there is only looking
            await trio.sleep(0.01)


async def all_gone(world: World) -> None:
    await until(lambda: world.server.connections == 0)


# ---- slow and half-open --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "sent",
    [
        b"P",
        HEAD,
        HEAD + b"Content-Length: 5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nab",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab",
    ],
)
async def test_a_request_that_does_not_arrive_in_time(sent: bytes) -> None:
    async with serving(read_timeout_s=0.3) as world:
        answer = await world.raw(sent)
        answer.problem("too-slow", 408)
        await all_gone(world)
        assert not world.intake.entries


async def test_a_byte_now_and_then_does_not_buy_time() -> None:
    async with serving(read_timeout_s=0.5) as world, await world.connect() as stream, trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in HEAD * 100:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.02)

        nursery.start_soon(drip)
        (await read_answer(stream)).problem("too-slow", 408)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "sent", [b"P", HEAD, HEAD + b"Content-Length: 5\r\n\r\nab", HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab"]
)
async def test_half_a_request_and_no_more_to_come(sent: bytes) -> None:
    async with serving() as world, await world.connect() as stream:
        await stream.send_all(sent)
        await stream.send_eof()
        (await read_answer(stream)).problem("malformed-request", 400)
        await all_gone(world)
        assert not world.intake.entries


async def test_a_client_that_sends_no_more_still_gets_its_answer() -> None:
    async with serving() as world, await world.connect() as stream:
        await stream.send_all(WHOLE.replace(b" HTTP/1.1", b"?wait=300ms HTTP/1.1"))
        await stream.send_eof()
        assert (await read_answer(stream)).status == 202
        await all_gone(world)


async def test_a_client_that_is_gone_is_not_waited_for() -> None:
    async with serving() as world:
        stream = await world.connect()
        await stream.send_all(WHOLE.replace(b" HTTP/1.1", b"?wait=30s HTTP/1.1"))
        await until(lambda: world.intake.entries)
        # a reset, as when the process is killed
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
        await all_gone(world)
        assert len(world.intake.entries) == 1, "what it sent stays"


async def test_an_idle_connection_is_closed_in_silence() -> None:
    async with serving(keep_alive_s=0.3) as world, await world.connect() as stream:
        await stream.send_all(GET)
        assert (await read_answer(stream, method="GET")).status == 200
        assert await closed(stream) == b""


async def test_a_connection_that_never_asks_is_closed() -> None:
    async with serving(read_timeout_s=0.3) as world, await world.connect() as stream:
        assert await closed(stream) == b""
        await all_gone(world)


async def test_a_client_that_does_not_read_is_dropped() -> None:
    async with serving(write_timeout_s=0.3, heartbeat_s=0.1) as world:
        world.events = [(f"{n}", "x" * 1_000_000) for n in range(30)]
        async with await world.connect() as stream:
            await stream.send_all(b"GET /v1/egress/late HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(lambda: world.tails)
            await all_gone(world)


async def test_one_slow_client_does_not_hold_up_others() -> None:
    async with serving() as world, await world.connect() as slow:
        await slow.send_all(HEAD)
        for _ in range(5):
            assert (await world.post(ADDRESS, ADD)).status == 202


# ---- too much ------------------------------------------------------------------------------------------------------------
async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    async with serving(body_bytes=1024) as world, await world.connect() as stream:
        await stream.send_all(HEAD + b"Content-Length: 1025\r\n\r\n")
        (await read_answer(stream)).problem("body-too-large", 413)
        await closed(stream)


@pytest.mark.parametrize("count", [2, 100])
async def test_a_chunked_body_is_counted(count: int) -> None:
    async with serving(body_bytes=1024) as world, await world.connect() as stream:
        chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
        await stream.send_all(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * count)
        (await read_answer(stream)).problem("body-too-large", 413)
        await stream.send_eof()
        await all_gone(world)


async def test_an_endless_chunked_body_gets_its_answer_and_is_cut() -> None:
    async with serving(body_bytes=1024) as world, await world.connect() as stream:
        await stream.send_all(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        async with trio.open_nursery() as nursery:

            async def pour() -> None:
                try:
                    while True:
                        await stream.send_all(b"1000\r\n" + b" " * 4096 + b"\r\n")
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

            nursery.start_soon(pour)
            (await read_answer(stream)).problem("body-too-large", 413)
            await all_gone(world)
            nursery.cancel_scope.cancel()


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    body = b'{"item":"' + b"x" * (1024 - 11) + b'"}'
    async with serving(body_bytes=1024) as world:
        assert len(body) == 1024
        assert (await world.post(ADDRESS, body)).status == 202
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1], body[1:500], body[500:])) + b"0\r\n\r\n"
        assert (await world.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)).status == 202
        assert world.intake.entries[0] == world.intake.entries[1]


async def test_a_body_that_nobody_reads_does_not_pile_up() -> None:
    async with serving() as world:
        resume = trio.Event()
        append = world.intake.append

        async def slow(entries: Any) -> None:
            await resume.wait()
            await append(entries)

        world.intake.append = slow  # type: ignore[method-assign]
        async with await world.connect() as stream, trio.open_nursery() as nursery:
            await stream.send_all(
                b"POST /v1/ingress/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            sent = 0

            async def pour() -> None:
                nonlocal sent
                line = b'"' + b"x" * 4093 + b'"\n'
                for _ in range(4096):
                    await stream.send_all(b"%x\r\n%b\r\n" % (len(line), line))
                    sent += len(line)
                await stream.send_all(b"0\r\n\r\n")

            nursery.start_soon(pour)
            before = -1
            while sent != before:
                before = sent
                await trio.sleep(0.3)
            assert sent < BODY_WAITING_BYTES + 12_000_000, "the rest waits in the client"
            resume.set()
            assert (await read_answer(stream)).json == {"records": 4096}


async def test_long_headers() -> None:
    async with serving() as world:
        (await world.raw(HEAD + b"X: " + b"x" * 20_000 + b"\r\n\r\n")).problem("headers-too-large", 431)
        (await world.raw(b"GET /" + b"x" * 20_000)).problem("headers-too-large", 431)


async def test_connections_are_limited() -> None:
    async with serving(connections=2) as world:
        async with await world.connect() as one, await world.connect() as two:
            for stream in (one, two):
                await stream.send_all(GET)
                assert (await read_answer(stream, method="GET")).status == 200
            async with await world.connect() as three:
                answer = await read_answer(three, method="GET")
                answer.problem("too-many-connections", 503)
                assert answer.headers["retry-after"] == "1"
        await all_gone(world)
        assert (await world.get("/healthz")).status == 200


# ---- no HTTP, or another one ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n",
        b"GET /h\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
async def test_what_is_no_http(sent: bytes) -> None:
    async with serving() as world, await world.connect() as stream:
        await stream.send_all(sent)
        (await read_answer(stream)).problem("malformed-request", 400)
        await stream.send_eof()
        await all_gone(world)
        assert not world.intake.entries


async def test_another_transfer_coding() -> None:
    async with serving() as world:
        (await world.raw(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n")).problem("not-implemented", 501)


async def test_length_and_chunks_at_once_are_not_two_requests() -> None:
    """What a proxy might take for one request and the door for two, or the other way round."""
    inner = b"POST /v1/functions/shop/cart/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving() as world, await world.connect() as stream:
        await stream.send_all(HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner)
        assert (await read_answer(stream)).status == 400
        await stream.send_eof()
        await closed(stream)
        assert not world.intake.entries


async def test_requests_behind_each_other_are_answered_in_order() -> None:
    async with serving() as world, await world.connect() as stream:
        await stream.send_all(
            GET + b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        data = await closed(stream)
        assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"404", b"200"]


async def test_old_clients_and_clients_that_ask_first() -> None:
    async with serving() as world:
        async with await world.connect() as stream:
            await stream.send_all(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert b"200 OK" in await closed(stream)
        async with await world.connect() as stream:
            await stream.send_all(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(ADD))
            assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 100")
            await stream.send_all(ADD)
            assert (await read_answer(stream)).status == 202


@pytest.mark.parametrize(
    "upgrade",
    [b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n"],
)
async def test_no_other_protocol_is_taken_up(upgrade: bytes) -> None:
    async with serving() as world:
        answer = await world.raw(GET[:-2] + b"Connection: Upgrade\r\n" + upgrade + b"\r\n", method="GET")
        assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_a_whole_address_in_the_request_line() -> None:
    async with serving() as world:
        assert (
            await world.raw(b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", method="GET")
        ).status == 200


# ---- events --------------------------------------------------------------------------------------------------------------
async def follow(world: World, path: str = "/v1/egress/late", *headers: bytes) -> trio.SocketStream:
    stream = await world.connect()
    lines = b"".join(header + b"\r\n" for header in headers)
    await stream.send_all(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")
    return stream


async def read_until(stream: trio.SocketStream, text: bytes) -> bytes:
    data = b""
    with trio.fail_after(SOON_S):
        while text not in data:
            piece = await stream.receive_some(65536)
            assert piece, data
            data += piece
    return data


async def test_events_come_with_their_ids_and_heartbeats_between() -> None:
    async with serving(heartbeat_s=0.1) as world:
        world.events = [("j-1", {"a": "line\nfeed"}), ("j-2", [1])]
        async with await follow(world) as stream:
            data = await read_until(stream, b"\n:\n\n")
        assert b"text/event-stream" in data
        assert b'id: j-1\ndata: {"a":"line\\nfeed"}\n\nid: j-2\ndata: [1]\n\n' in data
        assert world.tails == [("late", None, "oldest")]
        await all_gone(world)


async def test_events_go_on_behind_the_last_one_seen() -> None:
    async with serving(heartbeat_s=0.1) as world:
        async with await follow(
            world, "/v1/egress/late?from=newest", b"Last-Event-ID: j-7", b"Accept: text/event-stream"
        ) as stream:
            await read_until(stream, b":\n\n")
        assert world.tails == [("late", "j-7", "newest")]
        world.tail_failure = EventsGoneError("deleted")
        (await world.get("/v1/egress/late", ("Last-Event-ID", "j-1"))).problem("events-gone", 410)
        world.tail_failure = EventIdError("no")
        (await world.get("/v1/egress/late", ("Last-Event-ID", "?"))).problem("wrong-event-id", 400)


async def test_which_egresses_can_be_followed() -> None:
    async with serving() as world:
        (await world.get("/v1/egress/file")).problem("unknown-egress", 404)
        (await world.get("/v1/egress/lat")).problem("unknown-egress", 404)
        (await world.get("/v1/egress/late", ("Accept", "application/json"))).problem("not-acceptable", 406)
        (await world.get("/v1/egress/late?from=middle")).problem("wrong-parameter", 400)


async def test_a_client_of_events_that_is_gone_is_noticed() -> None:
    async with serving(heartbeat_s=0.1) as world:
        stream = await follow(world)
        await read_until(stream, b":\n\n")
        await stream.aclose()
        await all_gone(world)


# ---- the end -------------------------------------------------------------------------------------------------------------
async def test_at_the_end_idle_connections_close_and_answers_are_given() -> None:
    async with serving() as world:
        release = trio.Event()
        append = world.intake.append

        async def slow(entries: Any) -> None:
            await release.wait()
            await append(entries)

        world.intake.append = slow  # type: ignore[method-assign]
        async with await world.connect() as idle, await world.connect() as busy:
            await idle.send_all(GET)
            await read_answer(idle, method="GET")
            await busy.send_all(WHOLE)
            await trio.sleep(0.1)
            await world.server.finish()
            assert await closed(idle) == b""
            release.set()
            answer = await read_answer(busy)
            assert (answer.status, answer.headers["connection"]) == (202, "close")
            assert await closed(busy) == b""


# ---- TLS -----------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    chain, private = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


async def test_https(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    async with serving(tls=tls_context(chain, key)) as world:
        trusting = ssl.create_default_context(cafile=str(chain))
        trusting.set_alpn_protocols(["h2", "http/1.1"])
        world.intake.reply = reply({"total": 1})
        async with await world.connect() as plain:
            stream = trio.SSLStream(plain, trusting, server_hostname="localhost", https_compatible=True)
            for _ in range(2):
                await stream.send_all(WHOLE.replace(b" HTTP/1.1", b"?wait=1 HTTP/1.1"))
                assert (await read_answer(stream)).status == 200
            assert stream.selected_alpn_protocol() == "http/1.1"
            await stream.aclose()
        await all_gone(world)


async def test_who_does_not_speak_tls_is_dropped(certificate: tuple[Path, Path]) -> None:
    async with serving(tls=tls_context(*certificate), read_timeout_s=0.3) as world:
        async with await world.connect() as stream:
            await stream.send_all(GET)
            await closed(stream)
        async with await world.connect() as stream:
            assert await closed(stream) == b"", "a handshake that never comes"
        async with await world.connect() as stream:
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            with pytest.raises(trio.BrokenResourceError):
                old.set_ciphers("AES128-SHA")
                old.maximum_version = ssl.TLSVersion.TLSv1_2
                await trio.SSLStream(stream, old, https_compatible=True).do_handshake()
        await all_gone(world)
