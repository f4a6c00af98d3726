"""The section `commands`: how writes to tags are recorded, and whether any can come at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from gateway.mapping.reading import Reading
from gateway.mapping.schema import Section
from gateway.model import Device, Place
from gateway.settings.checks import is_loopback
from gateway.uplinks.options import Options, parse_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Commands as the file asks for them. `is_strict`: nothing is written before the audit entry is safe."""

    is_strict: bool = False


class CommandsSection(Section):
    """Writes to tags. Which tags may be written, and what to them, stands at each tag: write."""

    audit: Literal["normal", "strict"] = Field(
        "normal",
        description="An entry is made before each write and asks for an immediate commit; strict: the write, and so its"
        " reply, waits until the entry is on the disk or acknowledged.",
    )


def read_commands(given: Any, place: Place, reading: Reading) -> Commands:
    """The settings; as by default where there are mistakes, which are noted."""
    section = reading.validate(CommandsSection, {} if given is None else given, place, lambda _: "commands: ")
    return Commands(is_strict=section is not None and section.audit == "strict")


def once_each(
    uplinks: Mapping[str, Options], ports: Iterable[int], written: dict[str, Any], reading: Reading
) -> dict[str, Options]:
    """The uplinks, where commands that come by one do not come by another again and would be carried out twice.

    `ports`: where the gateway's own broker listens on this machine; commands that are published there come from there.
    """
    taken = dict.fromkeys((f"localhost:{port}" for port in ports), "the gateway's own broker")
    settled = dict(uplinks)
    for name, uplink in uplinks.items():
        if not uplink.commands:
            continue
        servers = [_named(url) for url in uplink.servers]
        other = next((taken[server] for server in servers if server in taken), None)
        if other is None:
            taken.update(dict.fromkeys(servers, f"uplink '{name}'"))
        elif written[name].get("commands") is None:
            settled[name] = replace(uplink, commands=False)
        else:
            at = reading.places.locate(written, [name, "commands"], reading.places.key(written, name))
            text = (
                f"uplink '{name}': commands: they come by {other} from the same server, and each would be carried out"
            )
            reading.mistakes.add(at, f"{text} twice. Take one of them out")
    return settled


def _named(url: str) -> str:
    server = parse_server(url)
    return f"{'localhost' if is_loopback(server.host) else server.host.lower()}:{server.port}"


def check_commands(
    commands: Commands,
    uplinks: Mapping[str, Options],
    devices: Iterable[Device],
    place: Place,
    reading: Reading,
    *,
    has_broker: bool,
) -> None:
    """Note an audit that nobody would keep; warn of tags that may be written, but from nowhere."""
    writable = [(device, tag) for device in devices for tag in device.tags if tag.write is not None]
    if commands.is_strict and not any(uplink.holds for uplink in uplinks.values()):
        text = "commands: audit: strict keeps nothing where no uplink holds records. Add one with qos 1, or take it out"
        reading.mistakes.add(place, text)
    if writable and not has_broker and not any(uplink.commands for uplink in uplinks.values()):
        device, tag = writable[0]
        more = f" and {len(writable) - 1} more" if len(writable) > 1 else ""
        reading.mistakes.warn(
            tag.place,
            f"tag '{tag.name}' of device '{device.name}'{more} may be written, but nothing can come over MQTT: there is"
            " no broker, and no uplink that logs in. Write commands: true at the uplink that may send commands",
        )
