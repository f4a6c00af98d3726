"""What the file says of commands: who may send them, how they are recorded, which tags can be written at all."""

from textwrap import dedent

import pytest

from gateway.config import load
from gateway.errors import FileError

DEVICE = (
    'devices:\n  plc: {driver: modbus, url: "tcp://h", tags: {pump: {address: coil:1, write: true}, x: holding:1}}\n'
)


@pytest.fixture
def read(tmp_path):
    """`read(text)` gives the config of a file, or its mistakes without the folder."""

    def load_text(text):
        path = tmp_path / "gw.yaml"
        path.write_text("gateway: g\n" + dedent(text))
        try:
            return load(path)
        except FileError as error:
            return [str(m).replace(f"{tmp_path}/", "") for m in error.mistakes]

    return load_text


@pytest.mark.parametrize(
    ("uplink", "may"),
    [
        ("url: mqtt://127.0.0.1", True),
        ("url: mqtt://localhost:1884", True),
        ('url: "mqtt://[::1]"', True),
        ("url: mqtt://broker.example.com", False),
        ("url: [mqtt://127.0.0.1, mqtt://broker.example.com]", False),
        ("url: mqtt://broker.example.com, username: u", True),
        ("url: mqtts://broker.example.com, tls: {cert: cert.pem}", True),
        ("url: mqtts://broker.example.com, tls: {ca: cert.pem}", False),
        ("url: mqtt://broker.example.com, commands: true", True),
        ("url: mqtt://127.0.0.1, commands: false", False),
        ("url: mqtt://broker.example.com, username: u, commands: false", False),
    ],
)
def test_an_uplink_may_command_where_it_shows_who_it_is(read, tmp_path, uplink, may):
    (tmp_path / "cert.pem").touch()
    config = read(f"uplinks: {{u: {{{uplink}}}}}\n{DEVICE}")
    assert config.uplinks["u"].commands is may
    warned = [w.text for w in config.warnings if "may be written" in w.text]
    assert bool(warned) is not may
    if warned:
        assert warned[0].startswith("tag 'pump' of device 'plc' may be written, but nothing can come over MQTT")


def test_a_broker_is_a_way_for_commands_and_without_writable_tags_none_is_missed(read):
    with_broker = read(f"broker: {{}}\nuplinks: {{u: {{url: mqtt://far.example.com}}}}\n{DEVICE}")
    assert not [w for w in with_broker.warnings if "may be written" in w.text]
    without = read("uplinks: {u: {url: mqtt://far.example.com}}\n" + DEVICE.replace(", write: true", ""))
    assert without.warnings == ()


def test_how_many_tags_cannot_be_reached_is_said(read):
    config = read(
        "uplinks: {u: {url: mqtt://far.example.com}}\n"
        + DEVICE.replace("x: holding:1", "x: {address: coil:2, write: true}")
    )
    (warning,) = config.warnings
    assert "tag 'pump' of device 'plc' and 1 more may be written" in warning.text


def test_the_audit_is_normal_or_strict(read):
    assert read(f"uplinks: {{u: {{url: mqtt://127.0.0.1}}}}\n{DEVICE}").commands.is_strict is False
    strict = "commands: {audit: strict}\n"
    assert read(f"{strict}uplinks: {{u: {{url: mqtt://127.0.0.1}}}}\n{DEVICE}").commands.is_strict is True
    assert read(f"commands: {{audit: often}}\nbroker: {{}}\n{DEVICE}") == [
        "gw.yaml:2:19: commands: audit: 'often' is none of normal, strict"
    ]
    assert read(f"commands: {{audt: strict}}\nbroker: {{}}\n{DEVICE}") == [
        "gw.yaml:2:12: commands: unknown key 'audt'. Did you mean 'audit'?"
    ]


@pytest.mark.parametrize("rest", ["broker: {}\n", "uplinks: {u: {url: mqtt://127.0.0.1, qos: 0}}\n"])
def test_a_strict_audit_needs_somebody_who_holds_it(read, rest):
    (mistake,) = read(f"commands: {{audit: strict}}\n{rest}{DEVICE}")
    assert mistake.startswith(
        "gw.yaml:2:1: commands: audit: strict keeps nothing where no uplink holds records. Add one"
    )


def test_a_tag_that_can_never_be_written_is_a_mistake_with_place_and_cure(read):
    (mistake,) = read("""
        broker: {}
        devices:
          plc:
            driver: modbus
            url: tcp://h
            tags:
              good: {address: holding:1, write: true}
              wrong: {address: input:1, write: true}
        """)
    assert mistake.startswith(
        "gw.yaml:10:7: tag 'wrong': write: input:1 cannot be written: input registers are only read"
    )


@pytest.mark.parametrize(
    ("uplinks", "broker", "may"),
    [
        ("a: {url: mqtt://127.0.0.1}, b: {url: mqtt://localhost, client_id: x}", "", [True, False]),
        ("a: {url: mqtt://127.0.0.1, commands: false}, b: {url: mqtt://localhost, client_id: x}", "", [False, True]),
        ("a: {url: mqtt://127.0.0.1}, b: {url: mqtt://127.0.0.1:1884}", "", [True, True]),
        (
            "a: {url: [mqtt://A.b, mqtt://c.d], username: u}, b: {url: mqtt://a.B, username: u, client_id: x}",
            "",
            [True, False],
        ),
        ("a: {url: mqtt://127.0.0.1}", "broker: {listen: mqtt://127.0.0.1:1883}\n", [False]),
    ],
)
def test_commands_that_would_come_twice_come_once(read, uplinks, broker, may):
    config = read(f"{broker}uplinks: {{{uplinks}}}\n{DEVICE}")
    assert [uplink.commands for uplink in config.uplinks.values()] == may


def test_who_asks_for_commands_twice_is_told(read):
    both = "a: {url: mqtt://127.0.0.1}, b: {url: mqtt://127.0.0.1, client_id: x, commands: true}"
    (mistake,) = read(f"uplinks: {{{both}}}\n{DEVICE}")
    assert mistake.startswith("gw.yaml:2:90: uplink 'b': commands: they come by uplink 'a' from the same server, and")
    assert mistake.endswith("would be carried out twice. Take one of them out")


@pytest.mark.parametrize(
    ("tag", "what"),
    [
        ("{address: holding:1, type: uint16, enum: {0: off, 7: boost}, write: {max: 3}}", "a text"),
        ("{address: holding:1, type: uint32, time: s, write: {min: 3}}", "a text"),
        ("{address: holding:1, type: datetime6, write: {min: 3}}", "a text"),
        ("{address: coil:1, write: {max: 3}}", "true or false"),
        ("{address: holding:1.3, write: {max: 3}}", "true or false"),
    ],
)
def test_limits_of_what_is_written_as_no_number_would_hold_nothing_and_are_refused(read, tag, what):
    (mistake,) = read(f'devices: {{plc: {{driver: modbus, url: "tcp://h", tags: {{t: {tag}}}}}}}\n')
    assert f"tag 't': write: min and max need a number, and the tag is {what}" in mistake


@pytest.mark.parametrize(
    "section",
    [
        'uplinks: {u: {url: "mqtt://h", payload: value, topic: "{prefix}/{device}/{tag}/set"}}',
        'uplinks: {u: {url: "mqtt://h", topic: "x/{device}/set"}}',
        'broker: {payload: value, topic: "{prefix}/{device}/{tag}/set"}',
    ],
)
def test_values_are_not_published_where_commands_are_taken(read, section):
    (mistake,) = read(f"{section}\n{DEVICE}")
    assert "takes commands" in mistake
