"""What systemd wants to hear: ready, watchdog, status, stopping; and log lines with journal priorities.

The protocol of sd_notify(3): one datagram of `KEY=value` lines to the Unix socket named in $NOTIFY_SOCKET, where a
leading `@` stands for the abstract namespace. sd-daemon(3): a line on standard error that starts with `<N>` has syslog
priority N.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger("headgate.systemd")

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


class Notifier:
    """Speaks to the service manager, or does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._is_for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_us = int(environ.get("WATCHDOG_USEC", "0") or 0)
        self._said = ""

    @property
    def watchdog_s(self) -> float | None:
        """The watchdog's period in seconds, or None where nobody watches this process."""
        return self._watchdog_us / 1e6 if self._address and self._is_for_us and self._watchdog_us else None

    def ready(self) -> None:
        """The file is loaded, the store open, the listeners bound. Devices may still be silent."""
        self._send("READY=1")

    def stopping(self) -> None:
        """An ordered stop has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Everything made progress since the last call."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; said only when it changed."""
        if text != self._said:
            self._said = text
            self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.setblocking(False)  # a stuck manager must not stop the loop
            try:
                s.sendto(message.encode(), self._address)
            except OSError as error:
                log.debug("service manager did not take %s: %s", message, error)


def log_formatter(environ: Mapping[str, str] | None = None) -> logging.Formatter:
    """For the journal: priority prefix, no time of our own. Elsewhere: time, level, name."""
    environ = os.environ if environ is None else environ
    if environ.get("JOURNAL_STREAM"):
        return _JournalFormatter("%(name)s: %(message)s")
    return logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


class _JournalFormatter(logging.Formatter):
    """Each line of a record carries the priority: the journal takes every line as an entry of its own."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{next((p for level, p in _PRIORITIES if record.levelno >= level), _DEBUG)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())
