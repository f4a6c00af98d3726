"""Two ways to one device: which is used, when it goes back to the first, and what the log says. Time is virtual."""

import asyncio
import logging

import pytest

from drivers.modbus.frames.pdu import Request
from drivers.modbus.lines.backup import RETRY_S, Backup
from drivers.modbus.lines.client import Client
from gateway.errors import LineError

FIVE = Request(unit=1, function=3, address=5, count=1)


class Way:
    """An endpoint that can be out of reach; `peer` answers where it is not."""

    def __init__(self, name, peer, metrics):
        self.name, self.peer = name, peer
        self.up = True
        self.tried = 0
        self.takes_s = 0.0
        self.open_now = []

    def __str__(self):
        return self.name

    async def open(self, receiver, *, timeout_s):
        self.tried += 1
        await asyncio.sleep(min(self.takes_s, timeout_s))
        if not self.up:
            raise LineError(f"{self.name}: refused", cause="offline")
        return await self.peer.endpoint.open(receiver, timeout_s=timeout_s)


@pytest.fixture
def first(kit, metrics):
    return Way("first", kit.Peer(), metrics)


@pytest.fixture
def second(kit, metrics):
    return Way("second", kit.Peer(), metrics)


@pytest.fixture
def both(first, second):
    return Backup(first, second)


@pytest.fixture
def play(run, both, clock, metrics, caplog):
    """Run `script(client, fetch)` on a connection over the two ways."""
    caplog.set_level(logging.INFO, "headgate.modbus")

    def runner(script, **options):
        async def main():
            client = Client(
                both, units=frozenset({1}), timeout_s=1.0, connect_delay_s=0.0, max_in_flight=1,
                clock=clock, metrics=metrics, **options,
            )  # fmt: skip

            async def fetch(times=1):
                for _ in range(times):
                    exchange = await client.fetch([FIVE], timeout_s=1, gap_s=0)
                return exchange.answers

            try:
                await script(client, fetch)
            finally:
                await client.close()
            assert len(asyncio.all_tasks()) == 1

        run(main())

    return runner


def said(caplog):
    return [record.getMessage() for record in caplog.records]


def test_the_first_is_used_while_it_can_be_opened_and_nothing_is_said(play, first, second, both, caplog):
    async def script(client, fetch):
        for _ in range(3):
            await client.open()
            assert await fetch() == [b"\0\5"]
            await client.close()

    play(script)
    assert (first.tried, second.tried, said(caplog)) == (3, 0, [])
    assert str(both) == "first"


def test_the_second_is_used_where_the_first_fails_and_that_is_said_once(play, first, second, caplog):
    first.up = False

    async def script(client, fetch):
        for _ in range(3):
            await client.open()
            assert await fetch() == [b"\0\5"]
            await client.close()
            await asyncio.sleep(100)

    play(script)
    assert said(caplog) == ["first is out of reach (first: refused): its backup second is used"]
    assert len(second.peer.asked) == 3


def test_where_neither_can_be_opened_the_error_names_both(play, first, second):
    first.up = second.up = False

    async def script(client, fetch):
        with pytest.raises(LineError, match="first: refused; and second: refused") as caught:
            await client.open()
        assert caught.value.cause == "offline"

    play(script)


def test_a_new_connection_goes_back_to_the_first(play, first, second, caplog):
    first.up = False

    async def script(client, fetch):
        await client.open()
        first.up = True
        await asyncio.sleep(70)
        second.peer.stream.close()
        await asyncio.sleep(1)
        await client.close()
        await client.open()
        assert await fetch() == [b"\0\5"]
        assert len(first.peer.asked) == 1

    play(script)
    assert said(caplog)[1:] == ["first can be reached again: its backup second is left"]


def test_who_closes_after_each_poll_does_not_wait_for_the_dead_host_each_time(play, first, second):
    first.up, first.takes_s = False, 1.0

    async def script(client, fetch):
        await client.open()
        begun = asyncio.get_running_loop().time()
        for _ in range(30):
            assert await fetch() == [b"\0\5"]
            await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(30)
        assert first.tried == 1
        await asyncio.sleep(40)
        await fetch()
        assert first.tried == 2

    play(script, linger_s=0.0)


def test_where_the_second_fails_soon_after_the_first_did_the_first_is_tried_all_the_same(play, first, second):
    first.up = False

    async def script(client, fetch):
        await client.open()
        await client.close()
        first.up, second.up = True, False
        await client.open()
        assert await fetch() == [b"\0\5"]

    play(script)
    assert (first.tried, second.tried) == (2, 2)


def test_while_the_second_is_used_the_first_is_tried_now_and_then_and_taken_without_an_outage(
    play, first, second, caplog
):
    first.up = False

    async def script(client, fetch):
        await client.open()
        for at in range(int(RETRY_S * 3) + 5):
            if at == int(RETRY_S * 2.5):
                first.up = True
            assert await fetch() == [b"\0\5"]
            await asyncio.sleep(1)
        assert await fetch() == [b"\0\5"]

    play(script)
    assert first.tried == 5  # at first, three times while the second was used, and then for good
    assert len(first.peer.asked) >= 1
    assert said(caplog)[1:] == ["first can be reached again: its backup second is left"]


def test_a_first_that_was_found_again_is_used_however_short_ago_it_failed(play, first, second, monkeypatch):
    monkeypatch.setattr("drivers.modbus.lines.backup.RETRY_S", 2.0)
    first.up = False

    async def script(client, fetch):
        await client.open()
        await fetch()
        first.up = True
        await asyncio.sleep(3)
        await fetch()

    play(script)
    assert (len(second.peer.asked), len(first.peer.asked)) == (1, 1)


def test_a_line_that_is_polled_fast_is_idle_in_between(play, first, second):
    second.peer.script = lambda asked: second.peer.later(0.005, second.peer.good(asked)) or []
    first.up = False

    async def script(client, fetch):
        await client.open()
        first.up = True
        while not first.peer.asked:
            assert await fetch() == [b"\0\5"]
            await asyncio.sleep(0.015)

    play(script)
    assert len(second.peer.asked) > RETRY_S / 0.021


def test_the_change_waits_for_an_answer_that_is_under_way(play, first, second):
    second.peer.script = lambda asked: second.peer.later(0.9, second.peer.good(asked)) or []
    first.up = False

    async def script(client, fetch):
        await client.open()
        first.up = True
        await asyncio.sleep(RETRY_S - 0.5)
        assert await fetch() == [b"\0\5"]
        await asyncio.sleep(0.2)
        assert await fetch() == [b"\0\5"]
        assert first.peer.opened == 2
        assert "closed by the peer" in str(first.peer.lost)  # the trial: a device may take one client only

    play(script)
    assert (len(second.peer.asked), len(first.peer.asked)) == (1, 1)


def test_a_line_that_is_never_idle_is_taken_back_after_a_while_all_the_same(play, first, second):
    second.peer.script = lambda asked: second.peer.later(0.1, second.peer.good(asked)) or []
    first.up = False

    async def script(client, fetch):
        await client.open()
        first.up = True
        begun = asyncio.get_running_loop().time()
        with pytest.raises(LineError, match="first can be reached again"):
            await fetch(100_000)
        assert asyncio.get_running_loop().time() - begun < 2 * RETRY_S + 1

    play(script)


def test_closing_leaves_no_task_behind_even_in_the_middle_of_a_trial(run, both, first, second, kit):
    first.up = False

    class Nobody:
        def on_data(self, data):
            pass

        def on_lost(self, error):
            raise AssertionError

    async def main():
        stream = await both.open(Nobody(), timeout_s=5)
        assert "spare" in repr(stream)
        assert "in use: second" in repr(both)
        first.takes_s = 3.0
        await asyncio.sleep(RETRY_S + 1)
        assert first.tried == 2
        stream.close()
        await stream.wait_closed()
        assert len(asyncio.all_tasks()) == 1

    run(main())
