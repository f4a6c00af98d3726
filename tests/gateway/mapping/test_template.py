"""Templates and fleets. In gw.yaml the devices come first, then the templates."""

from __future__ import annotations

import pytest

METER = """
    meter:
      parameters:
        host: {description: Where it is}
        unit: {default: 1}
        first: {default: 10}
      device:
        driver: fake
        url: tcp://${host}:502
        unit: ${unit}
        every: 5s
        fields: {where: "${host}/${unit}"}
        tags:
          power: word:1
          energy: {address: "word:${first}", type: int16}
    """


def test_one_device_is_made_from_a_template(load_devices):
    (spare,), mistakes = load_devices("spare: {template: meter, with: {host: 10.0.0.9, unit: 3}}", METER)
    assert not mistakes
    assert (spare.name, spare.url, spare.options.unit) == ("spare", "tcp://10.0.0.9:502", 3)
    assert spare.fields == {"where": "10.0.0.9/3"}
    assert [(t.name, t.address, t.every_s) for t in spare.tags] == [("power", "word:1", 5), ("energy", "word:10", 5)]


def test_a_parameter_without_a_value_takes_its_default(load_devices):
    (spare,), mistakes = load_devices("spare: {template: meter, with: {host: h, unit: }}", METER)
    assert not mistakes
    assert spare.options.unit == 1


def test_keys_beside_the_template_win(load_devices):
    text = "spare: {template: meter, with: {host: h}, every: 1m, timeout: 2s}"
    (spare,), mistakes = load_devices(text, METER)
    assert not mistakes
    assert spare.options.timeout_s == 2
    assert {tag.every_s for tag in spare.tags} == {60}


def test_a_fleet_is_made_from_a_list(load_devices, write):
    write("meters.csv", "name;host;unit;first\nm1;10.0.0.1;;\nm2;10.0.0.2;7;20\n")
    (one, two), mistakes = load_devices("meters: {template: meter, instances: meters.csv, every: 2s}", METER)
    assert not mistakes
    assert (one.name, one.url, one.options.unit) == ("m1", "tcp://10.0.0.1:502", 1)
    assert (two.name, two.url, two.options.unit) == ("m2", "tcp://10.0.0.2:502", 7)
    assert [tag.address for tag in one.tags] == ["word:1", "word:10"]
    assert [tag.address for tag in two.tags] == ["word:1", "word:20"]
    assert {tag.every_s for tag in two.tags} == {2}
    assert (one.place.file.rpartition("/")[2], one.place.line) == ("meters.csv", 2)


def test_a_tag_that_a_list_filled_stands_in_the_list(load_devices, write):
    write("meters.csv", "name,host,first\nm1,h1,5\n")
    (one,), _ = load_devices("meters: {template: meter, instances: meters.csv}", METER)
    power, energy = one.tags
    assert power.place.file.endswith("gw.yaml")
    assert (energy.place.file.rpartition("/")[2], energy.place.line, energy.place.column) == ("meters.csv", 2, 3)


def test_equal_devices_share_their_tags(load_devices, write):
    template = (
        'meter: {parameters: {host: }, device: {driver: fake, url: "tcp://${host}", tags: {a: word:1, b: word:2}}}'
    )
    write("meters.csv", "name,host\n" + "".join(f"m{i},h{i}\n" for i in range(50)))
    devices, mistakes = load_devices("meters: {template: meter, instances: meters.csv}", template)
    assert not mistakes
    assert len(devices) == 50
    assert len({id(tag) for device in devices for tag in device.tags}) == 2


def test_text_stays_text_and_secrets_are_no_holes(load_devices, write):
    write("pin", "1\n")
    template = (
        't: {parameters: {at: , host: {default: h}}, device: {driver: fake, url: "tcp://${host}", pin: "${file:pin}", '
        'tags: {a: {address: "${at}", unit: "${at}"}}}}'
    )
    write("list.csv", "name,at\nd,00007\n")
    (device,), mistakes = load_devices("f: {template: t, instances: list.csv}", template)
    assert not mistakes
    assert (device.tags[0].address, device.tags[0].unit) == ("00007", "7")
    assert device.options.pin.reveal() == "1"


def test_a_template_may_use_a_mapping(load_devices, write):
    write("plc.yaml", "tags: {a: word:1}")
    template = 't: {parameters: {host: }, device: {driver: fake, url: "tcp://${host}", mapping: plc.yaml}}'
    (device,), mistakes = load_devices("d: {template: t, with: {host: h}}", template)
    assert not mistakes
    assert device.tags[0].name == "a"


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ("d: {template: metre}", "gw.yaml:2:17: device 'd': there is no template 'metre'. Did you mean 'meter'?"),
        (
            "d: {template: meter}",
            "gw.yaml:2:3: device 'd' (template 'meter'): parameter 'host' has no value. Write it below with:",
        ),
        (
            "d: {template: meter, with: {unit: 1}}",
            "gw.yaml:2:24: device 'd' (template 'meter'): parameter 'host' has no value",
        ),
        (
            "d: {template: meter, with: {host: h, unti: 1}}",
            "gw.yaml:2:40: device 'd' (template 'meter'): template 'meter' has no parameter 'unti'. Did you",
        ),
        ("d: {template: meter, with: {host: h, unit: x}}", "gw.yaml:2:46: device 'd' (template 'meter'): unit: "),
        (
            "d: {template: meter, with: {host: h}, evry: 1s}",
            "gw.yaml:2:41: device 'd' (template 'meter'): unknown key 'evry'. Did you mean 'every'?",
        ),
        ("d: {template: meter, with: [h]}", "with: expected keys and values, got a list"),
        ("d: {template: meter, with: {host: h}, instances: x.csv}", "'with' is for one device, 'instances' for many"),
        ("d: {template: 5}", "gw.yaml:2:17: device 'd': template: expected text, got 5. Put it in quotes"),
        ("d: {template: meter, instances: no.csv}", "gw.yaml:2:35: no.csv: no such file"),
        ("status: {template: meter, with: {host: h}}", "device 'status': this name is reserved"),
    ],
)
def test_a_mistake_in_the_use_of_a_template_is_told(load_devices, devices, said):
    _, mistakes = load_devices(devices, METER)
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "gw.yaml:2:40: meters.csv has no device. Write a line for each below the first"),
        ("m1,,1\n", "meters.csv:2:1: device 'm1': the cell of column 'host' is empty. Fill it"),
        (",h,1\n", "meters.csv:2:1: device '': the cell of column 'name' is empty. Fill it"),
        ("m1,h,1\nm1,g,1\n", "meters.csv:3:1: device 'm1' is there already, at meters.csv:2:1. Rename one"),
        ("m 1,h,1\n", "meters.csv:2:1: device 'm 1': a name has letters"),
        ("log,h,1\n", "meters.csv:2:1: device 'log': this name is reserved"),
        ("m1,h,x\n", "meters.csv:2:3: device 'm1' (template 'meter'): unit: "),
        ("m1,h,300\n", "meters.csv:2:3: device 'm1' (template 'meter'): unit: 300 is too large"),
        (
            "m1,a+b,3\n",
            "meters.csv:2:2: device 'm1' (template 'meter'): field 'where': 'a+b/3' cannot stand in a topic",
        ),
    ],
)
def test_a_mistake_in_a_list_names_line_and_cell(load_devices, write, tmp_path, rows, said):
    write("meters.csv", "name,host,unit\n" + rows)
    _, mistakes = load_devices("meters: {template: meter, instances: meters.csv}", METER)
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0].replace(f"{tmp_path}/", "")


def test_columns_of_a_list_are_name_and_the_parameters(load_devices, write):
    write("meters.csv", "name,hst,unit\nm1,h,1\n")
    _, mistakes = load_devices("meters: {template: meter, instances: meters.csv}", METER)
    assert mistakes == ["meters.csv:1:2: unknown column 'hst'. Did you mean 'host'?"]
    write("meters.csv", "name,unit\nm1,1\n")
    _, mistakes = load_devices("meters: {template: meter, instances: meters.csv}", METER)
    assert "meters.csv:1:1: column 'host' is missing from the first line" in mistakes


def test_a_mistake_in_the_template_is_told_once_for_the_whole_fleet(load_devices, write):
    write("meters.csv", "name,host\n" + "".join(f"m{i},h{i}\n" for i in range(20)))
    template = METER.replace("every: 5s", "evry: 5s").replace("type: int16", "typ: int16")
    _, mistakes = load_devices("meters: {template: meter, instances: meters.csv}", template)
    assert mistakes == [
        "gw.yaml:13:7: template 'meter': unknown key 'evry'. Did you mean 'every'?",
        "gw.yaml:17:44: tag 'energy': unknown key 'typ'. Did you mean 'type'?",
    ]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("t: 5", "gw.yaml:4:3: template 't': expected keys and values, got 5"),
        ("t: {device: {}, params: {}}", "gw.yaml:4:19: template 't': unknown key 'params'. Did you mean 'parameters'?"),
        ("t: {parameters: {}}", "gw.yaml:4:3: template 't': 'device' is missing. A device as it stands below devices"),
        (
            't: {parameters: {host: }, device: {url: "${hots}${host}"}}',
            "gw.yaml:4:43: template 't': there is no parameter 'hots'. Did you mean 'host'?",
        ),
        (
            "t: {parameters: {a-b: }, device: {}}",
            "gw.yaml:4:20: template 't': parameter 'a-b': a parameter has letters, digits and _",
        ),
        ("t: {parameters: {name: }, device: {}}", "and is not 'name'"),
        (
            "t: {parameters: {a: {defualt: 1}}, device: {x: '${a}'}}",
            "template 't': unknown key 'defualt'. Did you mean 'default'?",
        ),
        (
            "t: {parameters: {a: {default: [1]}}, device: {x: '${a}'}}",
            "default: expected text, a number, true or false",
        ),
        ("t/u: {device: {}}", "gw.yaml:4:3: template 't/u': a name has letters"),
    ],
)
def test_a_wrong_template_is_told_even_when_nobody_uses_it(load_devices, template, said):
    _, mistakes = load_devices('d: {driver: fake, url: "tcp://h", tags: {a: word:1}}', template)
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0]


def test_a_wrong_template_is_told_once_and_not_again_where_it_is_used(load_devices):
    _, mistakes = load_devices("d: {template: t}", "t: {parameters: {}}")
    assert len(mistakes) == 1


def test_a_parameter_that_goes_nowhere_is_warned_of(load_devices, reading):
    _, mistakes = load_devices(
        "d: {template: t, with: {a: 1}}",
        't: {parameters: {a: }, device: {driver: fake, url: "tcp://h", tags: {x: word:1}}}',
    )
    assert not mistakes
    (warning,) = reading.mistakes.warnings
    assert warning.text == "template 't': parameter 'a' is never used. Write ${a} where it goes"
