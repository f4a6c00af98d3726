"""Payload `json`, byte for byte."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import GOOD, Batch, Definition, Quality, bad, uncertain
from gateway.uplinks.message import Message, Room
from gateway.uplinks.payload_json import JsonPayload
from gateway.uplinks.topics import Template, TopicError

TS = 1795330000123
ROOMY = Room(1 << 28, 1 << 28)


@pytest.fixture
def skipped():
    return []


@pytest.fixture
def encode(skipped):
    def run(batch, *, template="{prefix}/{device}", retain=False, replay=False, room=ROOMY):
        payload = JsonPayload(
            Template(template, {"prefix": "headgate/plant7"}), retain=retain, skipped=lambda *what: skipped.append(what)
        )
        return list(payload.encode(batch, 4711, "9f31c2-3", replay=replay, room=room))

    return run


@pytest.fixture
def one(encode):
    return lambda batch, **options: encode(batch, **options)[0].payload


def test_the_message_of_the_design_document(encode, define):
    batch = Batch(define("flow float64", "pump bool"), TS, [1.5, True])
    assert encode(batch) == [
        Message(
            "headgate/plant7/boiler",
            b'{"ts":1795330000123,"seq":4711,"epoch":"9f31c2-3","values":{"flow":1.5,"pump":true}}',
            retain=False,
        )
    ]


def test_every_key_stands_in_its_place(one, define):
    batch = Batch(
        define("flow float64", "energy float64"), TS, [1.5, 7.0], [GOOD, bad("timeout")], times=[TS, TS - 1000]
    )
    assert one(batch, replay=True) == (
        b'{"ts":1795330000123,"seq":4711,"epoch":"9f31c2-3","values":{"flow":1.5,"energy":null},'
        b'"quality":{"energy":"bad:timeout"},"times":{"energy":1795329999123},"replay":true}'
    )


def test_history_and_the_times_of_servers_stand_in_their_places(one, define):
    batch = Batch(
        define("a float64", "b float64", "c float64"),
        TS,
        [1.5, 7.0, 2.0],
        [GOOD, bad("timeout"), GOOD],
        times=[TS, TS - 1000, TS - 2000],
        server_times=[TS, TS - 900, 0],
        is_history=True,
    )
    assert one(batch, replay=True) == (
        b'{"ts":1795330000123,"seq":4711,"epoch":"9f31c2-3","values":{"a":1.5,"b":null,"c":2.0},'
        b'"quality":{"b":"bad:timeout"},"times":{"b":1795329999123,"c":1795329998123},'
        b'"server_times":{"b":1795329999223},"history":true,"replay":true}'
    )


def test_the_times_of_servers_are_told_where_they_differ_from_the_sources_and_else_left_out(one, define):
    batch = Batch(define("a float64", "b float64"), TS, [1.5, 2.5], server_times=[TS, TS - 5])
    assert orjson.loads(one(batch))["server_times"] == {"b": TS - 5}
    assert b"server_times" not in one(Batch(define("a float64"), TS, [1.5], times=[TS - 5], server_times=[TS - 5]))
    assert b"server_times" not in one(Batch(define("a float64"), TS, [1.5], server_times=[0]))


def test_history_is_never_retained(encode, define):
    batch = Batch(define("a float64"), TS, [1.5], is_history=True)
    assert [m.retain for m in encode(batch, retain=True)] == [False]
    assert [m.retain for m in encode(Batch(define("a float64"), TS, [1.5]), retain=True)] == [True]


def test_history_that_does_not_fit_into_one_message_says_what_it_is_in_each_part(encode, define):
    names = [f"tag{n} float64" for n in range(60)]
    times = [TS - n for n in range(60)]
    served = [TS + 1 + n for n in range(60)]
    batch = Batch(define(*names), TS, [n / 7 for n in range(60)], times=times, server_times=served, is_history=True)
    for most in range(350, 450):
        messages = encode(batch, room=Room(most, most))
        assert len(messages) > 3
        assert all(len(m.payload) + len(m.topic.encode()) <= most for m in messages)
    parts = [orjson.loads(m.payload) for m in messages]
    assert all(part["history"] for part in parts)
    found = {tag: at for part in parts for tag, at in part["server_times"].items()}
    assert found == {f"tag{n}": served[n] for n in range(60)}


def test_what_stands_beside_values_is_counted_to_the_byte(encode, define):
    batch = Batch(
        define("a string", "b string"),
        TS,
        ["x" * 90] * 2,
        [uncertain("a")] * 2,
        times=[1, 2],
        server_times=[3, 4],
        is_history=True,
    )
    for most in range(250, 450):
        assert all(len(m.payload) + len(m.topic.encode()) <= most for m in encode(batch, room=Room(most, most)))


def test_a_good_value_with_a_status_of_its_own_is_kept_and_the_status_told(one, define):
    batch = Batch(define("a float64", "b float64"), TS, [1.5, 2.5], [Quality("good:GoodClamped"), GOOD])
    assert orjson.loads(one(batch)) == {
        "ts": TS,
        "seq": 4711,
        "epoch": "9f31c2-3",
        "values": {"a": 1.5, "b": 2.5},
        "quality": {"a": "good:GoodClamped"},
    }
    whole = Batch(define("a float64", "b float64"), TS, [1.5, 2.5], Quality("good:GoodClamped"))
    assert orjson.loads(one(whole))["values"] == {"a": 1.5, "b": 2.5}


def test_a_sparse_batch_names_only_what_it_holds(one, define):
    batch = Batch(define("a uint16", "b uint16", "c uint16"), TS, [1, 3], index=[0, 2])
    assert one(batch).endswith(b'"values":{"a":1,"c":3}}')


def test_one_bad_quality_for_all_is_told_of_each(one, define):
    batch = Batch(define("a uint16", "b uint16"), TS, [None, None], bad("offline"))
    assert one(batch).endswith(b'"values":{"a":null,"b":null},"quality":{"a":"bad:offline","b":"bad:offline"}}')


def test_a_bad_value_is_null_and_an_uncertain_one_keeps_what_is_known(one, define):
    batch = Batch(define("a uint16", "b uint16"), TS, [1, 2], [bad("range"), uncertain("stale")])
    assert one(batch).endswith(b'"values":{"a":null,"b":2},"quality":{"a":"bad:range","b":"uncertain:stale"}}')


def test_times_that_do_not_differ_and_qualities_that_are_good_are_left_out(one, define):
    batch = Batch(define("a uint16", "b uint16"), TS, [1, 2], [GOOD, GOOD], times=[TS, TS])
    assert one(batch).endswith(b'"values":{"a":1,"b":2}}')


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_nan_and_infinities_are_null_and_uncertain(one, define, number, kind):
    batch = Batch(define(f"a {kind}", f"b {kind}"), TS, [number, 1.5])
    assert one(batch).endswith(b'"values":{"a":null,"b":1.5},"quality":{"a":"uncertain:nan"}}')


def test_nan_beside_a_null_of_the_frame_is_found(one, define):
    batch = Batch(define("a float32", "b float32"), TS, [float("nan"), None], [GOOD, bad("timeout")])
    assert one(batch).endswith(b'"values":{"a":null,"b":null},"quality":{"a":"uncertain:nan","b":"bad:timeout"}}')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.100000381469727, b"8.1"),
        (b"\x01\xff", b'"01ff"'),
        (2**53 + 1, b"9007199254740993"),
        (2**64 - 1, b"18446744073709551615"),
        (-(2**63), b"-9223372036854775808"),
        (2**64, b"18446744073709551616"),
        (-(2**90), str(-(2**90)).encode()),
        (True, b"true"),
        ('say "null"', b'"say \\"null\\""'),
        ([1, {"x": None}], b'[1,{"x":null}]'),
        ([b"\x02"], b'["02"]'),
        ("ä", '"ä"'.encode()),
    ],
)
def test_a_value_is_written_exactly(one, define, value, text):
    kind = "float32" if type(value) is float else "string"
    batch = Batch(define(f"a {kind}", "b uint16"), TS, [value, 1])
    assert one(batch).endswith(b'"values":{"a":' + text + b',"b":1}}')


@pytest.mark.parametrize(
    "value", ["\ud800", {1: 2}, [2**70], 10**5000, object()], ids=["surrogate", "keys", "inside", "long", "object"]
)
def test_what_json_cannot_say_is_null_and_bad_and_costs_nobody_else(one, define, value):
    batch = Batch(define("a float32", "b uint16"), TS, [value, 1])
    assert one(batch).endswith(b'"values":{"a":null,"b":1},"quality":{"a":"bad:decode"}}')


def test_decimals_win_over_the_shortest_digits(one, define, float32):
    batch = Batch(define("a float32", "b float64", decimals=(2, 1)), TS, [float32(8.126), 2.349])
    assert one(batch).endswith(b'"values":{"a":8.13,"b":2.3}}')


def test_a_backlog_is_never_retained(encode, define):
    batch = Batch(define("a uint16"), TS, [1])
    assert encode(batch, retain=True)[0].retain
    assert not encode(batch, retain=True, replay=True)[0].retain


def test_the_topic_takes_the_fields_of_the_definition(encode, define):
    batch = Batch(define("a uint16", site="north"), TS, [1])
    assert encode(batch, template="{prefix}/{site}/{device}")[0].topic == "headgate/plant7/north/boiler"


def test_a_field_that_is_missing_is_told_once_for_each_definition(define, caplog):
    payload = JsonPayload(Template("{site}/{device}", {}), retain=False, skipped=print)
    for tags in ("a uint16", "a uint16", "b uint16"):
        assert next(payload.encode(Batch(define(tags), TS, [1]), 1, "e", replay=False, room=ROOMY)).topic == "_/boiler"
    assert len(caplog.records) == 2


def test_a_definition_that_makes_no_topic_is_an_error(encode, define):
    with pytest.raises(TopicError):
        encode(Batch(define("a uint16", site="#"), TS, [1]), template="{site}")


def test_no_more_definitions_are_kept_than_the_bound(define):
    payload = JsonPayload(Template("{device}", {}), retain=False, skipped=print)
    for i in range(1500):
        payload.encode(Batch(define(f"t{i} uint16"), TS, [1]), 1, "e", replay=False, room=ROOMY)
    assert len(payload._forms) <= 1024


# --- parts --------------------------------------------------------------------------------------------------------


def test_a_record_too_large_for_the_server_is_split(encode, define):
    names = [f"tag{i}" for i in range(10)]
    batch = Batch(define(*(f"{n} uint16" for n in names)), TS, list(range(10)), times=[TS] * 9 + [TS - 5])
    messages = encode(batch, room=Room(200, 200), replay=True)
    parts = [orjson.loads(m.payload) for m in messages]
    assert len(parts) > 1
    assert [p["part"] for p in parts] == [[i, len(parts)] for i in range(1, len(parts) + 1)]
    assert all(len(m.topic) + len(m.payload) <= 200 for m in messages)
    assert all((p["ts"], p["seq"], p["epoch"], p["replay"]) == (TS, 4711, "9f31c2-3", True) for p in parts)
    assert [pair for p in parts for pair in p["values"].items()] == list(zip(names, range(10), strict=True))
    assert [p.get("times") for p in parts] == [None] * (len(parts) - 1) + [{"tag9": TS - 5}]


def test_a_part_is_these_bytes(encode, define):
    batch = Batch(define("a string", "b string"), TS, ["x" * 60, "y" * 60], [GOOD, uncertain("stale")])
    assert [m.payload for m in encode(batch, room=Room(240, 240))] == [
        b'{"ts":1795330000123,"seq":4711,"epoch":"9f31c2-3","values":{"a":"' + b"x" * 60 + b'"},"part":[1,2]}',
        b'{"ts":1795330000123,"seq":4711,"epoch":"9f31c2-3","values":{"b":"'
        + b"y" * 60
        + b'"},"quality":{"b":"uncertain:stale"},"part":[2,2]}',
    ]


def test_a_single_value_too_large_is_left_out_and_told(encode, skipped, define):
    batch = Batch(define("a string", "b uint16"), TS, ["x" * 1000, 1])
    (message,) = encode(batch, room=Room(300, 300))
    assert orjson.loads(message.payload)["values"] == {"b": 1}
    ((topic, why),) = skipped
    assert topic == "headgate/plant7/boiler"
    assert "'a'" in why


def test_a_record_of_nothing_but_one_too_large_value_gives_no_message(encode, skipped, define):
    assert encode(Batch(define("a string"), TS, ["x" * 1000]), room=Room(300, 300)) == []
    assert len(skipped) == 1


def test_what_is_only_advised_to_be_small_is_sent_all_the_same(encode, skipped, define):
    batch = Batch(define("a string", "b uint16"), TS, ["x" * 1000, 1])
    messages = encode(batch, room=Room(5000, 300))
    assert [list(orjson.loads(m.payload)["values"]) for m in messages] == [["a"], ["b"]]
    assert not skipped


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(values, min_size=1, max_size=12), st.integers(260, 2000), st.booleans())
def test_any_batch_becomes_json_that_fits_with_every_tag_once(columns, size, replay):
    skipped = []
    payload = JsonPayload(Template("{device}", {}), retain=False, skipped=lambda *what: skipped.append(what))
    n = len(columns)
    kinds = ("float32", "string", "uint64", "float64")
    group = Definition(
        "d", tuple(f"t{i}" for i in range(n)), tuple(kinds[i % 4] for i in range(n)), ("",) * n, (None,) * n
    )
    messages = list(payload.encode(Batch(group, TS, columns), 1, "e", replay=replay, room=Room(size, size)))
    assert all(len(m.payload) + 1 <= size for m in messages)
    seen = [name for m in messages for name in orjson.loads(m.payload)["values"]]
    assert len(seen) == len(set(seen)) == n - len(skipped)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ([1.5, float("nan")], b"[1.5,null]"),
        ([float("inf"), 2], b"[null,2]"),
        ([[1], [float("nan")]], b"[[1],[null]]"),
        ({"x": float("nan"), "y": 1}, b'{"x":null,"y":1}'),
    ],
)
@pytest.mark.parametrize("other", [1.5, None])
def test_a_nan_within_an_array_or_a_structure_makes_its_tag_uncertain(one, define, value, written, other):
    batch = Batch(define("a any", "b float64"), TS, [value, other])
    tail = b',"quality":{"a":"uncertain:nan"}}'
    assert one(batch).endswith(b'"values":{"a":' + written + b',"b":' + orjson.dumps(other) + b"}" + tail)


def test_a_null_within_an_array_has_the_quality_it_came_with(one, define):
    batch = Batch(define("a any", "b int32"), TS, [[1.5, None], 2])
    assert one(batch).endswith(b'"values":{"a":[1.5,null],"b":2}}')
