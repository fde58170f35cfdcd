"""Which path and method is which route: looked up in dictionaries that are made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import Final, NamedTuple

from shardfun.door.problems import ProblemError
from shardfun.door.request import Request, Response, StreamResponse, decode_segment

Handler = Callable[[Request], Awaitable[Response | StreamResponse]]
UNKNOWN: Final = "(unknown)"
"""The route in figures of what is none."""
SEGMENTS_MAX: Final = 8


class Route(NamedTuple):
    """One path with one method.

    Args:
        path: with ``{names}`` for what varies.
        public: no token is needed.
    """

    method: str
    path: str
    handler: Handler
    public: bool = False


class Found(NamedTuple):
    """What a request leads to. ``handler`` is ``None`` for OPTIONS."""

    route: str
    handler: Handler | None
    parameters: tuple[str, ...]
    public: bool
    allow: bytes


class _Node:
    """The methods of one path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.methods: dict[str, Route] = {}
        segments = path.encode().split(b"/")
        self.variable = tuple(index for index, segment in enumerate(segments) if segment.startswith(b"{"))
        self.fixed = tuple((index, segment) for index, segment in enumerate(segments) if not segment.startswith(b"{"))

    def fits(self, segments: list[bytes]) -> bool:
        """Whether it is this path, of as many segments."""
        for index, segment in self.fixed:  # noqa: SIM110 - each request comes by, and a generator takes twice as long
            if segments[index] != segment:
                return False
        return True

    @cached_property
    def allow(self) -> bytes:
        names = [*self.methods, *(["HEAD"] if "GET" in self.methods else []), "OPTIONS"]
        return ", ".join(sorted(names)).encode()


class Router:
    """Finds routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        nodes: dict[str, _Node] = {}
        for route in routes:
            nodes.setdefault(route.path, _Node(route.path)).methods[route.method] = route
        # by number of segments and the two that all paths of that length have in common at most
        self._nodes: dict[tuple[int, bytes], list[_Node]] = {}
        for node in nodes.values():
            segments = node.path.encode().split(b"/")
            self._nodes.setdefault((len(segments), _second(segments)), []).append(node)

    def find(self, method: str, raw_path: bytes) -> Found:
        """The route of a request.

        Raises:
            ProblemError: there is no such path (404), or it has another method (405).
        """
        if not raw_path.startswith(b"/"):  # "http://host/path", as to a proxy
            raw_path = b"/" + raw_path.partition(b"://")[2].partition(b"/")[2]
        segments = raw_path.split(b"/", SEGMENTS_MAX)
        for node in self._nodes.get((len(segments), _second(segments)), ()):
            if node.fits(segments):
                return self._with_method(node, method, segments)
        shown = raw_path[:100].decode("latin-1")
        raise ProblemError("unknown-path", f"no such path: {shown!r}; '/openapi.json' and docs/HTTP.md list all")

    @staticmethod
    def _with_method(node: _Node, method: str, segments: list[bytes]) -> Found:
        parameters = tuple(decode_segment(segments[index]) for index in node.variable)
        route = node.methods.get("GET" if method == "HEAD" else method)
        if route is not None:
            return Found(node.path, route.handler, parameters, route.public, node.allow)
        if method == "OPTIONS":
            return Found(node.path, None, parameters, True, node.allow)
        known = node.allow.decode()
        raise ProblemError(
            "method-not-allowed", f"{node.path}: expected one of {known}, got {method[:40]}", headers=((b"allow", node.allow),)
        )


def _second(segments: list[bytes]) -> bytes:
    return segments[2] if len(segments) > 2 else segments[1]
