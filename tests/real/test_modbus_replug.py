"""A serial adapter is unplugged and plugged in again while the gateway polls: offline at once, back by itself."""

import asyncio
import logging
import signal

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions
from drivers.port import SerialPort
from gateway.acquisition.line import Line
from gateway.clock import SystemClock
from gateway.errors import LineError
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag

PATIENCE_S = 60.0
"""How long an answer may take: nothing here is noticed by waiting that long."""


class Plant:
    """Lines that poll in this process, what they said and what they brought."""

    def __init__(self):
        self.news = asyncio.Event()
        self.states, self.values = [], {}
        self.metrics = Metrics()

    def poll(self, name, url):
        options = DeviceOptions(timeout=f"{PATIENCE_S:.0f}s")
        device = Device(name=name, driver="modbus", url=url, options=options)
        tags = [Tag(name=tag, address=f"holding:{i}", every_s=0.05) for i, tag in enumerate("ab", 1)]
        groups = Driver.compile(device, tags)
        line = Line(
            name, Driver, [(device, groups)], sink=self.take, image=Image(), on_state=self.note,
            clock=SystemClock(), metrics=self.metrics, dice=lambda: 0.0,
        )  # fmt: skip
        return asyncio.create_task(line.run())

    def take(self, batch):
        self.values.setdefault(batch.group.device, []).append((batch.values, batch.quality))
        self.news.set()

    def note(self, state):
        self.states.append(state)
        self.news.set()

    def last(self, name):
        return self.values.get(name, [None])[-1]

    async def until(self, condition):
        async with asyncio.timeout(40):
            while not condition():
                self.news.clear()
                await self.news.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["gone with its name", "gone and its name left"])
def test_a_line_goes_offline_at_once_and_comes_back_by_itself_and_no_other_is_harmed(
    libmodbus, cable, tmp_path, caplog, how
):
    near, far = tmp_path / "usb-Maker_Adapter-if00-port0", tmp_path / "far"
    caplog.set_level(logging.INFO)
    other = libmodbus()
    other.tell("set holding 1 a b")

    def plug(*values):
        wire = cable(near, far)
        device = libmodbus(str(far), "1")
        device.tell("set holding 1 " + " ".join(map(str, values)))
        return wire

    def unplug(wire):
        wire.send_signal(how)
        wire.wait()
        for name in (near, far):
            if how is signal.SIGKILL and name is far:
                name.unlink()  # the name that leads nowhere stays only at our end
        if how is signal.SIGKILL:
            assert near.is_symlink()
            assert not near.exists()

    async def main():
        plant = Plant()
        wire = plug(1, 2)
        tasks = [
            plant.poll("meter", f"rtu://{near}?baud=115200&parity=N"),
            plant.poll("plc", f"tcp://127.0.0.1:{other.port}"),
        ]
        await plant.until(lambda: plant.last("meter") == ([1, 2], GOOD) and plant.last("plc") == ([10, 11], GOOD))
        for values in ([3, 4], [5, 6]):
            plant.states.clear()
            await asyncio.to_thread(unplug, wire)
            await plant.until(lambda: plant.states)
            gone = plant.states[0]
            assert (gone.device, gone.online, gone.cause) == ("meter", False, "offline")
            await plant.until(lambda: plant.last("meter") == ([None, None], "bad:offline"))
            near.unlink(missing_ok=True)
            wire = await asyncio.to_thread(plug, *values)
            await plant.until(lambda wanted=values: plant.last("meter") == (wanted, GOOD))
            assert plant.states[-1].online
        assert {quality for _, quality in plant.values["plc"]} == {GOOD}
        assert {state.device for state in plant.states} == {"meter"}
        for task in tasks:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        requests = {labels["line"]: value for name, labels, value in plant.metrics if name == "modbus_requests_total"}
        assert requests[str(near)] >= 3

    asyncio.run(main())
    offline = [record.getMessage() for record in caplog.records if "is offline" in record.getMessage()]
    assert len(offline) == 2
    assert all(str(near) in text for text in offline)


def test_a_port_that_goes_while_a_request_is_under_way_fails_it_at_once(cable, tmp_path):
    near, far = tmp_path / "near", tmp_path / "far"
    wire = cable(near, far)
    device = Device(name="m", driver="modbus", url=f"rtu://{near}", options=DeviceOptions(timeout="60s"))
    (group,) = Driver.compile(device, [Tag(name="a", address="holding:1")])

    async def main():
        heard = asyncio.Event()

        class Ear:
            def on_data(self, data):
                heard.set()

            def on_lost(self, error):
                pass

        end = await SerialPort(str(far)).open(Ear(), timeout_s=5)
        async with Driver([device], clock=SystemClock(), metrics=Metrics()) as driver, asyncio.timeout(40):
            reading = asyncio.create_task(driver.read(group))
            await heard.wait()
            wire.kill()
            with pytest.raises(LineError, match="the port is gone") as caught:
                await reading
            assert str(near) in str(caught.value)
        end.close()
        await end.wait_closed()

    asyncio.run(main())
