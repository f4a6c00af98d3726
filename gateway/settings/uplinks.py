"""The section `uplinks`, and topics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema

from gateway.mapping.mistakes import LATER
from gateway.mapping.reading import Label, Reading
from gateway.mapping.schema import Section
from gateway.model import Device, Place
from gateway.quantities import DurationRange
from gateway.secrets import Secret, Text, caution
from gateway.settings.checks import is_loopback, many, wrong_file
from gateway.uplinks.options import Options, Order, Tls, parse_server
from gateway.uplinks.topics import check_template

_HOLE = re.compile(r"\{([^{}]*)\}")
_TOPIC_WORDS = frozenset({"prefix", "gateway", "device", "tag"})


class TlsSection(Section):
    """How an mqtts server is trusted and how the gateway shows who it is. Files are relative to this file."""

    ca: str | None = Field(None, description="A PEM file of authorities to trust; by default those of the system.")
    cert: str | None = Field(None, description="A PEM file of the gateway's certificate, with its chain.")
    key: str | None = Field(None, description="A PEM file of the private key, where it is not in cert.")
    verify: Literal["on", "off"] = Field("on", description="Whether the server must prove who it is; off is an alarm.")
    server_name: str = Field(
        "", description="The name the server's certificate must bear, where it is not the url's host."
    )
    alpn: Annotated[list[str], BeforeValidator(many, json_schema_input_type=str | list[str])] = Field(
        default_factory=list, description="Protocol names to offer (ALPN), for servers that share port 443."
    )


class UplinkSection(Section):
    """One northbound MQTT session."""

    later: ClassVar[frozenset[str]] = frozenset({"preset", "filter"})

    url: Annotated[list[str], BeforeValidator(many, json_schema_input_type=str | list[str])] = Field(
        min_length=1, description="The server, mqtts://broker.example.com:8883 for example, or a list to try in turn."
    )
    username: Text | None = Field(None, description="The user name to log in with; may be a reference as for password.")
    password: Secret | None = Field(
        None,
        description="The password by reference: ${file:/path}, ${env:NAME} or ${credential:NAME} (systemd's).",
    )
    tls: TlsSection | None = Field(None, description="How an mqtts server is trusted; by default as the system does.")
    qos: Literal[0, 1, 2] = Field(1, description="MQTT's quality of service; 0 loses data and holds nothing.")
    client_id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="The MQTT client id; by default the gateway's name."
    )
    version: Annotated[Literal["5", "3.1.1"], BeforeValidator(str), WithJsonSchema({"enum": [5, "5", "3.1.1"]})] = (
        Field("5", description="The MQTT version; 5 (the default) falls back to 3.1.1 where the server asks for it.")
    )
    keep_alive_s: Annotated[float, DurationRange("5s", "5h")] = Field(
        15.0, alias="keep_alive", description="After so much silence the connection is tested; default 15s."
    )
    payload: Literal["json", "value"] = Field(
        "json", description="One JSON object for each batch (json), or one bare value for each tag (value)."
    )
    topic: str | None = Field(
        None,
        description="The topic template; by default {prefix}/{device} for json and {prefix}/{device}/{tag} for value.",
    )
    retain: bool | None = Field(
        None, description="Whether the server keeps the last value of a topic; by default only with payload value."
    )
    max_in_flight: int = Field(
        100, ge=1, le=10_000, description="How many messages may wait for their acknowledgement at a time; default 100."
    )
    holds: bool | None = Field(
        None,
        description="Whether records are kept until this uplink has acknowledged them; by default unless qos is 0.",
    )
    order: Order = Field(
        "live_first",
        description="After an outage: new records at once and the backlog beside (live_first), or all in_order.",
    )
    replay_rate: Annotated[float, Field(ge=1, le=10_000_000)] | None = Field(
        None,
        description="How many values a second of backlog are sent at most; by default half of what may be in flight.",
    )
    replay_delay_s: Annotated[float, DurationRange("0s", "1h")] = Field(
        30.0,
        alias="replay_delay",
        description="The backlog begins after a random time of at most this and of half the outage; default 30s.",
    )
    commands: bool | None = Field(
        None,
        description="Whether commands may come by this uplink; by default where it logs in (user name or client"
        " certificate) or its server is this machine.",
    )


def read_uplinks(data: dict[str, Any], gateway: str, prefix: str, reading: Reading) -> dict[str, Options]:
    """The uplinks by name; those with mistakes are noted and left out."""
    uplinks: dict[str, Options] = {}
    taken: dict[tuple[str, str], str] = {}
    for name, given in data.items():
        place = reading.places.key(data, name)
        if not reading.check_name(name, "uplink", place):
            continue
        label = _label(name)
        section = reading.validate(UplinkSection, given, place, label)
        if section is None:
            continue
        before = reading.mistakes.count
        _check(section, given, place, label, reading)
        tls = _tls(section.tls, given, place, label, reading)
        if reading.mistakes.count > before:
            continue
        uplink = _uplink(name, section, gateway, prefix, tls)
        for url in uplink.servers:
            other = taken.setdefault((str(parse_server(url)).lower(), uplink.client_id), name)
            if other != name:
                at = reading.places.locate(given, ["client_id"], place)
                text = f"server and client id '{uplink.client_id}' are those of uplink '{other}' and would push it out"
                reading.mistakes.add(at, f"{label(at)}{text}. Give one another client_id")
        uplinks[name] = uplink
    return uplinks


def _uplink(name: str, section: UplinkSection, gateway: str, prefix: str, tls: Tls | None) -> Options:
    return Options(
        name=name,
        gateway=gateway,
        servers=tuple(section.url),
        client_id=section.client_id or gateway,
        username=section.username,
        password=section.password,
        tls=tls,
        qos=section.qos,
        version=section.version,
        keep_alive_s=round(section.keep_alive_s),
        payload=section.payload,
        prefix=prefix,
        topic=section.topic or "",
        retain=section.retain,
        max_in_flight=section.max_in_flight,
        holds=section.holds,
        order=section.order,
        replay_rate=section.replay_rate,
        replay_delay_s=section.replay_delay_s,
        commands=_may_command(section) if section.commands is None else section.commands,
    )


def _may_command(section: UplinkSection) -> bool:
    """Whether commands may come where the file does not say: not from a server that lets anybody in."""
    if section.username is not None or (section.tls is not None and section.tls.cert is not None):
        return True
    return all(is_loopback(parse_server(url).host) for url in section.url)


def _check(section: UplinkSection, given: dict[str, Any], place: Place, label: Label, reading: Reading) -> None:
    """What is right by itself and wrong together."""

    def add(key: str, text: str) -> None:
        at = reading.places.locate(given, [key], place)
        reading.mistakes.add(at, f"{label(at)}{key}: {text}")

    for url in section.url:
        is_open = not url.startswith("mqtts://")
        if wrong := _wrong_url(url):
            add("url", wrong)
        elif section.tls is not None and is_open:
            add("tls", f"'{url}' is not encrypted. Write mqtts:// or take tls out")
        elif section.password is not None and is_open and not is_loopback(urlsplit(url).hostname or ""):
            at = reading.places.locate(given, ["url"], place)
            reading.mistakes.warn(at, f"{label(at)}the password goes to {url} unencrypted. Use mqtts://")
    if section.password is not None and section.username is None:
        add("password", "a password needs a user name. Write username")
    if section.qos == 0 and section.holds:
        add("holds", "qos 0 is never acknowledged, so nothing could ever be let go. Write qos: 1 or take holds out")
    if section.topic is not None and (wrong := wrong_topic(section.topic)):
        add("topic", wrong)
    elif section.topic is not None and ("{tag}" in section.topic) != (section.payload == "value"):
        needs = "needs {tag} in its topic" if section.payload == "value" else "holds many tags, {tag} has no meaning"
        add("topic", f"payload {section.payload} {needs}")


def _tls(section: TlsSection | None, given: Any, place: Place, label: Label, reading: Reading) -> Tls | None:
    """The TLS settings; files that are missing or badly kept are noted."""
    if section is None:
        return None
    paths: dict[str, Path | None] = {}
    for key in ("ca", "cert", "key"):
        name = getattr(section, key)
        paths[key] = None if name is None else (reading.base / name).absolute()
        at = reading.places.locate(given, ["tls", key], place)
        if name is not None and (wrong := wrong_file(reading.base / name)):
            reading.mistakes.add(at, f"{label(at)}tls: {key}: {wrong}")
        elif name is not None and key == "key" and (said := caution(reading.base / name)):
            reading.mistakes.warn(at, f"{label(at)}tls: key: {said}")
    at = reading.places.locate(given, ["tls"], place, key=True)
    if section.cert is None and section.key is not None:
        reading.mistakes.add(at, f"{label(at)}tls: a key needs its certificate. Write cert")
    if section.verify == "off":
        at = reading.places.locate(given, ["tls", "verify"], place)
        reading.mistakes.warn(at, f"{label(at)}tls: verify is off: anybody can pose as the server. Name its ca instead")
    return Tls(
        ca=paths["ca"],
        cert=paths["cert"],
        key=paths["key"],
        verify=section.verify == "on",
        server_name=section.server_name or "",
        alpn=tuple(section.alpn),
    )


def wrong_topic(template: str, words: Iterable[str] = ()) -> str:
    """What is wrong with a topic template (or prefix), with the cure; empty when nothing is.

    `words`: the only words it may use; by default any word that could be a field's name.
    """
    if template.startswith(("/", "$")) or template.endswith("/"):
        return "must not begin with / or $, nor end with /. Take it out"
    if not words and template.endswith("/set"):  # and what a server sends back would be carried out
        return f"'{template}': a topic that ends with /set takes commands. Let it end in another way"
    fields = (word for word in _HOLE.findall(template) if word.isidentifier())
    return check_template(template, set(words) or {*_TOPIC_WORDS, *fields}) or ""


def check_topics(
    uplinks: Mapping[str, Options], devices: Iterable[Device], data: dict[str, Any], reading: Reading
) -> None:
    """Note fields that a topic uses and a device lacks; warn of devices that would publish to one topic."""
    listed = list(devices)
    for name, uplink in uplinks.items():
        at = reading.places.locate(data, [name, "topic"], reading.places.key(data, name))
        check_topic_of(uplink.topic, listed, at, _label(name)(at), reading)


def warn_of_own_broker(
    uplinks: Mapping[str, Options], ports: Iterable[int], data: dict[str, Any], reading: Reading
) -> None:
    """Warn of uplinks that lead to the gateway's own broker, whose listeners have these `ports` on this machine."""
    own = frozenset(ports)
    for name, uplink in uplinks.items():
        for server in map(parse_server, uplink.servers):
            if is_loopback(server.host) and server.port in own:
                at = reading.places.locate(data, [name, "url"], reading.places.key(data, name))
                text = f"url: {server} is this gateway's own broker, where values are live anyway. Take the uplink out"
                reading.mistakes.warn(at, _label(name)(at) + text)


def check_topic_of(topic: str, devices: Iterable[Device], at: Place, label: str, reading: Reading) -> None:
    """The same for one topic template that stands at a place."""
    words = set(_HOLE.findall(topic)) - _TOPIC_WORDS
    users: dict[tuple[str, ...], str] = {}
    for device in devices:
        if not device.url:
            continue  # what its fields are is not known: it has mistakes of its own, which are noted
        for word in sorted(words - set(device.fields)):
            text = f"topic: device '{device.name}' has no field '{word}'. Write it below its fields:"
            reading.mistakes.add(at, label + text)
        key = (*(device.fields.get(word, "") for word in sorted(words)), device.name * ("{device}" in topic))
        other = users.setdefault(key, device.name)
        if other != device.name:
            text = f"topic: devices '{other}' and '{device.name}' publish to one topic. Put {{device}} into it"
            reading.mistakes.warn(at, label + text)


def _wrong_url(url: str) -> str:
    """What is wrong with a server's url, with the cure; empty when nothing is. A password in it is not quoted."""
    if url.startswith(("ws://", "wss://")):
        return f"{url.partition(':')[0]}:// {LATER}"
    try:
        parse_server(url)
    except ValueError as error:
        return str(error)
    return ""


def _label(name: str) -> Label:
    return lambda _: f"uplink '{name}': "
