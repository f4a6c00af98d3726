"""The section `broker`: the embedded broker, and what of the devices' values is live there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.broker.options import Address, Jwt, Limits, Options, Tls, parse_address
from gateway.mapping.reading import Reading
from gateway.mapping.schema import Section
from gateway.model import Device, Place
from gateway.quantities import DurationRange, SizeRange
from gateway.secrets import caution
from gateway.settings.checks import is_loopback, many, wrong_file
from gateway.settings.uplinks import check_topic_of, wrong_topic
from gateway.uplinks.tap import Form

Size = Annotated[int, SizeRange("1KiB", "1TiB")]
Payload = Literal["json", "value"]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The embedded broker as the file asks for it, and the forms in which devices are live there."""

    options: Options
    forms: tuple[Form, ...]


# --- what the file says ---------------------------------------------------------------------------------------------


def _json() -> list[Payload]:
    return ["json"]


class BrokerTlsSection(Section):
    """How mqtts and wss listeners show who they are, and whose certificates they accept."""

    cert: str = Field(description="A PEM file of the broker's certificate, with its chain.")
    key: str | None = Field(None, description="A PEM file of the private key, where it is not in cert.")
    ca: str | None = Field(None, description="A PEM file of authorities whose client certificates are accepted.")
    crl: str | None = Field(None, description="A PEM file of revoked client certificates (CRL); needs ca.")
    clients: Literal["required", "optional"] = Field(
        "required", description="Whether a client must show a certificate; only where there is a ca. Default required."
    )
    identity: Literal["none", "cn", "subject"] = Field(
        "none", description="What of a client's certificate is its user name: cn or subject; none (default): nothing."
    )


class JwtSection(Section):
    """Logins by a JSON Web Token in the password of CONNECT."""

    key: str = Field(description="A PEM file of a public key (RS256, ES256), or a file of the shared secret (HS256).")
    algorithms: Annotated[
        list[Literal["HS256", "RS256", "ES256"]], BeforeValidator(many, json_schema_input_type=str | list[str])
    ] = Field(min_length=1, description="The algorithms a token may be signed with.")
    audience: str | None = Field(None, description="What the token's aud must be, or hold.")
    issuer: str | None = Field(None, description="What the token's iss must be.")
    claim: str = Field("sub", description="The claim that is the user name; default sub.")


class LimitsSection(Section):
    """How much clients of the broker may take. Each has a default that suits a Raspberry Pi."""

    connections: Count = Field(10_000, description="Connections at a time.")
    connections_per_address: Count = Field(10_000, description="Connections of one address at a time.")
    connects_per_s: Annotated[float, Field(gt=0, le=1e6)] = Field(
        500.0, description="New connections of one address a second; twice as many in a burst."
    )
    connect_timeout_s: Annotated[float, DurationRange("1s", "10m")] = Field(
        10.0, alias="connect_timeout", description="A connection that has not logged in by then is closed."
    )
    connect_bytes: Annotated[int, SizeRange("256B", "1MiB")] = Field(
        16 * 1024, description="The largest packet before the login."
    )
    packet_bytes: Annotated[int, SizeRange("256B", "256MiB")] = Field(
        1024 * 1024, description="The largest packet of a client."
    )
    receive_maximum: Annotated[int, Field(ge=1, le=65535)] = Field(
        1_000, description="Publishes with QoS 1 or 2 that a client may have in flight."
    )
    max_in_flight: Annotated[int, Field(ge=1, le=65535)] = Field(
        1_000, description="Publishes with QoS 1 or 2 that may be in flight to a client."
    )
    topic_alias_maximum: Annotated[int, Field(ge=0, le=65535)] = Field(
        64, description="Topic aliases a client may use (MQTT 5); 0 = none."
    )
    keep_alive_maximum_s: Annotated[float, DurationRange("1s", "18h")] | None = Field(
        None, alias="keep_alive_maximum", description="The longest keep-alive a client may ask for; default any."
    )
    session_expiry_maximum_s: Annotated[float, DurationRange("1s", "3650d")] | None = Field(
        None,
        alias="session_expiry_maximum",
        description="The longest a session may outlive its connection; default any time.",
    )
    sessions: Count = Field(
        10_000, description="Sessions that outlive their connection; beyond it the one longest offline goes."
    )
    subscriptions: Count = Field(1_000, description="Subscriptions of one session.")
    topic_levels: Annotated[int, Field(ge=1, le=1024)] = Field(
        64, description="Levels of a topic filter; deeper topics are reached by # only."
    )
    queue_messages: Count = Field(
        10_000, description="Messages that may wait for one session; beyond it the oldest go, counted."
    )
    queue_bytes: Size = Field(8 * 2**20, description="Bytes of messages that may wait for one session.")
    total_queue_bytes: Size = Field(64 * 2**20, description="Bytes of messages that may wait for all sessions.")
    retained_messages: Count = Field(100_000, description="Retained messages.")
    retained_bytes: Size = Field(64 * 2**20, description="Bytes of retained messages.")
    publish_per_s: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None, description="Messages of one client a second; beyond it the client is read no faster. Default any."
    )
    publish_bytes_per_s: Size | None = Field(
        None, description="Bytes of one client a second; beyond it the client is read no faster. Default any."
    )
    stall_s: Annotated[float, DurationRange("1s", "1h")] = Field(
        60.0, alias="stall", description="A client that takes nothing for so long while messages wait is disconnected."
    )


class BrokerSection(Section):
    """The embedded MQTT broker (3.1.1 and 5.0). The values of all devices are live on it."""

    listen: Annotated[list[str], BeforeValidator(many, json_schema_input_type=str | list[str])] = Field(
        default_factory=lambda: ["mqtt://127.0.0.1:1883"],
        min_length=1,
        description="Where to listen: mqtt:// mqtts:// ws:// wss://; by default mqtt://127.0.0.1:1883.",
    )
    users: str | None = Field(None, description="A password file in mosquitto's format; `headgate passwd` writes one.")
    acl: str | None = Field(None, description="A file that says who may read and write what, in mosquitto's format.")
    admins: Annotated[list[str], BeforeValidator(many, json_schema_input_type=str | list[str])] = Field(
        default_factory=list, description="User names that may read $SYS, whatever the acl says."
    )
    anonymous: bool = Field(
        default=False, description="Whether a client without a user name is let in although users are set."
    )
    tls: BrokerTlsSection | None = Field(None, description="The certificates of mqtts and wss listeners.")
    jwt: JwtSection | None = Field(None, description="Logins by token, beside or instead of users.")
    limits: LimitsSection = Field(default_factory=LimitsSection, description="How much clients may take.")
    commit_interval_s: Annotated[float, DurationRange("10ms", "1h")] = Field(
        1.0, alias="commit_interval", description="How often what sessions need is synced to the disk; default 1s."
    )
    sync: Literal["interval", "always"] = Field(
        "interval",
        description="Whether an acknowledgement waits for the kernel (interval), or for the disk as well (always).",
    )
    payload: Annotated[list[Payload], BeforeValidator(many, json_schema_input_type=str | list[str])] = Field(
        default_factory=_json,
        min_length=1,
        description="How values are live: json, one object for each batch; value, one topic a tag; or both.",
    )
    topic: str | None = Field(
        None,
        description="The topic template; by default {prefix}/{device} for json and {prefix}/{device}/{tag} for value.",
    )
    retain: bool | None = Field(
        None, description="Whether the last value of each topic is retained; by default only with payload value."
    )


# --- from one to the other ------------------------------------------------------------------------------------------


def read_broker(given: Any, place: Place, reading: Reading) -> Broker | None:
    """The broker's settings; None where there are mistakes, which are noted."""
    section = reading.validate(BrokerSection, {} if given is None else given, place, _label)
    if section is None:
        return None
    before = reading.mistakes.count
    checks = _Checks(given or {}, place, reading)
    listen = checks.listen(section)
    tls = checks.tls(section, listen)
    jwt = checks.jwt(section)
    options = Options(
        listen=tuple(listen),
        users=checks.file("users", section.users, is_secret=True),
        acl=checks.file("acl", section.acl),
        admins=frozenset(section.admins),
        anonymous=section.anonymous,
        tls=tls,
        jwt=jwt,
        limits=_limits(section.limits),
        commit_interval_s=section.commit_interval_s,
        sync=section.sync,
    )
    checks.openness(options)
    forms = checks.forms(section)
    checks.contents(options)
    return None if reading.mistakes.count > before else Broker(options=options, forms=forms)


def check_live_topics(broker: Broker, devices: Iterable[Device], given: dict[str, Any], reading: Reading) -> None:
    """Note fields that the topic uses and a device lacks; warn of devices that would publish to one topic."""
    topic = broker.forms[0].topic
    if topic is not None:
        at = reading.places.locate(given, ["topic"], Place())
        check_topic_of(topic, devices, at, "broker: ", reading)


def _limits(section: LimitsSection) -> Limits:
    """The limits; MQTT counts some times in whole seconds."""
    given = section.model_dump()
    for key in ("keep_alive_maximum_s", "session_expiry_maximum_s"):
        given[key] = None if given[key] is None else round(given[key])
    return Limits(**given)


class _Checks:
    """What is right by itself and wrong together, or wrong outside the file. Findings are noted."""

    def __init__(self, given: dict[str, Any], place: Place, reading: Reading) -> None:
        self._given = given
        self._place = place
        self._reading = reading
        self._said: set[str] = set()
        self._wrong: set[str] = set()

    def _at(self, *keys: str) -> Place:
        return self._reading.places.locate(self._given, list(keys), self._place)

    def _add(self, text: str, *keys: str) -> None:
        self._wrong.add(keys[0])
        self._reading.mistakes.add(self._at(*keys), f"broker: {keys[-1]}: {text}")

    def _warn(self, text: str, *keys: str) -> None:
        self._reading.mistakes.warn(self._at(*keys), f"broker: {keys[-1]}: {text}")

    def file(self, key: str, name: str | None, *parents: str, is_secret: bool = False) -> Path | None:
        """The path of a file; noted where it cannot be read, or a secret is badly kept."""
        if name is None:
            return None
        path = (self._reading.base / name).absolute()
        if wrong := wrong_file(path):
            self._add(wrong, *parents, key)
        elif is_secret and (said := caution(path)):
            self._said.add(said)
            self._warn(said, *parents, key)
        return path

    def listen(self, section: BrokerSection) -> list[Address]:
        """The listeners."""
        found: list[Address] = []
        for url in section.listen:
            try:
                address = parse_address(url)
            except ValueError as error:
                self._add(str(error), "listen")
                continue
            if address.port and any((a.host, a.port) == (address.host, address.port) for a in found):
                self._add(f"{address.host}:{address.port} is named twice. Take one out", "listen")
            elif address.port and (other := next((a for a in found if _share(a, address)), None)):
                self._add(f"{address} and {other} share a port, and one is all addresses. Take one out", "listen")
            found.append(address)
        return found

    def tls(self, section: BrokerSection, listen: list[Address]) -> Tls | None:
        """The certificates."""
        secure = [address for address in listen if address.is_secure]
        given = section.tls
        if given is None:
            if secure:
                self._add(f"{secure[0]} needs a certificate. Write tls: {{cert: …, key: …}}", "listen")
            return None
        if listen and not secure:
            self._add("no listener is encrypted. Write mqtts:// or wss://, or take tls out", "tls")
        if given.crl is not None and given.ca is None:
            self._add("revoked certificates mean nothing where none is accepted. Write ca", "tls", "crl")
        if given.clients == "optional" and given.ca is None:
            self._add(
                "without a ca no client certificate is asked for. Write ca, or take clients out", "tls", "clients"
            )
        if given.identity != "none" and given.ca is None:
            self._add("without a ca no client certificate is believed. Write ca", "tls", "identity")
        cert = self.file("cert", given.cert, "tls")
        return Tls(
            cert=cert or Path(given.cert),
            key=self.file("key", given.key, "tls", is_secret=True),
            ca=self.file("ca", given.ca, "tls"),
            crl=self.file("crl", given.crl, "tls"),
            clients=given.clients,
            identity=given.identity,
        )

    def jwt(self, section: BrokerSection) -> Jwt | None:
        """Logins by token."""
        given = section.jwt
        if given is None:
            return None
        shared = "HS256" in given.algorithms
        if shared and len(given.algorithms) > 1:
            self._add("HS256 has a shared secret, the others a public key: name one kind", "jwt", "algorithms")
        key = self.file("key", given.key, "jwt", is_secret=shared)
        return Jwt(
            key=key or Path(given.key),
            algorithms=tuple(given.algorithms),
            audience=given.audience,
            issuer=given.issuer,
            claim=given.claim,
        )

    def openness(self, options: Options) -> None:
        """Nobody from outside comes in without showing who they are; passwords do not travel in the open unsaid."""
        outside = [address for address in options.listen if not is_loopback(address.host)]
        if open_to_all := [address for address in outside if not options.asks_who_at(address)]:
            known = options.users is not None or options.jwt is not None
            cure = "Take anonymous out" if options.anonymous and known else "Write users (see `headgate passwd`)"
            self._add(f"{open_to_all[0]} would let anybody on the network in. {cure}, or listen on 127.0.0.1", "listen")
        for key, is_given in (("anonymous", options.anonymous), ("admins", bool(options.admins))):
            if is_given and not options.knows_who:
                self._warn("says nothing where nobody is asked who they are. Write users, or take it out", key)
        for address in outside:
            if not address.is_secure and (options.users is not None or options.jwt is not None):
                what = "passwords" if options.users is not None else "tokens"
                cure = "wss" if address.is_websocket else "mqtts"
                self._warn(f"{what} travel in the open to {address}. Use {cure}://", "listen")

    def contents(self, options: Options) -> None:
        """What the files hold that the section names: users, rules, keys, certificates; where nothing is said yet."""
        from gateway.broker.access import AccessError, read  # noqa: PLC0415 - only a file with a broker pays for it

        try:
            cautions = read(options).cautions
        except AccessError as error:
            said_before = frozenset(self._wrong)
            for problem in error.problems:
                keys = self._naming(problem, options)
                if keys[0] not in said_before:
                    self._add(problem, *keys)
        else:
            for said in cautions:
                if said not in self._said:  # where the file is named
                    self._warn(said, *self._naming(said, options))
        if options.tls is not None and "tls" not in self._wrong:
            self._certificates(options.tls)

    def _certificates(self, tls: Tls) -> None:
        """Whether certificates, key and list can be used together. One that has expired is no reason not to start."""
        from gateway.broker.tls import CertificateError, load  # noqa: PLC0415 - only a file with certificates pays
        from gateway.settings.certificates import outdated  # noqa: PLC0415 - likewise

        files = {"tls.key": tls.key, "tls.crl": tls.crl, "tls.ca": tls.ca, "tls.cert": tls.cert}
        try:
            load(tls)
        except CertificateError as error:
            self._add(str(error), *_key_of(str(error), files).split("."))
            return
        for key, said in outdated(tls, datetime.now(UTC)):
            self._warn(said, "tls", key)

    def _naming(self, problem: str, options: Options) -> list[str]:
        """The key that names the file which a problem begins with."""
        files: dict[str, Path | None] = {
            "users": options.users,
            "acl": options.acl,
            "jwt.key": options.jwt.key if options.jwt else None,
        }
        return _key_of(problem, files).split(".")

    def forms(self, section: BrokerSection) -> tuple[Form, ...]:
        """In which forms the values are live."""
        if len(set(section.payload)) < len(section.payload):
            self._add("one form is named twice. Take one out", "payload")
        if section.topic is not None and len(section.payload) > 1:
            self._add("two forms cannot share one topic. Take topic out, or one payload", "topic")
        elif section.topic is not None and (wrong := wrong_topic(section.topic)):
            self._add(wrong, "topic")
        elif section.topic is not None and ("{tag}" in section.topic) != (section.payload == ["value"]):
            needs = (
                "needs {tag} in its topic" if section.payload == ["value"] else "holds many tags: {tag} says nothing"
            )
            self._add(f"payload {''.join(section.payload)} {needs}", "topic")
        return tuple(Form(payload, section.topic, section.retain) for payload in section.payload)


def _share(one: Address, other: Address) -> bool:
    """Whether both want the port that one of them takes on every address of IPv4, or of IPv6."""
    hosts = {one.host, other.host}
    return one.port == other.port and any(
        every in hosts and all((":" in host) == (":" in every) for host in hosts)
        for every in ("0.0.0.0", "::")  # noqa: S104 - looked for, not listened on
    )


def _key_of(problem: str, files: dict[str, Path | None]) -> str:
    """The key whose file a problem names first; the last key where it names none."""
    return next(
        (key for key, path in files.items() if path and problem.startswith((f"{path}:", f"{path} "))), [*files][-1]
    )


def _label(_place: Place) -> str:
    return "broker: "
