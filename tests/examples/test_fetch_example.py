"""The asyncio example against a real web server, in real shard processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[2] / "conf" / "fetch.toml"
PAGES = 40


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"x" * len(self.path)
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pages_are_fetched_with_a_client_of_asyncio(site: str, tmp_path: Path) -> None:
    paths = [*(f"/page-{number}" for number in range(PAGES)), "/missing"]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps({"site": site, "path": path}) + "\n" for path in paths))
    (tmp_path / "fetch.toml").write_text(CONFIG.read_text())
    command = [sys.executable, "-m", "shardfun", "run", "fetch.toml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["verdict"], summary["dead_letters"]) == ("finished", 1), "the page that is missing, after three attempts"
    found = [json.loads(line) for path in tmp_path.glob("fetched-*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(record["page"] for record in found) == sorted(site + path for path in paths[:-1])
    assert all(record["characters"] == len(record["page"]) - len(site) for record in found)
    (total,) = [json.loads(line) for path in tmp_path.glob("sites-*.jsonl") for line in path.read_text().splitlines()]
    assert total == {"site": site, "answered": PAGES, "failed": 1}
