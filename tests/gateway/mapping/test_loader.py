"""Devices from the file, from mapping files, profiles and lists. Line 1 of gw.yaml is `devices:`."""

from __future__ import annotations

import pytest

from gateway.model import Deadband, WriteRules
from gateway.secrets import MASK


def test_a_device_has_its_keys_those_of_its_driver_and_its_tags(load_devices):
    (boiler,), mistakes = load_devices("""
        boiler:
          driver: fake
          url: tcp://10.0.0.5:502
          unit: 7
          timeout: 200ms
          every: 2s
          fields: {site: north, line: 4}
          tags:
            flow: {address: word:1, type: float32, unit: m3/h, deadband: 0.1}
            pump/run: word:5
        """)
    assert not mistakes
    assert (boiler.name, boiler.driver, boiler.url) == ("boiler", "fake", "tcp://10.0.0.5:502")
    assert (boiler.options.unit, boiler.options.timeout_s) == (7, 0.2)
    assert boiler.fields == {"site": "north", "line": "4"}
    flow, pump = boiler.tags
    assert (flow.name, flow.address, flow.deadband, flow.on) == ("flow", "word:1", Deadband(0.1), "change")
    assert (pump.name, pump.address, pump.every_s, pump.on) == ("pump/run", "word:5", 2.0, "always")
    assert (boiler.place.line, boiler.place.column) == (2, 3)
    assert (flow.place.line, flow.place.column) == (10, 7)


@pytest.mark.parametrize(
    ("written", "rules"),
    [
        ("true", WriteRules()),
        ("{}", WriteRules()),
        ("false", None),
        (
            "{min: 0, max: 100.5, every: 2s, expires: 1m, read_back: false}",
            WriteRules(min=0, max=100.5, every_s=2, expires_s=60, read_back=False),
        ),
        ("{values: [1, 2.5, true, auto]}", WriteRules(values=(1, 2.5, True, "auto"))),
    ],
)
def test_what_may_be_written_to_a_tag(load_devices, written, rules):
    (device,), mistakes = load_devices(f"d: {{{D}, tags: {{a: {{address: word:1, write: {written}}}}}}}")
    assert not mistakes
    assert device.tags[0].write == rules


def test_equal_options_of_tags_are_one_object(load_devices):
    (device,), _ = load_devices("""
        d: {driver: fake, url: "tcp://h", tags: {a: word:1, b: word:2, c: {address: word:3, length: 4},
            e: {address: word:4, length: 4}}}
        """)
    a, b, c, e = device.tags
    assert a.options is b.options
    assert c.options is e.options
    assert c.options == {"length": 4, "encoding": "ascii", "swap": False, "sentinels": [], "settle_s": 0.001}


@pytest.mark.parametrize(
    ("device", "tag", "on", "silence", "every"),
    [
        ("", "", "always", None, 1.0),
        ("on: change", "", "change", None, 1.0),
        ("on: change", "on: always", "always", None, 1.0),
        ("on: change, max_silence: 5m", "", "change", 300, 1.0),
        ("max_silence: 5m", "", "always", None, 1.0),
        ("max_silence: 5m", "deadband: 1", "change", 300, 1.0),
        ("max_silence: 5m", "deadband: 1, max_silence: 1m", "change", 60, 1.0),
        ("", "max_silence: 1m", "change", 60, 1.0),
        ("every: 5s", "", "always", None, 5.0),
        ("every: 5s", "every: 100ms", "always", None, 0.1),
    ],
)
def test_a_tag_is_what_its_device_says_unless_it_says_otherwise(load_devices, device, tag, on, silence, every):
    text = (
        f'd: {{driver: fake, url: "tcp://h", {device + "," if device else ""} tags: {{a: {{address: word:1, {tag}}}}}}}'
    )
    (found,), mistakes = load_devices(text)
    assert not mistakes
    assert (found.tags[0].on, found.tags[0].max_silence_s, found.tags[0].every_s) == (on, silence, every)


D = 'driver: fake, url: "tcp://h"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # devices
        ("d: 5", "gw.yaml:2:3: device 'd': expected keys and values, got 5. Write driver:, url: and tags: below it"),
        ("d:", "gw.yaml:2:3: device 'd': expected keys and values, got nothing"),
        ("d: {url: x, tags: {a: b}}", "gw.yaml:2:3: device 'd': 'driver' is missing. Name the protocol"),
        ("d: {driver: , url: x}", "gw.yaml:2:15: device 'd': 'driver' is missing"),
        ("d: {driver: modbuss}", "gw.yaml:2:15: device 'd': there is no driver 'modbuss'; installed are: fake"),
        (
            "d: {driver: serial}",
            "gw.yaml:2:15: device 'd': driver 'serial' is not built yet, it comes in a later version",
        ),
        ("d: {driver: serial}", "driver 'serial' is not built yet"),
        (
            "d: {driver: fake, tags: {a: word:1}}",
            "gw.yaml:2:3: device 'd': 'url' is missing. How the device is reached",
        ),
        (
            f"d: {{{D}, unti: 1, tags: {{a: word:1}}}}",
            "gw.yaml:2:37: device 'd': unknown key 'unti'. Did you mean 'unit'?",
        ),
        (
            f"d: {{{D}, unit: 300, tags: {{a: word:1}}}}",
            "gw.yaml:2:43: device 'd': unit: 300 is too large. It must be at most 247",
        ),
        (
            f"d: {{{D}, every: 1, tags: {{a: word:1}}}}",
            "gw.yaml:2:44: device 'd': every: '1' is no duration. Write a number and its unit",
        ),
        (f"d: {{{D}, every: 5ms, tags: {{a: word:1}}}}", "every: '5ms' is outside 10ms … 1d"),
        (f"d: {{{D}, every: , tags: {{a: word:1}}}}", "every: has no value. Write a duration"),
        (f"d: {{{D}, on: never, tags: {{a: word:1}}}}", "device 'd': on: 'never' is none of change, always"),
        (f"d: {{{D}, pin: 1234, tags: {{a: word:1}}}}", "device 'd': pin: a secret in plain text"),
        (
            "d: {driver: fake, url: mqtt://h, tags: {a: word:1}}",
            "gw.yaml:2:26: device 'd': url: 'mqtt://h' is no url. Write tcp://HOST:PORT",
        ),
        (f"d: {{{D}}}", "gw.yaml:2:3: device 'd': there are no tags. Write them below tags:, or name a mapping"),
        (f"d: {{{D}, tags: }}", "tags: has no value"),
        (f"d: {{{D}, tags: {{}}}}", "there are no tags"),
        (f"d: {{{D}, tags: [a]}}", "tags: expected keys and values, got a list. Write 'key: value' lines below it"),
        (
            f"d/e: {{{D}, tags: {{a: word:1}}}}",
            "gw.yaml:2:3: device 'd/e': a name has letters, digits and _ . - only, and begins with a letter",
        ),
        (f"status: {{{D}, tags: {{a: word:1}}}}", "gw.yaml:2:3: device 'status': this name is reserved for topics"),
        (f"request: {{{D}, tags: {{a: word:1}}}}", "device 'request': this name is reserved"),
        (f"d: {{{D}, fields: {{a-b: x}}, tags: {{a: word:1}}}}", "field 'a-b': a field has letters, digits and _"),
        (f"d: {{{D}, fields: {{tag: x}}, tags: {{a: word:1}}}}", "and none of prefix, gateway, device, tag"),
        (f"d: {{{D}, fields: {{site: a+b}}, tags: {{a: word:1}}}}", "field 'site': 'a+b' cannot stand in a topic"),
        (f"d: {{{D}, mapping: no.yaml}}", "gw.yaml:2:46: no.yaml: no such file or directory. Check the path"),
        (f"d: {{{D}, mapping: tags.txt}}", "tags.txt is no mapping. A mapping is a .yaml or a .csv file"),
        (f"d: {{{D}, mapping: a.yaml, profile: b/c}}", "device 'd': mapping and profile both name the tags. Take one"),
        (f"d: {{{D}, profile: nonsense}}", "device 'd': 'nonsense' is no profile. Write vendor/model"),
        (f"d: {{{D}, profile: ../etc}}", "'../etc' is no profile"),
        (f"d: {{{D}, profile: acme/m1}}", "there is no profile 'acme/m1'"),
        # tags
        (
            f"d: {{{D}, tags: {{a: {{adress: word:1}}}}}}",
            "gw.yaml:2:48: tag 'a': unknown key 'adress'. Did you mean 'address'?",
        ),
        (
            f"d: {{{D}, tags: {{a: {{type: int16}}}}}}",
            "gw.yaml:2:44: tag 'a': 'address' is missing. Where the tag lives",
        ),
        (f"d: {{{D}, tags: {{a: 40101}}}}", "tag 'a': expected its address or keys, got 40101. Write {address: …}"),
        (f"d: {{{D}, tags: {{a: }}}}", "tag 'a': expected its address or keys, got nothing"),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, scale: ten}}}}}}",
            "gw.yaml:2:72: tag 'a': scale: expected a number, got 'ten'",
        ),
        (f"d: {{{D}, tags: {{a: {{address: word:1, scale: '0.1'}}}}}}", "got '0.1'. Write it without quotes"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, scale: true}}}}}}", "scale: expected a number, got true"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, scale: .nan}}}}}}", "scale: expected a finite number"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, scale: 0}}}}}}", "tag 'a': 0 would make every value the offset"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, decimals: 1.5}}}}}}", "decimals: expected a whole number, got 1.5"),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, decimals: 16}}}}}}",
            "decimals: 16 is too large. It must be at most 15",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, write: yes}}}}}}",
            "write: expected true or false, got 'yes'. Write true",
        ),
        (
            'd: {driver: mute, url: "tcp://h", tags: {a: {address: word:1, write: true}}}',
            "gw.yaml:2:72: tag 'a': driver mute cannot write. Take write out",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, write: 'no'}}}}}}",
            "write: expected true or false, got 'no'. Write",
        ),
        (f"d: {{{D}, tags: {{a: {{address: word:1, write: }}}}}}", "tag 'a': write: has no value. Write true"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, write: 1}}}}}}", "write: expected true or false, got 1. Write true"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, write: {{mn: 1}}}}}}}}", "unknown key 'mn'. Did you mean 'min'?"),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, write: {{min: low}}}}}}}}",
            "gw.yaml:2:78: tag 'a': min: expected a number, got 'low'",
        ),
        (f"d: {{{D}, tags: {{a: {{address: word:1, write: {{every: 5}}}}}}}}", "every: '5' is no duration"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, write: {{values: []}}}}}}}}", "values: the list is empty. Write at"),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, write: {{values: [1, [2]]}}}}}}}}",
            "values: expected text, a number, true or false, got a list",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, write: {{min: 5, max: 1}}}}}}}}",
            "tag 'a': write: min 5 is above max 1. Exchange them",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, write: {{min: 5, values: [6]}}}}}}}}",
            "tag 'a': write: values are all that may be written, min and max say nothing beside them",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, type: bool, write: {{max: 1}}}}}}}}",
            "tag 'a': write: min and max need a number, and type is bool",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, deadband: -1}}}}}}",
            "tag 'a': deadband: '-1' is no deadband. Write a number above 0",
        ),
        (f"d: {{{D}, tags: {{a: {{address: word:1, deadband: '1,5'}}}}}}", "is no deadband"),
        (f"d: {{{D}, tags: {{a: {{address: word:1, deadband: true}}}}}}", "is no deadband"),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, scale: 7,1}}}}}}",
            "tag 'a': unknown key '1'. A decimal is written with a point, 0.1 for example",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, on: always, deadband: 1}}}}}}",
            "'on: always' sends every poll, a deadband sends less",
        ),
        (f"d: {{{D}, tags: {{a: {{address: word:1, on: always, max_silence: 1m}}}}}}", "'on: always' is never silent"),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, every: 1m, max_silence: 1s}}}}}}",
            "cannot be kept: the tag is polled every 1m. Write 1m or more",
        ),
        (f"d: {{{D}, tags: {{a: {{address: word:1, min: 5, max: 1}}}}}}", "min 5 is above max 1. Exchange them"),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, type: string, scale: 2}}}}}}",
            "scale needs a number, and type is string",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, type: bool, deadband: 2}}}}}}",
            "deadband needs a number, and type is bool",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, length: 0}}}}}}",
            "tag 'a': length: 0 is too small. It must be at least 1",
        ),
        (
            f"d: {{{D}, tags: {{a: {{address: word:1, encoding: utf8}}}}}}",
            "encoding: 'utf8' is none of ascii, utf-8. Did you mean utf-8?",
        ),
        (f"d: {{{D}, tags: {{a: {{address: [word:1]}}}}}}", "address: expected text, got a list"),
        (
            f"d: {{{D}, tags: {{a b: word:1}}}}",
            "tag 'a b': a name has letters, digits and _ . - only, and begins with a letter or digit. 'a_b' would do",
        ),
        (f"d: {{{D}, tags: {{a//b: word:1}}}}", "tag 'a//b': a level between '/' must not be empty"),
        (f"d: {{{D}, tags: {{a/set: word:1}}}}", "tag 'a/set': the level 'set' is reserved"),
        (f"d: {{{D}, tags: {{status: word:1}}}}", "tag 'status': the level 'status' is reserved"),
        (f"d: {{{D}, tags: {{{'x' * 65}: word:1}}}}", "65 characters are too many. A name has at most 64"),
        (f"d: {{{D}, tags: {{'': word:1}}}}", "tag '': a level between"),
        (f"d: {{{D}, tags: {{ä: word:1}}}}", "tag 'ä': a name has letters, digits and _ . - only"),
    ],
)
def test_a_mistake_names_place_thing_and_cure(load_devices, text, said):
    _, mistakes = load_devices(text)
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0]


def test_all_mistakes_are_told_at_once(load_devices):
    devices, mistakes = load_devices("""
        a:
          driver: fake
          url: udp://h
          unti: 1
          timeout: 5
          tags: {x: {address: word:1, scale: a, sclae: 2}, status: word:2, ok: word:3}
        b: {driver: nothing}
        c: {driver: fake, url: "tcp://h", tags: {y y: word:1}}
        """)
    assert [m.split(":")[1] for m in mistakes] == ["4", "5", "6", "7", "7", "7", "8", "9"]
    assert {device.name: [tag.name for tag in device.tags] for device in devices} == {"a": ["ok"], "c": []}


def test_a_wrong_url_is_told_beside_missing_tags(load_devices):
    _, mistakes = load_devices("d: {driver: fake, url: udp://h}")
    assert len(mistakes) == 2


def test_a_name_may_be_a_level_too(load_devices):
    (device,), mistakes = load_devices('d: {driver: fake, url: "tcp://h", tags: {a: word:1, a/b: word:2}}')
    assert not mistakes
    assert [tag.name for tag in device.tags] == ["a", "a/b"]


# --- mapping files --------------------------------------------------------------------------------------------------


def test_a_mapping_file_gives_tags_and_defaults_and_the_device_wins(load_devices, write):
    write(
        "maps/plc.yaml",
        """
        description: A small PLC
        driver: fake
        every: 5s
        timeout: 3s
        unit: 9
        on: change
        tags: {a: word:1, b: {address: word:2, every: 1m}}
        """,
    )
    devices, mistakes = load_devices("""
        one: {driver: fake, url: "tcp://h", mapping: maps/plc.yaml}
        two: {driver: fake, url: "tcp://h", mapping: maps/plc.yaml, every: 1s, unit: 2, tags: {c: word:3}}
        """)
    assert not mistakes
    one, two = devices
    assert (one.options.unit, one.options.timeout_s, two.options.unit, two.options.timeout_s) == (9, 3, 2, 3)
    assert [(t.name, t.every_s, t.on) for t in one.tags] == [("a", 5, "change"), ("b", 60, "change")]
    assert [(t.name, t.every_s) for t in two.tags] == [("a", 1), ("b", 60), ("c", 1)]
    assert one.tags[0].place.file.endswith("maps/plc.yaml")


def test_devices_that_share_a_mapping_share_its_tags(load_devices, write):
    write("plc.yaml", "tags: {a: word:1}")
    devices, _ = load_devices("\n".join(f'd{i}: {{driver: fake, url: "tcp://h", mapping: plc.yaml}}' for i in range(3)))
    assert devices[0].tags[0] is devices[1].tags[0] is devices[2].tags[0]


def test_mistakes_of_a_shared_mapping_are_told_once_in_its_own_words(load_devices, write):
    write("plc.yaml", "evry: 1s\ntimeout: soon\ntags:\n  a: {address: word:1, sclae: 1}\n")
    _, mistakes = load_devices(
        "\n".join(f'd{i}: {{driver: fake, url: "tcp://h", mapping: plc.yaml}}' for i in range(3))
    )
    assert [m for m in mistakes if "evry" in m] == ["plc.yaml:1:1: unknown key 'evry'. Did you mean 'every'?"]
    assert [m for m in mistakes if "sclae" in m] == [
        "plc.yaml:4:24: tag 'a': unknown key 'sclae'. Did you mean 'scale'?"
    ]
    assert [m[:47] for m in mistakes if "soon" in m] == ["plc.yaml:2:10: timeout: 'soon' is no duration. "]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("every: 1s\n", "plc.yaml:1:1: 'tags' is missing"),
        ("tags: {}\n", "gw.yaml:2:3: device 'd': there are no tags. plc.yaml has none for it"),
        ("url: tcp://h\ntags: {a: word:1}\n", "plc.yaml:1:1: unknown key 'url'"),
        ("driver: other\ntags: {a: word:1}\n", "plc.yaml is a mapping for driver other, the device has driver fake"),
        ("", "plc.yaml:1:1: the file is empty"),
        ("tags: [\n", "plc.yaml:2:1: "),
    ],
)
def test_a_wrong_mapping_file_is_told(load_devices, write, text, said):
    write("plc.yaml", text.encode())
    _, mistakes = load_devices('d: {driver: fake, url: "tcp://h", mapping: plc.yaml}')
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0]


def test_a_tag_that_stands_in_the_mapping_too_is_told(load_devices, write):
    write("plc.yaml", "tags:\n  a: word:1\n")
    _, mistakes = load_devices('d: {driver: fake, url: "tcp://h", mapping: plc.yaml, tags: {a: word:2}}')
    assert len(mistakes) == 1
    assert mistakes[0].startswith("gw.yaml:2:63: device 'd': tag 'a' is there already, at ")
    assert mistakes[0].endswith("plc.yaml:2:3. Rename one")


def test_a_list_gives_each_device_its_tags(load_devices, write):
    write("tags.csv", "device;tag;address\n;all;word:1\none;own;word:2\n")
    devices, mistakes = load_devices("""
        one: {driver: fake, url: "tcp://h", mapping: tags.csv}
        two: {driver: fake, url: "tcp://h", mapping: tags.csv}
        """)
    assert not mistakes
    assert [[tag.name for tag in device.tags] for device in devices] == [["all", "own"], ["all"]]


def test_a_row_for_a_device_that_is_not_there_is_told(load_devices, write):
    write("tags.csv", "device,tag,address\none,a,word:1\nonne,b,word:2\n")
    _, mistakes = load_devices('one: {driver: fake, url: "tcp://h", mapping: tags.csv}')
    assert mistakes == ["tags.csv:3:1: there is no device 'onne'. Did you mean 'one'?"]


def test_a_tag_for_all_and_for_one_device_is_told(load_devices, write):
    write("tags.csv", "device,tag,address\n,a,word:1\none,a,word:2\n")
    _, mistakes = load_devices('one: {driver: fake, url: "tcp://h", mapping: tags.csv}')
    assert len(mistakes) == 1
    assert "tags.csv:3:1: device 'one': tag 'a' is there already" in mistakes[0]


def test_a_profile_comes_from_the_library(load_devices, reading, write, tmp_path):
    write("library/acme/m1.yaml", "driver: fake\nunit: 5\ntags: {a: word:1}\n")
    reading.library = tmp_path / "library"
    (device,), mistakes = load_devices('d: {driver: fake, url: "tcp://h", profile: acme/m1}')
    assert not mistakes
    assert (device.options.unit, device.tags[0].name) == (5, "a")


def test_an_unknown_profile_is_told_with_the_nearest(load_devices, reading, write, tmp_path):
    write("library/acme/m1.yaml", "tags: {a: word:1}\n")
    reading.library = tmp_path / "library"
    _, mistakes = load_devices('d: {driver: fake, url: "tcp://h", profile: acme/m2}')
    assert mistakes == ["gw.yaml:2:46: device 'd': there is no profile 'acme/m2'. Did you mean 'acme/m1'?"]


def test_secrets_of_a_driver_are_resolved_beside_the_file_and_warned_of(load_devices, reading, write):
    write("pin", "4711\n").chmod(0o644)
    (device,), mistakes = load_devices('d: {driver: fake, url: "tcp://h", pin: "${file:pin}", tags: {a: word:1}}')
    assert not mistakes
    assert device.options.pin.reveal() == "4711"
    assert MASK in f"{device.options.pin}"
    (warning,) = reading.mistakes.warnings
    assert "device 'd': " in warning.text
    assert "can be read by everybody" in warning.text
    assert (warning.place.line, warning.place.column) == (2, 42)
