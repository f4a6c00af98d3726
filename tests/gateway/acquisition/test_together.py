"""Tasks that end together do so whatever they make of it."""

import asyncio

import pytest

from gateway.acquisition.together import end, first_of


async def forever():
    await asyncio.get_running_loop().create_future()


def test_the_first_that_ends_is_told_and_of_several_the_first_named(run_virtual):
    async def fails():
        raise KeyError("x")

    async def scenario():
        slow, quick = asyncio.create_task(forever()), asyncio.create_task(asyncio.sleep(1))
        assert await first_of((slow, quick)) is quick
        one, other = asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(0))
        await asyncio.sleep(1)
        assert await first_of((one, other)) is one
        await end((slow, one, other))
        assert slow.cancelled()

    run_virtual(scenario())


def test_who_takes_no_notice_is_told_again(run_virtual):
    told = []

    async def stubborn():
        while len(told) < 3:
            try:
                await forever()
            except asyncio.CancelledError:
                told.append(asyncio.get_running_loop().time())

    async def scenario():
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await end((task,))
        assert task.done()

    run_virtual(scenario())
    assert [at - told[0] for at in told] == [0, 10, 20]


def test_who_is_cancelled_meanwhile_waits_for_the_end_and_raises_it_then(run_virtual):
    ended = []

    async def tidy():
        try:
            await forever()
        finally:
            while len(ended) < 2:
                try:
                    await asyncio.sleep(5)
                except asyncio.CancelledError:
                    ended.append("told again")
                    continue
                ended.append("tidied")

    async def scenario():
        task = asyncio.create_task(tidy())
        await asyncio.sleep(0)
        ending = asyncio.create_task(end((task,)))
        await asyncio.sleep(1)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert task.done()

    run_virtual(scenario())
    assert ended == ["told again", "tidied"]


def test_what_the_others_ended_with_is_no_news_of_its_own(run_virtual, caplog):
    async def fails_when_told():
        try:
            await forever()
        finally:
            raise KeyError("in the end")

    async def scenario():
        task = asyncio.create_task(fails_when_told())
        await asyncio.sleep(0)
        await end((task,))

    run_virtual(scenario())
    assert "never retrieved" not in caplog.text
