"""Urls of devices: where each scheme leads to, what its parameters mean, and a cure for everything that is wrong."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from drivers.modbus.lines.backup import Backup
from drivers.modbus.lines.url import route_of
from drivers.port import Rs485, SerialPort
from drivers.stream import Tcp
from gateway.errors import FileError
from gateway.model import Device, Tag


@pytest.mark.parametrize(
    ("url", "endpoint", "framing", "parameters"),
    [
        ("tcp://h", Tcp("h", 502), "tcp", ""),
        ("rtu+tcp://H:4001", Tcp("h", 4001), "rtu", "rtu"),
        ("rtuovertcp://h:4001", Tcp("h", 4001), "rtu", "rtu"),
        ("ascii+tcp://h:4001/", Tcp("h", 4001), "ascii", "ascii"),
        ("asciiovertcp://h:4001?echo=on", Tcp("h", 4001), "ascii", "ascii echo=on"),
        ("rtu+tcp://h:4001?baud=9600&parity=N", Tcp("h", 4001), "rtu", "rtu 9600 8N1"),
        ("rtu:///dev/x", SerialPort("/dev/x", 19200, 8, "E", 1), "rtu", "rtu 19200 8E1"),
        ("RTU:///dev/x", SerialPort("/dev/x", 19200, 8, "E", 1), "rtu", "rtu 19200 8E1"),
        ("rtu:/dev/x", SerialPort("/dev/x", 19200, 8, "E", 1), "rtu", "rtu 19200 8E1"),
        ("ascii:///dev/x", SerialPort("/dev/x", 19200, 7, "E", 1), "ascii", "ascii 19200 7E1"),
        ("ascii:///dev/x?bits=8&parity=none", SerialPort("/dev/x", 19200, 8, "N", 1), "ascii", "ascii 19200 8N1"),
        ("rtu:///dev/x?baud=9600&parity=N", SerialPort("/dev/x", 9600, 8, "N", 1), "rtu", "rtu 9600 8N1"),
        ("rtu:///dev/x?parity=odd&stop=2", SerialPort("/dev/x", 19200, 8, "O", 2), "rtu", "rtu 19200 8O2"),
        ("rtu:///dev/x?baud=250000", SerialPort("/dev/x", 250000, 8, "E", 1), "rtu", "rtu 250000 8E1"),
        ("rtu:///dev/a%20b", SerialPort("/dev/a b"), "rtu", "rtu 19200 8E1"),
        ("rtu:///dev/x?rs485=off&low_latency=on&echo=auto", SerialPort("/dev/x"), "rtu", "rtu 19200 8E1"),
        (
            "rtu:///dev/x?low_latency=off",
            SerialPort("/dev/x", low_latency=False),
            "rtu",
            "rtu 19200 8E1 low_latency=off",
        ),
        ("rtu:///dev/x?rs485=on", SerialPort("/dev/x", rs485=Rs485()), "rtu", "rtu 19200 8E1 rs485=on"),
        (
            "rtu:///dev/x?rs485=rts_low&rs485_before=2ms&rs485_after=1ms",
            SerialPort("/dev/x", rs485=Rs485(rts_when_sending=False, before_s=0.002, after_s=0.001)),
            "rtu",
            "rtu 19200 8E1 rs485=rts_low rs485_before=2ms rs485_after=1ms",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_url_leads_where_it_says(url, endpoint, framing, parameters):
    route = route_of(url)
    assert (route.endpoint, route.framing, route.parameters) == (endpoint, framing, parameters)


@pytest.mark.parametrize(
    ("url", "bits", "baud"),
    [
        ("rtu:///dev/x?baud=9600", 11, 9600),
        ("rtu:///dev/x?baud=9600&parity=N", 10, 9600),
        ("rtu:///dev/x?baud=9600&parity=N&stop=2", 11, 9600),
        ("ascii:///dev/x", 10, 19200),
        ("rtu+tcp://h:1?baud=1200", 11, 1200),
        ("rtu+tcp://h:1", 0, 1),
        ("tcp://h", 0, 1),
    ],
)
def test_a_character_takes_start_bits_parity_and_stop(url, bits, baud):
    assert route_of(url).character_s == pytest.approx(bits / baud)


@pytest.mark.parametrize(("query", "echo"), [("", "auto"), ("?echo=on", "on"), ("?echo=OFF", "off")])
def test_the_echo_is_found_out_unless_the_url_says(query, echo):
    assert route_of(f"rtu:///dev/x{query}").echo == echo
    assert route_of(f"rtu+tcp://h:1{query}").echo == echo


def test_two_names_of_one_port_are_one_line_and_are_opened_by_the_name_given(tmp_path):
    device, name = tmp_path / "ttyUSB0", tmp_path / "by-id"
    device.touch()
    name.symlink_to(device)
    by_id, by_number = route_of(f"rtu://{name}"), route_of(f"rtu://{device}")
    assert by_id.port == by_number.port == os.path.realpath(device)
    assert by_id.endpoint.path == str(name)


def test_frames_of_two_kinds_on_one_port_are_the_same_line_with_other_parameters():
    for one, other in (("rtu:///dev/x", "ascii:///dev/x?bits=8"), ("rtu+tcp://h:502", "tcp://h:502")):
        assert route_of(one).port == route_of(other).port
        assert route_of(one).parameters != route_of(other).parameters


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("rtu://dev/ttyUSB0", "too few slashes. Use rtu:///dev/ttyUSB0, with three"),
        ("ascii://ttyUSB0", "Use ascii:///ttyUSB0, with three"),
        ("rtu:///", "must hold the path of a port. Use rtu:///dev/serial/by-id/NAME?baud=9600&parity=E"),
        ("rtu:///dev/", "must hold the path of a port"),
        ("rtu:///dev/x#1", "must hold the path of a port"),
        ("rtu:///dev/x?bauds=9600", "the url knows no 'bauds'. Did you mean baud? There are: baud, parity, bits, stop"),
        ("rtu:///dev/x?low-latency=on", "Did you mean low_latency?"),
        ("rtu:///dev/x?zzz=1", "the url knows no 'zzz'. There are:"),
        ("rtu:///dev/x?baud=9600&baud=9600", "says baud twice"),
        ("rtu:///dev/x?baud=", "baud= is no baud rate. Use a number such as 9600"),
        ("rtu:///dev/x?baud=9600bps", "baud=9600bps is no baud rate"),
        ("rtu:///dev/x?baud=49", "baud=49 is no baud rate"),
        ("rtu:///dev/x?baud=4000001", "is no baud rate"),
        ("rtu:///dev/x?baud=" + "9" * 5000, "is no baud rate"),
        ("rtu:///dev/x?baud=٩٦٠٠", "is no baud rate"),
        ("rtu:///dev/x?parity=X", "parity=X is not known. Use one of: N, E, O"),
        ("rtu:///dev/x?bits=7", "bits=7 cannot carry RTU, whose bytes have 8 bits"),
        ("ascii:///dev/x?bits=6", "bits=6 is not known. Use one of: 7, 8"),
        ("rtu:///dev/x?stop=1.5", "stop=1.5 is not known. Use one of: 1, 2"),
        ("rtu:///dev/x?echo=yes", "echo=yes is not known. Use one of: auto, on, off"),
        ("rtu:///dev/x?rs485=true", "rs485=true is not known. Use one of: on, rts_low, off"),
        ("rtu:///dev/x?rs485_before=1ms", "do nothing without rs485=on"),
        ("rtu:///dev/x?rs485=on&rs485_after=1", "rs485_after='1' is no duration"),
        (
            "rtu:///dev/x?rs485=on&rs485_after=1s",
            "rs485_after=1s cannot be kept. Use whole milliseconds, at most 100ms",
        ),
        ("rtu:///dev/x?rs485=on&rs485_before=0.5ms", "rs485_before=0.5ms cannot be kept"),
        ("rtu+tcp://h", "must name a port: serial device servers have no usual one. Use rtu+tcp://HOST:PORT"),
        ("rtu+tcp:///dev/x", "must hold a host and a port and nothing else. Use rtu+tcp://HOST:PORT"),
        ("tcp://10.0.0..5", "'10.0.0..5' is no name of a host. Use tcp://HOST[:502]"),
        ("tcp://.", "'.' is no name of a host"),
        ("tcp://my plc", "'my plc' is no name of a host"),
        ("rtu+tcp://" + "x" * 64 + ":1", "is no name of a host. Use rtu+tcp://HOST:PORT"),
        ("rtu:///dev/tty%00", "must hold the path of a port"),
        ("rtu+tcp://h:1?parity=E", "parity=E without baud says nothing about a line behind TCP"),
        ("rtu+tcp://h:1?rs485=on", "the url knows no 'rs485'"),
        ("udp://h", "Modbus over UDP is not built"),
        ("tls://h", "Modbus over TLS is not built: let a TLS tunnel"),
        ("mbaps://h:802", "Modbus over TLS is not built"),
        ("COM3", "'COM3' is no url of a Modbus device. Use tcp://HOST[:502], rtu:///dev/serial/by-id/NAME"),
        ("/dev/ttyUSB0", "is no url of a Modbus device"),
    ],
    ids=lambda value: value[:50],
)
def test_what_is_wrong_is_said_with_its_cure(url, reason):
    with pytest.raises(ValueError) as caught:
        route_of(url)
    assert reason in str(caught.value)


def test_a_login_in_a_url_is_never_quoted():
    for url in ("tcp://joe:secret@h", "rtu+tcp://joe:secret@h:1"):
        with pytest.raises(ValueError, match="knows no login") as caught:
            route_of(url)
        assert "secret" not in str(caught.value)


@given(st.text(max_size=40), st.sampled_from(["tcp", "rtu", "ascii", "rtu+tcp", ""]))
def test_any_text_is_a_route_or_a_value_error(text, scheme):
    for url in (text, f"{scheme}://{text}", f"{scheme}:///dev/x?{text}", f"{scheme}://h:1?{text}"):
        with contextlib.suppress(ValueError):
            assert route_of(url).port


def test_a_device_with_a_wrong_url_is_checked_in_all_else():
    device = Device(name="d", driver="modbus", url="rtu://dev/ttyUSB0")
    assert len(Driver.compile(device, [Tag(name="a", address="holding:1")])) == 1
    with pytest.raises(FileError, match="tag 'a'"):
        Driver.compile(device, [Tag(name="a", address="nowhere:1")])


# --- two ways ---


def test_a_backup_is_a_second_way_and_part_of_what_devices_must_agree_on():
    route = route_of("tcp://a", "tcp://b:503")
    assert isinstance(route.endpoint, Backup)
    assert (str(route.endpoint), route.port, route.parameters) == ("tcp://a:502", "tcp://a:502", "backup tcp://b:503")
    over = route_of("rtu+tcp://a:1?baud=9600&echo=off", "rtu+tcp://b:1")
    assert (over.parameters, over.echo) == ("rtu 9600 8E1 echo=off backup tcp://b:1", "off")
    assert over.character_s == pytest.approx(11 / 9600)


@pytest.mark.parametrize(
    ("url", "backup", "reason"),
    [
        ("rtu:///dev/x", "tcp://h", "a backup host is for lines over TCP, and rtu:// is none"),
        ("tcp://a", "rtu+tcp://b:1", "the backup must speak as the url does. Use tcp://HOST:PORT as backup"),
        ("rtu+tcp://a:1", "rtu:///dev/x", "Use rtu+tcp://HOST:PORT as backup"),
        ("tcp://a", "tcp://A:502", "the backup is the host of the url"),
        ("tcp://a", "b", "'b' is no url"),
    ],
)
def test_a_backup_that_is_none_is_said_with_its_cure(url, backup, reason):
    with pytest.raises(ValueError) as caught:
        route_of(url, backup)
    assert reason in str(caught.value)
