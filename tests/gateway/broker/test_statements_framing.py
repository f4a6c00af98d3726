"""Statements 1 to 8: strings, lengths, flags, packet ids, properties, and what becomes of a packet that is wrong."""

import pytest

ILL_FORMED = {
    "no such byte": "0001 ff",
    "a continuation alone": "0001 80",
    "cut short": "0002 e282",
    "overlong": "0002 c080",
    "a surrogate": "0003 eda080",
    "a pair of surrogates": "0006 eda080 edb080",
    "above U+10FFFF": "0004 f4908080",
    "U+0000": "0003 61 00 62",
}

PLACES = {  # LL is the level, STR the string
    "client id": "10 .. 'MQTT' LL 02 0000 () STR",
    "user name": "10 .. 'MQTT' LL 82 0000 () 'c' STR",
    "will topic": "10 .. 'MQTT' LL 06 0000 () 'c' () STR 'p'",
    "topic": "30 .. STR ()",
    "filter": "82 .. 0001 () STR 00",
    "second filter": "82 .. 0001 () 'a' 00 STR 00",
    "unsubscribed filter": "a2 .. 0001 () STR",
}

PLACES_5 = {
    "connect's user property, name": "10 .. 'MQTT' 05 02 0000 (26 STR 'v') 'c'",
    "connect's user property, value": "10 .. 'MQTT' 05 02 0000 (26 'n' STR) 'c'",
    "authentication method": "10 .. 'MQTT' 05 02 0000 (15 STR) 'c'",
    "will's content type": "10 .. 'MQTT' 05 06 0000 () 'c' (03 STR) 't' 'p'",
    "will's user property": "10 .. 'MQTT' 05 06 0000 () 'c' (26 'n' STR) 't' 'p'",
    "content type": "30 .. 't' (03 STR)",
    "response topic": "30 .. 't' (08 STR)",
    "publish's user property": "30 .. 't' (26 'n' STR)",
    "subscribe's user property": "82 .. 0001 (26 STR 'v') 'a' 00",
    "puback's reason string": "40 .. 0001 00 (1f STR)",
    "disconnect's reason string": "e0 .. 00 (1f STR)",
}


def speaker(world, text, level):
    """A peer that may say this packet: connected unless it is a CONNECT."""
    return world.link(level) if text.startswith("10") else world.peer("speaker", level=level)


@pytest.mark.parametrize("string", ILL_FORMED.values(), ids=ILL_FORMED)
@pytest.mark.parametrize(
    ("level", "place"),
    [(level, place) for level in (4, 5) for place in PLACES.values()] + [(5, place) for place in PLACES_5.values()],
    ids=[f"{level} {name}" for level in (4, 5) for name in PLACES] + list(PLACES_5),
)
def test_s01_an_ill_formed_string_anywhere_ends_the_connection(world, level, place, string):
    other = world.peer("other")
    other.subscribe("#")
    peer = speaker(world, place, level)
    peer.send(place.replace("LL", f"{level:02x}").replace("STR", string))
    peer.ended(0x81)
    other.send("c0 00")
    other.expect("d0 00")


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("code", ["01", "1f", "7f", "c285", "efbfbe", "efbfbf", "efb790", "f48fbfbf"])
def test_s01_control_characters_and_non_characters_are_data_everywhere_alike(world, level, code):
    text = f"{len(code) // 2 + 1:04x} 61 {code}"
    watcher = world.peer("watcher", level=level)
    watcher.send(f"82 .. 0001 () {text} 00")
    watcher.expect("90 .. 0001 () 00")
    peer = world.link(level)
    peer.send(f"10 .. 'MQTT' {level:02x} 86 0000 () {text} () {text} 'w' {text}")
    assert peer.take("CONNACK").reason == 0
    properties = f"(03 {text} 08 {text} 26 {text} {text})"
    peer.send(f'30 .. {text} {properties} "x"')
    watcher.expect(f'30 .. {text} {properties} "x"')


def test_s02_a_bom_is_data_and_is_never_stripped(world):
    plain, marked = world.peer("c"), world.peer("d")
    plain.send("82 .. 0001 () 'a' 00")
    marked.send("82 .. 0001 () 0004 efbbbf61 00")
    plain.expect("90 .. 0001 () 00")
    marked.expect("90 .. 0001 () 00")
    publisher = world.peer("p")
    properties = "(03 0003 efbbbf 26 0004 efbbbf6e 0004 61efbbbf)"
    publisher.send(f'30 .. 0004 efbbbf61 {properties} efbbbf "x"')
    marked.expect(f'30 .. 0004 efbbbf61 {properties} efbbbf "x"')
    assert plain.silent()
    publisher.send("30 .. 'a' ()")
    plain.expect("30 .. 'a' ()")
    assert marked.silent()
    publisher.send("30 .. 0004 61efbbbf ()")
    assert plain.silent()
    assert marked.silent()


def test_s02_a_client_id_with_a_bom_is_another_client(world):
    world.peer("c", expiry=100).cut()
    other = world.link()
    other.send("10 .. 'MQTT' 05 00 0000 (11 00000064) 0004 efbbbf63")
    assert not other.take("CONNACK").session_present
    assert world.peer("c", clean=False, expiry=100).session_present


@pytest.mark.parametrize(
    "data",
    ["c0 8000", "c0 808000", "c0 80808000", "30 8500 0001 61 00 78", "e0 8000", "82 8700 0001 00 0001 61 00"],
)
def test_s03_a_remaining_length_with_more_bytes_than_needed_is_malformed(world, data):
    peer = world.peer()
    peer.send(data)
    peer.ended(0x81)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("data", ["c0 8080808001", "30 ffffffff7f", "30 ffffffff", "c0 80808080"])
def test_s03_a_remaining_length_of_five_bytes_is_malformed_as_soon_as_the_fourth_says_so(world, level, data):
    peer = world.peer(level=level)
    peer.drip(data)
    peer.ended(0x81)


@pytest.mark.parametrize("data", ["10 8080808001", "10 ffffffff"])
def test_s03_a_remaining_length_of_five_bytes_before_connect_is_malformed(world, data):
    peer = world.link()
    peer.send(data)
    peer.ended(0x81)


@pytest.mark.parametrize(
    "data",
    [
        "82 .. 0001 8000 'a' 00",  # the length of the properties
        "82 .. 0001 838000 0b8100 'a' 00",
        "82 .. 0001 (0b 8100) 'a' 00",  # a subscription identifier of 1 in two bytes
        "82 .. 0001 (0b 81808000) 'a' 00",
        "82 .. 0001 (0b ffffffff7f) 'a' 00",  # five bytes
        "82 .. 0001 (8b00 01) 'a' 00",  # the identifier of the property itself (2.2.2.2)
        "30 .. 't' 8000",
        "e0 .. 00 8000",
    ],
)
def test_s03_a_variable_byte_integer_inside_a_packet_obeys_as_well(world, data):
    peer = world.peer()
    peer.send(data)
    peer.ended(0x81)


def test_s03_the_longest_and_the_shortest_lengths_are_read(world):
    peer, watcher = world.peer(), world.peer("w")
    watcher.subscribe("t")
    for size in (0, 123, 124, 16_379, 16_380, 300_000):
        peer.send(world.notation.packet(0x30, world.notation.raw("'t' ()"), b"x" * size))
        watcher.expect(world.notation.packet(0x30, world.notation.raw("'t' ()"), b"x" * size))
    peer.send("82 .. 0001 (0b ffffff7f) 't' 00")
    peer.expect("90 .. 0001 () 00")


WRONG_FLAGS = [
    *("80 .. 0001 () 'a' 00", "81 .. 0001 () 'a' 00", "83 .. 0001 () 'a' 00", "8a .. 0001 () 'a' 00"),
    *("a0 .. 0001 () 'a'", "a3 .. 0001 () 'a'", "a6 .. 0001 () 'a'"),
    *("60 02 0001", "61 02 0001", "63 02 0001", "6a 02 0001"),
    *("41 02 0001", "42 02 0001", "48 02 0001", "51 02 0001", "52 02 0001", "71 02 0001", "72 02 0001"),
    *("c1 00", "c2 00", "c8 00", "e1 00", "e2 00", "e8 00"),
]


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("data", WRONG_FLAGS)
def test_s04_reserved_flag_bits_that_are_wrong_end_the_connection(world, level, data):
    peer = world.peer(level=level, will=("will",))
    watcher = world.peer("w")
    watcher.subscribe("will")
    peer.send(data)
    peer.ended(0x81)
    watcher.expect("30 .. 'will' ()")


@pytest.mark.parametrize("data", ["f1 .. 18 (15 'x')", "f2 .. 18 (15 'x')"])
def test_s04_reserved_flag_bits_of_auth_obey_as_well(world, data):
    peer = world.peer()
    peer.send(data)
    peer.ended(0x81, 0x82)  # AUTH is a protocol error here anyhow


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("first", ["11", "12", "18"])
def test_s04_a_connect_with_flag_bits_is_no_connect(world, level, first):
    peer = world.link(level)
    peer.send(f"{first} .. 'MQTT' {level:02x} 02 0000 () 'c'")
    peer.ended(0x81)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "data", ["00 00", "00 .. 'a'", "20 02 0000", "20 .. 00 00 ()", "90 .. 0001 () 00", "b0 .. 0001 () 00", "d0 00"]
)
def test_s04_a_packet_that_no_client_may_send_ends_the_connection(world, level, data):
    peer = world.peer(level=level)
    peer.send(data)
    peer.ended(0x81, 0x82)


def test_s04_there_is_no_type_15_in_311(world):
    peer = world.peer(level=4)
    peer.send("f0 00")
    peer.ended()


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "data",
    [
        *("32 .. 't' 0000 ()", "34 .. 't' 0000 ()", "82 .. 0000 () 'a' 00", "a2 .. 0000 () 'a'"),
        *("40 02 0000", "50 02 0000", "62 02 0000", "70 02 0000"),
    ],
)
def test_s05_a_packet_id_of_0_ends_the_connection(world, level, data):
    peer = world.peer(level=level)
    peer.send(data)
    peer.ended(0x81, 0x82)


@pytest.mark.parametrize("level", [4, 5])
def test_s06_the_broker_skips_ids_in_flight_when_its_numbers_wrap_round(make_world, level):
    world = make_world(max_in_flight=1000)
    subscriber = world.peer("s", level=level)
    subscriber.subscribe("t", qos=2)
    gateway = world.broker.door()
    gateway.publish("t", b"first", qos=1)
    gateway.publish("t", b"second", qos=2)
    world.turn()
    first, second = subscriber.packets()
    assert first.packet_id != second.packet_id
    subscriber.send(f"50 02 {second.packet_id:04x}")
    assert subscriber.take("PUBREL").packet_id == second.packet_id
    used = set()
    for _ in range(66):  # 66,000 more: every id but the two comes round
        for _ in range(998):
            gateway.publish("t", b"", qos=1)
        world.turn()
        came = subscriber.packets()  # the strict client refuses ids in flight
        assert len(came) == 998
        used.update(seen.packet_id for seen in came)
        subscriber.send(*(b"\x40\x02" + seen.packet_id.to_bytes(2, "big") for seen in came))
    assert len(used) > 998
    assert not used & {first.packet_id, second.packet_id}
    subscriber.send(f"40 02 {first.packet_id:04x}", f"70 02 {second.packet_id:04x}")
    assert subscriber.silent()


@pytest.mark.parametrize("level", [4, 5])
def test_s06_ids_of_both_directions_are_independent(world, level):
    peer = world.peer(level=level)
    peer.send("82 .. 0001 () 't' 02")
    peer.expect("90 .. 0001 () 02")
    peer.send("""34 .. 't' 0001 () "x" """, "62 02 0001")
    rec, *rest = peer.packets()
    assert rec.raw == bytes.fromhex("50020001")
    publish = next(seen for seen in rest if seen.kind == "PUBLISH")
    assert publish.raw == peer.bytes(f"34 .. 't' {publish.packet_id:04x} () \"x\"")
    assert next(seen for seen in rest if seen.kind == "PUBCOMP").raw == bytes.fromhex("70020001")
    peer.send("34 .. 'u' 0001 ()", f"50 02 {publish.packet_id:04x}", "62 02 0001", f"70 02 {publish.packet_id:04x}")
    kinds = sorted((seen.kind, seen.packet_id) for seen in peer.packets())
    assert kinds == sorted([("PUBREC", 1), ("PUBREL", publish.packet_id), ("PUBCOMP", 1)])


PROPERTIES = {  # one good value each
    0x01: "01 00",
    0x02: "02 00000064",
    0x03: "03 'x'",
    0x08: "08 'x'",
    0x09: "09 'x'",
    0x0B: "0b 01",
    0x11: "11 00000000",
    0x12: "12 'x'",
    0x13: "13 0001",
    0x15: "15 'x'",
    0x16: "16 'x'",
    0x17: "17 01",
    0x18: "18 00000001",
    0x19: "19 01",
    0x1A: "1a 'x'",
    0x1C: "1c 'x'",
    0x1F: "1f 'x'",
    0x21: "21 0001",
    0x22: "22 0001",
    0x23: "23 0001",
    0x24: "24 01",
    0x25: "25 01",
    0x26: "26 'n' 'v'",
    0x27: "27 00001000",
    0x28: "28 01",
    0x29: "29 01",
    0x2A: "2a 01",
}

CARRIERS = {  # packets of a client: where P stands, and which properties may stand there (2.2.2.2)
    "CONNECT": ("10 .. 'MQTT' 05 02 0000 (P) 'c'", {0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27}),
    "will": ("10 .. 'MQTT' 05 06 0000 () 'c' (P) 't' 'p'", {0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26}),
    "PUBLISH": ("30 .. 't' (P)", {0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26}),
    "PUBACK": ("40 .. 0001 00 (P)", {0x1F, 0x26}),
    "PUBREC": ("50 .. 0001 00 (P)", {0x1F, 0x26}),
    "PUBREL": ("62 .. 0001 00 (P)", {0x1F, 0x26}),
    "PUBCOMP": ("70 .. 0001 00 (P)", {0x1F, 0x26}),
    "SUBSCRIBE": ("82 .. 0001 (P) 'a' 00", {0x0B, 0x26}),
    "UNSUBSCRIBE": ("a2 .. 0001 (P) 'a'", {0x26}),
    "DISCONNECT": ("e0 .. 00 (P)", {0x11, 0x1C, 0x1F, 0x26}),
    "AUTH": ("f0 .. 18 (P)", {0x15, 0x16, 0x1F, 0x26}),
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_s07_a_property_of_another_packet_is_an_error(make_world, carrier):
    template, allowed = CARRIERS[carrier]
    for identifier in set(PROPERTIES) - allowed:
        world = make_world()
        peer = speaker(world, template, 5)
        peer.send(template.replace("P)", PROPERTIES[identifier] + ")"))
        peer.ended(0x81, 0x82)


@pytest.mark.parametrize("carrier", sorted(set(CARRIERS) - {"AUTH"}))
def test_s07_a_property_of_this_packet_is_none_but_twice_it_is(make_world, carrier):
    template, allowed = CARRIERS[carrier]
    for identifier in allowed - {0x15, 0x16, 0x1C}:  # no method is configured; servers alone refer to servers
        world = make_world()
        peer = speaker(world, template, 5)
        peer.send(template.replace("P)", PROPERTIES[identifier] + ")"))
        if carrier == "DISCONNECT":
            assert peer.is_closed
            assert not peer.packets()
        else:
            assert not peer.is_closed, PROPERTIES[identifier]
        world = make_world()
        peer = speaker(world, template, 5)
        peer.send(template.replace("P)", 2 * PROPERTIES[identifier] + ")"))
        if identifier != 0x26:
            peer.ended(0x81, 0x82)
        elif carrier != "DISCONNECT":
            assert not peer.is_closed, "a user property may stand twice"


@pytest.mark.parametrize("identifier", ["00", "04", "14", "2b", "7f", "ff7f"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_s07_an_unknown_property_is_an_error(world, carrier, identifier):
    template, _ = CARRIERS[carrier]
    peer = speaker(world, template, 5)
    peer.send(template.replace("P)", identifier + "00)"))
    peer.ended(0x81, 0x82)


@pytest.mark.parametrize(
    "data",
    [
        "10 .. 'MQTT' 05 02 0000",  # no property length
        "10 .. 'MQTT' 05 02 0000 'c'",  # where it should stand is a client id: 00 is the length, 01 63 no packet
        "10 .. 'MQTT' 05 02 0000 05 11 00000000",  # all of it is properties: no client id
        "10 .. 'MQTT' 05 02 0000 7f 'c'",  # overruns the packet
        "10 .. 'MQTT' 05 02 0000 03 11 0000 'c'",  # cuts the property short
        "10 .. 'MQTT' 05 06 0000 () 'c' 7f 't' 'p'",
    ],
)
def test_s07_a_property_length_that_is_missing_or_overruns_connect_is_malformed(world, data):
    peer = world.link()
    peer.send(data)
    peer.ended(0x81, 0x82)


@pytest.mark.parametrize(
    "data",
    [
        "30 .. 't'",  # no property length
        "32 .. 't' 0001",
        "30 .. 't' 05 01 00",  # overruns the packet
        "30 .. 't' 01 01 00",  # ends inside a property
        "30 .. 't' 04 02 0000 0064",
        "30 .. 't' (03 0005 61)",  # a string that overruns the properties
        "30 .. 't' (26 'n')",  # half a pair
        "30 .. 't' (01)",
        "82 02 0001",
        "82 .. 0001 7f 'a' 00",
        "a2 02 0001",
        "a2 .. 0001 05 'a'",
        "40 .. 0001 00 05 1f",
        "e0 .. 00 05 11 0000",
        "e0 .. 00 ff",
    ],
)
def test_s07_a_property_length_that_is_missing_or_overruns_the_packet_is_malformed(world, data):
    peer = world.peer()
    peer.send(data)
    peer.ended(0x81)


@pytest.mark.parametrize(
    "data",
    [
        "10 .. 'MQTT' 05 02 0000 (21 0000) 'c'",  # a receive maximum of 0 (3.1.2.11.3)
        "10 .. 'MQTT' 05 02 0000 (27 00000000) 'c'",  # a maximum packet size of 0 (3.1.2.11.4)
        "10 .. 'MQTT' 05 02 0000 (17 02) 'c'",
        "10 .. 'MQTT' 05 02 0000 (19 02) 'c'",
        "10 .. 'MQTT' 05 02 0000 (16 'data') 'c'",  # authentication data without a method (3.1.2.11.10)
        "10 .. 'MQTT' 05 06 0000 () 'c' (01 02) 't' 'p'",
        "30 .. 't' (01 02)",
        "82 .. 0001 (0b 00) 'a' 00",
        "82 .. 0001 (0b 01 0b 02) 'a' 00",
    ],
)
def test_s07_a_property_with_a_value_that_cannot_be_is_a_protocol_error(world, data):
    peer = speaker(world, data, 5)
    peer.send(data)
    peer.ended(0x81, 0x82)


WRONG = ["82 .. 0001 () 'a' 03", "36 .. 't' 0009 ()", "c0 01 00", "a2 .. 0001 () 'a' ff"]


@pytest.mark.parametrize(
    ("level", "data"), [*((level, data) for level in (4, 5) for data in WRONG), (5, "30 .. 't' (0b 01)")]
)
@pytest.mark.parametrize("way", ["send", "drip"])
def test_s08_nothing_behind_a_malformed_packet_is_acted_on(world, level, data, way):
    peer, watcher = world.peer(level=level), world.peer("w")
    watcher.subscribe("#")
    getattr(peer, way)(
        """30 .. 'before' () "x" """, data, """30 .. 'behind' () "x" """, "82 .. 0002 () 'b' 00", "c0 00"
    )
    watcher.expect("""30 .. 'before' () "x" """)
    peer.ended(0x81, 0x82)
    peer.send("""30 .. 'late' () "x" """)
    assert watcher.silent()
    assert not peer.received()


@pytest.mark.parametrize("level", [4, 5])
def test_s08_the_answers_to_what_came_before_still_go_out_ahead_of_the_code(world, level):
    peer = world.peer(level=level)
    peer.send("32 .. 't' 0001 ()", "c1 00")
    assert peer.is_closed
    answers = peer.packets()
    assert answers[0].raw[:4] == bytes.fromhex("40 02 0001" if level == 4 or len(answers[0].raw) == 4 else "40 03 0001")
    if level == 5:
        assert (answers[1].kind, answers[1].reason) == ("DISCONNECT", 0x81)
    assert len(answers) == (2 if level == 5 else 1)


def test_s08_a_malformed_packet_behind_connect_in_the_same_segment_gets_its_code_after_connack(world):
    peer = world.link()
    peer.send("10 .. 'MQTT' 05 02 0000 () 'c'", "c1 00", "c0 00")
    connack, disconnect = peer.packets()
    assert (connack.kind, connack.reason) == ("CONNACK", 0)
    assert disconnect.raw[0] == 0xE0
    assert disconnect.reason == 0x81
    assert peer.is_closed
