"""The thinner: frames in, fewer and sparser frames out; what they say of their records stays true."""

import itertools

import pytest

from gateway.journal.frame import EPOCH_START, Body, Head, best_codec
from gateway.model import Batch, Definition
from gateway.spool.payload import Payload, decode
from gateway.spool.record import Gap, Note, Record, gap_record
from gateway.spool.thinner import Thinner

GROUP = Definition("pump", ("a", "b"), ("float64", "int32"), ("",) * 2, (None,) * 2)
T0 = 1_795_330_000_000
BOOT = bytes(16)


def batch(seq, epoch="abcdef-1"):
    return Record(seq, epoch, Batch(GROUP, T0 + 1000 * seq, [float(seq * 7919 % 100), seq]))


def framed(records, *, covers_from=None, start=1, clock=2, offset=T0, boot=BOOT, flags=0, monotonic=None):
    """A frame of records, written a second after the last of them."""
    payload = Payload(records[0].seq)
    for record in records:
        payload.add(record, 500, 1 << 30)
    monotonic = monotonic if monotonic is not None else 1000 * (records[-1].seq + 1)
    head = Head(
        codec=best_codec(),
        flags=flags,
        clock=clock,
        start=start,
        store=0xABCDEF,
        count=payload.count,
        first_seq=payload.first_seq,
        last_seq=payload.last_seq,
        covers_from=covers_from if covers_from is not None else records[0].seq,
        min_time=payload.min_time,
        max_time=payload.max_time,
        boot_id=boot,
        monotonic=monotonic,
        wall=monotonic + offset,
        ordinal=records[0].seq - 1,
    )
    return head, Body(payload.entries, b"", payload.sealed())


def made(told=None, **more):
    options = {"window_ms": 10_000, "frame_bytes": 1 << 18, "segment_size": 8 << 20}
    return Thinner(**(options | more), tell=(told if told is not None else []).append)


def run(thinner, frames):
    out = []
    for head, body in frames:
        out += thinner.add(head, body)
    return [*out, *thinner.end()]


def opened(out):
    return [(head, decode(head, body.payload, {GROUP.hash: GROUP}.get)) for head, body in out]


def seconds(first, last, step=5, **more):
    return [framed([batch(n) for n in range(k, k + step)], **more) for k in range(first, last + 1, step)]


def test_many_small_frames_become_one_that_accounts_for_all_of_them():
    told = []
    thinner = made(told)
    ((head, records),) = opened(run(thinner, seconds(1, 100)))
    assert (head.covers_from, head.first_seq, head.last_seq) == (1, 1, 100)
    assert (head.epoch, head.clock, head.boot_id, head.ordinal) == ("abcdef-1", 2, BOOT, 0)
    assert (head.monotonic, head.wall) == (101_000, T0 + 101_000), "the last anchor"
    assert head.count == len(records) == len([r for r in records if r.batch]) + 1
    assert head.min_time == T0 + 1000
    assert head.max_time == T0 + 100_000
    vanished = 100 - (head.count - 1)
    (gap,) = [r.gap for r in records if r.gap is not None]
    assert gap.count == vanished
    assert told == []
    thinner.settle(1)
    (noted,) = told
    assert noted.cause == "thinned"
    assert noted.count == vanished + sum(r.is_thinned for r in records)


def test_ages_count_from_the_new_anchor():
    frames = seconds(1, 100)
    ((head, body),) = run(made(), frames)
    raw = decode(head, body.payload, {GROUP.hash: GROUP}.get)
    payload = Payload(raw[0].seq)
    for record in raw:
        anchor = next(h.monotonic for h, _ in frames if h.first_seq <= record.seq <= h.last_seq)
        payload.add(record, head.monotonic - anchor, 1 << 30)
    assert payload.sealed() == body.payload


@pytest.mark.parametrize(
    "other",
    [
        {"start": 2},
        {"clock": 0},
        {"boot": bytes(15) + b"1"},
        {"offset": T0 + 5000},
        {"flags": EPOCH_START},
    ],
    ids=lambda other: next(iter(other)),
)
def test_frames_of_another_epoch_or_clock_are_kept_apart(other):
    later = {key: value for key, value in other.items() if key != "flags"}
    out = opened(run(made(), [*seconds(1, 50), *seconds(51, 55, **other), *seconds(56, 100, **later)]))
    assert [(h.first_seq, h.last_seq, h.covers_from) for h, _ in out] == [(1, 50, 1), (51, 100, 51)]
    assert [h.flags for h, _ in out] == [0, other.get("flags", 0)]
    assert out[1][0].start == other.get("start", 1)
    assert out[1][0].clock == other.get("clock", 2)


def test_a_clock_that_is_not_synchronised_may_not_move_at_all_within_a_frame():
    for clock, joined in ((0, 2), (2, 1)):
        frames = [*seconds(1, 50, clock=clock), *seconds(51, 100, clock=clock, offset=T0 + 100)]
        assert len(run(made(), frames)) == joined
    frames = [*seconds(1, 50, clock=0), *seconds(51, 100, clock=0, offset=T0 + 5)]
    assert len(run(made(), frames)) == 1, "the two clocks are never read in the same instant"


def test_a_hole_stays_where_it_was():
    out = opened(run(made(), [*seconds(1, 50), *seconds(61, 100)]))
    assert [(h.covers_from, h.last_seq) for h, _ in out] == [(1, 50), (61, 100)]
    assert [r.seq for _, records in out for r in records if 50 < r.seq < 61] == []


def test_a_hole_that_was_acknowledged_stays_accounted_for():
    frames = [*seconds(1, 50), framed([batch(n) for n in range(61, 101)], covers_from=51)]
    ((head, records),) = opened(run(made(), frames))
    assert (head.covers_from, head.last_seq) == (1, 100)
    (gap,) = [r.gap for r in records if r.gap is not None]
    assert gap.count == 90 - (head.count - 1), "what was acknowledged did not vanish now"


def test_what_was_written_twice_is_there_once():
    told = []
    thinner = made(told)
    frames = seconds(1, 50)
    out = opened(run(thinner, [*frames, *frames[-2:], framed([batch(n) for n in range(48, 61)])]))
    seqs = [r.seq for _, records in out for r in records]
    assert seqs == sorted(set(seqs))
    assert out[-1][0].last_seq == 60
    assert (
        sum(r.gap.count for _, records in out for r in records if r.gap)
        + len([r for _, records in out for r in records if r.batch])
        == 60
    )


def test_a_large_chunk_becomes_several_frames_that_account_for_each_other():
    frames = [framed([batch(n) for n in range(k, k + 400)]) for k in range(1, 4001, 400)]
    out = opened(run(made(frame_bytes=5000), frames))
    assert len(out) > 3
    assert out[0][0].covers_from == 1
    for (one, _), (other, _) in itertools.pairwise(out):
        assert other.covers_from == one.last_seq + 1
        assert other.ordinal == other.covers_from - 1
    assert out[-1][0].last_seq == 4000
    for head, records in out:
        assert (records[0].seq, records[-1].seq) == (head.first_seq, head.last_seq)
        assert head.flags == 0


def test_each_segment_is_settled_by_itself():
    told = []
    thinner = made(told)
    for first in (1, 101, 201):
        for head, body in seconds(first, first + 99):
            assert not list(thinner.add(head, body))
        assert list(thinner.end())
    thinner.settle(2)
    (gap,) = told
    assert 1 < gap.first_seq < 100 < gap.last_seq <= 200


def test_a_segment_after_another_starts_its_own_frame_and_brings_its_definitions():
    thinner = made()
    first = run(thinner, seconds(1, 50))
    second = run(thinner, seconds(51, 100))
    assert [len(out) for out in (first, second)] == [1, 1]
    assert second[0][1].entries == {GROUP.hash: GROUP.document()}


def test_what_is_no_batch_goes_through():
    note = Record(6, "abcdef-1", None, "event", Note(T0, "door", {"open": True}))
    gap = gap_record(Gap(7, 9, T0, T0, 3, "memory"), "abcdef-1")
    ((_, records),) = opened(run(made(), [*seconds(1, 5), framed([note, gap], covers_from=6), *seconds(10, 60)]))
    assert [r.other for r in records if r.seq in (6, 9)] == [note.other, gap.gap]


def test_what_cannot_be_read_is_refused():
    head, body = framed([batch(n) for n in range(1, 6)])
    for bad_head, bad_body in (
        (head, Body(body.entries, b"", body.payload[:-3])),
        (head, Body({}, b"", body.payload)),
        (head, Body({GROUP.hash: b"{}"}, b"", body.payload)),
        (Head(**{f: getattr(head, f) for f in Head.__slots__} | {"count": 6}), body),
    ):
        with pytest.raises(ValueError, match=r"cannot be read|is missing|do not know"):
            list(made().add(bad_head, bad_body))
