"""A serial port as a byte stream: opened for us alone, read as it comes, written without waiting, gone at once.

The only file that imports pyserial, and only when a port is opened. It knows no protocol: where a frame begins and how
long the line must be silent is the business of whoever listens. Names under /dev/serial/by-id stay the same when an
adapter is plugged in again; ttyUSB numbers do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import termios
from collections.abc import Callable
from dataclasses import dataclass
from grp import getgrgid
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Literal, TypeVar

from drivers.stream import Receiver, Stream
from gateway.errors import LineError

if TYPE_CHECKING:
    from serial import Serial

Parity = Literal["N", "E", "O"]
T = TypeVar("T")

_CHUNK = 4096
"""What the kernel's line discipline holds back at most for a reader."""
_UNSENT = 65536
"""How much may wait to be sent before the port is given up: it takes nothing any more."""
_BY_ID = Path("/dev/serial/by-id")
_PROCESSES = Path("/proc")
_ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
_BUSY = (errno.EBUSY, errno.EAGAIN)
"""What flock(2) and the exclusive mode of a terminal say when somebody else has the port."""

_PSEUDO = range(136, 144)
"""The device numbers of pseudo-terminals (Linux, admin-guide/devices.txt: Unix98 PTY slaves)."""


@dataclass(frozen=True, slots=True)
class Rs485:
    """The kernel's RS-485 mode: RTS switches the transceiver. The times are what it needs before and after, in s."""

    rts_when_sending: bool = True
    before_s: float = 0.0
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A serial port and how its characters are made. `str()` of it is its path.

    `rs485` None leaves the port's mode alone, which is right for adapters that switch by themselves. `low_latency` asks
    the adapter's driver to pass on at once what it hears, instead of after 16 ms as some do.
    """

    path: str
    baud: int = 19200
    bits: Literal[7, 8] = 8
    parity: Parity = "E"
    stop: Literal[1, 2] = 1
    rs485: Rs485 | None = None
    low_latency: bool = True

    def __str__(self) -> str:
        return self.path

    @property
    def settings(self) -> str:
        """Baud rate and shape of a character, as people write it: `9600 8E1`."""
        return f"{self.baud} {self.bits}{self.parity}{self.stop}"

    @property
    def character_s(self) -> float:
        """How long a character takes on the line: start bit, bits, parity bit and stop bits, in s."""
        return (1 + self.bits + (self.parity != "N") + self.stop) / self.baud

    async def open(self, receiver: Receiver, *, timeout_s: float) -> Stream:
        """Open for us alone, with what was heard before thrown away. Raises LineError with the cure."""
        if self.path in _hanging:
            raise LineError(
                f"{self}: an earlier try to open it still hangs: plug the adapter in again", cause="offline"
            )
        opening = _Opening(self)
        try:
            async with asyncio.timeout(timeout_s):
                port = await _in_thread(opening.run, f"open {self}")
        except TimeoutError:
            opening.abandon()
            text = f"{self}: not opened within {timeout_s:g} s: does the adapter hang? Plug it in again"
            raise LineError(text, cause="offline") from None
        except asyncio.CancelledError:
            opening.abandon()
            raise
        return _SerialStream(port, receiver, self.path)


# --- opening, in a thread -------------------------------------------------------------------------------------------


_hanging: set[str] = set()
"""The ports whose opening nobody waits for any more and which has not ended: they are not tried again meanwhile."""


class _Opening:
    """The opening of a port. When nobody waits for it any more, the port is closed by whoever comes last."""

    def __init__(self, wanted: SerialPort) -> None:
        self._wanted = wanted
        self._lock = Lock()
        self._abandoned = self._ended = False
        self._port: Serial | None = None

    def run(self) -> Serial:
        """Open it. Raises LineError."""
        try:
            port = self._port = _open(self._wanted)
        finally:
            with self._lock:
                self._ended = True
                _hanging.discard(self._wanted.path)
                if self._abandoned and self._port is not None:
                    self._port.close()
        return port

    def abandon(self) -> None:
        """Nobody wants it any more."""
        with self._lock:
            self._abandoned = True
            if not self._ended:
                _hanging.add(self._wanted.path)
            elif self._port is not None:
                self._port.close()


def _in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Do what may hang as long as a sick adapter likes, in a thread of its own.

    The loop's own threads are few, and are others' too; the program would wait for them at its end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(done: list[T], error: LineError | None) -> None:
        if future.done():
            return
        if done:
            future.set_result(done[0])
        else:
            future.set_exception(error or LineError(f"{name}: failed, the log says why", cause="offline"))

    def run() -> None:
        done: list[T] = []
        failure: LineError | None = None
        try:
            done.append(work())
        except LineError as error:
            failure = error
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, done, failure)

    Thread(target=run, name=name, daemon=True).start()
    return future


def _open(wanted: SerialPort) -> Serial:
    """The port, opened and set up. Raises LineError."""
    import serial  # noqa: PLC0415 - only those who have a serial line pay for it

    pseudo = _is_pseudo(wanted.path)
    try:
        port = serial.Serial(
            wanted.path,
            wanted.baud,
            bytesize=8 if pseudo else wanted.bits,
            parity="N" if pseudo else wanted.parity,
            stopbits=wanted.stop,
            timeout=0,
            exclusive=True,
        )
    except (OSError, ValueError, termios.error) as error:  # termios.error is no OSError, SerialException is one
        raise _refusal(wanted, error) from error
    try:
        if not pseudo and (holder := _holder(wanted.path)):  # it had the port before, and asked for no lock
            raise _busy(wanted.path, holder)
        _set_up(port, wanted)
    except (OSError, termios.error, LineError) as error:
        port.close()
        raise error if isinstance(error, LineError) else _refusal(wanted, error) from error
    return port


def _is_pseudo(path: str) -> bool:
    """Whether it is the end of a pseudo-terminal, as socat makes it: it has no parity, and refuses to be given one."""
    try:
        return os.major(Path(path).stat().st_rdev) in _PSEUDO
    except OSError:
        return False


def _set_up(port: Serial, wanted: SerialPort) -> None:
    """What pyserial leaves to us."""
    descriptor = port.fileno()
    fcntl.ioctl(descriptor, termios.TIOCEXCL)  # its own lock binds only those who ask for it
    attributes = termios.tcgetattr(descriptor)
    attributes[0] = 0  # a break or a damaged character is noise: no signal, no flush, no mark in the data
    attributes[6][termios.VMIN] = 1  # an empty read means "hung up" only where it cannot mean "nothing there"
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    os.set_blocking(descriptor, False)
    if wanted.low_latency:
        with contextlib.suppress(ValueError, NotImplementedError):  # ports that hold nothing back do not know it
            port.set_low_latency_mode(True)
    if wanted.rs485 is not None:
        _set_rs485(port, wanted, wanted.rs485)


def _set_rs485(port: Serial, wanted: SerialPort, rs485: Rs485) -> None:
    from serial.rs485 import RS485Settings  # noqa: PLC0415 - see _open

    try:
        port.rs485_mode = RS485Settings(
            rts_level_for_tx=rs485.rts_when_sending,
            rts_level_for_rx=not rs485.rts_when_sending,
            delay_before_tx=rs485.before_s,
            delay_before_rx=rs485.after_s,
        )
    except ValueError as error:
        raise LineError(
            f"{wanted}: the driver of this port has no RS-485 mode ({_reason(error)}): leave rs485 out. USB adapters "
            "switch by themselves",
            cause="config",
        ) from error


# --- why it could not be opened -------------------------------------------------------------------------------------


def _refusal(wanted: SerialPort, error: Exception) -> LineError:
    """What the system says, and what a person can do."""
    number = _number(error)
    path = wanted.path
    if isinstance(error, ValueError) or number == errno.EINVAL:
        text = f"{path}: the port takes no {wanted.settings} ({_reason(error)}): does the adapter know that baud rate?"
        return LineError(text, cause="config")
    if number in _ABSENT:
        return LineError(f"{path}: there is no such port. {_ports()}", cause="offline")
    if number in _BUSY:
        return _busy(path, _holder(path))
    if number in (errno.EACCES, errno.EPERM):
        return LineError(f"{path}: permission denied: {_permission(path)}", cause="offline")
    if number in (errno.ENOTTY, errno.EISDIR):
        return LineError(f"{path}: that is no serial port. {_ports()}", cause="config")
    if number == errno.EIO:
        text = f"{path}: the port has a name and no hardware behind it, or was unplugged. {_ports()}"
        return LineError(text, cause="offline")
    return LineError(f"{path}: {_reason(error)}. {_ports()}", cause="offline")


def _busy(path: str, holder: str) -> LineError:
    return LineError(f"{path}: the port is in use{holder}: only one program can have it", cause="offline")


def _number(error: Exception) -> int | None:
    """The errno, which pyserial and termios carry in different places, or only in words."""
    seen: BaseException | None = error
    while seen is not None:
        first = seen.args[0] if seen.args else None
        if isinstance(first, int):
            return first
        seen = seen.__context__
    return None


def _reason(error: Exception) -> str:
    number = _number(error)
    return str(error) if number is None else os.strerror(number).lower()


def _ports() -> str:
    """The ports that have a lasting name."""
    try:
        names = sorted(entry.name for entry in _BY_ID.iterdir())
    except OSError:
        return "No USB adapter is plugged in"
    shown = ", ".join(f"{_BY_ID}/{name}" for name in names[:8])
    return f"Plugged in: {shown}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _permission(path: str) -> str:
    try:
        group = getgrgid(Path(path).stat().st_gid).gr_name
    except (OSError, KeyError):
        group = "dialout"
    return (
        f"add the user that runs the gateway to the group '{group}' (sudo usermod -aG {group} USER) and start it anew"
    )


def _holder(path: str) -> str:
    """Who has it open, as far as we may look."""
    target = os.path.realpath(path)
    for process in _PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if str(process.name) != str(os.getpid()) and descriptor.readlink() == Path(target):
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f" by process {process.name} ({name})"
    return ""


# --- open -----------------------------------------------------------------------------------------------------------


class _SerialStream:
    """An open port. The loop calls when there is something to read, and when there is room for what is unsent."""

    def __init__(self, port: Serial, receiver: Receiver, path: str) -> None:
        self._port = port
        self._descriptor = port.fileno()
        self._receiver = receiver
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._unsent = b""
        self._open = True
        self._closing: asyncio.Future[None] | None = None
        self._loop.add_reader(self._descriptor, self._on_readable)

    def __repr__(self) -> str:
        return f"<stream {self._path} {'open' if self._open else 'closed'}>"

    def _on_readable(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(_reason(error))
            return
        if data:
            self._receiver.on_data(data)
        else:  # a terminal that hung up is readable for ever and gives nothing
            self._lose("hung up")

    def write(self, data: bytes) -> None:
        if not self._open:
            return
        if self._unsent:
            self._unsent += data
            if len(self._unsent) > _UNSENT:
                self._loop.call_soon(self._lose, "it takes nothing any more")
            return
        self._unsent = data
        self._send()
        if self._unsent:
            self._loop.add_writer(self._descriptor, self._on_writable)

    def _on_writable(self) -> None:
        self._send()
        if not self._unsent and self._open:
            self._loop.remove_writer(self._descriptor)

    def _send(self) -> None:
        """Hand over as much as there is room for."""
        try:
            sent = os.write(self._descriptor, self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._unsent = b""
            self._loop.call_soon(self._lose, _reason(error))  # never from within write
            return
        self._unsent = self._unsent[sent:]

    def _lose(self, reason: str) -> None:
        """The port is gone and not because we closed it."""
        if self._open:
            self.close()
            self._receiver.on_lost(
                LineError(f"{self._path}: the port is gone ({reason}): {_cure(self._path)}", cause="offline")
            )

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._unsent = b""
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        _let_go(self._descriptor)
        self._closing = _in_thread(self._shut, f"close {self._path}")

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # of a port that is gone
            self._port.close()

    async def wait_closed(self) -> None:
        if self._closing is not None:
            await asyncio.shield(self._closing)


def _let_go(descriptor: int) -> None:
    """Make the port free for the next one now; to close it for good may take a sick adapter a while."""
    calls = (
        (termios.tcflush, termios.TCIOFLUSH),  # closing waits until all is sent, else
        (fcntl.ioctl, termios.TIOCNXCL),
        (fcntl.flock, fcntl.LOCK_UN),
    )
    for call, argument in calls:
        with contextlib.suppress(OSError, termios.error):
            call(descriptor, argument)


def _cure(path: str) -> str:
    """What to do when a port went away."""
    cure = "is the adapter plugged in? It is opened again by itself"
    if Path(path).name.startswith(("ttyUSB", "ttyACM")):
        cure += f", but its number may be another one then: a name under {_BY_ID} stays"
    return cure
