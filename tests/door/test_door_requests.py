"""What a request does, and what a wrong one is told: each with its status and a problem document."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
import trio
from door_world import ADD, ADDRESS, JSON, LETTER, NOT_READY, reply, serving

from shardfun.door.problems import KINDS
from shardfun.errors import BacklogFullError, CorruptionError, StorageError, UnknownTargetError
from shardfun.intake.entries import MessageEntry, RecordEntry, Reply, RequestEntry, decode_entry, encode_entry


# ---- messages and requests -----------------------------------------------------------------------------------------------
async def test_a_message_is_durable_when_it_is_accepted() -> None:
    async with serving() as world:
        answer = await world.post(ADDRESS, ADD)
        assert (answer.status, answer.json) == (202, {"status": "accepted"})
        (entry,) = world.intake.entries
        assert isinstance(entry, MessageEntry)
        assert (entry.target, entry.id, cbor2.loads(entry.payload)) == ("shop/cart", "42", {"item": "x", "n": 2})


async def test_wait_gives_the_reply() -> None:
    async with serving() as world:
        world.intake.reply = reply({"total": 7})
        answer = await world.post(f"{ADDRESS}?wait=5s", ADD)
        assert (answer.status, answer.json) == (200, {"status": "replied", "type": "shop.Total", "reply": {"total": 7}})
        (entry,) = world.intake.entries
        assert isinstance(entry, RequestEntry)
        assert entry.anonymous
        assert entry.key.startswith("~")


async def test_keys_of_anonymous_requests_are_never_the_same() -> None:
    async with serving() as one, serving() as other:
        for world in (one, other):
            world.intake.reply = reply({})
            for _ in range(5):
                await world.post(f"{ADDRESS}?wait=1", ADD)
        keys = [entry.key for world in (one, other) for entry in world.intake.entries if isinstance(entry, RequestEntry)]
        assert len(set(keys)) == 10


async def test_without_a_reply_in_time_the_request_is_accepted_and_can_be_looked_up() -> None:
    async with serving() as world:
        answer = await world.post(f"{ADDRESS}?wait=20ms", ADD, JSON, ("Idempotency-Key", "a/b"))
        assert (answer.status, answer.json) == (202, {"status": "accepted", "key": "a/b"})
        assert answer.headers["location"] == "/v1/requests/a%2Fb"
        world.node.request = {"replied": False}
        assert (await world.get(answer.headers["location"])).json == {"status": "accepted", "key": "a/b"}
        payload = {"base64": "oWV0b3RhbAk="}
        world.node.request = {"replied": True, "reply": payload, "reply_type": "shop.Total"}
        found = await world.get("/v1/requests/a%2Fb")
        assert found.json == {"status": "replied", "key": "a/b", "type": "shop.Total", "reply": {"total": 9}}
        assert world.node.questions[-1].at == "checkpoint", "a reply counts when its checkpoint is complete"


async def test_a_request_that_is_only_in_the_log_is_known() -> None:
    async with serving() as world:
        world.intake.digests["k"] = b"x"
        assert (await world.get("/v1/requests/k")).status == 202
        (await world.get("/v1/requests/other")).problem("unknown-request", 404)


async def test_the_same_key_with_another_body_is_refused() -> None:
    async with serving() as world:
        await world.post(ADDRESS, ADD, JSON, ("Idempotency-Key", "k"))
        (first,) = world.intake.entries
        assert isinstance(first, RequestEntry)
        world.intake.digests["k"] = first.digest
        assert (await world.post(ADDRESS, b' {"n": 2, "item": "x"}', JSON, ("Idempotency-Key", "k"))).status == 202
        (await world.post(ADDRESS, b'{"item":"x","n":3}', JSON, ("Idempotency-Key", "k"))).problem("key-reused", 422)
        (await world.post("/v1/functions/shop/cart/43", ADD, JSON, ("Idempotency-Key", "k"))).problem("key-reused", 422)
        assert len(world.intake.entries) == 2


async def test_a_conflict_that_only_the_function_of_requests_can_see() -> None:
    async with serving() as world:
        world.intake.reply = lambda entry: Reply(entry.key, "conflict", "", b"")
        (await world.post(f"{ADDRESS}?wait=1", ADD, JSON, ("Idempotency-Key", "k"))).problem("key-reused", 422)


async def test_whose_a_key_is_only_the_function_of_requests_says_to_those_who_wait() -> None:
    """Who misused a key of which this door knows nothing was told 202; that shall not lock out the one it belongs to."""
    key = ("Idempotency-Key", "k")
    other = b'{"item":"x","n":3}'
    async with serving() as world:
        assert (await world.post(ADDRESS, other, JSON, key)).status == 202
        (misuse,) = world.intake.entries
        assert isinstance(misuse, RequestEntry)
        world.intake.digests["k"] = misuse.digest
        rightful = reply({"total": 9})
        world.intake.reply = lambda entry: (
            Reply(entry.key, "conflict", "", b"") if entry.digest == misuse.digest else rightful(entry)
        )
        (await world.post(f"{ADDRESS}?wait=1", other, JSON, key)).problem("key-reused", 422)
        assert (await world.post(f"{ADDRESS}?wait=1", ADD, JSON, key)).status == 200
        taken_in = len(world.intake.entries)
        for path in (ADDRESS, f"{ADDRESS}?wait=1"):
            (await world.post(path, other, JSON, key)).problem("key-reused", 422)
        assert len(world.intake.entries) == taken_in, "now it is known here, too"
        assert (await world.post(ADDRESS, ADD, JSON, key)).status == 202
        (await world.post(f"{ADDRESS}?wait=1", other, JSON, key)).problem("key-reused", 422)
        assert len(world.intake.entries) == taken_in + 1, "and not forgotten when the request is repeated"


async def test_a_reply_that_is_too_long_to_be_shown() -> None:
    async with serving() as world:
        world.node.request = {
            "replied": True,
            "reply": {"omitted": "1000000 bytes, too long to show"},
            "reply_type": "shop.Total",
        }
        (await world.get("/v1/requests/k")).problem("reply-too-long", 409)


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "~mine", 'a"b', "a\\b", "\xe9"])
async def test_what_cannot_be_a_key(key: str) -> None:
    async with serving() as world:
        (await world.post(ADDRESS, ADD, JSON, ("Idempotency-Key", key))).problem("wrong-key", 400)
        assert not world.intake.entries


async def test_keys_may_be_quoted_and_come_once() -> None:
    async with serving() as world:
        assert (await world.post(ADDRESS, ADD, JSON, ("Idempotency-Key", '"8e03978e"'))).json["key"] == "8e03978e"
        twice = await world.post(ADDRESS, ADD, JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "b"))
        twice.problem("wrong-key", 400)


async def test_ids_are_any_text() -> None:
    async with serving() as world:
        assert (await world.post("/v1/functions/shop/cart/a%2Fb%20%C3%A9", ADD)).status == 202
        assert world.intake.entries[0].id == "a/b é"  # type: ignore[union-attr]
        assert (await world.post("/v1/functions/notes/anything/1", b'"hello"')).status == 202
        assert world.intake.entries[1].target == "notes/anything"  # type: ignore[union-attr]
        (await world.post("/v1/functions/shop/cart/%ff", ADD)).problem("malformed-request", 400)
        (await world.post("/v1/functions/shop/cart/", ADD)).problem("malformed-request", 400)
        (await world.post(f"/v1/functions/shop/cart/{'x' * 4097}", ADD)).problem("malformed-request", 400)


# ---- wrong requests ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("body", [b"", b"{", b'{"n": 1} x', b"\xff", b"[" * 100_000, b'{"n": NaN}'])
async def test_malformed_json(body: bytes) -> None:
    async with serving() as world:
        (await world.post(ADDRESS, body)).problem("malformed-json", 400)


async def test_a_payload_of_no_accepted_type_says_where_it_is_wrong() -> None:
    async with serving() as world:
        document = (await world.post(ADDRESS, b'{"item":"x","n":"two"}')).problem("wrong-payload", 422)
        assert "`$.n`" in document["detail"]
        assert "Add" in document["detail"]
        (await world.post(f"{ADDRESS}?type=Other", ADD)).problem("wrong-payload", 422)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/functions/shop/carts/1",
        "/v1/functions/shardfun/request/1",
        "/v1/functions/notes/*/1",
        "/v1/functions/notes/a:b/1",
        "/v1/functions/notes/a%00/1",
        "/v1/functions/notes/%2F/1",
    ],
)
async def test_unknown_functions_name_the_nearest(path: str) -> None:
    async with serving() as world:
        document = (await world.post(path, ADD)).problem("unknown-function", 404)
        assert ("did you mean 'shop/cart'" in document["detail"]) == ("carts" in path)
        assert document["instance"] == path
        state = path.replace("functions", "state")
        (await world.get(state)).problem("unknown-function", 404)
        assert not world.node.questions, "functions of the runtime are not shown"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/functions", "/v1/functions/shop/cart/42/x", "/v1/functions/shop", "//", "/v1/state/a"]
)
async def test_unknown_paths(path: str) -> None:
    async with serving() as world:
        (await world.get(path)).problem("unknown-path", 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", ADDRESS, "OPTIONS, POST"),
        ("GET", ADDRESS, "OPTIONS, POST"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
        ("BREW", "/healthz", "GET, HEAD, OPTIONS"),
    ],
)
async def test_another_method_is_told_which_there_are(method: str, path: str, allow: str) -> None:
    async with serving() as world:
        answer = await world.request(method, path)
        answer.problem("method-not-allowed", 405)
        assert answer.headers["allow"] == allow


async def test_options_and_head() -> None:
    async with serving(b"0123456789abcdef") as world:
        answer = await world.request("OPTIONS", "/v1/dead-letters/1.17-3-0")
        assert (answer.status, answer.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")
        assert not [name for name in answer.headers if name.startswith("access-control")], "no page of another origin gets in"
        head = await world.request("HEAD", "/healthz")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "15")


@pytest.mark.parametrize("media", [None, "text/plain", "application/x-www-form-urlencoded", "application/x-ndjson"])
async def test_another_media_type_is_refused(media: str | None) -> None:
    async with serving() as world:
        headers = [] if media is None else [("Content-Type", media)]
        answer = await world.request("POST", ADDRESS, *headers, body=ADD)
        answer.problem("unsupported-media-type", 415)
        assert answer.headers["accept-post"] == "application/json"


async def test_media_types_may_have_parameters_but_no_packing() -> None:
    async with serving() as world:
        assert (await world.post(ADDRESS, ADD, ("Content-Type", "Application/JSON; charset=utf-8"))).status == 202
        (await world.post(ADDRESS, ADD, JSON, ("Content-Encoding", "gzip"))).problem("unsupported-media-type", 415)


@pytest.mark.parametrize(
    "query",
    [
        "wait",
        "wait=",
        "wait=soon",
        "wait=-1",
        "wait=1&wait=2",
        "wait=5%20parsecs",
        "wiat=5",
        "a=%ff",
        "&".join(f"a{i}=" for i in range(99)),
    ],
)
async def test_wrong_parameters(query: str) -> None:
    async with serving() as world:
        (await world.post(f"{ADDRESS}?{query}", ADD)).problem("wrong-parameter", 400)
        assert not world.intake.entries


@pytest.mark.parametrize("wait", ["0", "0.01", "10ms", "10%20ms", "1+ms", "0%20s"])
async def test_how_a_wait_may_be_written(wait: str) -> None:
    async with serving() as world:
        assert (await world.post(f"{ADDRESS}?wait={wait}", ADD)).status == 202


async def test_nobody_waits_longer_than_is_allowed() -> None:
    async with serving(wait_max_s=0.1) as world:
        with trio.fail_after(30):
            assert (await world.post(f"{ADDRESS}?wait=1h", ADD)).status == 202


@pytest.mark.parametrize(
    "path", [f"/v1/state/shop/cart/1?limit={limit}" for limit in ("0", "1001", "x", "-1", "1.5", "%D9%A3")]
)
async def test_wrong_limits(path: str) -> None:
    async with serving() as world:
        (await world.get(path)).problem("wrong-parameter", 400)


async def test_web_pages_stay_outside() -> None:
    async with serving() as world:
        (await world.post("/v1/checkpoints", b"", ("Origin", "http://evil.example"))).problem("foreign-origin", 403)
        (await world.post("/v1/checkpoints", b"", ("Sec-Fetch-Site", "cross-site"))).problem("foreign-origin", 403)
        (await world.request("GET", "/v1/status", host="evil.example")).problem("foreign-origin", 403)
        for host in ("localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST:8"):
            assert (await world.request("GET", "/v1/status", host=host)).status == 200
        assert world.node.questions == ["status"] * 4


# ---- the token -----------------------------------------------------------------------------------------------------------
TOKEN = b"correct horse".replace(b" ", b"-") + b"-battery"


@pytest.mark.parametrize(
    "given",
    [None, "Bearer", "Bearer wrong", f"Basic {TOKEN.decode()}", f"Bearer {TOKEN.decode()}x", f"Bearer {TOKEN.decode()[:-1]}"],
)
async def test_without_the_token_nothing_is_told(given: str | None) -> None:
    async with serving(TOKEN) as world:
        headers = [] if given is None else [("Authorization", given)]
        for method, path in (
            ("GET", "/v1/status"),
            ("POST", ADDRESS),
            ("GET", "/nothing"),
            ("PUT", "/metrics"),
            ("GET", "/openapi.json"),
        ):
            answer = await world.request(method, path, *headers)
            document = answer.problem("unauthorized", 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert given == "wrong" or TOKEN.decode() not in json.dumps(document)
        assert not world.node.questions
        assert (await world.get("/healthz")).status == 200


async def test_with_the_token_everything_is_allowed() -> None:
    async with serving(TOKEN) as world:
        authorization = ("Authorization", f"bearer {TOKEN.decode()}")
        assert (await world.request("GET", "/v1/status", authorization, host="node.example")).status == 200
        assert (await world.post(ADDRESS, ADD, JSON, authorization)).status == 202


# ---- what goes wrong inside ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("failure", "kind", "retry"),
    [
        (BacklogFullError("full", retry_after_s=2.2), "backlog-full", "3"),
        (StorageError("no space left"), "storage-full", "5"),
        (NOT_READY, "unavailable", "1"),
        (CorruptionError("damaged at /secret/path"), "internal-error", None),
    ],
)
async def test_what_was_not_made_durable_is_not_acknowledged(failure: Any, kind: str, retry: str | None) -> None:
    async with serving() as world:
        world.intake.failure = failure
        for path in (ADDRESS, f"{ADDRESS}?wait=1", "/v1/ingress/orders"):
            answer = await world.post(path, ADD)
            document = answer.problem(kind, KINDS[kind].status)
            assert answer.headers.get("retry-after") == retry
            assert "/secret/path" not in document["detail"]


async def test_a_node_that_recovers_takes_messages_but_answers_no_questions() -> None:
    async with serving() as world:
        world.node.failure = NOT_READY
        for path in (
            "/v1/state/shop/cart/1",
            "/v1/functions/shop/cart",
            "/v1/status",
            "/v1/dead-letters",
            "/metrics",
            "/readyz",
        ):
            answer = await world.get(path)
            answer.problem("unavailable", 503)
            assert answer.headers["retry-after"] == "1"
        assert (await world.post(ADDRESS, ADD)).status == 202
        assert (await world.get("/healthz")).json == {"status": "ok"}


async def test_ready_is_more_than_alive() -> None:
    async with serving() as world:
        assert (await world.get("/readyz")).json == {"status": "ready"}
        world.node.state_now = "recovering"
        assert "recovering" in (await world.get("/readyz")).problem("unavailable", 503)["detail"]


async def test_a_bug_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as world:
        world.intake.failure = RuntimeError("secret")
        answer = await world.post(ADDRESS, ADD)
        assert "secret" not in answer.problem("internal-error", 500)["detail"]
        world.intake.failure = None
        assert (await world.post(ADDRESS, ADD)).status == 202


# ---- questions -----------------------------------------------------------------------------------------------------------
async def test_state_is_asked_as_it_was_asked_for() -> None:
    async with serving() as world:
        answer = await world.get("/v1/state/shop/cart/a%3Ab?at=checkpoint&part=prices&after=x&limit=5")
        assert answer.json["fields"] == {"total": 3}
        (question,) = world.node.questions
        assert (question.target, question.id, question.at, question.part, question.after, question.limit) == (
            "shop/cart", "a:b", "checkpoint", "prices", "x", 5,
        )  # fmt: skip
        (await world.get("/v1/state/shop/cart/1?at=noon")).problem("wrong-parameter", 400)
        world.node.failure = UnknownTargetError("part 'x' is none")
        (await world.get("/v1/state/shop/cart/1?part=x")).problem("unknown-function", 404)


async def test_ids_checkpoints_functions_and_status() -> None:
    async with serving() as world:
        assert (await world.get("/v1/functions/shop/cart?limit=7")).json["ids"] == ["42"]
        assert world.node.questions[-1].limit == 7
        assert (await world.post("/v1/checkpoints", b"", ("X", "y"))).json["checkpoint"] == "1.2"
        (await world.post("/v1/checkpoints", b"{}")).problem("malformed-request", 400)
        names = [function["typename"] for function in (await world.get("/v1/functions")).json["functions"]]
        assert names == ["shop/cart", "notes/*"]
        assert (await world.get("/v1/status")).json["state"] == "running"


async def test_dead_letters() -> None:
    async with serving() as world:
        assert (await world.get("/v1/dead-letters?typename=shop/cart&limit=3")).json["letters"][0]["key"] == LETTER.key
        assert (world.node.questions[-1].typename, world.node.questions[-1].limit) == ("shop/cart", 3)
        path = f"/v1/dead-letters/{LETTER.key}"
        assert (await world.get(path)).json["reason"] == LETTER.reason
        assert (await world.post(f"{path}/replay", b"", ("X", "y"))).json == {
            "key": LETTER.key,
            "target": LETTER.target,
            "checkpoint": "1.2",
        }
        assert (await world.request("DELETE", path)).status == 200
        assert [question.action for question in world.node.questions[1:]] == ["show", "replay", "drop"]
        world.node.refused = "it is a record of an ingress"
        (await world.post(f"{path}/replay", b"", ("X", "y"))).problem("letter-refused", 409)
        (await world.get("/v1/dead-letters/1.17-4-0")).problem("unknown-letter", 404)
        (await world.get("/v1/dead-letters/none")).problem("unknown-letter", 404)


async def test_figures_name_routes_never_ids() -> None:
    async with serving() as world:
        await world.post(ADDRESS, ADD)
        await world.get("/nowhere/at/all")
        answer = await world.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.body.decode()
        assert "42" not in [part for line in text.splitlines() if "/v1/functions" in line for part in line.split("/")]
        assert "nowhere" not in text


@pytest.mark.parametrize("path", [ADDRESS, "/v1/ingress/orders"])
async def test_what_could_not_be_read_again_is_not_taken_in(path: str) -> None:
    """The decoder of what is stored has a limit, and what is acknowledged must not meet it."""
    async with serving() as world:
        for body in (b"[" * 101 + b"]" * 101, b'{"a":' * 450 + b"1" + b"}" * 450):
            (await world.post(path, body)).problem("malformed-json", 400)
        deepest = b"[" * 100 + b"1" + b"]" * 100
        assert (await world.post("/v1/ingress/orders", deepest)).status == 200
        (entry,) = world.intake.entries
        assert decode_entry(encode_entry(entry)) == entry
        assert (await world.post("/v1/ingress/orders", b"[" + b"[]," * 500 + b"[]]")).status == 200


# ---- records -------------------------------------------------------------------------------------------------------------
NDJSON = ("Content-Type", "application/x-ndjson")


async def test_one_record() -> None:
    async with serving() as world:
        assert (await world.post("/v1/ingress/orders", b'{"id": 1}')).json == {"records": 1}
        assert world.intake.entries == [RecordEntry("orders", {"id": 1})]
        (await world.post("/v1/ingress/order", b"{}")).problem("unknown-ingress", 404)
        (await world.post("/v1/ingress/orders", b"{}", JSON, ("Idempotency-Key", "k"))).problem("wrong-key", 400)


async def test_a_stream_of_records_becomes_durable_in_groups() -> None:
    async with serving() as world:
        body = b"".join(b'{"n": %d}\n' % n for n in range(2500)) + b'\n{"n": 2500}'
        assert (await world.post("/v1/ingress/orders", body, NDJSON)).json == {"records": 2501}
        assert [entry.record["n"] for entry in world.intake.entries if isinstance(entry, RecordEntry)] == list(range(2501))
        assert len(world.intake.groups) < 30
        assert max(world.intake.groups) <= 1000


async def test_a_malformed_line_says_how_many_records_are_durable() -> None:
    async with serving() as world:
        document = (await world.post("/v1/ingress/orders", b"1\n2\n\n{no\n4\n", NDJSON)).problem("malformed-json", 400)
        assert document["records"] == len(world.intake.entries) == 2
        assert "record 3" in document["detail"]


async def test_a_long_line_says_how_many_records_are_durable() -> None:
    async with serving(body_bytes=1024) as world:
        document = (await world.post("/v1/ingress/orders", b"1\n" + b'"' + b"x" * 70_000, NDJSON)).problem(
            "body-too-large", 413
        )
        assert document["records"] == 1


async def test_a_stream_waits_for_room_in_the_backlog() -> None:
    async with serving() as world:
        world.intake.failure, world.intake.failures = BacklogFullError("full", retry_after_s=0.01), 3
        assert (await world.post("/v1/ingress/orders", b"1\n2\n", NDJSON)).json == {"records": 2}


async def test_a_full_disk_says_how_many_records_are_durable() -> None:
    async with serving() as world:
        world.intake.failure = StorageError("no space left")
        assert (await world.post("/v1/ingress/orders", b"1\n", NDJSON)).problem("storage-full", 507)["records"] == 0


async def test_every_answer_is_of_its_moment() -> None:
    async with serving() as world:
        assert (await world.get("/v1/status")).headers["cache-control"] == "no-store"
        assert (await world.get("/nope")).headers["cache-control"] == "no-store"


def test_problem_types_are_stable_names() -> None:
    assert all(kind.urn.isascii() and kind.name == kind.name.lower() and 400 <= kind.status < 600 for kind in KINDS.values())
