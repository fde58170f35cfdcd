"""The OpenAPI document: it names every route, its schemas resolve, and what it promises holds for whatever a generator thinks of."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any
from unittest.mock import MagicMock

import pytest
import schemathesis
import trio
from door_world import World, reply, serving
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi import checks

from shardfun.door import app as door_app
from shardfun.door.openapi import OPERATIONS
from shardfun.door.problems import KINDS

EXAMPLES, MANY_EXAMPLES = 4, 100
"""Of requests, for each operation; the second with ``--long``."""
CHECKS: list[CheckFunction] = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


class Served:
    """A door in a thread of its own, for a client that blocks."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))

    async def _serve(self) -> None:
        async with serving(heartbeat_s=0.1) as world:
            world.intake.reply = reply({"total": 1})
            self.world: World = world
            self._token = trio.lowlevel.current_trio_token()
            self._end = trio.Event()
            self._ready.set()
            await self._end.wait()

    def __enter__(self) -> str:
        self._thread.start()
        assert self._ready.wait(10)
        return f"http://127.0.0.1:{self.world.port}"

    def __exit__(self, *_: object) -> None:
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join()


async def document() -> dict[str, Any]:
    async with serving() as world:
        found = (await world.get("/openapi.json")).json
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_answers_are_as_promised(mode: GenerationMode, pytestconfig: pytest.Config) -> None:
    """Whatever a generator makes of the document: requests that fit it, and such that do not."""
    examples = MANY_EXAMPLES if pytestconfig.getoption("--long") else EXAMPLES
    with Served() as url:
        loaded = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [result.ok() for result in loaded.get_all_operations()]
        assert len(operations) >= len(OPERATIONS)
        for operation in operations:
            if operation.path.startswith("/v1/egress/"):
                continue  # a stream of events has no end to wait for

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
            )
            def check(case: Any) -> None:
                response = case.call(timeout=60)
                case.validate_response(response, checks=CHECKS)
                assert response.status_code < 500
                if response.status_code >= 400:
                    assert response.headers["content-type"] == ["application/problem+json"]

            with suppress(Unsatisfiable):  # nothing about it can be wrong
                check()


async def test_every_route_is_described_and_nothing_else() -> None:
    parts: Any = MagicMock()
    made = [(route.method, route.path) for route in door_app.routes(parts, parts, parts, parts, parts)]
    assert sorted(made) == sorted(OPERATIONS)


async def test_functions_have_paths_with_their_payloads() -> None:
    found = await document()
    body = found["paths"]["/v1/functions/shop/cart/{id}"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["title"].endswith("Add")
    choices = found["paths"]["/v1/functions/notes/{type}/{id}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(choices["anyOf"]) == 2
    assert "/v1/ingress/orders" in found["paths"]
    assert "/v1/egress/late" in found["paths"]
    assert "/v1/egress/file" not in found["paths"]


async def test_references_resolve() -> None:
    found = await document()
    text = json.dumps(found)
    names = {part.partition('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert names
    assert names <= set(found["components"]["schemas"])
    assert text.count('"$ref"') == text.count('"$ref": "#/components/schemas/')


async def test_problems_are_those_of_the_table() -> None:
    found = await document()
    assert set(found["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]) == {kind.urn for kind in KINDS.values()}
