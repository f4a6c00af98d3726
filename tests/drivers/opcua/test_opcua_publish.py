"""Whole answers against the library's decoder: recorded ones of two servers, made ones of every mix, broken ones."""

import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.values import runs
from drivers.opcua.values.columns import EPOCH, Columns, ticks_of, wall_ms, wall_times
from drivers.opcua.values.parsing import (
    Published,
    parse_history,
    parse_kinds,
    parse_publish,
    parse_read,
    parse_republish,
)
from drivers.opcua.values.variants import Decoder

CASES = Path(__file__).parents[2] / "cases" / "opcua"
RECORDED = sorted(CASES.glob("*.bin"))
NOW = datetime(2026, 11, 2, 10, tzinfo=UTC)


def tick(time):
    return 0 if time is None else ua.datetime_to_win_epoch(time)


def told(values):
    """What the library says of DataValues, as columns without handles, and without what JSON has no word for."""
    kinds = (bool, int, float, str, list)
    plain = [v.Value.Value if isinstance(v.Value.Value, kinds) else None for v in values]
    return (
        plain,
        [v.StatusCode.value if v.StatusCode else 0 for v in values],
        [tick(v.SourceTimestamp) // 10 for v in values],
        [tick(v.ServerTimestamp) // 10 for v in values],
    )


def ours(columns):
    """The same of what we read: the library knows microseconds only."""
    source, server = ([t // 10 for t in times] for times in (columns.source, columns.server))
    return columns.values, columns.codes, source, server


def items(values, start=0):
    return [ua.MonitoredItemNotification(ClientHandle=start + i, Value=v) for i, v in enumerate(values)]


def publish(*notifications, sequence=3, available=(2, 3), results=(0,), more=False):
    response = ua.PublishResponse()
    own = response.Parameters
    own.SubscriptionId = 7
    own.AvailableSequenceNumbers = list(available)
    own.MoreNotifications = more
    own.NotificationMessage = ua.NotificationMessage(sequence, NOW, list(notifications))
    own.Results = [ua.StatusCode(code) for code in results]
    return struct_to_binary(response)


def changes(values, start=0):
    return ua.DataChangeNotification(MonitoredItems=items(values, start))


def parsed(body):
    return parse_publish(body, Decoder())


# --- recorded


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_response_reads_as_the_library_reads_it(path):
    body = path.read_bytes()
    own, response = parsed(body), struct_from_binary(ua.PublishResponse, Buffer(body)).Parameters
    message = response.NotificationMessage
    theirs = [item for one in message.NotificationData or () for item in one.MonitoredItems]
    assert (own.subscription, own.sequence) == (response.SubscriptionId, message.SequenceNumber)
    assert own.has_more is response.MoreNotifications
    assert list(own.results) == [code.value for code in response.Results]
    assert own.is_keep_alive is not theirs
    assert own.columns.handles == [item.ClientHandle for item in theirs]
    values, codes, source, server = told([item.Value for item in theirs])
    mine = ours(own.columns)[0]
    assert ours(own.columns)[1:3] == (codes, source)
    if "asyncua" in path.stem:
        assert ours(own.columns)[3] == server
    else:  # the library takes picoseconds, which stand behind the source's time, for the first bytes of the server's
        assert all(
            abs(one - other) < 10_000_000 for one, other in zip(own.columns.server, own.columns.source, strict=True)
        )
    assert len(mine) == len(values)
    if "types" not in path.stem:
        assert [v if t is not None else None for v, t in zip(mine, values, strict=True)] == values


def test_recordings_are_there():
    assert {path.stem for path in RECORDED} >= {
        "asyncua_doubles", "asyncua_mixed", "node_opcua_doubles", "node_opcua_mixed", "node_opcua_quiet",
        "node_opcua_types",
    }  # fmt: skip


def test_recorded_values_of_every_type_are_what_the_server_was_given():
    columns = parse_publish((CASES / "node_opcua_types.bin").read_bytes(), Decoder(("", "urn:rec"))).columns
    assert columns.values[:21] == [
        True, -5, 200, -3000, 60000, -7, 4_000_000_000, None, None, 1.5, 2.25, "grüße", "2026-11-02T10:00:00.123Z",
        "72962b91-fa75-4ae6-8d28-b404dc7daf63", b"\x01\x02\xff", "<a>1</a>", "nsu=urn:rec;s=Tank", "i=42",
        "BadSensorFailure", "1:Level", "Füllstand",
    ]  # fmt: skip
    assert columns.values[33] == ["0102ff", "0102ff"]
    assert columns.values[38:] == [
        [[1, 2, 3], [4, 5, 6]], {"type": "i=886", "body": "000000000000f0bf0000000000e05840"}, 1.0, None,
    ]  # fmt: skip


# --- every mix

NUMBERS = ["Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double"]


def numbered(kind, n):
    values = {"Boolean": n % 2 == 0, "Float": n / 8, "Double": n / 3, "String": f"t{n}", "DateTime": NOW}
    return ua.Variant(values.get(kind, n % 120), ua.VariantType[kind])


@st.composite
def sequences(draw):
    """Runs of data values that look alike, of any length, one behind the other."""
    values = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from([*NUMBERS, "String", "Null"]))
        code = draw(st.sampled_from([None, None, 0, 0x40900000, 0x80340000]))
        source, server = draw(st.sampled_from([None, NOW])), draw(st.sampled_from([None, NOW]))
        for _ in range(draw(st.sampled_from([1, 1, 2, 3, 4, 7, 8, 9, 40, 129, 300]))):
            n = len(values)
            value = ua.Variant() if kind == "Null" else numbered(kind, n)
            shift = timedelta(milliseconds=n)
            status = None if code is None else ua.StatusCode(code)
            values.append(ua.DataValue(value, status, source and source + shift, server and server - shift))
    return values


@settings(max_examples=60, deadline=None)
@given(sequences())
def test_any_mix_of_runs_reads_as_the_library_reads_it(values):
    own = parsed(publish(changes(values, 1000)))
    assert own.columns.handles == list(range(1000, 1000 + len(values)))
    expected = told(values)
    assert [repr(v) for v in own.columns.values] == [repr(v) for v in expected[0]]
    assert ours(own.columns)[1:] == expected[1:]
    response = ua.ReadResponse()
    response.Results = values
    read = parse_read(struct_to_binary(response), Decoder())
    assert read.handles == []
    assert (read.values, read.codes, read.source) == (own.columns.values, own.columns.codes, own.columns.source)


@pytest.mark.parametrize("mask", range(64))
@pytest.mark.parametrize("has_handles", [True, False])
def test_every_mask_reads_the_same_alone_and_in_a_run(mask, has_handles):
    """Picoseconds stand behind the time they belong to, which the library writes otherwise: made by hand."""

    def record(n):
        parts = struct.pack("<I", n) if has_handles else b""
        parts += bytes([mask]) + (b"\x04" + struct.pack("<h", -n) if mask & 1 else b"")
        parts += struct.pack("<I", 0x40900000 + n) if mask & 2 else b""
        parts += struct.pack("<q", EPOCH + n) if mask & 4 else b""
        parts += b"\x01\x01" if mask & 16 else b""
        parts += struct.pack("<q", EPOCH - n) if mask & 8 else b""
        return parts + (b"\x02\x02" if mask & 32 else b"")

    for count in (1, 2, 5, 40):
        numbers = range(1, count + 1)
        body = struct.pack("<i", count) + b"".join(map(record, numbers))
        for behind in (b"", b"\xee" * 9):
            columns = Columns()
            assert runs.read_values(body + behind, 0, Decoder(), columns, has_handles=has_handles) == len(body)
            assert columns.handles == (list(numbers) if has_handles else [])
            assert columns.values == [-n if mask & 1 else None for n in numbers]
            assert columns.codes == [0x40900000 + n if mask & 2 else 0 for n in numbers]
            assert columns.source == [EPOCH + n if mask & 4 else 0 for n in numbers]
            assert columns.server == [EPOCH - n if mask & 8 else 0 for n in numbers]


def test_a_run_ends_where_bytes_only_look_like_the_next_record():
    """A text in the middle of numbers, with bytes at the places where masks and types would be."""
    values = [ua.DataValue(numbered("Int32", n), None, NOW) for n in range(30)]
    odd = values[0]
    size = len(struct_to_binary(ua.MonitoredItemNotification(0, odd)))
    head = struct_to_binary(odd)[:2]
    text = (b"\0\0" + head[:1] + head[1:]) * size
    values[12] = ua.DataValue(ua.Variant(text.decode("latin-1"), ua.VariantType.String), None, NOW)
    own = parsed(publish(changes(values)))
    assert own.columns.values == told(values)[0]


# --- notifications


def test_several_notifications_of_one_message_go_into_the_same_columns():
    one, two = [ua.DataValue(numbered("Double", n), None, NOW) for n in range(5)], [ua.DataValue(numbered("Byte", 1))]
    own = parsed(publish(changes(one), changes(two, 90), more=True, available=(), results=(0, 0x80790000)))
    assert own.columns.handles == [0, 1, 2, 3, 4, 90]
    assert (own.has_more, own.results) == (True, (0, 0x80790000))
    assert not own.is_keep_alive


def test_events_are_counted_and_the_end_of_a_subscription_is_told():
    events = ua.EventNotificationList(Events=[ua.EventFieldList(1, [ua.Variant(5)])] * 3)
    status = ua.StatusChangeNotification(Status=ua.StatusCode(0x800A0000))
    values = [ua.DataValue(numbered("Double", 1))]
    own = parsed(publish(events, changes(values), status, ua.Range(1, 2)))
    assert (own.events, own.status, own.unknown) == (3, 0x800A0000, 1)
    assert own.columns.values == [1 / 3]
    assert parsed(publish(changes(values))).status is None


def test_a_keep_alive_has_the_number_of_the_next_message():
    own = parsed(publish(sequence=9, results=()))
    assert own == Published(7, sequence=9, is_keep_alive=True)


def test_a_republished_message_does_not_say_whose_it_is():
    response = ua.RepublishResponse()
    response.NotificationMessage = ua.NotificationMessage(5, NOW, [changes([ua.DataValue(numbered("Byte", 4))])])
    own = parse_republish(struct_to_binary(response), Decoder())
    assert (own.subscription, own.sequence, own.columns.values) == (0, 5, [4])


def test_history_is_read_node_by_node_with_what_is_left_of_each():
    values = [ua.DataValue(numbered("Double", n), None, NOW + timedelta(seconds=n), NOW) for n in range(40)]
    body = ua.HistoryReadResponse()
    body.Results = [
        ua.HistoryReadResult(ua.StatusCode(), b"more", ua.HistoryData(values)),
        ua.HistoryReadResult(ua.StatusCode(0x80710000), None, None),
        ua.HistoryReadResult(ua.StatusCode(0x00A50000), b"", ua.HistoryModifiedData(values[:2], [])),
        ua.HistoryReadResult(ua.StatusCode(), None, ua.Range(5e-324, 1)),
    ]
    found = parse_history(struct_to_binary(body), Decoder())
    assert [(own.code, own.point, len(own.columns.values)) for own in found] == [
        (0, b"more", 40), (0x80710000, b"", 0), (0x00A50000, b"", 2), (0, b"", 0),
    ]  # fmt: skip
    assert ours(found[0].columns) == told(values)


def test_what_a_value_is_can_be_told_without_knowing_what_it_means():
    values = [
        ua.DataValue(ua.Variant(1, ua.VariantType.Byte)),
        ua.DataValue(ua.Variant([1.5], ua.VariantType.Float)),
        ua.DataValue(ua.Variant([[], []], ua.VariantType.String, [2, 0], is_array=True)),
        ua.DataValue(ua.Variant([["a", "b"]], ua.VariantType.String)),
        ua.DataValue(ua.Variant(ua.ExtensionObject(ua.NodeId(9, 3), b"?"), ua.VariantType.ExtensionObject)),
        ua.DataValue(StatusCode=ua.StatusCode(0x80340000)),
        ua.DataValue(ua.Variant()),
    ]
    body = struct_to_binary(ua.ReadResponse(Results=values))
    told = [(0, 3, -1), (0, 10, 1), (0, 12, 2), (0, 12, 2), (0, 22, -1), (0x80340000, 0, -1), (0, 0, -1)]
    assert parse_kinds(body) == told


# --- heads and broken messages


def test_the_head_of_a_response_may_hold_anything():
    response = ua.PublishResponse()
    response.ResponseHeader.ServiceDiagnostics = ua.DiagnosticInfo(1, 2, 3, 4, "more", ua.StatusCode(5))
    response.ResponseHeader.StringTable = ["one", None, ""]
    response.ResponseHeader.AdditionalHeader = ua.ExtensionObject(ua.NodeId("T", 3), b"abc")
    response.Parameters.SubscriptionId = 4
    assert parsed(struct_to_binary(response)).subscription == 4


def test_diagnostics_of_a_head_that_hold_one_another_too_deep_are_refused():
    body = struct_to_binary(ua.PublishResponse())
    with pytest.raises(ValueError, match="too deep"):
        parsed(body[:20] + b"\x40" * 5000 + body[20:])


@pytest.mark.parametrize("parse", [parse_publish, parse_republish, parse_read, parse_history])
def test_an_answer_to_something_else_is_refused(parse):
    with pytest.raises(ValueError, match=r"type i=\d+ in place of i=\d+"):
        parse(struct_to_binary(ua.BrowseResponse()), Decoder())


@pytest.mark.parametrize("stem", ["asyncua_mixed", "node_opcua_types"])
def test_a_message_that_breaks_off_is_refused_wherever_it_does(stem):
    body = (CASES / f"{stem}.bin").read_bytes()
    whole = parsed(body)
    assert whole.columns.values
    for end in range(0, len(body) - 8, 7):
        with pytest.raises(ValueError, match="publish response"):
            parsed(body[:end])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_message_with_wrong_bytes_in_it_is_read_or_refused(data):
    body = bytearray((CASES / "asyncua_mixed.bin").read_bytes()[:1500])
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for parse in (parse_publish, parse_republish, parse_read, parse_history):
        try:
            parse(bytes(body), Decoder())
        except ValueError:
            continue


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_values_of_some_kind_or_refused(tail):
    with suppress(ValueError):
        parse_kinds(struct_to_binary(ua.ReadResponse())[:28] + tail)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3), st.binary(max_size=120))
def test_any_bytes_behind_a_head_are_read_or_refused(which, tail):
    parse, response = [
        (parse_publish, ua.PublishResponse),
        (parse_republish, ua.RepublishResponse),
        (parse_read, ua.ReadResponse),
        (parse_history, ua.HistoryReadResponse),
    ][which]
    head = struct_to_binary(response())[:28]
    try:
        parse(head + tail, Decoder())
    except ValueError:
        return


@pytest.mark.parametrize("count", [2**31 - 1, 2**20, 70])
def test_a_count_is_no_reason_to_make_room(count):
    body = bytearray(publish(changes([ua.DataValue(numbered("Double", 1))] * 3)))
    at = body.index(struct.pack("<i", 3) + struct.pack("<I", 0))
    body[at : at + 4] = struct.pack("<i", count)
    with pytest.raises(ValueError, match="publish response"):
        parsed(bytes(body))


def test_a_message_of_more_values_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr("drivers.opcua.values.variants.MOST_VALUES", 1000)
    head = struct_to_binary(ua.ReadResponse())[:-8]
    for count, is_taken in ((1000, True), (1001, False)):
        body = head + struct.pack("<i", count) + bytes(count + 4)
        if is_taken:
            decoder = Decoder()
            for _ in range(2):
                assert len(parse_read(body, decoder).values) == count
        else:
            with pytest.raises(ValueError, match="values in one message"):
                parse_read(body, Decoder())


def test_times_go_there_and_back():
    assert wall_ms(ticks_of(1_700_000_000_123)) == 1_700_000_000_123
    assert wall_ms(0) == 0
    assert wall_times([0, EPOCH + 10_000, EPOCH - 1]) == [0, 1, -1]
