"""The OpenAPI 3.1 document: made from the table of routes, the kinds of problems and what the application declares.

Routes with a function in their path stand there once for each function, with the schemas of its payload types.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from shardfun.door.problems import CONTENT_TYPE, KINDS
from shardfun.door.request import JSON, KEY_CHARACTERS_MAX, NDJSON, SSE
from shardfun.door.routing import Route
from shardfun.model.address import EVERY_NAME, ID_BYTES_MAX
from shardfun.model.letters import DeadLetter
from shardfun.model.questions import LETTERS_MAX, PAGE_DEFAULT, PAGE_MAX, CheckpointAnswer, ListAnswer, StateAnswer
from shardfun.model.status import NodeStatus
from shardfun.telemetry.prometheus import CONTENT_TYPE as METRICS_TYPE

VERSION: Final = "3.1.0"
_REF: Final = "#/components/schemas/"
_ANSWERS: Final = (StateAnswer, ListAnswer, CheckpointAnswer, NodeStatus, DeadLetter)
_EVERYWHERE: Final = (
    "malformed-request",
    "wrong-parameter",
    "foreign-origin",
    "headers-too-large",
    "internal-error",
    "unavailable",
)
_JSON_TYPE: Final = JSON.decode()

Schema = dict[str, Any]


class Operation(NamedTuple):
    """What is said about one route.

    Args:
        answers: schema of the answer by status; ``None``: no body.
        problems: kinds that are this route's own.
        parameters: of the query and of headers.
        media: of the answer.
    """

    summary: str
    answers: Mapping[int, Schema | None]
    problems: Sequence[str] = ()
    parameters: Sequence[Schema] = ()
    media: str = _JSON_TYPE
    body: Schema | None = None


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _limit(default: int, most: int) -> Schema:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": most, "default": default}, "At most so many.")


def _ref(name: str) -> Schema:
    return {"$ref": _REF + name}


_TEXT: Final[Schema] = {"type": "string"}
_AFTER: Final = _query("after", _TEXT, "Where to go on: 'next' of the answer before.")
_KEY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": rf"^[!#-\[\]-}}][!#-\[\]-~]{{0,{KEY_CHARACTERS_MAX - 1}}}$"},
    "description": "The same key with the same request has one effect and one reply, however often it is sent.",
}
_WAIT: Final = _query(
    "wait",
    {"type": "string", "pattern": r"^[0-9]{1,4}(\.[0-9]{1,3})?( ?(us|ms|s|min|h))?$"},
    "Wait so long for the reply: seconds, or '500ms', '5 s'.",
)
_TYPE: Final = _query("type", _TEXT, "The name of the payload's type, needed if the body fits several.")
_ACCEPTED: Final[Schema] = {
    "type": "object",
    "properties": {"status": {"const": "accepted"}, "key": _TEXT},
    "required": ["status"],
}
_REPLIED: Final[Schema] = {
    "type": "object",
    "properties": {"status": {"const": "replied"}, "key": _TEXT, "type": _TEXT, "reply": {}},
    "required": ["status", "type", "reply"],
}
_CHANGED: Final = _object(key=_TEXT, target=_TEXT, checkpoint=_TEXT)
_LETTER_PROBLEMS: Final = ("unknown-letter",)
_INTAKE_PROBLEMS: Final = (
    "malformed-json",
    "wrong-key",
    "too-slow",
    "body-too-large",
    "unsupported-media-type",
    "backlog-full",
    "storage-full",
)

OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("GET", "/v1/functions"): Operation(
        "The functions of the application, and the types they accept",
        {200: _object(functions={"type": "array", "items": {"type": "object"}})},
    ),
    ("GET", "/v1/functions/{namespace}/{type}"): Operation(
        "Ids that have something stored, a page at a time",
        {200: _ref("ListAnswer")},
        ("unknown-function",),
        (_AFTER, _limit(PAGE_DEFAULT, PAGE_MAX)),
    ),
    ("POST", "/v1/functions/{namespace}/{type}/{id}"): Operation(
        "Send a message; with 'wait', answer with the reply",
        {200: _REPLIED, 202: _ACCEPTED},
        ("unknown-function", "wrong-payload", "key-reused", *_INTAKE_PROBLEMS),
        (_WAIT, _TYPE, _KEY),
    ),
    ("GET", "/v1/requests/{key}"): Operation(
        "What has become of a request with an Idempotency-Key",
        {200: _REPLIED, 202: _ACCEPTED},
        ("unknown-request", "wrong-key", "reply-too-long"),
    ),
    ("GET", "/v1/state/{namespace}/{type}/{id}"): Operation(
        "The state of an address",
        {200: _ref("StateAnswer")},
        ("unknown-function",),
        (
            _query("at", {"enum": ["live", "checkpoint"], "default": "live"}, "Now, or as of the last applied checkpoint."),
            _query("part", _TEXT, "One map, buffer or registry, a page at a time."),
            _AFTER,
            _limit(PAGE_DEFAULT, PAGE_MAX),
        ),
    ),
    ("POST", "/v1/ingress/{name}"): Operation(
        "Records for an ingress of kind 'http': one, or a stream of lines",
        {200: _object(records={"type": "integer", "minimum": 0})},
        ("unknown-ingress", *_INTAKE_PROBLEMS),
        body={"content": {_JSON_TYPE: {"schema": {}}, NDJSON.decode(): {"schema": _TEXT}}, "required": True},
    ),
    ("GET", "/v1/egress/{name}"): Operation(
        "Results as server-sent events, from 'Last-Event-ID' on",
        {200: _TEXT},
        ("unknown-egress", "not-acceptable", "wrong-event-id", "events-gone"),
        (
            _query("from", {"enum": ["oldest", "newest"], "default": "oldest"}, "Where to begin without 'Last-Event-ID'."),
            {"name": "Last-Event-ID", "in": "header", "required": False, "schema": _TEXT, "description": "Go on behind it."},
        ),
        media=SSE.decode(),
    ),
    ("POST", "/v1/checkpoints"): Operation("Take a checkpoint, and wait until it is complete", {200: _ref("CheckpointAnswer")}),
    ("GET", "/v1/status"): Operation("What the node says of itself", {200: _ref("NodeStatus")}),
    ("GET", "/v1/dead-letters"): Operation(
        "Dead letters, the newest first, without their payloads",
        {200: _object(checkpoint=_TEXT, total={"type": "integer"}, letters={"type": "array", "items": _ref("DeadLetter")})},
        (),
        (_query("typename", _TEXT, "Only those for functions of that type."), _limit(PAGE_DEFAULT, LETTERS_MAX)),
    ),
    ("GET", "/v1/dead-letters/{key}"): Operation("Everything about a dead letter", {200: _ref("DeadLetter")}, _LETTER_PROBLEMS),
    ("DELETE", "/v1/dead-letters/{key}"): Operation(
        "Delete a dead letter", {200: _CHANGED}, ("letter-refused", *_LETTER_PROBLEMS)
    ),
    ("POST", "/v1/dead-letters/{key}/replay"): Operation(
        "Send the message of a dead letter again, and delete the letter", {200: _CHANGED}, ("letter-refused", *_LETTER_PROBLEMS)
    ),
    ("GET", "/metrics"): Operation("Figures for Prometheus", {200: _TEXT}, media=METRICS_TYPE.partition(";")[0]),
    ("GET", "/healthz"): Operation("Whether the door works", {200: _object(status={"const": "ok"})}),
    ("GET", "/readyz"): Operation("Whether the whole node runs", {200: _object(status={"const": "ready"})}),
    ("GET", "/openapi.json"): Operation("This document", {200: {"type": "object"}}),
}


def openapi_document(
    routes: Iterable[Route],
    functions: Sequence[Mapping[str, Any]],
    ingresses: Sequence[str],
    egresses: Sequence[str],
    *,
    token: bool,
) -> Schema:
    """The document.

    Args:
        functions: as ``Targets.describe`` gives them.
        ingresses: names of those of kind ``http``; ``egresses``: of those that can be followed.
        token: whether a bearer token is needed.
    """
    components = msgspec.json.schema_components(_ANSWERS, ref_template=_REF + "{name}")[1]
    schemas: Schema = {**components, "Problem": _problem_schema()}
    paths: Schema = {}
    for route in routes:
        operation = OPERATIONS[route.method, route.path]
        for path, fixed, body in _paths(route, functions, ingresses, egresses, schemas):
            entry = _operation(route, path, operation, token=token)
            if fixed:
                entry["tags"] = [fixed]
            if body is not None or operation.body is not None:
                entry["requestBody"] = body or operation.body
            paths.setdefault(path, {})[route.method.lower()] = entry
    document: Schema = {
        "openapi": VERSION,
        "info": {"title": "shardfun node", "version": importlib.metadata.version("shardfun")},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _paths(
    route: Route, functions: Sequence[Mapping[str, Any]], ingresses: Sequence[str], egresses: Sequence[str], schemas: Schema
) -> Iterable[tuple[str, str, Schema | None]]:
    """The paths of a route, what each is about, and the body that goes there."""
    if "{namespace}/{type}" in route.path:
        for function in functions:
            typename: str = function["typename"]
            shown = typename[:-1] + "{type}" if typename.endswith(EVERY_NAME) else typename
            body = _body(function, schemas) if route.method == "POST" else None
            yield route.path.replace("{namespace}/{type}", shown), typename, body
    elif "{name}" in route.path:
        names = ingresses if route.method == "POST" else egresses
        yield from ((route.path.replace("{name}", name), name, None) for name in names)
    else:
        yield route.path, "", None


def _operation(route: Route, path: str, operation: Operation, *, token: bool) -> Schema:
    problems = [*operation.problems, *_EVERYWHERE, *(["unauthorized"] if token and not route.public else [])]
    responses: Schema = {}
    for status, schema in operation.answers.items():
        content = {} if schema is None else {"content": {operation.media: {"schema": schema}}}
        responses[str(status)] = {"description": operation.summary, **content}
    for name in problems:
        kind = KINDS[name]
        said = responses.get(str(kind.status), {}).get("description", "")
        responses[str(kind.status)] = {
            "description": f"{said}; {kind.title}" if said else kind.title,
            "content": {CONTENT_TYPE.decode(): {"schema": _ref("Problem")}},
        }
    names = [segment[1:-1] for segment in path.split("/") if segment.startswith("{")]
    return {
        "summary": operation.summary,
        "parameters": [*map(_path_parameter, names), *operation.parameters],
        "responses": dict(sorted(responses.items())),
        **({"security": [{"token": []}]} if token and not route.public else {}),
    }


def _path_parameter(name: str) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1}
    parameter: Schema = {"name": name, "in": "path", "required": True, "schema": schema}
    if name == "id":  # a schema can only count characters
        parameter["description"] = f"Any text of 1 to {ID_BYTES_MAX} bytes in UTF-8."
    if name == "key":
        schema["maxLength"] = KEY_CHARACTERS_MAX
    return parameter


def _body(function: Mapping[str, Any], schemas: Schema) -> Schema:
    """What the function accepts, as one schema; what it refers to goes to the components."""
    choices = []
    for item in function["types"]:
        schema = dict(item["schema"])
        for name, inner in schema.pop("$defs", {}).items():
            schemas[f"{item['name']}.{name}"] = _moved(inner, item["name"])
        choices.append({"title": item["name"], **_moved(schema, item["name"])})
    schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
    return {"required": True, "content": {_JSON_TYPE: {"schema": schema}}}


def _moved(schema: Any, prefix: str) -> Any:
    """The schema with its references to ``$defs`` led to the components."""
    match schema:
        case {"$ref": str(ref)} if ref.startswith("#/$defs/"):
            return {**schema, "$ref": f"{_REF}{prefix}.{ref.removeprefix('#/$defs/')}"}
        case dict():
            return {key: _moved(value, prefix) for key, value in schema.items()}
        case list():
            return [_moved(value, prefix) for value in schema]
        case _:
            return schema


def _problem_schema() -> Schema:
    return {
        "type": "object",
        "properties": {
            "type": {"enum": [kind.urn for kind in KINDS.values()]},
            "title": _TEXT,
            "status": {"enum": sorted({kind.status for kind in KINDS.values()})},
            "detail": _TEXT,
            "instance": _TEXT,
            "records": {"type": "integer", "description": "Of a stream of records: how many became durable."},
        },
        "required": ["type", "title", "status", "detail"],
    }
