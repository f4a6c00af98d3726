"""The gateway file as a whole: settings, references, lines and addresses checked together."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from gateway.config import from_mapping, load
from gateway.driver import LineKey, UnknownDriverError, find
from gateway.errors import FileError
from gateway.secrets import Secret

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "mappings" / "examples"


class SerialLike(find("modbus")):
    """Modbus whose lines have parameters: everything behind `?`."""

    @classmethod
    def line_key(cls, url, options):
        port, _, parameters = url.partition("?")
        return LineKey(port, parameters)


def both(name):
    return {"modbus": SerialLike, "other": SerialLike}.get(name) or _unknown(name)


def _unknown(name):
    raise UnknownDriverError(f"there is no driver '{name}'")


DEVICES = """
    devices:
      d: {driver: modbus, url: "tcp://h", tags: {a: holding:1}}
    """


@pytest.fixture
def written(tmp_path):
    """`written(text)` writes gw.yaml and gives its path."""

    def write(text):
        path = tmp_path / "gw.yaml"
        path.write_text(dedent(text).lstrip("\n"))
        return path

    return write


@pytest.fixture
def wrong(written, tmp_path):
    """`wrong(text)` gives the mistakes of a file, without its folder."""

    def read(text, **options):
        with pytest.raises(FileError) as raised:
            load(written(text), **options)
        return [str(m).replace(f"{tmp_path}/", "") for m in raised.value.mistakes]

    return read


def uplink(text):
    return f"gateway: g\nuplinks: {{u: {{{text}}}}}\n" + dedent(DEVICES)


def test_a_small_file_gets_every_default(written, tmp_path):
    config = load(written("gateway: plant7\nuplinks: {cloud: {url: mqtt://127.0.0.1}}\n" + dedent(DEVICES)))
    assert (config.gateway, config.prefix) == ("plant7", "headgate/plant7")
    spool = config.spool
    assert spool.path == tmp_path / "headgate-data" / "spool"
    assert (spool.limits.max_bytes, spool.limits.ram_bytes, spool.limits.commit_bytes) == (
        2**30,
        16 * 2**20,
        256 * 2**10,
    )
    assert (spool.limits.commit_interval_s, spool.limits.persist) == (1.0, "on_age")
    cloud = config.uplinks["cloud"]
    assert (cloud.name, cloud.servers, cloud.client_id, cloud.username, cloud.password, cloud.tls) == (
        "cloud", ("mqtt://127.0.0.1",), "plant7", None, None, None,
    )  # fmt: skip
    assert (cloud.qos, cloud.version, cloud.keep_alive_s, cloud.payload) == (1, "5", 15, "json")
    assert (cloud.topic, cloud.retain, cloud.max_in_flight, cloud.holds) == ("{prefix}/{device}", False, 100, True)
    assert config.warnings == ()
    assert [device.name for device in config.devices] == ["d"]
    assert [group.names for group in config.groups["d"]] == [("a",)]
    assert config.lines == {LineKey("tcp://h:502"): config.devices}


def test_a_large_file_says_everything(written, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUD_USER", "someone")
    for name in ("ca.pem", "gw.pem", "gw.key", "pw"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    config = load(
        written("""
        gateway: plant7
        prefix: acme/{gateway}
        spool:
          {path: data, max_bytes: 10MB, commit_interval: 100ms, commit_bytes: 64KiB, ram_bytes: 2MiB, persist: always}
        uplinks:
          cloud:
            url: [mqtts://a.example.com, "mqtts://[::1]:8884"]
            username: ${env:CLOUD_USER}
            password: ${file:pw}
            tls: {ca: ca.pem, cert: gw.pem, key: gw.key, server_name: broker, alpn: mqtt}
            qos: 2
            client_id: 007
            version: 3.1.1
            keep_alive: 1m
            payload: value
            topic: "{prefix}/{site}/{device}/{tag}"
            retain: false
            max_in_flight: 5
            order: in_order
            replay_rate: 500
            replay_delay: 5s
          tap: {url: mqtt://127.0.0.1:1884, qos: 0}
        devices:
          d: {driver: modbus, url: "tcp://h", fields: {site: north}, tags: {a: holding:1}}
        """)
    )
    assert config.prefix == "acme/plant7"
    assert config.spool.path == tmp_path / "data"
    assert (config.spool.limits.max_bytes, config.spool.limits.commit_interval_s, config.spool.limits.persist) == (
        10**7,
        0.1,
        "always",
    )
    cloud, tap = config.uplinks.values()
    assert cloud.servers == ("mqtts://a.example.com", "mqtts://[::1]:8884")
    assert (cloud.username, cloud.password, cloud.client_id, cloud.version) == ("someone", Secret("x"), "007", "3.1.1")
    assert (cloud.keep_alive_s, cloud.retain, cloud.max_in_flight, cloud.holds) == (60, False, 5, True)
    assert (cloud.order, cloud.replay_rate, cloud.replay_delay_s) == ("in_order", 500, 5.0)
    assert (cloud.tls.ca, cloud.tls.cert, cloud.tls.key) == tuple(tmp_path / n for n in ("ca.pem", "gw.pem", "gw.key"))
    assert (cloud.tls.verify, cloud.tls.server_name, cloud.tls.alpn) == (True, "broker", ("mqtt",))
    assert (tap.qos, tap.holds) == (0, False)
    assert (tap.order, tap.replay_rate, tap.replay_delay_s) == ("live_first", None, 30.0)


def test_payload_value_is_retained_on_a_topic_for_each_tag(written):
    config = load(written(uplink("url: mqtt://h, payload: value")))
    assert (config.uplinks["u"].topic, config.uplinks["u"].retain) == ("{prefix}/{device}/{tag}", True)


def test_version_5_may_be_a_number(written):
    assert load(written(uplink("url: mqtt://h, version: 5"))).uplinks["u"].version == "5"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gateway: g", "gw.yaml:1:1: there are no devices. Write at least one below devices:"),
        ("gateway: g\ndevices:\n", "gw.yaml:2:9: devices: has no value"),
        ("gateway: g\ndevices: {}\n", "gw.yaml:2:1: there are no devices. Write at least one below devices:, or"),
        (DEVICES, "gw.yaml:1:1: 'gateway' is missing. The gateway's name everywhere"),
        ("gateway: 'a b'" + DEVICES, "gw.yaml:1:10: gateway 'a b': a name has letters"),
        ("gateway: ''" + DEVICES, "gateway '': a name must not be empty"),
        ("gateway: g\nspol: {}" + DEVICES, "gw.yaml:2:1: unknown key 'spol'. Did you mean 'spool'?"),
        (
            "gateway: g\nhttp: {listen: x}" + DEVICES,
            "gw.yaml:2:1: 'http' is not built yet, it comes in a later version. Take it out",
        ),
        ("gateway: g\nprefix: a/+" + DEVICES, "gw.yaml:2:9: prefix: 'a/+': a topic to publish to has no '+'"),
        (
            "gateway: g\nprefix: a/{device}" + DEVICES,
            "prefix: 'a/{device}': there is no {device} here; there is {gateway}",
        ),
        ("gateway: g\nprefix: /a" + DEVICES, "prefix: must not begin with / or $, nor end with /"),
        ("gateway: g\nprefix: ''" + DEVICES, "prefix: '': a topic has at least one character"),
        ("gateway: g\nspool: 5" + DEVICES, "gw.yaml:2:8: spool: expected keys and values, got 5"),
        ("gateway: g\nspool: {max_bytes: 5}" + DEVICES, "gw.yaml:2:20: spool: max_bytes: '5' is outside 1MiB … 16TiB"),
        ("gateway: g\nspool: {max_bites: 5MB}" + DEVICES, "spool: unknown key 'max_bites'. Did you mean 'max_bytes'?"),
        ("gateway: g\nspool: {persist: never}" + DEVICES, "spool: persist: 'never' is none of on_age, always"),
        (
            "gateway: g\nspool: {ram_bytes: 1MiB, commit_bytes: 2MiB}" + DEVICES,
            "spool: ram_bytes is less than commit_bytes",
        ),
        ("gateway: g\nuplinks: [a]" + DEVICES, "gw.yaml:2:10: uplinks: expected keys and values, got a list"),
        ("gateway: g\nuplinks: {u: mqtt://h}" + DEVICES, "uplink 'u': expected keys and values, got 'mqtt://h'"),
        ("gateway: g\nuplinks: {u u: {url: mqtt://h}}" + DEVICES, "uplink 'u u': a name has letters"),
        (uplink("qos: 1"), "gw.yaml:2:11: uplink 'u': 'url' is missing. The server, mqtts://"),
        (uplink("url: []"), "uplink 'u': url: "),
        (
            uplink("url: http://h"),
            "gw.yaml:2:20: uplink 'u': url: 'http://h' is no server: write mqtt://HOST:PORT, or mqtts://HOST:PORT for",
        ),
        (uplink("url: wss://h"), "url: wss:// is not built yet"),
        (uplink("url: broker.local"), "url: 'broker.local' is no server: write mqtt://HOST:PORT"),
        (uplink('url: "mqtt://"'), "url: 'mqtt://': write mqtt://HOST:PORT with a port from 1 to 65535"),
        (uplink("url: mqtt://h:99999"), "url: 'mqtt://h:99999': write mqtt://HOST:PORT with a port from 1 to 65535"),
        (uplink("url: mqtt://h:0"), "url: 'mqtt://h:0': write mqtt://HOST:PORT with a port from 1 to 65535"),
        (uplink("url: mqtt://h/path"), "url: 'mqtt://h/path': nothing may follow the port"),
        (uplink("url: mqtt://me:geheim@h"), "url: a url here carries no login: put it under `username` and `password`"),
        (uplink("url: mqtt://h, password: geheim"), "uplink 'u': password: a secret in plain text"),
        (
            uplink('url: mqtt://h, password: "${env:NOT_SET_ANYWHERE}"'),
            "the environment variable NOT_SET_ANYWHERE is not set",
        ),
        (uplink('url: mqtt://h, username: "${env:NOT_SET_ANYWHERE}"'), "username: the environment variable"),
        (uplink("url: mqtt://h, qos: 3"), "qos: 3 is none of 0, 1, 2"),
        (uplink("url: mqtt://h, version: 4"), "version: '4' is none of 5, 3.1.1"),
        (uplink("url: mqtt://h, qos: 0, holds: true"), "holds: qos 0 is never acknowledged"),
        (uplink("url: mqtt://h, keep_alive: 1s"), "keep_alive: '1s' is outside 5s … 5h"),
        (uplink("url: mqtt://h, max_in_flight: 0"), "max_in_flight: 0 is too small. It must be at least 1"),
        (uplink("url: mqtt://h, max_in_flight: 10001"), "max_in_flight: 10001 is too large. It must be at most 10000"),
        (uplink('url: mqtts://h, password: "${env:HOME}"'), "password: a password needs a user name. Write username"),
        (uplink("url: mqtt://h, filter: a"), "gw.yaml:2:30: uplink 'u': 'filter' is not built yet"),
        (uplink("url: mqtt://h, preset: aws"), "'preset' is not built yet"),
        (uplink("url: mqtt://h, replay_rate: 0"), "replay_rate: "),
        (uplink("url: mqtt://h, order: newest_first"), "order: "),
        (uplink("url: mqtt://h, clientid: x"), "unknown key 'clientid'. Did you mean 'client_id'?"),
        (
            uplink("url: mqtt://h, topic: '{prefix}/{devise}'"),
            "topic: device 'd' has no field 'devise'. Write it below its fields:",
        ),
        (
            uplink("url: mqtt://h, topic: '{prefix}/{a b}'"),
            "topic: '{prefix}/{a b}': there is no {a b} here; there is {device}, {gateway}, {prefix}, {tag}",
        ),
        (
            uplink("url: mqtt://h, topic: 'a/{device'"),
            "topic: 'a/{device': each { needs its }, with a name between them",
        ),
        (uplink("url: mqtt://h, topic: 'a/#'"), "topic: 'a/#': a topic to publish to has no '#'"),
        (uplink("url: mqtt://h, topic: 'a/{tag}'"), "topic: payload json holds many tags, {tag} has no meaning"),
        (uplink("url: mqtt://h, payload: value, topic: 'a/{device}'"), "topic: payload value needs {tag} in its topic"),
        (
            uplink("url: mqtt://h, tls: {ca: ca.pem}"),
            "tls: 'mqtt://h' is not encrypted. Write mqtts:// or take tls out",
        ),
        (uplink("url: mqtts://h, tls: {ca: no.pem}"), "gw.yaml:2:41: uplink 'u': tls: ca: no.pem: no such file"),
        (uplink("url: mqtts://h, tls: {key: gw.yaml}"), "tls: a key needs its certificate. Write cert"),
        (uplink("url: mqtts://h, tls: {verify: false}"), "verify: false is none of on, off"),
        (uplink("url: mqtts://h, tls: {cafile: x}"), "gw.yaml:2:37: uplink 'u': unknown key 'cafile'"),
        (
            "gateway: g\nuplinks: {a: {url: mqtt://h}, b: {url: mqtt://h}}" + DEVICES,
            "uplink 'b': server and client id 'g' are those of uplink 'a'",
        ),
        ("gateway: g\ntemplates: []" + DEVICES, "gw.yaml:2:12: templates: expected keys and values"),
    ],
)
def test_a_mistake_names_place_thing_and_cure(wrong, tmp_path, text, said):
    (tmp_path / "ca.pem").touch()
    mistakes = wrong(dedent(text) if text.startswith("\n") else text.replace(DEVICES, dedent(DEVICES)))
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0]
    assert "geheim" not in mistakes[0]


def test_mistakes_of_schema_references_and_addresses_come_together(wrong):
    assert [
        m.partition(". ")[0]
        for m in wrong("""
        gateway: plant 7
        spool: {max_bytes: lots}
        uplinks: {cloud: {url: mqtt://h, pasword: x}}
        devices:
          boiler:
            driver: modbus
            url: tcp://10.0.0.5:502
            uint: 1
            tags:
              flow: {address: holding:65535, type: float32}
              pump: {address: coil:5, write: maybe}
              temp: {address: holding:1, scale: x}
          plc: {driver: modbus, url: "http://h", mapping: plc.yaml}
        """)
    ] == [
        "gw.yaml:1:10: gateway 'plant 7': a name has letters, digits and _ ",
        "gw.yaml:2:20: spool: max_bytes: 'lots' is no size",
        "gw.yaml:3:34: uplink 'cloud': unknown key 'pasword'",
        "gw.yaml:8:5: device 'boiler': unknown key 'uint'",
        "gw.yaml:10:7: tag 'flow': float32 needs 2 registers, holding:65535 leaves 1",
        "gw.yaml:11:38: tag 'pump': write: expected true or false, got 'maybe'",
        "gw.yaml:12:41: tag 'temp': scale: expected a number, got 'x'",
        "gw.yaml:13:30: device 'plc': url: 'http://h' is no url of a Modbus device",
        "gw.yaml:13:51: plc.yaml: no such file or directory",
    ]


def test_thousands_of_mistakes_are_bounded(wrong):
    tags = "".join(f"      t{i}: {{address: x{i}, sclae: 1}}\n" for i in range(3000))
    mistakes = wrong(f"gateway: g\ndevices:\n  d:\n    driver: modbus\n    url: tcp://h\n    tags:\n{tags}")
    assert len(mistakes) == 101
    assert "… and 2900 more mistakes" in mistakes[-1]


# --- lines ------------------------------------------------------------------------------------------------------------


def test_devices_with_the_same_port_share_a_line(written):
    config = load(
        written("""
        gateway: g
        devices:
          a: {driver: modbus, url: tcp://H:502, unit: 1, tags: {x: coil:1}}
          b: {driver: modbus, url: "tcp://h", unit: 2, tags: {x: coil:1}}
          c: {driver: modbus, url: tcp://h:503, tags: {x: coil:1}}
        """)
    )
    assert [[device.name for device in devices] for devices in config.lines.values()] == [["a", "b"], ["c"]]


def test_the_same_port_with_other_parameters_is_a_mistake(wrong):
    (mistake,) = wrong(
        """
        gateway: g
        devices:
          a: {driver: modbus, url: "rtu:///dev/ttyUSB0?baud=9600", tags: {x: coil:1}}
          b: {driver: modbus, url: "rtu:///dev/ttyUSB0?baud=19200", tags: {x: coil:1}}
        """,
        drivers=both,
    )
    assert mistake == (
        "gw.yaml:4:28: device 'b': rtu:///dev/ttyUSB0 is used by device 'a' (gw.yaml:3:3) with other parameters: "
        "here 'baud=19200', there 'baud=9600'. Make them equal"
    )


def test_the_same_port_with_two_drivers_is_a_mistake(wrong):
    (mistake,) = wrong(
        """
        gateway: g
        devices:
          a: {driver: modbus, url: "rtu:///dev/ttyUSB0", tags: {x: coil:1}}
          b: {driver: other, url: "rtu:///dev/ttyUSB0", tags: {x: coil:1}}
        """,
        drivers=both,
    )
    assert (
        "device 'b': rtu:///dev/ttyUSB0 is used by device 'a' (gw.yaml:3:3) with driver modbus. A port has one driver"
        in mistake
    )


# --- warnings ---------------------------------------------------------------------------------------------------------


def warned(path):
    return [f"{w.place.line}:{w.place.column}: {w.text}" for w in load(path).warnings]


def test_a_file_without_uplinks_is_warned_of(written):
    assert warned(written("gateway: g" + dedent(DEVICES))) == [
        "1:1: there are no uplinks: values go nowhere. Add a section uplinks: or broker:"
    ]


def test_sections_that_are_commented_out_are_empty(written):
    config = load(written("gateway: g\nuplinks:\nspool:\ntemplates:\n" + dedent(DEVICES)))
    assert not config.uplinks
    assert config.spool.limits.max_bytes == 2**30


def test_an_unverified_server_is_warned_of(written):
    (warning,) = warned(written(uplink("url: mqtts://h, tls: {verify: off}")))
    assert "uplink 'u': tls: verify is off: anybody can pose as the server" in warning


@pytest.mark.parametrize(
    ("url", "count"), [("mqtt://h", 1), ("mqtts://h", 0), ("mqtt://127.0.0.1", 0), ("mqtt://localhost", 0)]
)
def test_a_password_that_goes_unencrypted_is_warned_of(written, monkeypatch, url, count):
    monkeypatch.setenv("PW", "x")
    found = warned(written(uplink(f'url: "{url}", username: u, password: "${{env:PW}}"')))
    assert len([w for w in found if "unencrypted. Use mqtts://" in w]) == count


def test_files_that_strangers_can_read_are_warned_of(written, tmp_path):
    for name in ("c.pem", "k.pem", "pw"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)
    text = 'url: mqtts://h, username: u, password: "${file:pw}", tls: {cert: c.pem, key: k.pem}'
    found = warned(written(uplink(text)))
    assert len(found) == 2
    assert all("can be read by everybody on this machine: chmod o=" in w for w in found)


def test_devices_that_publish_to_one_topic_are_warned_of(written):
    found = warned(
        written("""
        gateway: g
        uplinks: {u: {url: "mqtt://h", topic: "{prefix}/{site}"}}
        devices:
          a: {driver: modbus, url: "tcp://h", fields: {site: n}, tags: {x: coil:1}}
          b: {driver: modbus, url: "tcp://h", fields: {site: n}, tags: {x: coil:1}}
          c: {driver: modbus, url: "tcp://h", fields: {site: s}, tags: {x: coil:1}}
        """)
    )
    assert found == ["2:39: uplink 'u': topic: devices 'a' and 'b' publish to one topic. Put {device} into it"]


# --- other doors ------------------------------------------------------------------------------------------------------


def test_a_mapping_is_checked_like_a_file(tmp_path):
    data = {
        "gateway": "demo",
        "uplinks": {"broker": {"url": "mqtt://127.0.0.1"}},
        "devices": {"d": {"driver": "modbus", "url": "tcp://127.0.0.1:5020", "tags": {"a": {"address": "holding:1"}}}},
    }
    config = from_mapping(data, base=tmp_path)
    assert config.spool.path == tmp_path / "headgate-data" / "spool"
    assert config.groups["d"][0].names == ("a",)
    data["devices"]["d"]["tags"]["a"]["scael"] = 1
    with pytest.raises(FileError, match=r"^tag 'a': unknown key 'scael'\. Did you mean 'scale'"):
        from_mapping(data, base=tmp_path)


def test_a_mapping_may_use_templates(tmp_path):
    device = {"driver": "modbus", "url": "tcp://${host}", "tags": {"a": {"address": "holding:${first}"}}}
    data = {
        "gateway": "g",
        "templates": {"t": {"parameters": {"host": {}, "first": {"default": 7}}, "device": device}},
        "devices": {"d": {"template": "t", "with": {"host": "h"}}},
    }
    (device,) = from_mapping(data, base=tmp_path).devices
    assert (device.url, device.tags[0].address) == ("tcp://h", "holding:7")


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_is_none_is_a_mistake(tmp_path, name):
    with pytest.raises(FileError, match=r"no such file or directory|is not a file"):
        load(tmp_path / name)


def test_checking_touches_nothing(written, tmp_path):
    path = written(uplink("url: mqtt://127.0.0.1:1"))
    before = sorted(tmp_path.iterdir())
    load(path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_mistake_hides_no_other_in_the_same_device_or_in_another(wrong):
    mistakes = wrong("""
        gateway: g
        devices:
          a: {driver: modbus, url: "tcp://h", unit: x, tags: {x: holding:99999}}
          b: {driver: modbus, url: "tcp://h", tags: {y: holding:99999}}
        """)
    assert len(mistakes) == 3
    assert "device 'a': unit: " in mistakes[0]
    assert "tag 'x': holding:99999 is beyond the last address" in mistakes[1]
    assert "tag 'y': holding:99999 is beyond the last address" in mistakes[2]


def test_an_address_that_a_list_filled_names_the_device(wrong, tmp_path):
    (tmp_path / "fleet.csv").write_text("name,at\none,5\ntwo,99999\n")
    (mistake,) = wrong("""
        gateway: g
        templates:
          t: {parameters: {at: }, device: {driver: modbus, url: "tcp://h", tags: {x: {address: "holding:${at}"}}}}
        devices:
          f: {template: t, instances: fleet.csv}
        """)
    assert mistake.startswith("fleet.csv:3:2: device 'two': tag 'x': holding:99999 is beyond the last address")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_clean(path):
    config = load(path)
    assert config.devices
    assert config.warnings == ()


PLANT = "\ndevices: {a: {driver: modbus, url: 'tcp://h', tags: {x: holding:1}}}\n"


@pytest.mark.parametrize("prefix", ["'{device}'", "''", "'a b+c'"])
def test_a_wrong_prefix_beside_an_uplink_is_one_mistake(wrong, prefix):
    (mistake,) = wrong(f"gateway: g\nprefix: {prefix}\nuplinks: {{u: {{url: 'mqtt://h'}}}}" + PLANT)
    assert mistake.startswith("gw.yaml:2:9: prefix: ")


@pytest.mark.parametrize(
    "text",
    [
        "gateway: g\nuplinks: {u: {url: 'tcp://u:S3cr3t@h:1883'}}" + PLANT,
        "gateway: g\nuplinks: {u: {url: 'u:S3cr3t@h:1883'}}" + PLANT,
        "gateway: g\nuplinks: {u: {url: 'mqtt://h/x?password=S3cr3t'}}" + PLANT,
        "gateway: g\ndevices: {a: {driver: modbus, url: 'tcp://u:S3cr3t@h', tags: {x: holding:1}}}",
    ],
)
def test_a_password_in_a_url_is_never_quoted(wrong, text):
    mistakes = wrong(text)
    assert mistakes
    assert "S3cr3t" not in str(mistakes)


def test_one_server_spelled_in_two_ways_is_still_one(wrong):
    (mistake,) = wrong("gateway: g\nuplinks: {a: {url: 'mqtt://localhost'}, b: {url: 'mqtt://LOCALHOST:1883'}}" + PLANT)
    assert "would push it out" in mistake


@pytest.mark.parametrize(
    "tag",
    [
        "{address: holding:1, type: bits, scale: 2}",
        "{address: coil:5, scale: 2}",
        "{address: 'holding:1.3', offset: 1}",
    ],
)
def test_what_is_no_number_cannot_be_scaled(wrong, tag):
    (mistake,) = wrong(f"gateway: g\ndevices: {{a: {{driver: modbus, url: 'tcp://h', tags: {{x: {tag}}}}}}}")
    assert "scale" in mistake or "offset" in mistake


def test_a_mistake_in_a_mapping_file_hides_none_of_its_others(wrong, tmp_path):
    (tmp_path / "m.yaml").write_text("every: 1\nunit: 999\ntags: {x: {address: holding:1, typ: int16}}\n")
    mistakes = wrong("gateway: g\ndevices: {a: {driver: modbus, url: 'tcp://h', mapping: m.yaml}}\n")
    assert [m.partition(": ")[0] for m in mistakes] == ["m.yaml:1:8", "m.yaml:2:7", "m.yaml:3:32"]


def test_a_device_with_a_mistake_is_not_said_to_lack_the_fields_it_has(wrong):
    (mistake,) = wrong(
        "gateway: g\nuplinks: {u: {url: 'mqtt://h', topic: '{prefix}/{floor}/{device}'}}\n"
        "devices: {a: {driver: modbus, url: 'tcp://h', every: 5, fields: {floor: f1}, tags: {x: holding:1}}}\n"
    )
    assert "every: " in mistake
