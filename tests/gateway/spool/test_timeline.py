"""The timeline: whatever the clock does, a time that can be mended is right, and one that cannot says so."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import RELEASED_MS
from gateway.journal.frame import Head
from gateway.model import Batch, Definition, Quality
from gateway.spool.cursor import Anchor, State
from gateway.spool.record import Gap, Message, Note, Record, Regime, gap_record
from gateway.spool.timeline import STEP_MS, Stretch, Timeline, boot_bytes, by_stretch, regime_of_head

BOOT = bytes(range(16))
TRUE = RELEASED_MS + 86_400_000 * 30  # wall time at monotonic 0, as an astronomer would have it
GROUP = Definition("d", ("a", "b"), ("uint16", "uint16"), ("", ""), (None, None))


@pytest.fixture
def timeline():
    return Timeline(BOOT)


def taken(timeline, monotonic, wall=None, **extra):
    """A record as the queue makes it at that monotonic time."""
    time = monotonic + timeline.offset if wall is None else wall
    regime = timeline.regime_of(time, monotonic)
    return Record(1, "e", Batch(GROUP, time, [1, 2], **extra), "batch", None, regime)


def restarted(timeline, boot=BOOT, boots=(BOOT,)):
    """A timeline that knows what the other one has stored; of `boots` there are records."""
    stored = State(store=1, start=1, ceiling=1, anchors=timeline.anchors, seen=timeline.seen)
    read = State.parse(stored.document())
    later = Timeline(boot)
    later.learn(read.anchors, read.seen, read.uncorrected)
    later.keep(boots)
    return later


# --- what the clock is worth ----------------------------------------------------------------------------------------


def test_a_synchronised_clock_makes_no_regime(timeline):
    assert timeline.look(1000, TRUE, is_synced=True)
    assert (timeline.worth, timeline.regime, timeline.offset) == ("synced", None, TRUE - 1000)
    assert not timeline.is_doubtful


def test_a_time_before_this_program_was_made_cannot_be_right(timeline):
    timeline.look(1000, RELEASED_MS - 1, is_synced=False)
    assert timeline.worth == "unsynced"
    assert timeline.is_doubtful


def test_a_time_that_the_store_has_seen_cannot_be_right(timeline):
    timeline.learn((), TRUE, ())
    timeline.look(1000, TRUE - STEP_MS - 1, is_synced=False)
    assert timeline.worth == "unsynced"


def test_a_time_that_goes_on_where_the_store_has_ended_may_be_right(timeline):
    timeline.learn((), TRUE, ())
    timeline.look(1000, TRUE, is_synced=False)
    assert timeline.worth == "holdover"
    assert not timeline.is_doubtful
    assert timeline.regime == Regime(BOOT, TRUE - 1000, is_plausible=True)


def test_a_clock_that_is_set_back_while_it_runs_is_no_longer_believed(timeline):
    timeline.look(1000, TRUE, is_synced=False)
    timeline.look(61_000, TRUE - 3_600_000, is_synced=False)
    assert timeline.worth == "unsynced"


def test_a_clock_that_was_behind_is_not_believed_because_time_goes_by(timeline):
    timeline.learn((), TRUE, ())
    timeline.look(0, TRUE - 300_000, is_synced=False)
    assert not timeline.look(600_000, TRUE + 300_000, is_synced=False)
    assert timeline.worth == "unsynced"
    assert timeline.seen == TRUE


def test_what_a_wrong_clock_has_shown_is_forgotten_when_the_right_time_is_known(timeline):
    timeline.look(0, TRUE + 10**12, is_synced=False)
    assert timeline.seen == TRUE + 10**12
    timeline.look(2000, TRUE + 2000, is_synced=True)
    assert timeline.seen == TRUE + 2000


def test_less_than_a_second_is_let_pass_and_adds_up(timeline):
    timeline.look(0, TRUE, is_synced=True)
    assert not timeline.look(10_000, TRUE + 10_600, is_synced=True)
    assert timeline.look(20_000, TRUE + 21_200, is_synced=True)
    assert timeline.offset == TRUE + 1200


# --- mending --------------------------------------------------------------------------------------------------------


def test_what_was_taken_in_1970_has_its_right_time_as_soon_as_that_is_known(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    record = taken(timeline, 25_000)
    assert record.time == 25_000
    assert timeline.timed(record) is record
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    mended = timeline.timed(record)
    assert (mended.time, mended.regime) == (TRUE + 25_000, None)
    assert (mended.seq, mended.epoch, mended.batch.values) == (1, "e", [1, 2])


def test_every_kind_of_record_is_mended(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    regime = timeline.regime
    gap = gap_record(Gap(1, 4, 21_000, 24_000, 4, "memory"), "e", regime)
    unknown = gap_record(Gap(1, 4, 0, 24_000, 4, "memory"), "e", regime)
    message = Record(5, "e", None, "message", Message("t", b"p", 1, True, 25_000, b"x"), regime)
    note = Record(6, "e", None, "audit", Note(26_000, "n", {"a": 1}), regime)
    batch = Batch(GROUP, 27_000, [1], Quality("bad:x"), [1], None, b"raw")
    thinned = Record(7, "e", batch, regime=regime, is_thinned=True)
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.timed(gap) == gap_record(Gap(1, 4, TRUE + 21_000, TRUE + 24_000, 4, "memory"), "e")
    assert timeline.timed(unknown) == gap_record(Gap(1, 4, 0, TRUE + 24_000, 4, "memory"), "e")
    assert timeline.timed(message).other == Message("t", b"p", 1, True, TRUE + 25_000, b"x")
    assert timeline.timed(note) == Record(6, "e", None, "audit", Note(TRUE + 26_000, "n", {"a": 1}))
    found = timeline.timed(thinned)
    assert found.is_thinned
    assert (found.batch.time, found.batch.index, found.batch.raw) == (TRUE + 27_000, [1], b"raw")


def test_source_times_are_mended_where_they_were_read_off_our_clock(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    own, other = 24_990, TRUE + 24_000
    record = taken(timeline, 25_000, times=[own, other])
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.timed(record).batch.times == [TRUE + own, other]


def test_source_times_of_a_clock_of_their_own_stay_though_ours_was_only_a_little_wrong(timeline):
    timeline.look(0, TRUE - 20_000, is_synced=False)
    own, other = TRUE - 15_100, TRUE + 4900
    record = taken(timeline, 5000, times=[own, other])
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.timed(record).batch.times == [own + 20_000, other]


def test_source_times_that_have_nothing_to_do_with_our_clock_stay(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    epoch_of_the_device = 946_684_800_000  # 2000-01-01, nearer to 2026 than to 1970, and then some
    record = taken(timeline, 25_000, times=[epoch_of_the_device, 25_000 + 2 * 3_600_000])
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.timed(record).batch.times == [epoch_of_the_device, 25_000 + 2 * 3_600_000]


def test_source_times_of_a_right_clock_stay_however_old_they_were_when_they_came(timeline):
    """Our clock was half an hour late: a value that was 25 minutes old seemed to come out of the future, others not."""
    minute = 60_000
    timeline.look(0, TRUE - 30 * minute, is_synced=False)
    ages = [0, 1, 5, 25, 29, 31, 45, 120, 3000]
    record = taken(timeline, 600_000, times=[TRUE + 600_000 - age * minute for age in ages])
    timeline.look(700_000, TRUE + 700_000, is_synced=True)
    mended = timeline.timed(record).batch
    moved = [age for age, then, now in zip(ages, record.batch.times, mended.times, strict=True) if then != now]
    assert moved == [31], "what by our clock was fresh: nobody can tell that from a source that shares our clock"
    assert mended.time == TRUE + 600_000


def test_a_source_that_shares_our_clock_is_mended_with_it(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    ages = [0, 3, 1000, 100_000, 3_500_000]
    record = taken(timeline, 3_600_000, times=[3_600_000 - age for age in ages], server_times=[0, 3_599_000, 1, 0, 0])
    timeline.look(3_700_000, TRUE + 3_700_000, is_synced=True)
    mended = timeline.timed(record).batch
    assert mended.times == [TRUE + 3_600_000 - age for age in ages]
    assert mended.server_times == [0, TRUE + 3_599_000, TRUE + 1, 0, 0], "0 is no time"


def test_a_servers_times_are_judged_like_those_of_the_source(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    record = taken(timeline, 25_000, times=[24_999, 24_998], server_times=[TRUE + 24_999, 0])
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    mended = timeline.timed(record).batch
    assert (mended.times, mended.server_times) == ([TRUE + 24_999, TRUE + 24_998], [TRUE + 24_999, 0])


@pytest.mark.parametrize("is_known_later", [True, False])
def test_history_keeps_its_times_and_is_no_matter_of_our_clock(timeline, is_known_later):
    timeline.look(20_000, 20_000, is_synced=False)
    old = Batch(GROUP, TRUE - 5000, [1, 2], times=[TRUE - 6000, TRUE - 5000], is_history=True)
    record = Record(1, "e", old, "batch", None, timeline.regime)
    if is_known_later:
        timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.timed(record) == Record(1, "e", old)


def test_what_is_mended_keeps_all_else_there_is_to_say(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    record = taken(timeline, 25_000, quality=Quality("bad:x"), index=[0, 1], raw=b"r")
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    batch = timeline.timed(record).batch
    assert (batch.values, batch.quality, batch.index, batch.raw) == ([1, 2], Quality("bad:x"), [0, 1], b"r")


def test_a_batch_read_before_the_clock_was_set_and_handed_in_after_it_is_of_the_time_before(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    late = taken(timeline, 70_400, wall=69_800)
    assert late.regime == Regime(BOOT, 0, is_plausible=False)
    assert timeline.timed(late).time == TRUE + 69_800
    assert taken(timeline, 70_500).regime is None


def test_a_time_that_is_nobodys_is_of_the_present_clock(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.regime_of(12_345_678_901, 80_000) is None
    assert timeline.regime_of(69_000, 70_000 + 600_000) is None


def test_a_boot_that_never_knew_the_time_is_left_as_it_is_for_ever(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    record = taken(timeline, 25_000)
    later = restarted(timeline, boot=bytes(16))
    later.look(5000, TRUE + 10**9, is_synced=True)
    assert later.timed(record) is record


def test_the_next_boot_mends_what_the_one_before_has_left(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    record = taken(timeline, 25_000)
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    later = restarted(timeline, boot=bytes(16))
    later.look(5000, TRUE + 10**9, is_synced=False)
    assert later.timed(record).time == TRUE + 25_000


def test_a_restart_in_the_same_boot_knows_the_anchor_though_the_clock_is_wrong_again(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    later = restarted(timeline)
    later.look(100_000, 100_000, is_synced=False)
    assert not later.is_doubtful
    assert later.timed(taken(later, 101_000)).time == TRUE + 101_000


def test_a_record_that_is_sent_twice_has_the_same_time_twice(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    record = taken(timeline, 25_000)
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    first = timeline.timed(record)
    timeline.look(80_000, TRUE + 80_000 + 7000, is_synced=True)
    assert timeline.timed(record).time == first.time
    assert restarted(timeline).timed(record).time == first.time


def test_what_was_taken_after_the_clock_stepped_while_it_was_right_keeps_its_time(timeline):
    timeline.look(0, TRUE - 5000, is_synced=True)
    timeline.look(10_000, TRUE + 10_000, is_synced=True)
    timeline.look(20_000, TRUE + 20_000, is_synced=False)
    record = taken(timeline, 25_000)
    assert timeline.timed(record).time == TRUE + 25_000
    timeline.look(30_000, TRUE + 30_400, is_synced=True)
    assert abs(timeline.timed(record).time - (TRUE + 25_000)) <= STEP_MS


def test_no_anchor_is_noted_before_anything_could_need_it(timeline):
    timeline.look(0, TRUE, is_synced=True)
    assert timeline.anchors == ()
    timeline.look(9000, TRUE + 9000, is_synced=False)
    assert timeline.anchors == (Anchor(BOOT, TRUE),)


def test_an_earlier_run_of_the_same_boot_may_need_it(timeline):
    timeline.keep({BOOT})
    timeline.look(0, TRUE, is_synced=True)
    assert timeline.anchors == (Anchor(BOOT, TRUE),)


def test_anchors_are_few_and_the_first_of_this_boot_stays(timeline):
    timeline.learn([Anchor(bytes([n]) * 16, n) for n in range(40)], 0, ())
    timeline.look(0, 0, is_synced=False)
    for n in range(40):
        timeline.look(n, TRUE + n * 10_000, is_synced=True)
    mine = [anchor.offset for anchor in timeline.anchors if anchor.boot_id == BOOT]
    assert len(timeline.anchors) == 32
    assert len(mine) == 4
    assert mine[0] == TRUE


def test_anchors_of_boots_that_have_left_the_disk_are_forgotten(timeline):
    old, kept = bytes([1]) * 16, bytes([2]) * 16
    timeline.learn([Anchor(old, 1), Anchor(kept, 2), Anchor(BOOT, 3)], 0, ())
    timeline.keep({kept})
    assert timeline.anchors == (Anchor(kept, 2), Anchor(BOOT, 3))


# --- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "regime"),
    [
        (0, Regime(BOOT, 900, is_plausible=False)),
        (1, Regime(BOOT, 900, is_plausible=True)),
        (2, None),
    ],
)
def test_the_head_of_a_frame_tells_the_regime_of_its_records(clock, regime):
    assert regime_of_head(Head(clock=clock, boot_id=BOOT, monotonic=100, wall=1000)) == regime
    assert Stretch(100, 900, regime).clock == clock


def test_the_times_in_a_head_are_mended_or_left_out(timeline):
    head = Head(clock=0, boot_id=BOOT, monotonic=20_000, wall=20_000, min_time=15_000, max_time=19_000)
    assert (timeline.mended(head).min_time, timeline.mended(head).max_time) == (0, 0)
    timeline.look(20_000, 20_000, is_synced=False)
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert (timeline.mended(head).min_time, timeline.mended(head).max_time) == (TRUE + 15_000, TRUE + 19_000)
    right = Head(clock=2, boot_id=BOOT, min_time=1, max_time=2)
    assert timeline.mended(right) is right
    likely = Head(clock=1, boot_id=bytes(16), min_time=1, max_time=2)
    assert timeline.mended(likely) == likely


def test_records_are_cut_where_the_clock_was_set():
    timeline = Timeline(BOOT)
    records, times = [], []
    for monotonic, wall, is_synced in [
        (10_000, 10_000, False),
        (20_000, 20_000, False),
        (30_000, TRUE + 30_000, True),
        (40_000, TRUE + 40_000, True),
        (50_000, TRUE + 55_000, True),
        (60_000, TRUE + 65_000, False),
    ]:
        timeline.look(monotonic, wall, is_synced=is_synced)
        records.append(taken(timeline, monotonic))
        times.append(monotonic / 1000)
    runs = [(run.offset, run.clock, first, end) for run, first, end in by_stretch(records, times, timeline.stretches)]
    assert runs == [(0, 0, 0, 2), (TRUE, 2, 2, 4), (TRUE + 5000, 2, 4, 5), (TRUE + 5000, 1, 5, 6)]
    assert [run[1:] for run in by_stretch(records[5:], times[5:], timeline.stretches)] == [(0, 1)]


def test_a_stretch_that_was_forgotten_is_told_by_its_records():
    timeline = Timeline(BOOT)
    timeline.look(0, 5000, is_synced=False)
    record = taken(timeline, 0)
    for n in range(100):
        timeline.look(n, n * 10_000, is_synced=False)
    assert len(timeline.stretches) == 32
    ((stretch, first, end),) = by_stretch([record], [0.0], timeline.stretches)
    assert (stretch.offset, stretch.regime, first, end) == (5000, record.regime, 0, 1)


# --- corrections ----------------------------------------------------------------------------------------------------


def test_what_was_sent_wrong_is_corrected_once(timeline):
    timeline.look(20_000, 20_000, is_synced=False)
    assert timeline.note_sent(taken(timeline, 25_000))
    assert not timeline.note_sent(taken(timeline, 26_000))
    assert timeline.corrections() == []
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.corrections() == [(0, TRUE)]
    assert timeline.corrections() == []


def test_nothing_is_corrected_that_was_right_or_likely_or_mended(timeline):
    timeline.look(0, TRUE, is_synced=False)
    assert not timeline.note_sent(taken(timeline, 1000))
    timeline.look(2000, TRUE + 2000, is_synced=True)
    assert not timeline.note_sent(taken(timeline, 3000))
    timeline.look(4000, 4000, is_synced=False)
    assert not timeline.note_sent(taken(timeline, 5000))
    assert timeline.corrections() == []


def test_what_another_boot_has_sent_wrong_is_nothing_to_this_one():
    other = Regime(bytes(16), 0, is_plausible=False)
    timeline = Timeline(BOOT)
    timeline.learn((), 0, [other, Regime(BOOT, 0, is_plausible=False)])
    timeline.look(70_000, TRUE + 70_000, is_synced=True)
    assert timeline.uncorrected == (Regime(BOOT, 0, is_plausible=False),)


def test_a_boot_id_of_another_form_still_gives_sixteen_bytes():
    assert boot_bytes("00000000-0000-4000-8000-000000000001") == UUID("00000000-0000-4000-8000-000000000001").bytes
    assert len(boot_bytes("process-12ab")) == 16
    assert boot_bytes("process-12ab") != boot_bytes("process-12ac")


# --- any history ----------------------------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 100_000)),
        st.tuples(st.just("step"), st.integers(-(10**12), 10**12)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("reboot"), st.integers(0, 10**12)),
    ),
    max_size=25,
)


class World:
    """Machines that boot, whose clocks are set to anything, and learn the time; and one store beside them."""

    def __init__(self):
        self.now = 1000
        self.boot = self.booted = self.offset = 0
        self.is_synced = False
        self.knew = set()  # boots that learned the time
        self.timeline = Timeline(bytes(16))
        self.taken = []  # (true time, boot, record)

    def do(self, what, amount):
        if what == "wait":
            self.now += amount
        elif what == "step":
            self.is_synced, self.offset = False, amount
        elif what == "sync":
            self.is_synced = True
        elif what == "lose":
            self.is_synced = False
        elif what == "reboot":
            self.boot, self.booted, self.is_synced, self.offset = self.boot + 1, self.now, False, amount
        if what in {"reboot", "restart"}:
            boots = [bytes([n]) * 16 for n in range(self.boot + 1)]
            self.timeline = restarted(self.timeline, boots[-1], boots)
        self.sample()

    def sample(self):
        """Look at the clock, and take a sample."""
        if self.is_synced:
            self.offset = TRUE + self.booted
            self.knew.add(self.boot)
        monotonic = self.now - self.booted
        self.timeline.look(monotonic, monotonic + self.offset, is_synced=self.is_synced)
        self.taken.append((TRUE + self.now, self.boot, taken(self.timeline, monotonic)))


@settings(max_examples=300, deadline=None)
@given(steps)
def test_whatever_happens_a_time_is_right_or_flagged(history):
    """A clock that is synchronised shows the true time; otherwise it may show anything, and be set to anything."""
    world = World()
    world.sample()
    for what, amount in history:
        world.do(what, amount)
    for true, boot, record in world.taken:
        found = world.timeline.timed(record)
        if boot in world.knew:
            assert found.regime is None
            assert abs(found.time - true) <= STEP_MS
        else:
            assert found is record
            assert found.regime is not None
