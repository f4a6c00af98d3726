"""Who else uses a line's driver, and what happens when the driver does not return."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from gateway.acquisition.line import _longest_read
from gateway.acquisition.usage import Usage, Watchdog
from gateway.errors import DeviceError, LineError
from gateway.model import bad

START = 1000.0


def test_the_driver_is_there_while_there_is_a_connection(play):
    bus, found = None, None

    def script(fresh):
        nonlocal bus, found
        bus, found = fresh, fresh.line({"a": [("x", 1.0)]})
        return found

    seen = []
    play(script, 20, (10, lambda: seen.append(found.line.driver)))
    assert seen == bus.drivers
    assert found.line.driver is None
    with pytest.raises(LineError, match="there is no connection"), found.line.borrow():
        pass


def test_what_a_guest_does_on_the_line_is_not_charged_to_the_device_that_fails_meanwhile(bus, run_virtual):
    """The guest holds up a read for 20 s, which then fails for 1 s: that is what it cost."""
    found = bus.line({"a": [("x", 1.0)], "b": [("y", 0.5)]})
    bus.silent = lambda device, _group, now: device == "a" and now > START + 10

    async def scenario():
        task = asyncio.create_task(found.line.run())
        await asyncio.sleep(10)
        bus.timeout["a"] = 21.0
        with found.line.borrow():
            await asyncio.sleep(20)
        bus.timeout["a"] = 1.0
        await asyncio.sleep(40)
        task.cancel()

    run_virtual(scenario())
    first = bus.failed[0]
    assert first.cost == 21.0
    assert found.metric("line_sick_seconds_total") < 1.0 * len(bus.failed) + 1.1
    again = bus.failed[1]
    assert again.start - first.end <= 9 * 2.0


def test_guests_that_overlap_are_counted_once():
    usage = Usage(0.0)
    usage.began = 10.0
    usage.guest_came(12.0)
    usage.guest_came(13.0)
    usage.guest_left(15.0)
    usage.guest_left(18.0)
    assert usage.fail(20.0) == pytest.approx(4.0)
    usage.guest_came(30.0)
    usage.began = 32.0
    assert usage.fail(35.0) == 0.0  # the guest is still there
    usage.began = 36.0
    usage.guest_left(37.0)
    assert usage.fail(39.0) == pytest.approx(2.0)
    assert usage.sick_s == pytest.approx(6.0)


def test_a_tag_that_somebody_is_in_a_hurry_for_is_polled_at_once_though_the_line_sleeps(play):
    bus, found = None, None

    def script(fresh):
        nonlocal bus, found
        bus, found = fresh, fresh.line({"a": [("x", 3600.0), ("y", 3600.0)], "b": [("z", 3600.0)]})
        bus.silent = lambda device, _group, _now: device == "b"
        return found

    def hurry():
        found.line.hurry("a", "y")
        found.line.hurry("b", "z")
        found.line.hurry("a", "no such tag")

    play(script, 100, (52.5, hurry))
    assert [round(a.start - START, 6) for a in bus.of("a", "y")][1:] == [52.5]
    assert len(bus.of("a", "x")) == 1
    assert len(bus.of("b", "z")) == 1


def test_on_a_line_that_has_too_much_to_do_rare_tags_have_a_value_soon_and_a_hurry_is_one(play):
    bus, found = None, None

    def script(fresh):
        nonlocal bus, found
        bus, fresh.takes = fresh, 0.1
        found = fresh.line({"a": [*((f"x{i}", 1.0) for i in range(12)), ("daily", 86400.0)]})
        return found

    play(script, 300, (200.0, lambda: found.line.hurry("a", "daily")))
    first, again = (a.start - START for a in bus.of("a", "daily"))
    assert first <= 60 + 2 + 1.3
    assert again <= 200 + 1 + 1.3


def test_a_read_that_never_returns_is_noticed_and_polling_goes_on(play, caplog):
    def script(bus):
        bus.hangs = lambda now: START + 100 <= now < START + 101.5
        return bus.line({"a": [("x", 1.0)]})

    bus, found = play(script, 400)
    gap = min(a.start for a in bus.asked if a.start > START + 102) - (START + 100)
    assert 60 <= gap <= 60 + 15 + 2
    assert bus.connects == 2
    assert bus.of("a")[-1].good
    assert [(s.online, s.cause) for s in found.states] == [(True, ""), (False, "timeout"), (True, "")]
    assert bad("timeout") in [b.quality for b in found.sent]
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(told) == 1
    assert "line bus: its driver has not returned for" in told[0]
    assert found.metric("line_watchdog_bites_total") == 1


@pytest.mark.parametrize("where", ["__aenter__", "__aexit__"])
def test_connecting_and_closing_that_never_end_are_noticed_too(bus, run_virtual, during, where):
    driver = bus.driver()
    hangs = [True]
    usual = getattr(driver, where)

    async def hang_once(self, *error):
        if hangs.pop() if hangs else False:
            await asyncio.get_running_loop().create_future()
        return await usual(self, *error)

    setattr(driver, where, hang_once)
    bus.driver = lambda **_: driver
    found = bus.line({"a": [("x", 1.0)]})
    if where == "__aexit__":

        async def lose(_self, _group):
            driver.read = good
            raise LineError("gone", cause="offline")

        good, driver.read = driver.read, lose
    run_virtual(during(found.line, 200))
    assert len(bus.of("a")) >= 90
    assert found.metric("line_watchdog_bites_total") == 1


def test_the_patience_knows_the_timeouts_of_the_devices():
    def longest(timeout, requests):
        device = SimpleNamespace(options=SimpleNamespace(timeout=timeout))
        return _longest_read([SimpleNamespace(unit=SimpleNamespace(device=device), group=group(requests))])

    def group(requests):
        return SimpleNamespace(requests=requests)

    assert longest(20.0, 1) == 200.0
    assert longest(1.0, 100) == 400.0
    assert longest("soon", 1) == 0.0
    assert Watchdog("bus", Usage(0.0), None, 200.0)._patience_s == 200.0


def test_a_process_that_stood_still_does_not_blame_the_driver(bus, run_virtual, during, caplog):
    """What came meanwhile and the late look are found at the same moment, and the look may well come first."""
    found = bus.line({"a": [("x", 1.0)]})

    def stand_still():
        loop = asyncio.get_running_loop()
        loop._jumping.now += 3600.0

    bus.takes = 0.9
    run_virtual(during(found.line, 60, *((at, stand_still) for at in (10.5, 20.7, 31.1))))
    assert found.metric("line_watchdog_bites_total") == 0
    assert "This is a bug" not in caplog.text
    assert bus.connects == 1


def test_the_patience_grows_where_it_was_too_short(play):
    def script(bus):
        bus.hangs = lambda now: now > START + 10
        return bus.line({"a": [("x", 1.0)]})

    bus, _ = play(script, 4000)
    assert 5 <= bus.connects <= 8  # 60 s, then 120, 240, 480, 960 …


def test_a_wait_that_a_driver_ends_by_itself_is_a_lost_line_and_not_the_end_of_the_task(bus, run_virtual, during):
    """A future of the driver's own that was cancelled raises CancelledError in whoever awaits it."""
    driver = bus.driver()
    usual, calls = driver.read, []

    async def read(self, group):
        calls.append(group)
        if len(calls) == 5:
            wait = asyncio.get_running_loop().create_future()
            wait.cancel()
            await wait
        return await usual(self, group)

    driver.read = read
    bus.driver = lambda **_: driver
    found = bus.line({"a": [("x", 1.0)]})
    task = run_virtual(during(found.line, 60))
    assert task.cancelled()
    assert bus.connects == 2
    assert len(calls) >= 50


def test_a_driver_that_swallows_the_watchdogs_word_is_told_again_and_can_still_be_stopped(bus, run_virtual, during):
    driver = bus.driver()
    told = []

    async def read(_self, _group):
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                told.append(bus.clock.monotonic())
                if len(told) == 2:
                    raise DeviceError("never mind", cause="timeout") from None
                if len(told) > 3:
                    raise

    driver.read = read
    bus.driver = lambda **_: driver
    found = bus.line({"a": [("x", 1.0)]})
    task = run_virtual(during(found.line, 1000))
    assert len(told) >= 4
    assert task.cancelled()


@pytest.mark.parametrize("error", [LineError("gone", cause="offline"), DeviceError("silent", cause="timeout")])
def test_a_driver_that_answers_the_watchdog_with_an_error_of_its_own_leaves_the_task_as_it_was(
    bus, run_virtual, during, error
):
    driver = bus.driver()
    usual, cancelling = driver.read, []

    async def read(self, group):
        cancelling.append(asyncio.current_task().cancelling())
        if len(cancelling) > 1:
            return await usual(self, group)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise error from None

    driver.read = read
    bus.driver = lambda **_: driver
    found = bus.line({"a": [("x", 1.0)]})
    run_virtual(during(found.line, 200))
    assert len(cancelling) > 100
    assert set(cancelling) == {0}


def test_the_watchdog_waits_longer_while_a_guest_is_on_the_line(bus, run_virtual):
    found = bus.line({"a": [("x", 1.0)]})
    bus.takes = 200.0

    async def scenario():
        task = asyncio.create_task(found.line.run())
        await asyncio.sleep(5)
        with found.line.borrow():
            await asyncio.sleep(150)
        await asyncio.sleep(55)
        task.cancel()

    run_virtual(scenario())
    assert bus.connects == 1
    assert bus.of("a")[0].good
