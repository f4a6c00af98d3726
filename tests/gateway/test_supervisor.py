import asyncio
import contextlib
import logging
from itertools import pairwise

import pytest

from gateway.metrics import Metrics
from gateway.supervisor import Supervisor, contained


@pytest.fixture
def supervisor(virtual_clock):
    return Supervisor(clock=virtual_clock, metrics=Metrics())


def test_a_crash_is_contained_logged_once_and_the_task_started_again(supervisor, run_virtual, caplog):
    starts = {"bad": 0, "good": 0}

    async def bad():
        starts["bad"] += 1
        raise ValueError("always the same")

    async def good():
        starts["good"] += 1
        await asyncio.sleep(1e9)

    async def scenario():
        supervisor.start("bad", bad)
        supervisor.start("good", good)
        await asyncio.sleep(600)
        health = {h.name: (h.state, h.crashes) for h in supervisor.health.values()}
        await supervisor.stop_all(["bad", "good"], timeout_s=1)
        return health

    health = run_virtual(scenario())
    assert starts["good"] == 1
    assert 10 <= starts["bad"] <= 30
    assert health["bad"] == ("waiting", starts["bad"])
    assert health["good"] == ("running", 0)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    assert "always the same" in caplog.text


def test_a_task_that_ran_long_starts_its_back_off_anew(supervisor, run_virtual):
    starts = []

    async def work():
        starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.1 if len(starts) < 8 else 100)
        raise OSError("gone")

    async def scenario():
        supervisor.start("w", work)
        await asyncio.sleep(1000)
        await supervisor.stop("w", timeout_s=1)

    run_virtual(scenario())
    gaps = [b - a for a, b in pairwise(starts)]
    assert gaps[6] > 20
    assert all(gap <= 101 for gap in gaps[7:])


def test_work_that_returns_has_ended_and_is_not_repeated(supervisor, run_virtual):
    runs = []

    async def work():
        runs.append(1)

    async def scenario():
        supervisor.start("once", work)
        await asyncio.sleep(100)
        return supervisor.health["once"].state

    assert run_virtual(scenario()) == "ended"
    assert runs == [1]


def test_a_task_that_will_not_stop_is_left_behind_in_time(supervisor, run_virtual, caplog):
    async def stubborn():
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3)

    async def scenario():
        supervisor.start("s", stubborn)
        await asyncio.sleep(0)
        started = asyncio.get_running_loop().time()
        stopped = await supervisor.stop("s", timeout_s=2)
        passed = asyncio.get_running_loop().time() - started
        await asyncio.sleep(5)
        return stopped, passed

    assert run_virtual(scenario()) == (False, 2)
    assert "did not stop within" in caplog.text


def test_two_tasks_cannot_share_a_name(supervisor, run_virtual):
    async def work():
        await asyncio.sleep(1)

    async def scenario():
        supervisor.start("a", work)
        with pytest.raises(ValueError, match="running already"):
            supervisor.start("a", work)
        await supervisor.stop("a", timeout_s=1)

    run_virtual(scenario())


def test_an_ordered_stop_goes_on_after_a_failure(run_virtual, caplog):
    async def fails():
        raise OSError("disk gone")

    async def works():
        return

    assert run_virtual(contained("spool", fails)) is False
    assert run_virtual(contained("log", works)) is True
    assert "'spool' failed while stopping" in caplog.text
