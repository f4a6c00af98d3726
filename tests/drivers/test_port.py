"""A serial port on pseudo-terminals: opened alone, read in chunks, written without waiting, unplugged, and refused."""

import asyncio
import contextlib
import errno
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

import pytest

from drivers import port
from drivers.port import Rs485, SerialPort
from gateway.errors import LineError


class Ear:
    """A receiver that remembers."""

    def __init__(self):
        self.data = b""
        self.chunks = 0
        self.lost = []
        self.news = asyncio.Event()

    def on_data(self, data):
        self.data += data
        self.chunks += 1
        self.news.set()

    def on_lost(self, error):
        self.lost.append(error)
        self.news.set()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()


class Cable:
    """A pseudo-terminal: the far end is `master`, ours lies under a name that a new one can take over."""

    def __init__(self, folder):
        self.path = folder / "usb-Maker_Adapter-if00-port0"
        self.plug()

    def plug(self):
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.device = os.ttyname(slave)
        os.close(slave)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(self.device)

    def unplug(self):
        if self.master is not None:
            os.close(self.master)
            self.master = None


@pytest.fixture
def cable(tmp_path):
    made = Cable(tmp_path)
    yield made
    made.unplug()


@pytest.fixture(params=["asyncio", "uvloop"])
def go(request):
    """Run a coroutine on each kind of loop that the gateway may have: they see a hang-up in ways of their own."""
    factory = None
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def runner(coroutine):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)

    return runner


@contextlib.asynccontextmanager
async def opened(cable, **options):
    ear = Ear()
    stream = await SerialPort(str(cable.path), **options).open(ear, timeout_s=5)
    try:
        yield ear, stream
    finally:
        stream.close()
        await stream.wait_closed()


# --- well ---


def test_what_goes_in_at_one_end_comes_out_at_the_other_in_both_directions(go, cable):
    everything = bytes(range(256)) * 3

    async def main():
        async with opened(cable) as (ear, stream):
            assert repr(stream) == f"<stream {cable.path} open>"
            os.write(cable.master, everything)
            await ear.until(lambda: len(ear.data) >= len(everything))
            assert ear.data == everything
            assert ear.chunks < 50
            stream.write(everything[:300])
            heard = b""
            async with asyncio.timeout(10):
                while len(heard) < 300:
                    heard += await asyncio.to_thread(os.read, cable.master, 300)
            assert heard == everything[:300]
            assert ear.lost == []
        assert repr(stream) == f"<stream {cable.path} closed>"

    go(main())


@pytest.mark.parametrize("baud", [300, 9600, 19200, 115200, 250000, 76800])
def test_the_port_runs_at_any_baud_rate(cable, baud):
    async def main():
        async with opened(cable, baud=baud, parity="N", stop=2) as (_, stream):
            buffer = bytearray(64)
            fcntl.ioctl(stream._descriptor, 0x802C542A, buffer)  # TCGETS2, whose last word is the speed
            assert int.from_bytes(buffer[40:44], sys.byteorder) == baud
            assert termios.tcgetattr(stream._descriptor)[2] & termios.CSTOPB

    asyncio.run(main())


def test_what_was_heard_before_it_was_opened_is_thrown_away(cable):
    async def main():
        async with opened(cable) as (ear, _):
            os.write(cable.master, b"new")
            await ear.until(lambda: len(ear.data) >= 3)
            assert ear.data == b"new"

    with cable.path.open("wb", buffering=0):  # so that the line has somebody to keep it for
        os.write(cable.master, b"old")
        asyncio.run(main())


def test_a_wake_up_without_anything_to_read_is_no_hang_up(cable):
    async def main():
        async with opened(cable) as (ear, stream):
            stream._on_readable()
            assert (ear.lost, ear.data) == ([], b"")
            assert "open" in repr(stream)

    asyncio.run(main())


def test_a_write_never_waits_for_a_far_end_that_does_not_read(go, cable):
    async def main():
        async with opened(cable) as (_, stream):
            sent = bytes(range(256)) * 128
            for at in range(0, len(sent), 1024):
                stream.write(sent[at : at + 1024])
            heard = b""
            os.set_blocking(cable.master, False)
            async with asyncio.timeout(20):
                while len(heard) < len(sent):
                    with contextlib.suppress(BlockingIOError):
                        heard += os.read(cable.master, 4096)
                    await asyncio.sleep(0)
            assert heard == sent

    go(main())


def test_a_port_that_takes_nothing_any_more_is_given_up_with_what_waits(cable):
    async def main():
        async with opened(cable) as (ear, stream):
            for _ in range(200):
                stream.write(bytes(1024))
            await ear.until(lambda: ear.lost)
            assert "it takes nothing any more" in str(ear.lost[0])
            assert stream._unsent == b""

    asyncio.run(main())


# --- alone ---


def test_nobody_else_can_open_it_and_we_name_who_has_it(cable):
    async def main():
        async with opened(cable):
            with pytest.raises(LineError, match="the port is in use") as caught:
                await SerialPort(cable.device).open(Ear(), timeout_s=5)
            assert caught.value.cause == "offline"

    asyncio.run(main())


def is_exclusive(descriptor):
    buffer = bytearray(4)
    fcntl.ioctl(descriptor, 0x80045440, buffer)  # TIOCGEXCL
    return bool(int.from_bytes(buffer, sys.byteorder))


def test_who_does_not_ask_for_the_lock_is_kept_out_by_the_exclusive_mode_until_we_close(cable):
    async def main(other):
        async with opened(cable) as (_, stream):
            assert is_exclusive(stream._descriptor)
            stream.close()
            assert not is_exclusive(other)

    with cable.path.open("rb", buffering=0) as other:  # somebody who was there before
        asyncio.run(main(other))


def test_another_program_that_holds_the_lock_is_named_by_its_number(cable):
    program = (
        "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, cable.device], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(LineError, match=rf"in use by process {other.pid} \(python"):
                asyncio.run(SerialPort(str(cable.path)).open(Ear(), timeout_s=5))
        finally:
            other.send_signal(signal.SIGKILL)


def test_who_had_a_real_port_before_without_a_lock_is_found_and_named(cable, monkeypatch):
    monkeypatch.setattr(port, "_PSEUDO", range(0))  # as an adapter: of a terminal that a program made it has both ends
    program = "import sys, time; f = open(sys.argv[1]); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, cable.device], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(LineError, match=rf"in use by process {other.pid} \(python"):
                asyncio.run(SerialPort(str(cable.path), parity="N").open(Ear(), timeout_s=5))
        finally:
            other.send_signal(signal.SIGKILL)
    assert asyncio.run(opens(cable, parity="N"))


def test_a_closed_port_can_be_opened_again_at_once_again_and_again(cable):
    async def main():
        wanted = SerialPort(str(cable.path))
        for _ in range(50):
            stream = await wanted.open(Ear(), timeout_s=5)
            stream.write(b"x")
            stream.close()
            stream.close()  # harmless; and nobody waited until it was closed for good
            stream.write(b"y")

    asyncio.run(main())


# --- unplugged ---


def test_an_unplugged_port_is_noticed_at_once_and_opened_again_by_its_name(go, cable):
    async def main():
        async with opened(cable) as (ear, stream):
            os.write(cable.master, b"a")
            await ear.until(lambda: ear.data)
            cable.unplug()
            await ear.until(lambda: ear.lost)
            assert str(cable.path) in str(ear.lost[0])
            assert "is the adapter plugged in? It is opened again by itself" in str(ear.lost[0])
            assert ear.lost[0].cause == "offline"
            stream.write(b"into the void")
        cable.plug()
        async with opened(cable) as (again, _):
            os.write(cable.master, b"b")
            await again.until(lambda: again.data)
            assert (again.data, ear.data, len(ear.lost)) == (b"b", b"a", 1)

    go(main())


def test_a_port_that_vanishes_while_something_is_written_is_told_of_once_and_never_from_within_write(go, cable):
    async def main():
        async with opened(cable) as (ear, stream):
            cable.unplug()
            for _ in range(3):
                stream.write(b"void")
                assert ear.lost == []
            await ear.until(lambda: ear.lost)
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(ear.lost) == 1

    go(main())


def test_nothing_is_told_of_a_port_that_we_closed(go, cable):
    async def main():
        async with opened(cable) as (ear, stream):
            stream.close()
            cable.unplug()
            for _ in range(20):
                await asyncio.sleep(0)
            assert ear.lost == []

    go(main())


@pytest.mark.parametrize(("name", "hint"), [("ttyUSB7", True), ("usb-FTDI-if00", False)])
def test_who_uses_a_number_that_may_change_is_told_of_the_names_that_stay(name, hint):
    assert ("/dev/serial/by-id stays" in port._cure(f"/dev/{name}")) is hint


# --- refused ---


@pytest.fixture
def by_id(tmp_path, monkeypatch):
    folder = tmp_path / "by-id"
    monkeypatch.setattr(port, "_BY_ID", folder)
    return folder


def fails_to_open(path, **options):
    with pytest.raises(LineError) as caught:
        asyncio.run(SerialPort(str(path), **options).open(Ear(), timeout_s=5))
    return str(caught.value), caught.value.cause


def test_a_port_that_does_not_exist_is_answered_with_those_that_do(by_id, tmp_path):
    missing = tmp_path / "ttyUSB0"
    assert fails_to_open(missing) == (f"{missing}: there is no such port. No USB adapter is plugged in", "offline")
    by_id.mkdir()
    for i in range(10):
        (by_id / f"usb-{i}").touch()
    text, _ = fails_to_open(missing)
    assert f"Plugged in: {by_id}/usb-0, {by_id}/usb-1" in text
    assert text.endswith("and 2 more")


def test_what_is_no_serial_port_is_said_to_be_none(by_id, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path in (file, tmp_path):
        text, cause = fails_to_open(path)
        assert "that is no serial port" in text
        assert cause == "config"


@pytest.mark.parametrize(
    ("number", "text", "cause"),
    [
        (
            errno.EACCES,
            r"permission denied: add the user .* to the group '\w+' \(sudo usermod -aG \w+ USER\)",
            "offline",
        ),
        (errno.EBUSY, "in use: only one program can have it", "offline"),
        (errno.EIO, "no hardware behind it", "offline"),
        (errno.ENODEV, "there is no such port", "offline"),
        (errno.EINVAL, r"the port takes no 19200 8E1 \(invalid argument\): does the adapter know", "config"),
        (errno.EMFILE, "too many open files", "offline"),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_each_refusal_of_the_system_comes_with_its_cure(cable, monkeypatch, number, text, cause):
    import serial

    def refuse(*_, **__):
        raise serial.SerialException(number, "could not open port")

    monkeypatch.setattr(serial, "Serial", refuse)
    told, why = fails_to_open(cable.path)
    assert re.search(text, told), told
    assert why == cause


def test_an_error_of_the_terminal_interface_which_is_no_os_error_is_understood(cable, monkeypatch):
    def refuse(*_):
        raise termios.error(errno.EIO, "Input/output error")

    monkeypatch.setattr(termios, "tcsetattr", refuse)
    before = len([*Path("/proc/self/fd").iterdir()])
    assert fails_to_open(cable.path) == (
        f"{cable.path}: the port has a name and no hardware behind it, or was unplugged. {port._ports()}", "offline",
    )  # fmt: skip
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_port_without_rs485_mode_says_so_and_is_closed_again(cable, monkeypatch):
    import serial

    made = []

    class Remembered(serial.Serial):
        def open(self):
            made.append(self)
            super().open()

    monkeypatch.setattr(serial, "Serial", Remembered)
    text, cause = fails_to_open(cable.path, rs485=Rs485())
    assert text.startswith(f"{cable.path}: the driver of this port has no RS-485 mode (")
    assert "leave rs485 out" in text
    assert cause == "config"
    assert [opened.is_open for opened in made] == [False]
    assert asyncio.run(opens(cable))


async def opens(cable, **options):
    async with opened(cable, **options):
        return True


def test_the_rs485_mode_is_asked_for_as_the_file_says(cable, monkeypatch):
    asked = []
    real = fcntl.ioctl

    def ioctl(descriptor, request, *rest):
        if request not in (0x542E, 0x542F):  # TIOCGRS485, TIOCSRS485
            return real(descriptor, request, *rest)
        asked.append((request, list(rest[0][:3])))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)

    async def main():
        async with opened(cable, rs485=Rs485(before_s=0.002, after_s=0.001)):
            pass
        async with opened(cable, rs485=Rs485(rts_when_sending=False)):
            pass

    asyncio.run(main())
    enabled, on_send, after_send = 1, 2, 4
    assert [what for request, what in asked if request == 0x542F] == [
        [enabled | on_send, 2, 1],
        [enabled | after_send, 0, 0],
    ]


def test_opening_that_hangs_is_given_up_and_what_comes_of_it_is_closed(cable, monkeypatch):
    import threading

    import serial

    hang, real, made = threading.Event(), serial.Serial, []
    monkeypatch.setattr(port, "_hanging", set(), raising=False)

    def slow(*args, **kwargs):
        hang.wait(20)
        opened = real(*args, **kwargs)
        made.append(opened)
        return opened

    monkeypatch.setattr(serial, "Serial", slow)

    async def main():
        task = asyncio.create_task(SerialPort(str(cable.path)).open(Ear(), timeout_s=30))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hang.set()
        async with asyncio.timeout(20):
            while not made or made[0].is_open or port._hanging:  # noqa: ASYNC110 - a thread does it
                await asyncio.sleep(0.001)
        hang.clear()
        with pytest.raises(LineError, match=r"not opened within 0\.01 s: does the adapter hang"):
            await SerialPort(str(cable.path)).open(Ear(), timeout_s=0.01)
        before = threading.active_count()
        for _ in range(50):  # as a line does that tries again and again
            with pytest.raises(LineError, match="an earlier try to open it still hangs"):
                await SerialPort(str(cable.path)).open(Ear(), timeout_s=0.01)
        assert threading.active_count() == before
        assert await asyncio.wait_for(asyncio.to_thread(int, "7"), 5) == 7  # nobody else waits for it

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10  # nor does the end of the program
    hang.set()
    while len(made) < 2 or made[1].is_open or port._hanging:
        time.sleep(0.001)


def test_pyserial_is_imported_by_nobody_before_a_port_is_opened():
    program = "import sys, drivers.port, drivers.modbus.driver; print('serial' in sys.modules)"
    folder = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout == "False\n"


def test_a_character_takes_its_bits_and_those_around_them():
    assert SerialPort("p", 9600, 8, "E", 1).character_s == pytest.approx(11 / 9600)
    assert SerialPort("p", 9600, 8, "N", 1).character_s == pytest.approx(10 / 9600)
    assert SerialPort("p", 9600, 7, "E", 2).character_s == pytest.approx(11 / 9600)
    assert SerialPort("p", 9600, 8, "N", 2).settings == "9600 8N2"
