"""What goes wrong in the protocol: by the peer's fault or by ours."""

from __future__ import annotations

from gateway.mqtt.reasons import Reason


class ProtocolError(Exception):
    """Root of the room's exceptions."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol: the connection ends. `reason` is the code to answer with, `text` says what.

    The code is one of MQTT 5.0 section 2.4; under MQTT 3.1.1 the connection is closed without a word.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{text} ({reason.name.lower()} 0x{reason:02x})")
        self.reason = reason
        self.text = text


class LocalProtocolError(ProtocolError):
    """We were about to break the protocol: an error in headgate, never one of the peer."""
