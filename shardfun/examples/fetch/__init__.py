"""Fetch pages of a web server with aiohttp, a library of asyncio: once by a function that awaits, once by an operation.

    pip install 'shardfun[asyncio]' aiohttp
    shardfun run conf/fetch.toml --set ingress.pages.path=pages.jsonl

``pages.jsonl`` has a line ``{"site": "http://127.0.0.1:8000", "path": "/index.html"}`` for each page.
"""

from shardfun.examples.fetch.functions import app

__all__ = ["app"]
