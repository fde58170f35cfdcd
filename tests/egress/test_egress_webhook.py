"""Webhooks against a real server: order, keys, batches, failures, refusals, TLS, tokens, interruptions."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from egress_receiver import Receiver

from shardfun.egress.webhook import WebhookEgress, WebhookEgressOptions
from shardfun.errors import ConfigurationError, EgressError
from shardfun.ports import Interruptible, Partition, PublishedPosition

JOB = "a1b2c3d4" * 4
NOTHING = PublishedPosition(0, 0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver().start()
    yield found
    found.stop()


def webhook(receiver: Receiver, data: Path, **options: Any) -> WebhookEgress:
    settings = {"url": receiver.url, "timeout_s": 5.0, "retry_max_s": 0.05} | options
    return WebhookEgress("late", WebhookEgressOptions(**settings), Partition(1, 2, lambda _: True, JOB, data))


def numbered(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d}\n' % n for n in range(first, first + count)]


def position(records: list[bytes]) -> PublishedPosition:
    return PublishedPosition(len(records), sum(map(len, records)))


def publish_all(sink: WebhookEgress, records: list[bytes], attempts: int = 200) -> int:
    """As the doors of a shard do it; how often that failed."""
    failures = 0
    while records:
        try:
            count = sink.publish(records)
        except EgressError as error:
            failures += 1
            if failures == attempts or error.retry_s is None:
                raise
            time.sleep(error.retry_s)
        else:
            assert count
            records = records[count:]
    return failures


def flat(receiver: Receiver) -> list[int]:
    found = []
    for body in receiver.taken.values():
        value = json.loads(body)
        found += [record["n"] for record in (value if isinstance(value, list) else [value])]
    return found


def test_one_request_a_record_in_order_under_its_number(receiver: Receiver, tmp_path: Path) -> None:
    sink = webhook(receiver, tmp_path)
    assert isinstance(sink, Interruptible)
    assert sink.open(position(numbered(0, 7)), []) == 0
    assert publish_all(sink, numbered(7, 20)) == 0
    sink.close()
    sink.close()
    assert [request.key for request in receiver.requests] == [f"{JOB}/late/1/{n}" for n in range(7, 27)]
    assert [request.body for request in receiver.requests] == [b'{"n":%d}' % n for n in range(7, 27)]
    assert {request.headers["Content-Type"] for request in receiver.requests} == {"application/json"}


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_batches_hold_up_to_so_many_records_and_bytes(receiver: Receiver, tmp_path: Path, form: str) -> None:
    sink = webhook(receiver, tmp_path, batch=4, batch_bytes=1024, format=form)
    sink.open(NOTHING, [])
    publish_all(sink, [*numbered(0, 10), b'"%s"\n' % (b"x" * 2000), *numbered(11, 1)])
    numbers = ["0-3", "4-7", "8-9", "10-10", "11-11"]
    assert [request.key for request in receiver.requests] == [f"{JOB}/late/1/{number}" for number in numbers]
    first = receiver.requests[0]
    if form == "json":
        assert json.loads(first.body) == [{"n": n} for n in range(4)]
        assert first.headers["Content-Type"] == "application/json"
    else:
        assert first.body == b"".join(numbered(0, 4))
        assert first.headers["Content-Type"] == "application/x-ndjson"
    sink.close()


def test_repeats_what_has_no_good_answer_until_it_is_accepted(receiver: Receiver, tmp_path: Path) -> None:
    verdicts = iter([503, "drop", "take-and-drop", 500, 429, 408, 404, 200, "take-and-drop", 302])
    receiver.decide = lambda number, key: next(verdicts, 200)
    sink = webhook(receiver, tmp_path)
    sink.open(NOTHING, [])
    assert publish_all(sink, numbered(0, 5)) >= 7
    assert flat(receiver) == [0, 1, 2, 3, 4]
    keys = [request.key for request in receiver.requests]
    assert keys == sorted(keys)
    sink.close()


def test_a_batch_is_repeated_as_it_was_although_there_is_more_now(receiver: Receiver, tmp_path: Path) -> None:
    receiver.decide = lambda number, key: "take-and-drop" if number == 0 else 200
    sink = webhook(receiver, tmp_path, batch=50)
    sink.open(NOTHING, [])
    with pytest.raises(EgressError, match="cannot be reached"):
        sink.publish(numbered(0, 5))
    time.sleep(0.1)
    publish_all(sink, numbered(0, 30))
    assert [request.key.rpartition("/")[2] for request in receiver.requests] == ["0-4", "0-4", "5-29"]
    assert flat(receiver) == list(range(30))
    sink.close()


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_after_a_crash_at_most_one_request_comes_again_and_unchanged(tmp_path: Path, batch: int) -> None:
    """Whatever the last checkpoint knew, whether the last request was taken or not, and however the options have changed."""
    records = numbered(0, 40)
    for known in (0, 3, 12):
        for last in ("take-and-drop", "drop", 200):
            receiver = Receiver(lambda number, key, last=last: last if key.rpartition("/")[2].endswith("29") else 200).start()
            data = tmp_path / f"{batch}-{known}-{last}"
            data.mkdir()
            sink = webhook(receiver, data, batch=batch, fsync=False)
            sink.open(NOTHING, [])
            publish_all(sink, records[:12])
            rest = records[12:30]
            while rest:
                try:
                    rest = rest[sink.publish(rest) :]
                except EgressError:
                    break
            sink.close()
            before = len(receiver.requests)
            receiver.decide = lambda number, key: 200
            sink = webhook(receiver, data, batch=batch if known else 7, fsync=False)
            found = sink.open(position(records[:known]), records[known:])
            publish_all(sink, records[known + found :])
            sink.close()
            receiver.stop()
            assert flat(receiver) == list(range(40))
            repeated = [
                request.key
                for request in receiver.requests[before:]
                if request.key in {r.key for r in receiver.requests[:before]}
            ]
            assert len(repeated) <= 1


def test_a_journal_that_does_not_fit_is_not_used(receiver: Receiver, tmp_path: Path) -> None:
    sink = webhook(receiver, tmp_path)
    sink.open(NOTHING, [])
    publish_all(sink, numbered(0, 10))
    sink.close()
    assert webhook(receiver, tmp_path).open(NOTHING, numbered(0, 5)) == 0  # a checkpoint that was given up had more
    assert webhook(receiver, tmp_path).open(position(numbered(0, 20)), numbered(20, 5)) == 0
    (journal,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert journal.stat().st_mode & 0o777 == 0o600
    journal.write_bytes(journal.read_bytes().replace(b"9", b"8", 1))
    assert webhook(receiver, tmp_path).open(NOTHING, numbered(0, 10)) == 0
    journal.write_bytes(b"")
    assert webhook(receiver, tmp_path).open(NOTHING, numbered(0, 10)) == 0


def test_a_refusal_holds_back_what_follows_and_says_what_to_do(receiver: Receiver, tmp_path: Path) -> None:
    receiver.decide = lambda number, key: 422 if key.endswith("/1") else 200
    sink = webhook(receiver, tmp_path)
    sink.open(NOTHING, [])
    assert sink.publish(numbered(0, 3)) == 1
    with pytest.raises(
        EgressError, match=r"refuses .*/late/1/1 with 422 .*said.*correct the receiver, or set refused = 'drop'"
    ):
        time.sleep(0.1)
        sink.publish(numbered(1, 2))
    assert flat(receiver) == [0]
    receiver.decide = lambda number, key: 200
    publish_all(sink, numbered(1, 2))
    assert flat(receiver) == [0, 1, 2]
    sink.close()


def test_refused_records_are_dropped_only_if_that_is_wanted(receiver: Receiver, tmp_path: Path) -> None:
    receiver.decide = lambda number, key: 422 if key.endswith("/1") else 503 if number == 2 else 200
    sink = webhook(receiver, tmp_path, refused="drop")
    sink.open(NOTHING, [])
    publish_all(sink, numbered(0, 4))
    assert flat(receiver) == [0, 2, 3]
    sink.close()


def test_pauses_grow_and_follow_retry_after_up_to_the_limit(receiver: Receiver, tmp_path: Path) -> None:
    receiver.decide = lambda number, key: 503
    sink = webhook(receiver, tmp_path, retry_max_s=20.0)
    sink.open(NOTHING, [])
    pauses = []
    for _ in range(9):
        sink._not_before = 0.0
        with pytest.raises(EgressError) as failure:
            sink.publish(numbered(0, 1))
        pauses.append(failure.value.retry_s)
    assert pauses[0] <= 0.15
    assert 0.1 * 2**6 * 0.5 <= pauses[6] <= 0.1 * 2**6 * 1.5
    assert pauses[8] <= 20
    receiver.headers["Retry-After"] = "17"
    sink._failures, sink._not_before = 0, 0.0
    with pytest.raises(EgressError) as failure:
        sink.publish(numbered(0, 1))
    assert failure.value.retry_s == 17
    requests = len(receiver.requests)
    with pytest.raises(EgressError):
        sink.publish(numbered(0, 1))
    assert len(receiver.requests) == requests  # the pause is kept, whoever asks
    sink.close()


@pytest.mark.parametrize("before", [0, 2])
def test_an_interruption_ends_a_request_that_waits(receiver: Receiver, tmp_path: Path, before: int) -> None:
    """On a new connection, and on one that has been used."""
    sink = webhook(receiver, tmp_path, timeout_s=30.0)
    sink.open(NOTHING, [])
    publish_all(sink, numbered(0, before))
    receiver.hold = threading.Event()
    receiver.entered.clear()
    threading.Thread(target=lambda: (receiver.entered.wait(5), sink.interrupt())).start()
    started = time.monotonic()
    with pytest.raises(EgressError, match="interrupted"):
        sink.publish(numbered(before, 3))
    assert time.monotonic() - started < 5
    receiver.hold.set()
    assert sink.open(NOTHING, numbered(0, before + 3)) == before
    publish_all(sink, numbered(before, 3))
    assert flat(receiver) == list(range(before + 3))
    sink.close()


def test_one_call_takes_about_a_second_whatever_is_there(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfun.egress.webhook.SLICE_S", 0.05)
    sink = webhook(receiver, tmp_path)
    sink.open(NOTHING, [])
    assert 0 < sink.publish(numbered(0, 100_000)) < 10_000
    sink.close()


def test_a_silent_receiver_is_given_up_after_the_timeout(receiver: Receiver, tmp_path: Path) -> None:
    receiver.hold = threading.Event()
    sink = webhook(receiver, tmp_path, timeout_s=0.2)
    sink.open(NOTHING, [])
    with pytest.raises(EgressError, match="timed out"):
        sink.publish(numbered(0, 1))
    receiver.hold.set()
    sink.close()


def test_a_connection_that_was_closed_meanwhile_is_no_failure(receiver: Receiver, tmp_path: Path) -> None:
    sink = webhook(receiver, tmp_path)
    sink.open(NOTHING, [])
    publish_all(sink, numbered(0, 1))
    receiver.stop()
    with pytest.raises(EgressError, match="cannot be reached: Connection refused"):
        sink.publish(numbered(1, 1))
    receiver.start()
    time.sleep(0.1)
    publish_all(sink, numbered(1, 1))
    receiver.stop()
    receiver.start()
    assert publish_all(sink, numbered(2, 3)) == 0
    sink.close()


# ---- secrets and certificates --------------------------------------------------------------------------------------------
def certificate(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for an address, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def tls_receiver(cert: Path, key: Path) -> Receiver:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return Receiver(context=context).start()


def test_certificates_and_names_are_checked(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    receiver = tls_receiver(cert, key)
    sink = webhook(receiver, tmp_path, ca_file=cert)
    sink.open(NOTHING, [])
    publish_all(sink, numbered(0, 5))
    sink.close()
    assert flat(receiver) == list(range(5))
    stranger = webhook(receiver, tmp_path / "data", url=receiver.url)
    (tmp_path / "data").mkdir()
    stranger.open(NOTHING, [])
    with pytest.raises(EgressError, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.publish(numbered(0, 1))
    stranger.close()
    receiver.stop()
    other = tls_receiver(*certificate(tmp_path, "127.0.0.2"))
    sink = webhook(other, tmp_path / "data", ca_file=tmp_path / "127.0.0.2.pem", url=other.url.replace("https", "HTTPS"))
    sink.open(NOTHING, [])
    with pytest.raises(EgressError, match=r"CERTIFICATE_VERIFY_FAILED.*IP address mismatch"):
        sink.publish(numbered(0, 1))
    sink.close()
    other.stop()
    assert not other.taken


def test_the_token_comes_from_a_private_file(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    sink = webhook(receiver, tmp_path, token_file=file)
    sink.open(NOTHING, [])
    publish_all(sink, numbered(0, 1))
    assert receiver.requests[0].headers["Authorization"] == "Bearer s3cret"
    sink.close()
    options = WebhookEgressOptions(url=receiver.url, token_file=file)
    assert WebhookEgress.check(options, 1) is None
    file.chmod(0o640)
    assert "chmod 600" in str(WebhookEgress.check(options, 1))
    file.chmod(0o600)
    file.write_text("two lines\nof text")
    assert "one line" in str(WebhookEgress.check(options, 1))
    file.unlink()
    assert "No such file" in str(WebhookEgress.check(options, 1))
    with pytest.raises(EgressError, match=r"egress 'late': cannot use .*token: No such file"):
        webhook(receiver, tmp_path, token_file=file).open(NOTHING, [])


def test_the_query_of_a_url_is_sent_and_not_shown(receiver: Receiver, tmp_path: Path) -> None:
    receiver.decide = lambda number, key: 500
    sink = webhook(receiver, tmp_path, url=f"{receiver.url}?key=s3cret")
    sink.open(NOTHING, [])
    with pytest.raises(EgressError) as failure:
        sink.publish(numbered(0, 1))
    assert "s3cret" not in str(failure.value)
    assert "/hook answered 500" in str(failure.value)
    sink.close()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": "example.org/hook"}, "url: expected an address such as"),
        ({"url": "ftp://example.org/hook"}, "url: expected an address such as"),
        ({"url": "http://[::1/hook"}, "url: expected an address such as"),
        ({"url": "http://example.org:99999/"}, "url: expected an address such as"),
        ({"url": "http://example.org/a b"}, "url: expected an address such as"),
        ({"url": "http://example.org/a\r\nX: y"}, "url: expected an address such as"),
        ({"url": "https://me:secret@example.org/"}, "put a token into a token_file"),
        ({"url": "https://example.org/#part"}, "expected no '#'"),
        ({"url": "http://example.org/", "token_file": Path("token")}, "expected an https url"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as error:
        WebhookEgressOptions(**settings)
    assert "secret" not in str(error.value)
