"""Question and answer with a running node, from another process's point of view."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from shardfun.errors import UnavailableError
from shardfun.mesh.door import QUESTIONS_AT_ONCE, answer_questions, ask, open_asker


async def listening(folder: Path) -> None:
    while not (folder / "door").exists():  # noqa: ASYNC110 - there is no event for it
        await trio.sleep(0.002)


async def loud(question: bytes) -> bytes:
    return question[::-1] + b"!" * 100_000


async def test_questions_are_answered_one_after_the_other(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/door"
    with trio.fail_after(60):
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

    with trio.fail_after(60):
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

    with trio.fail_after(60):
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
    with pynng.Rep0() as silent, trio.fail_after(60):
        silent.listen(url)
        with pytest.raises(UnavailableError, match="does not answer"):
            await trio.to_thread.run_sync(ask, url, b"?", 0.2)


# ---- many questions over one connection ----------------------------------------------------------------------------------
async def test_many_tasks_ask_at_once_and_each_gets_its_answer(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/door"
    answers: dict[int, bytes] = {}

    async def slow_first(question: bytes) -> bytes:
        await trio.sleep(0.05 if question == b"0" else 0)
        return question + b"!"

    with trio.fail_after(60), open_asker(url) as asker:  # which may be there before the door

        async def ask_for(n: int) -> None:
            answers[n] = await asker.ask(b"%d" % n, 10.0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_questions, url, slow_first)
            async with trio.open_nursery() as asking:
                for n in range(100):
                    asking.start_soon(ask_for, n)
            nursery.cancel_scope.cancel()
    assert answers == {n: b"%d!" % n for n in range(100)}


async def test_who_gives_up_disturbs_no_other(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/door"

    async def some(question: bytes) -> bytes:
        if question == b"never":
            await trio.sleep_forever()
        return question

    with trio.fail_after(60), open_asker(url) as asker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_questions, url, some)
            for number in range(QUESTIONS_AT_ONCE // 2 - 1):
                with pytest.raises(UnavailableError, match=r"does not answer at .*: no answer within 0.01 s"):
                    await asker.ask(b"never", 0.01)
                with trio.move_on_after(0.001):
                    await asker.ask(b"never", 10.0)
                    pytest.fail("it answers")
                if number < 10:
                    assert await asker.ask(b"next", 10.0) == b"next"
            nursery.cancel_scope.cancel()
