"""Two ways to wait for a web server.

``web/page`` is one address for each page and awaits its answer: a page is fetched once at a time, different ones side by side.
``web/site`` is one address for each site. It must go on taking pages meanwhile, so it starts operations, and counts what comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shardfun import App, Context, Message, OperationResult, OperationStatus, State, Value, retry, value

TIMEOUT_S = 10.0

app = App("fetch")


class Page(msgspec.Struct, frozen=True):
    """A page to fetch."""

    site: str
    path: str


class Fetched(msgspec.Struct, frozen=True):
    """What the server said."""

    status: int
    characters: int


class Pages(State):
    """Of one page: how often it was fetched."""

    times: Value[int] = value(0)


class Site(State):
    """Of one site: what is under way, and what came back."""

    waiting: Value[int] = value(0)
    answered: Value[int] = value(0)
    failed: Value[int] = value(0)


async def fetch(url: str) -> Fetched:
    """Ask the server.

    Raises:
        aiohttp.ClientError: it does not answer, or with an error of its own.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
        response.raise_for_status()
        return Fetched(response.status, len(await response.text()))


@app.router("pages")
def route(record: dict[str, Any]) -> Iterable[Message]:
    """Each line to the page and to the site."""
    page = msgspec.convert(record, Page)
    yield Message("web/page", page.site + page.path, page)
    yield Message("web/site", page.site, page)


@app.function("web/page", asyncio=True, on_failure=retry(attempts=3, backoff=0.1), timeout=3 * TIMEOUT_S)
async def page(ctx: Context[Pages], message: Page) -> None:
    """Fetch a page and wait for it."""
    fetched = await fetch(message.site + message.path)
    ctx.state.times += 1
    ctx.emit("fetched", {"page": ctx.self.id, "status": fetched.status, "characters": fetched.characters})


@app.function("web/site")
def site(ctx: Context[Site], message: Page | OperationResult[Page, Fetched]) -> None:
    """Start fetching, and count the results. Fetching twice does no harm, so an unknown result is asked for again."""
    match message:
        case Page(address, path):
            ctx.state.waiting += 1
            ctx.start_operation(fetch, address + path, metadata=message, asyncio=True)
        case OperationResult(Page(address, path) as asked, OperationStatus.UNKNOWN):
            ctx.start_operation(fetch, address + path, metadata=asked, asyncio=True)
        case OperationResult(_, status):
            ctx.state.waiting -= 1
            if status is OperationStatus.SUCCESS:
                ctx.state.answered += 1
            else:
                ctx.state.failed += 1


@app.on_end("web/site")
def report(ctx: Context[Site]) -> None:
    """What became of all pages of a site."""
    ctx.emit("sites", {"site": ctx.self.id, "answered": ctx.state.answered, "failed": ctx.state.failed})
