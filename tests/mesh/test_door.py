"""Question and answer with a running node, from another process's point of view."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from shardfun.errors import UnavailableError
from shardfun.mesh.door import answer_questions, ask


async def listening(folder: Path) -> None:
    while not (folder / "door").exists():  # noqa: ASYNC110 - there is no event for it
        await trio.sleep(0.002)


async def loud(question: bytes) -> bytes:
    return question[::-1] + b"!" * 100_000


async def test_questions_are_answered_one_after_the_other(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/door"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_questions, url, loud)
            await listening(tmp_path)
            for question in (b"abc", b"", b"x" * 1000):
                answer = await trio.to_thread.run_sync(ask, url, question, 5.0)
                assert answer == question[::-1] + b"!" * 100_000
            assert (tmp_path / "door").stat().st_mode & 0o777 == 0o600
            nursery.cancel_scope.cancel()


async def test_who_asks_and_goes_away_does_not_stop_the_answers(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/door"

    async def slow(question: bytes) -> bytes:
        if question == b"slow":
            await trio.sleep(0.3)
        return question

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_questions, url, slow)
            await listening(tmp_path)
            with pytest.raises(UnavailableError):
                await trio.to_thread.run_sync(ask, url, b"slow", 0.1)
            assert await trio.to_thread.run_sync(ask, url, b"next", 5.0) == b"next"
            nursery.cancel_scope.cancel()


async def test_a_question_that_takes_long_holds_up_no_other(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/door"
    release = trio.Event()
    answers = []

    async def slow(question: bytes) -> bytes:
        if question == b"slow":
            await release.wait()
        return question

    async def ask_slowly() -> None:
        answers.append(await trio.to_thread.run_sync(ask, url, b"slow", 8.0))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_questions, url, slow)
            await listening(tmp_path)
            async with trio.open_nursery() as asking:
                for _ in range(4):
                    asking.start_soon(ask_slowly)
                assert await trio.to_thread.run_sync(ask, url, b"quick", 5.0) == b"quick"
                assert answers == []
                release.set()
            assert answers == [b"slow"] * 4
            nursery.cancel_scope.cancel()


def test_nobody_there(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=f"the node does not answer at ipc://{tmp_path}/door"):
        ask(f"ipc://{tmp_path}/door", b"?", 0.2)
    assert time.monotonic() - started < 5


async def test_somebody_there_who_says_nothing(tmp_path: Path) -> None:
    import pynng

    url = f"ipc://{tmp_path}/door"
    with pynng.Rep0() as silent, trio.fail_after(10):
        silent.listen(url)
        with pytest.raises(UnavailableError, match="does not answer"):
            await trio.to_thread.run_sync(ask, url, b"?", 0.2)
