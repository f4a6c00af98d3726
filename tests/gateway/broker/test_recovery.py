"""What the store's operations leave on disk, after a kill, a power cut, damage, and with snapshots on the way."""

import contextlib
import gc
import importlib.util
import itertools
import math
import random
import struct
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.broker.client import Identity
from gateway.broker.message import NO_ONE, Message
from gateway.broker.operations import message_operation, read_message
from gateway.broker.recovery import compact, recover
from gateway.journal.log import Log
from gateway.journal.segment import Tally
from gateway.mqtt.packets import Subscription
from gateway.mqtt.properties import Properties


def _load():
    name = "headgate_tests_broker_stored"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("stored.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


stored = _load()


def opened(disk, tally=None):
    logs = Log(disk, tally or Tally())
    state, last_message = recover(logs)
    return logs, state, last_message


def written(*frames):
    """A disk with these frames, flushed."""
    disk = stored.simulated_disk()
    logs, _, _ = opened(disk)
    for number, frame in enumerate(frames, 1):
        logs.append(number, frame)
    logs.flush()
    logs.close()
    return disk


# --- one operation after the other ------------------------------------------------------------------------------------


def test_each_operation_leaves_what_it_says():
    notes = stored.Notes()
    message = Message("t", b"1", 1, True, Properties(user=(("a", "b"),)), 5.5, Identity("pub"))
    notes.session(7, "client", "user", 3600, None)
    notes.subscribe(7, Subscription("a/#", 2, no_local=True, retain_as_published=False, retain_handling=2), 9)
    notes.message(message)
    notes.queue(7, message.number, 2, True, (9, 12))
    notes.queue(7, message.number, 1, False, ())
    notes.send(7, message.number, 1)
    notes.inbound(7, 77)
    notes.will(7, Message("w", b"bye", 0, False), math.inf, 30)
    _, state, last = opened(written(notes.take()))
    (session,) = state.sessions
    assert (session.number, session.client_id, session.username, session.expiry_s) == (7, "client", "user", 3600)
    assert session.offline_since is None
    assert session.subscriptions == {"a/#": (Subscription("a/#", 2, True, False, 2), 9)}
    (flight,) = session.in_flight
    (waiting,) = session.queue
    assert flight.packet_id == 1
    assert (flight.delivery.qos, flight.delivery.retain, flight.delivery.identifiers) == (2, True, (9, 12))
    assert (waiting.qos, waiting.retain, waiting.identifiers) == (1, False, ())
    assert flight.delivery.message is waiting.message
    assert stored.said(waiting.message) == stored.said(message)
    assert session.inbound == [77]
    assert (session.will.message.topic, session.will.due, session.will.delay_s) == ("w", math.inf, 30)
    assert state.retained == []
    assert last == 2


def test_a_message_nobody_needs_is_forgotten():
    for end in (
        lambda notes: notes.done(1, 5),
        lambda notes: notes.received(1, 5),
        lambda notes: notes.end_session(1),
    ):
        notes = stored.Notes()
        notes.session(1, "c", None, 60, None)
        message = Message("t", bytes(5000), 2, False)
        notes.message(message)
        notes.queue(1, message.number, 2, False, ())
        notes.send(1, message.number, 5)
        end(notes)
        disk = written(notes.take())
        logs, _, last = opened(disk)
        assert last == 1
        list(compact(logs))
        assert logs.snapshot_bytes < 5000


def test_a_message_that_is_still_retained_or_waits_elsewhere_is_not():
    notes = stored.Notes()
    for number in (1, 2):
        notes.session(number, f"c{number}", None, 60, None)
    message = Message("t", b"x", 1, True)
    notes.retain(message)
    for number in (1, 2):
        notes.queue(number, message.number, 1, False, ())
        notes.send(number, message.number, 5)
    frames = [notes.take()]
    notes.done(1, 5)
    frames.append(notes.take())
    notes.unretain("t")
    frames.append(notes.take())
    disk = written(*frames)
    _, state, _ = opened(disk)
    assert state.retained == []
    assert state.sessions[0].in_flight == []
    assert state.sessions[1].in_flight[0].delivery.message.payload == b"x"


def test_a_will_that_is_published_may_go_on_as_the_same_message():
    notes = stored.Notes()
    notes.session(1, "c", None, 60, None)
    message = Message("w", b"bye", 1, False)
    notes.will(1, message, math.inf)
    frames = [notes.take()]
    notes.will_done(1)
    notes.message(message)
    notes.queue(1, message.number, 1, False, ())
    frames.append(notes.take())
    _, state, _ = opened(written(*frames))
    assert state.sessions[0].will is None
    assert [d.message.payload for d in state.sessions[0].queue] == [b"bye"]


def test_copies_of_one_message_in_one_queue_are_told_apart_and_taken_oldest_first():
    notes = stored.Notes()
    model = stored.Model(notes)
    model.session(1, "c", None, 60, None)
    one, two = Message("1", b"1", 1, False), Message("2", b"2", 1, False)
    model.queue(1, one, 1, False, (1,))
    model.queue(1, two, 1, False, (2,))
    model.queue(1, one, 2, True, (3,))
    model.queue(1, one, 1, True, (4,))
    model.send(1, one, 10)
    model.queue(1, one, 2, False, (5,))
    model.drop(1, one)
    model.send(1, one, 11)
    _, state, _ = opened(written(notes.take()))
    assert stored.image(state) == model.image()
    assert [d.identifiers for d in state.sessions[0].queue] == [(2,), (5,)]


def test_a_packet_id_that_is_used_again_stands_behind_those_sent_before():
    notes = stored.Notes()
    model = stored.Model(notes)
    model.session(1, "c", None, 60, None)
    for packet_id in (1, 2, 3):
        message = Message("t", b"%d" % packet_id, 1, False)
        model.queue(1, message, 1, False, ())
        model.send(1, message, packet_id)
    model.done(1, 1)
    model.queue(1, message, 1, False, ())
    model.send(1, message, 1)
    model.received(1, 2)
    logs, state, _ = opened(written(notes.take()))
    assert [f.packet_id for f in state.sessions[0].in_flight] == [2, 3, 1]
    assert stored.image(state) == model.image()
    list(compact(logs))
    logs.close()


def test_a_packet_id_whose_end_was_lost_serves_the_next_message():
    notes = stored.Notes()
    notes.session(1, "c", None, 60, None)
    for payload in (bytes(5000), b"x"):
        message = Message("t", payload, 1, False)
        notes.message(message)
        notes.queue(1, message.number, 1, False, ())
        notes.send(1, message.number, 5)
    disk = written(notes.take())
    logs, state, _ = opened(disk)
    assert [(f.packet_id, f.delivery.message.payload) for f in state.sessions[0].in_flight] == [(5, b"x")]
    list(compact(logs))
    assert logs.snapshot_bytes < 5000


def test_operations_that_fit_nothing_are_passed_over():
    notes = stored.Notes()
    notes.session(1, "c", None, 60, None)
    good = notes.take()
    message = Message("t", b"", 1, False)
    message.number = 999
    for number in (1, 2):
        notes.queue(number, 999, 1, False, (1, 2))
        notes.send(number, 999, 5)
        notes.done(number, 5)
        notes.drop(number, 999)
        notes.inbound_done(number, 3)
        notes.unsubscribe(number, "x")
        notes.will_done(number)
        notes.will(number, message, 0.0)
    notes.received(2, 4)
    notes.inbound(2, 4)
    notes.subscribe(2, Subscription("x"), None)
    notes.retain(message)
    notes.unretain("nothing")
    notes.end_session(3)
    _, state, _ = opened(written(good, notes.take()))
    (session,) = state.sessions
    assert (session.subscriptions, session.in_flight, session.queue, session.inbound, session.will) == (
        {},
        [],
        [],
        [],
        None,
    )
    assert state.retained == []


def test_pubrec_for_what_is_not_known_leaves_a_release():
    notes = stored.Notes()
    notes.session(1, "c", None, 60, None)
    notes.received(1, 4)
    _, state, _ = opened(written(notes.take()))
    assert [(f.packet_id, f.delivery) for f in state.sessions[0].in_flight] == [(4, None)]


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b"\x06\0", b"\x05\1\0\0\0", b"\x11"], ids=bytes.hex)
def test_a_frame_that_is_not_understood_costs_its_rest_and_no_other(junk):
    notes = stored.Notes()
    notes.session(1, "c", None, 60, None)
    first = notes.take() + junk
    notes.session(2, "d", None, 60, None)
    _, state, _ = opened(written(first, notes.take()))
    assert [s.number for s in state.sessions] == [1, 2]


def test_a_stored_message_that_is_not_understood_is_dropped_with_its_deliveries():
    notes = stored.Notes()
    notes.session(1, "c", None, 60, None)
    for topic in ("good", "bad!"):
        message = Message(topic, b"", 1, False)
        notes.retain(message)
        notes.queue(1, message.number, 1, False, ())
        notes.queue(1, message.number, 1, False, ())
        notes.send(1, message.number, message.number)
        notes.will(1, message, 0.0)
    _, state, _ = opened(written(notes.take().replace(b"bad!", b"bad\xff")))
    assert [m.topic for m in state.retained] == ["good"]
    (session,) = state.sessions
    assert [d.message.topic for d in session.queue] == ["good"]
    assert [f.delivery.message.topic for f in session.in_flight] == ["good"]
    assert session.will is None


texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    texts.filter(lambda t: t and not set(t) & set("+#")),
    st.binary(max_size=200),
    st.integers(0, 2),
    st.booleans(),
    st.lists(st.tuples(texts, texts), max_size=5),
    st.none() | texts,
    st.none() | st.binary(max_size=50),
    st.none() | st.floats(0, 4e9),
    st.none() | texts.filter(bool),
)
def test_a_message_is_read_as_it_was_stored(topic, payload, qos, retain, user, kind, correlation, expires_at, who):
    properties = Properties(user=tuple(user), content_type=kind, correlation_data=correlation)
    origin = NO_ONE if who is None else Identity(who)
    message = Message(topic, payload, qos, retain, properties, expires_at, origin, 1 << 40)
    assert stored.said(read_message(message_operation(message, 0), {})) == stored.said(message)


def test_the_worked_example_of_the_layout():
    notes = stored.Notes()
    notes.done(7, 5)
    assert notes.take() == bytes.fromhex("09 07000000 0500")


# --- a whole life -----------------------------------------------------------------------------------------------------


def lived(chance, disk, frames, *, compact_every=0, steps=3, flush_every=5, told=None):
    """A run: some operations a frame; flushes and snapshots by turns. Gives the image after each frame, 0 = before."""
    logs, state, last = opened(disk)
    notes = stored.Notes(last)
    model = stored.Model(notes)
    stored.adopt(model, state)
    images = [model.image()]
    told = told if told is not None else {}
    told.update(images=images, durable=0, written=0)
    compaction = None
    for k in range(1, frames + 1):
        for _ in range(chance.randint(1, 4)):
            stored.throw(chance, model)
        images.append(model.image())
        logs.append(logs.last + 1, notes.take())
        told["written"] = k
        if compaction is not None:
            for _ in range(steps):
                if next(compaction, "over") == "over":
                    compaction = None
                    break
        elif compact_every and not k % compact_every:
            compaction = compact(logs)
            next(compaction)
            told["durable"] = k
        if chance.random() < 1 / flush_every:
            logs.flush()
            told["durable"] = k
    return logs, images


@pytest.mark.parametrize("seed", range(3))
def test_every_prefix_of_a_log_is_the_state_after_some_whole_frame(seed):
    disk = stored.simulated_disk()
    logs, images = lived(random.Random(seed), disk, 25)
    (name,) = disk.names_now
    data = bytes(disk.names_now[name].cache)[:6000]
    logs.close()
    at = 0
    for cut in [*range(min(len(data), 1500)), *range(1500, len(data), 7)]:
        found = stored.simulated_disk()
        found.put(name, data[:cut])
        _, state, _ = opened(found)
        image = stored.image(state)
        while image != images[at]:
            at += 1
    assert at > 5


@pytest.mark.parametrize("compact_every", [0, 12], ids=["no snapshots", "snapshots"])
@pytest.mark.parametrize("seed", range(3))
def test_wherever_the_power_fails_the_state_after_some_frame_is_found_and_no_durable_one_is_missing(
    seed, compact_every
):
    for cut_at in itertools.count(1):
        disk, told = stored.simulated_disk(cut_at=cut_at, seed=seed), {}
        with contextlib.suppress(OSError):
            lived(random.Random(seed), disk, 50, compact_every=compact_every, told=told)
        if not disk.is_off:
            assert cut_at > 40
            break
        for luck in range(2):
            _, state, _ = opened(disk.crash(1000 * luck + cut_at))
            assert stored.image(state) in told["images"][told["durable"] : told["written"] + 2]


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_any_operation_finds_all_that_was_written_also_in_the_middle_of_a_snapshot(seed):
    disk, told, seen = stored.simulated_disk(), {}, []
    disk.fault = lambda what, name: seen.append((told.get("written", 0), disk.copy()))
    lived(random.Random(seed), disk, 60, compact_every=10, steps=1, told=told)
    for k, found in seen:
        _, state, _ = opened(found)
        assert stored.image(state) in told["images"][k : k + 2]


@pytest.mark.parametrize("seed", range(8))
def test_run_after_run_goes_on_where_the_last_one_ended(seed):
    chance = random.Random(seed)
    disk = stored.simulated_disk()
    image = ({}, {})
    for _ in range(6):
        _, images = lived(chance, disk, 60, compact_every=chance.choice([0, 7, 20]), steps=chance.randint(1, 4))
        assert images[0] == image
        image = images[-1]
        disk = disk.copy()
    _, state, _ = opened(disk)
    assert stored.image(state) == image


@pytest.mark.parametrize("seed", range(6))
def test_a_snapshot_says_the_same_as_the_log_it_replaces(seed):
    disk = stored.simulated_disk()
    logs, images = lived(random.Random(seed), disk, 300)
    list(compact(logs))
    assert [file.kind for file in logs.files] == ["snapshot"]
    _, state, last = opened(disk)
    assert stored.image(state) == images[-1]
    size = logs.snapshot_bytes
    logs, _, _ = opened(disk)
    list(compact(logs))
    assert logs.snapshot_bytes == size, "nothing was left in it that nobody needs"
    assert stored.image(opened(disk)[1]) == images[-1]
    assert last >= max([n for n, *_ in images[-1][1].values()], default=0)


def test_a_snapshot_that_is_broken_off_leaves_no_trace():
    disk = stored.simulated_disk()
    logs, images = lived(random.Random(3), disk, 200)
    names = set(disk.names_now)
    steps = sum(1 for _ in compact(Log_of(disk.copy())))
    for stop in range(1, steps, 3):
        compaction = compact(logs)
        for _ in range(stop):
            next(compaction)
        compaction.close()
        assert set(disk.names_now) == names
    assert stored.image(opened(disk)[1]) == images[-1]
    logs.close()
    assert not disk.handles


def Log_of(disk):  # noqa: N802 - reads like the class
    return opened(disk)[0]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_damaged_a_start_succeeds(data):
    chance = random.Random(data.draw(st.integers(0, 20)))
    disk = stored.simulated_disk()
    lived(chance, disk, 60, compact_every=data.draw(st.sampled_from([0, 20])), steps=2)
    for _ in range(data.draw(st.integers(1, 4))):
        cache = disk.names_now[data.draw(st.sampled_from(sorted(disk.names_now)))].cache
        at = data.draw(st.integers(0, len(cache)))
        junk = data.draw(st.binary(min_size=1, max_size=600))
        cache[at : at + len(junk)] = junk
    logs, state, _ = opened(disk)
    list(compact(logs))
    again, same, _ = opened(disk)
    assert stored.image(same) == stored.image(state)
    assert not again.is_worn


def test_damage_costs_what_was_written_between_two_flushes_and_not_the_rest():
    notes = stored.Notes()
    disk = stored.simulated_disk()
    logs, _, _ = opened(disk)
    for k in range(1, 21):
        notes.retain(Message(f"t/{k}", b"value", 0, True))
        logs.append(k, notes.take())
        if not k % 5:
            logs.flush()
    disk.names_now[logs.files[0].name].cache[4096 + 20] ^= 1
    _, state, _ = opened(disk)
    assert {m.topic for m in state.retained} == {f"t/{k}" for k in range(1, 21) if not 6 <= k <= 10}


def test_numbers_are_not_used_twice_after_a_restart():
    notes = stored.Notes()
    message = Message("t", b"", 1, True)
    notes.retain(message)
    notes.unretain("t")
    frames = [notes.take()]
    _, state, last = opened(written(*frames))
    assert state.retained == []
    assert last == message.number


# --- figures ----------------------------------------------------------------------------------------------------------


def large(sessions, retained):
    """A log as a busy house leaves it: sessions with two subscriptions and two waiting messages, retained values."""
    notes = stored.Notes()
    disk = stored.simulated_disk()
    logs, _, _ = opened(disk)
    for k in range(retained):
        notes.retain(Message(f"plant/area{k % 50}/device{k}/value", b"%064d" % k, 1, True, origin=Identity("device")))
        if not k % 20:
            logs.append(logs.last + 1, notes.take())
    for number in range(1, sessions + 1):
        notes.session(number, f"client-{number}", "user", 86400, 1.0)
        notes.subscribe(number, Subscription(f"plant/area{number % 50}/#", 1), None)
        notes.subscribe(number, Subscription(f"clients/{number}/+", 1), None)
        for k in range(2):
            message = Message(f"clients/{number}/{k}", b"%064d" % k, 1, False, origin=Identity("device"))
            notes.message(message)
            notes.queue(number, message.number, 1, False, ())
        logs.append(logs.last + 1, notes.take())
    return disk, logs


@pytest.mark.parametrize(
    ("sessions", "retained", "limit_s"),
    [(500, 5_000, 2.0), pytest.param(10_000, 100_000, 8.0, marks=pytest.mark.bench)],
)
def test_a_large_store_opens_fast(sessions, retained, limit_s):
    disk, logs = large(sessions, retained)
    for kind in ("log", "snapshot"):
        started = time.perf_counter()
        _, state, _ = opened(disk)
        took = time.perf_counter() - started
        size = logs.log_bytes + logs.snapshot_bytes >> 10
        print(f"{sessions} sessions, {retained} retained, from the {kind} ({size} KiB): {took:.2f} s")
        assert (len(state.sessions), len(state.retained)) == (sessions, retained)
        assert all(len(session.queue) == 2 for session in state.sessions)
        assert took < limit_s
        if kind == "log":
            del state
            gc.disable()  # the collector's pauses are not the snapshot's
            started = last = time.thread_time()
            longest, steps = 0.0, 0
            for _ in compact(logs):
                now = time.thread_time()
                longest, steps, last = max(longest, now - last), steps + 1, now
            gc.enable()
            took = last - started
            print(f"a snapshot took {took:.2f} s of CPU in {steps} steps, the longest of {longest * 1e3:.1f} ms")
            assert longest < 0.05


def test_a_frame_with_many_operations_is_replayed_in_steps():
    notes = stored.Notes()
    for number in range(1, 5000):
        notes.inbound(1, number)
    logs, _, _ = opened(written(notes.take()))
    assert sum(1 for _ in compact(logs)) > 30


def test_no_operation_takes_a_password():
    """What the store is given is what it writes: and nobody can give it one."""
    for name in ("session", "will", "message", "queue"):
        code = getattr(stored.Store, name).__code__
        assert not [v for v in code.co_varnames if "password" in v]
    assert struct.calcsize("<BIIdHBH") == 22
