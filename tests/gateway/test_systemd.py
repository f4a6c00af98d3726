import logging
import os
import socket

import pytest

from gateway.systemd import Notifier, log_formatter


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(1)
        yield s, {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def test_the_manager_hears_every_word(manager):
    s, environ = manager
    notifier = Notifier(environ)
    notifier.ready()
    notifier.status("2 of 3 devices online")
    notifier.status("2 of 3 devices online")
    notifier.watchdog()
    notifier.stopping()
    said = [s.recv(100) for _ in range(4)]
    assert said == [b"READY=1", b"STATUS=2 of 3 devices online", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_socket_is_spoken_to():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(f"\0headgate-test-{os.getpid()}")
        s.settimeout(1)
        Notifier({"NOTIFY_SOCKET": f"@headgate-test-{os.getpid()}"}).ready()
        assert s.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens():
    notifier = Notifier({})
    notifier.ready()
    assert notifier.watchdog_s is None


def test_a_manager_that_is_gone_does_not_stop_us(tmp_path):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()
    assert not (tmp_path / "nobody").exists()


def test_the_watchdog_is_ours_only_when_its_pid_is(manager):
    _, environ = manager
    watched = environ | {"WATCHDOG_USEC": "30000000"}
    assert Notifier(watched | {"WATCHDOG_PID": str(os.getpid())}).watchdog_s == 30.0
    assert Notifier(watched | {"WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier(watched).watchdog_s == 30.0


@pytest.mark.parametrize(("level", "prefix"), [(logging.ERROR, "<3>"), (logging.INFO, "<6>"), (logging.DEBUG, "<7>")])
def test_every_line_in_the_journal_has_its_priority(level, prefix):
    record = logging.LogRecord("headgate.x", level, "", 0, "one\ntwo", None, None)
    text = log_formatter({"JOURNAL_STREAM": "8:1"}).format(record)
    assert text.splitlines() == [f"{prefix}headgate.x: one", f"{prefix}two"]


def test_on_a_terminal_a_line_starts_with_its_time():
    record = logging.LogRecord("headgate.x", logging.INFO, "", 0, "hello", None, None)
    assert log_formatter({}).format(record).endswith("INFO    headgate.x: hello")
