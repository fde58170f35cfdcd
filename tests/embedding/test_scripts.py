"""Programs as users have them: applications in the script itself, Ctrl-C, mistakes, and the command line beside them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts import APP, BODIES, GUARD, Script, wait_for

Maker = Callable[..., Script]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Maker]:
    made: list[Script] = []

    def make(text: str, name: str = "script.py") -> Script:
        made.append(Script(tmp_path, text, name))
        return made[-1]

    yield make
    for each in made:
        each.close()


ASK_ONCE = """
def main():
    with BlockingSupervisor(app, data_dir="data", **FAST) as node:
        print("reply", node.ask("script/counter", "a", [Add(1), Add(2)]))
        items = node.query("script/counter", "a").fields["items"]
        print("items", len(items))
"""


def test_an_application_in_the_script_works_and_goes_on_in_the_next_run(script: Maker, tmp_path: Path) -> None:
    program = script(APP + ASK_ONCE + GUARD)
    assert program.run() == (0, "reply 3\nitems 2\n")
    assert program.left() == []
    assert program.run() == (0, "reply 6\nitems 4\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert program.run(str(program.path), cwd=elsewhere) == (0, "reply 3\nitems 2\n"), "from another folder"


def test_it_also_works_as_a_module_of_a_package_with_relative_imports(script: Maker, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "prices.py").write_text("PRICE = 7\n")
    program = script("from .prices import PRICE\n" + APP + ASK_ONCE + GUARD, "shop/tool.py")
    assert program.run("-m", "shop.tool") == (0, "reply 3\nitems 2\n")
    assert program.left() == []


def test_an_application_in_a_module_beside_the_script_needs_no_guard(script: Maker, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text(APP)
    program = script("from neighbour import *\n" + ASK_ONCE + "\nmain()\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert program.run(str(program.path), cwd=elsewhere) == (0, "reply 3\nitems 2\n")
    assert program.left() == []


@pytest.mark.parametrize("way", BODIES)
def test_a_missing_guard_is_told(script: Maker, way: str) -> None:
    program = script(APP + BODIES[way] + "\nmain()\n")
    code, output = program.run()
    assert code == 1
    assert "ApplicationImportError" in output
    assert "below 'if __name__ == \"__main__\":'" in output
    assert output.count("Traceback") <= 3
    assert program.left() == []


def test_what_is_not_in_a_file_is_told(script: Maker) -> None:
    program = script("")
    code, output = program.run("-c", APP + ASK_ONCE + "\nmain()")
    assert code == 1
    assert "save it as a module" in output
    assert program.left() == []


PRESSES = [
    pytest.param(way, presses, marks=() if (way == "asyncio") == (presses == 1) else pytest.mark.long)
    for way in BODIES
    for presses in (1, 3)
]
"""Each way once; all of it with ``--long``."""


@pytest.mark.parametrize(("way", "presses"), PRESSES)
def test_ctrl_c_while_it_works_leaves_nothing(script: Maker, way: str, presses: int) -> None:
    """Once or several times: the node is gone, and what was acknowledged is there in the next run."""
    program = script(APP + BODIES[way] + GUARD)
    process = program.start()
    wait_for(lambda: program.output().count("sent") > 5, "messages")
    code, output = program.end(process, *[signal.SIGINT] * presses)
    assert code in {-signal.SIGINT, 1, 130}, output
    assert "KeyboardInterrupt" in output
    assert program.left() == []
    sent = output.splitlines().count("sent")
    count = script(
        APP
        + """
def main():
    with BlockingSupervisor(app, data_dir="data", **FAST) as node:
        for total in node.egress("totals"):
            if total >= int(sys.argv[1]):
                print("total", total)
                break
"""
        + GUARD,
    )
    assert count.run(str(count.path), str(sent))[1] == f"total {sent}\n"


@pytest.mark.parametrize("way", BODIES)
def test_ctrl_c_while_it_starts_leaves_nothing(script: Maker, way: str) -> None:
    program = script(APP + BODIES[way].replace("    with ", '    print("starting", flush=True)\n    with ').replace(
        "    async with ", '    print("starting", flush=True)\n    async with ') + GUARD)  # fmt: skip
    process = program.start()
    wait_for(lambda: "starting" in program.output() and len(program.processes()) > 1, "the start")
    code, output = program.end(process, signal.SIGINT)
    assert code in {-signal.SIGINT, 1, 130}, output
    assert program.left() == []


def test_a_program_that_never_leaves_its_block_ends_its_node_all_the_same(script: Maker) -> None:
    body = """
def main():
    node = BlockingSupervisor(app, data_dir="data", **FAST).__enter__()
    node.send("script/counter", "a", Add(1))
    print("done", flush=True)
"""
    program = script(APP + body + GUARD)
    assert program.run() == (0, "done\n")
    assert program.left() == []


def test_a_killed_program_leaves_no_process_and_the_next_one_cleans_up(script: Maker) -> None:
    program = script(APP + BODIES["trio"] + GUARD)
    process = program.start()
    wait_for(lambda: program.output().count("sent") > 5, "messages")
    program.end(process, signal.SIGKILL)
    wait_for(lambda: not program.processes(), "shards to notice")
    again = script(APP + ASK_ONCE + GUARD)
    again.temporary.rmdir()
    again.temporary = program.temporary
    code, output = again.run()
    assert (code, output.count("reply")) == (0, 1), output
    assert again.left() == []


def test_a_process_that_the_program_has_forked_keeps_nothing(script: Maker) -> None:
    """It has copies of all descriptors, and may outlive the node."""
    body = """
def main():
    with BlockingSupervisor(app, data_dir="data", **FAST) as node:
        node.send("script/counter", "a", Add(1))
        child = os.fork()
        if not child:
            time.sleep(600)
            os._exit(0)
    with BlockingSupervisor(app, data_dir="data", **FAST) as node:
        print(node.ask("script/counter", "a", Add(1)))
    os.kill(child, 9)
    os.wait()
"""
    program = script(APP + body + GUARD)
    assert program.run() == (0, "2\n")
    assert program.left() == []


def test_a_shard_cannot_start_a_node(script: Maker) -> None:
    body = """
@app.function("script/nested", blocking=True)
def nested(ctx: Context, message: int) -> None:
    with BlockingSupervisor(app, **FAST):
        pass

def main():
    with BlockingSupervisor(app, data_dir="data", failure={"retries": 0}, **FAST) as node:
        node.send("script/nested", "a", 1)
        while not node.statistics().dead_letters:
            time.sleep(0.05)
        node.checkpoint()
"""
    program = script(APP + body + GUARD)
    assert program.run()[0] == 0
    letters = program.command("inspect", "data", "--dead-letters", "--json")
    [letter] = json.loads(letters.stdout)["letters"]
    assert "a shard process of a node" in letter["reason"]


# ---- the command line ----------------------------------------------------------------------------------------------------
def test_the_command_line_reaches_a_node_in_a_script(script: Maker) -> None:
    body = """
def main():
    with BlockingSupervisor(app, data_dir="data", **FAST) as node:
        print("running", flush=True)
        node.wait()
"""
    program = script(APP + body + GUARD)
    process = program.start()
    wait_for(lambda: "running" in program.output(), "the node")
    sent = program.command("send", "data", "script/counter", "a", '{"n": 5}')
    assert (sent.returncode, sent.stdout) == (0, "sent to script/counter:a\n"), sent.stderr
    wait_for(lambda: '"total": 5' in program.command("query", "data", "script/counter", "a", "--json").stdout.replace('":', '": ').replace(
        '":  ', '": '), "the message")  # fmt: skip
    asked = program.command(
        "ask", "data", "script/counter", "a", "-", "--key", "k", "--timeout", "30", stdin='[{"n": 1}, {"n": 2}]'
    )
    assert (asked.returncode, asked.stdout) == (0, "8\n"), asked.stderr
    again = program.command("ask", "data", "script/counter", "a", '[{"n": 1}, {"n": 2}]', "--key", "k", "--json")
    assert json.loads(again.stdout) == {"type": "int", "reply": 8}
    other = program.command("ask", "data", "script/counter", "a", '{"n": 1}', "--key", "k")
    assert other.returncode == 1
    assert "key 'k' belongs to an earlier request" in other.stderr
    program.end(process, signal.SIGINT)
    assert program.left() == []


NODE = 'app = "shop:app"\nshards = 1\nendless = true\n[egress.totals]\nkind = "stream"\n[supervision]\nspares = 0\n'


def test_the_command_line_reaches_a_node_by_its_configuration(script: Maker, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "shop.toml").write_text(NODE)
    program = script("")
    refused = program.command("send", "shop.toml", "script/counter", "a", '{"n": 5}')
    assert refused.returncode == 8, "no node runs"
    process = program.start("-m", "shardfun", "run", "shop.toml", "--no-progress")
    wait_for(lambda: "running" in program.output(), "the node")
    assert program.command("send", "shop.toml", "script/counter", "a", '{"n": 5}').returncode == 0
    cases = {
        ("script/countre", "a", '{"n": 5}'): (1, "did you mean 'script/counter'?"),
        ("script/counter", "a", '{"m": 5}'): (1, "none of these"),
        ("script/counter", "a", "{n: 5}"): (2, "expected JSON"),
        ("script/counter", "", '{"n": 5}'): (1, "id: expected"),
    }
    for arguments, (code, text) in cases.items():
        wrong = program.command("send", "shop.toml", *arguments)
        assert (wrong.returncode, text in wrong.stderr) == (code, True), wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1
    asked = program.command("ask", "shop.toml", "script/counter", "b", '{"n": 7}', "--type", "Add")
    assert (asked.returncode, asked.stdout) == (0, "7\n"), asked.stderr
    by_folder = program.command("ask", "data/shop", "script/counter", "b", '{"n": 7}')
    assert (by_folder.returncode, by_folder.stdout) == (0, "14\n"), by_folder.stderr
    late = program.command("ask", "shop.toml", "script/counter", "c", '{"n": 7}', "--timeout", "0.0001")
    assert late.returncode == 8
    assert "no reply within" in late.stderr
    code, output = program.end(process, signal.SIGINT)
    assert code == 0, output
    assert program.left() == []


# ---- the other doors of an application in a script -----------------------------------------------------------------------
def test_sources_and_sinks_of_the_script_work(script: Maker) -> None:
    """An ``@app.ingress``, and classes given as ``kind``: all in the script, all in one run that ends by itself."""
    body = """
from shardfun import Message
from shardfun.sinks import Egress
from shardfun.sources import Ingress

class Evens(Ingress):
    def open(self, position):
        self.next = 0 if position is None else position + 2
    def read(self, limit):
        if self.next > 20 or self.partition.index:
            return None
        number, self.next = self.next, self.next + 2
        return [(number, number)]

class Lines(Egress):
    def open(self):
        return len(open("lines").readlines()) if os.path.exists("lines") else 0
    def publish(self, records, first):
        with open("lines", "a") as file:
            file.writelines(record.decode() + "\\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

@app.ingress("odds")
async def odds(position):
    for number in range((position or -1) + 2, 20, 2):
        yield number, number

@app.router("odds")
@app.router("evens")
def route(number):
    yield Message("script/counter", "sum", Add(number))

def main():
    doors = {"ingress": {"evens": {"kind": Evens}}, "egress": {"totals": {"kind": Lines}}}
    with BlockingSupervisor(app, data_dir="data", endless=False, **doors, **FAST) as node:
        print(node.wait().state)
    print(open("lines").read().split()[-1])
"""
    program = script(APP + body + GUARD)
    assert program.run() == (0, f"finished\n{sum(range(21))}\n")
    assert program.left() == []


def test_the_http_door_of_a_node_in_a_script_knows_its_application(script: Maker) -> None:
    body = """
from urllib.request import Request, urlopen

async def work():
    async with Supervisor(app, data_dir="data", http={"listen": "127.0.0.1:0"}, **FAST) as node:
        while not (url := (await node.statistics()).http):
            await trio.sleep(0.05)
        url = url if url.startswith("http") else f"http://{url}"
        def post():
            request = Request(f"{url}/v1/functions/script/counter/a?wait=30", b'{"n": 5}', {"Content-Type": "application/json"})
            for _ in range(100):
                try:
                    return urlopen(request, timeout=40).read()
                except ConnectionError:
                    time.sleep(0.1)
        print(await trio.to_thread.run_sync(post))
        print(await node.ask("script/counter", "a", Add(1)))

def main():
    trio.run(work)
"""
    program = script(APP + body + GUARD)
    code, output = program.run()
    assert code == 0, output
    assert '"reply":5' in output
    assert output.endswith("6\n")
    assert program.left() == []
