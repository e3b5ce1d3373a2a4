"""What is remembered of answers, against a clock and sizes that are known."""

import asyncio

import pytest

from gxdistill.service.answers import Answers
from gxdistill.service.protocol import Limits, RefusedError


def test_the_oldest_are_forgotten_by_age_and_by_size_but_none_that_is_computed():
    async def scenario():
        now, made = [0.0], []
        answers = Answers(Limits(remembered_s=10, remembered_bytes=25), lambda: now[0])
        release = asyncio.Event()

        async def ask(name, wait=False):
            async def make():
                made.append(name)
                if wait:
                    await release.wait()
                return name.encode() * 10

            return await answers.get(("token", name), name.encode(), make)

        under_way = asyncio.create_task(ask("a", wait=True))
        await asyncio.sleep(0)
        for name in "bcd":  # Ten bytes each: of three, the first is forgotten.
            await ask(name)
        assert answers.bytes == 20
        for name in "cd":
            assert await ask(name) == name.encode() * 10
        assert made == ["a", "b", "c", "d"]
        await ask("b")
        assert made[4:] == ["b"]
        now[0] = 11.0
        await ask("e")
        assert answers.bytes == 10
        again = asyncio.create_task(ask("a"))
        await asyncio.sleep(0)
        release.set()
        assert await under_way == await again == b"a" * 10
        assert made.count("a") == 1
        with pytest.raises(RefusedError, match="409"):
            await answers.get(("token", "e"), b"another", lambda: None)

    asyncio.run(scenario())
