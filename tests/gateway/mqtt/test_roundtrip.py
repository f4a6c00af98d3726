"""decode(encode(p)) == p, for whatever a packet can say on a level."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mqtt import reasons, wire
from gateway.mqtt.decode import decode
from gateway.mqtt.encode import encode, publish_parts
from gateway.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from gateway.mqtt.properties import NONE, Place, Properties

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=40)
blobs = st.binary(max_size=200)
ids = st.integers(1, 65535)
bits, u16, u32 = st.integers(0, 1), st.integers(0, 65535), st.integers(0, 0xFFFFFFFF)
identifiers = st.integers(1, wire.LARGEST_VARINT)
pairs = st.lists(st.tuples(texts, texts), max_size=4).map(tuple)
message = {
    "payload_format": bits,
    "message_expiry": u32,
    "content_type": texts,
    "response_topic": topics,
    "correlation_data": blobs,
}
answer = {"reason_string": texts}
VALUES = {
    Place.WILL: {**message, "will_delay": u32},
    Place.CONNECT: {
        "session_expiry": u32,
        "receive_maximum": ids,
        "maximum_packet_size": st.integers(1, 0xFFFFFFFF),
        "topic_alias_maximum": u16,
        "request_response_information": bits,
        "request_problem_information": bits,
    },
    Place.CONNACK: {
        **answer,
        "session_expiry": u32,
        "receive_maximum": ids,
        "maximum_qos": bits,
        "retain_available": bits,
        "maximum_packet_size": st.integers(1, 0xFFFFFFFF),
        "assigned_client_id": texts,
        "topic_alias_maximum": u16,
        "wildcard_available": bits,
        "subscription_identifiers_available": bits,
        "shared_available": bits,
        "server_keep_alive": u16,
        "response_information": texts,
        "server_reference": texts,
    },
    Place.PUBLISH: {
        **message,
        "topic_alias": ids,
        "subscription_identifiers": st.lists(identifiers, max_size=4).map(tuple),
    },
    Place.PUBACK: answer,
    Place.PUBREC: answer,
    Place.PUBREL: answer,
    Place.PUBCOMP: answer,
    Place.SUBSCRIBE: {"subscription_identifiers": st.lists(identifiers, max_size=1).map(tuple)},
    Place.SUBACK: answer,
    Place.UNSUBSCRIBE: {},
    Place.UNSUBACK: answer,
    Place.DISCONNECT: {**answer, "session_expiry": u32, "server_reference": texts},
    Place.AUTH: answer,
}


@st.composite
def properties(draw, place):
    values = draw(st.fixed_dictionaries({}, optional={**VALUES[place], "user": pairs}))
    if place in (Place.CONNECT, Place.CONNACK, Place.AUTH) and (draw(st.booleans()) or place is Place.AUTH):
        values["authentication_method"] = draw(texts)
        values["authentication_data"] = draw(st.none() | blobs)
    return Properties(**values)


def on(level, place):
    return properties(place) if level == V5 else st.just(NONE)


def codes(table):
    return st.sampled_from(sorted(table.values()))


@st.composite
def connects(draw, level):
    username = draw(st.none() | texts)
    return Connect(
        level=level,
        client_id=draw(texts),
        clean_start=draw(st.booleans()),
        keep_alive=draw(u16),
        username=username,
        password=draw(st.none() | blobs) if level == V5 or username is not None else None,
        will=draw(
            st.none()
            | st.builds(
                Will,
                topic=topics,
                payload=blobs,
                qos=st.integers(0, 2),
                retain=st.booleans(),
                properties=on(level, Place.WILL),
            )
        ),
        properties=draw(on(level, Place.CONNECT)),
    )


@st.composite
def connacks(draw, level):
    reason = draw(
        codes(reasons.CONNACK)
        if level == V5
        else st.sampled_from((0, 0x84, 0x85, 0x86, 0x87, 0x88)).map(reasons.Reason)
    )
    return Connack(
        session_present=not reason and draw(st.booleans()),
        reason=reason,
        properties=draw(on(level, Place.CONNACK)),
    )


@st.composite
def publishes(draw, level):
    qos = draw(st.integers(0, 2))
    said = draw(on(level, Place.PUBLISH))
    return Publish(
        topic=draw(topics) if said.topic_alias is None or draw(st.booleans()) else "",
        payload=draw(blobs | st.integers(0, 70_000).map(bytes)),
        qos=qos,
        retain=draw(st.booleans()),
        dup=qos > 0 and draw(st.booleans()),
        packet_id=draw(ids) if qos else 0,
        properties=said,
    )


def acknowledgements(level, packet, table):
    if level == V311:
        return st.builds(packet, ids)
    return st.builds(packet, ids, codes(table), properties(Place[packet.__name__.upper()]))


@st.composite
def subscriptions(draw, level):
    text = draw(texts)
    if level == V311:
        return Subscription(text, draw(st.integers(0, 2)))
    no_local = draw(st.booleans()) and not text.startswith("$share/")
    return Subscription(text, draw(st.integers(0, 2)), no_local, draw(st.booleans()), draw(st.integers(0, 2)))


def packets(level):
    subacks = reasons.SUBACK if level == V5 else {code: reasons.Reason(code) for code in (0, 1, 2, 0x80)}
    unsubacks = st.lists(codes(reasons.UNSUBACK), min_size=1, max_size=9).map(tuple) if level == V5 else st.just(())
    several = st.lists(subscriptions(level), min_size=1, max_size=5).map(tuple)
    every = [
        connects(level),
        connacks(level),
        publishes(level),
        acknowledgements(level, Puback, reasons.PUBACK),
        acknowledgements(level, Pubrec, reasons.PUBREC),
        acknowledgements(level, Pubrel, reasons.PUBREL),
        acknowledgements(level, Pubcomp, reasons.PUBCOMP),
        st.builds(Subscribe, ids, several, on(level, Place.SUBSCRIBE)),
        st.builds(Suback, ids, st.lists(codes(subacks), min_size=1, max_size=9).map(tuple), on(level, Place.SUBACK)),
        st.builds(Unsubscribe, ids, st.lists(texts, min_size=1, max_size=5).map(tuple), on(level, Place.UNSUBSCRIBE)),
        st.builds(Unsuback, ids, unsubacks, on(level, Place.UNSUBACK)),
        st.just(Pingreq()),
        st.just(Pingresp()),
        st.just(Disconnect()),
    ]
    if level == V5:
        every += [
            st.builds(Disconnect, reason=codes(reasons.DISCONNECT), properties=properties(Place.DISCONNECT)),
            st.just(Auth()),
            st.builds(Auth, reason=codes(reasons.AUTH), properties=properties(Place.AUTH)),
        ]
    return st.one_of(every)


def read(raw, level):
    size, at = wire.varint(raw, 1)
    assert size == len(raw) - at
    return decode(raw[0], raw[at:], level)


@settings(max_examples=200)
@given(st.sampled_from((V311, V5)).flatmap(lambda level: st.tuples(st.just(level), packets(level))))
def test_what_was_written_is_read(level_and_packet):
    level, packet = level_and_packet
    assert read(encode(packet, level), level) == packet


@given(publishes(V5), st.sampled_from((V311, V5)))
def test_parts_of_a_publish_make_it_whole(packet, level):
    if level == V311:
        packet.properties, packet.topic = NONE, packet.topic or "t"
    head, tail = publish_parts(packet.topic, packet.payload, packet.qos, packet.retain, level, packet.properties)
    assert not head[0] & 8
    if packet.qos:
        head += packet.packet_id.to_bytes(2, "big")
    if packet.dup:
        head = bytes((head[0] | 8,)) + head[1:]
    assert head + tail == encode(packet, level)
    assert read(head + tail, level) == packet
