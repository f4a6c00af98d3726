from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.retained import BRANCH_BYTES, Replay, Retained
from gateway.broker.topics import Trie, parse_filter
from gateway.metrics import Metrics


@dataclass(slots=True)
class Kept:
    topic: str
    payload: bytes = b"1"
    expires_at: float | None = None
    size: int = 100


LEVEL = st.sampled_from(["", "a", "b", "$x", "é"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
FILTER = (
    st.tuples(st.lists(LEVEL | st.just("+"), max_size=3), st.sampled_from([[], ["#"], ["+"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)


def matches(filter_: str, topic: str) -> bool:
    trie: Trie[int, int] = Trie()
    trie.add(parse_filter(filter_), 0, 0)
    return bool(trie.match(topic)[0])


def store(*topics: str, max_messages: int = 1_000, max_bytes: int = 10**9) -> Retained[Kept]:
    retained: Retained[Kept] = Retained(max_messages, max_bytes, Metrics())
    for topic in topics:
        assert retained.set(Kept(topic))
    return retained


def drain(replay: Replay[Kept], steps: int = 3, now: float = 0.0) -> list[str]:
    topics = []
    while not replay.is_done:
        topics += [message.topic for message in replay.take(steps, now)]
    return topics


def matched(retained: Retained[Kept], filter_: str, now: float = 0.0) -> list[str]:
    return sorted(drain(retained.match(parse_filter(filter_)), now=now))


# --- one message a topic


def test_3_3_1_5_the_newest_message_of_a_topic_replaces_the_one_before():
    retained = store("a")
    newer = Kept("a", b"2")
    assert retained.set(newer)
    assert retained.get("a", 0.0) is newer
    assert (len(retained), matched(retained, "#")) == (1, ["a"])


def test_what_is_cleared_is_gone_and_told():
    retained = store("a/b", "a/c")
    first = retained.get("a/b", 0.0)
    assert retained.clear("a/b") is first
    assert retained.clear("a/b") is None
    assert retained.get("a/b", 0.0) is None
    assert matched(retained, "#") == matched(retained, "a/+") == ["a/c"]
    assert [message.topic for message in retained] == ["a/c"]


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ("#", ["/", "a", "a/b", "a/b/c", "b/b"]),
        ("+", ["a"]),
        ("+/b", ["a/b", "b/b"]),
        ("+/+", ["/", "a/b", "b/b"]),
        ("a/#", ["a", "a/b", "a/b/c"]),
        ("a/b/#", ["a/b", "a/b/c"]),
        ("a/b/c/#", ["a/b/c"]),
        ("a/+/c", ["a/b/c"]),
        ("a/b", ["a/b"]),
        ("a/b/c/d", []),
        ("$SYS/#", ["$SYS", "$SYS/x"]),
        ("$SYS/+", ["$SYS/x"]),
        ("+/x", []),
        ("$share/g/+/b", ["a/b", "b/b"]),
    ],
)
def test_a_replay_gives_what_the_filter_matches(filter_, expected):
    assert matched(store("a", "a/b", "a/b/c", "b/b", "/", "$SYS", "$SYS/x"), filter_) == expected


@given(st.lists(st.tuples(st.booleans(), TOPIC), max_size=30), FILTER, st.integers(1, 5))
def test_replays_agree_with_the_matcher_whatever_came_and_went(steps, filter_, slice_):
    retained = store()
    kept: dict[str, Kept] = {}
    for keeps, topic in steps:
        if keeps:
            kept[topic] = Kept(topic)
            retained.set(kept[topic])
        else:
            assert retained.clear(topic) is kept.pop(topic, None)
    found = drain(retained.match(parse_filter(filter_)), slice_)
    assert sorted(found) == sorted(t for t in kept if matches(filter_, t))
    branches = {tuple(t.split("/")[:n]) for t in kept for n in range(1, t.count("/") + 1)}
    assert retained.bytes == 100 * len(kept) + BRANCH_BYTES * len(branches)
    for topic in list(kept):
        retained.clear(topic)
    assert (len(retained), retained.bytes, retained._root.children) == (0, 0, {})


# --- bounds


def test_a_new_topic_beyond_the_count_is_refused_and_counted_a_known_one_is_replaced():
    metrics = Metrics()
    retained: Retained[Kept] = Retained(2, 10**9, metrics)
    assert [retained.set(Kept(topic)) for topic in ("a", "b", "c", "a")] == [True, True, False, True]
    assert metrics.counter("broker_retained_refused_total").value == 1
    assert retained.get("c", 0.0) is None
    retained.clear("a")
    assert retained.set(Kept("c"))
    assert {name: value for name, _, value in metrics if "retained_messages" in name} == {"broker_retained_messages": 2}


def test_bytes_are_bounded_and_what_was_kept_stays_when_its_successor_is_too_large():
    retained = store(max_bytes=250)
    assert retained.set(Kept("a"))
    assert retained.set(Kept("b", size=150))
    assert not retained.set(Kept("c", size=1))
    assert not retained.set(Kept("a", b"large", size=101))
    assert retained.get("a", 0.0) == Kept("a")
    assert retained.set(Kept("a", size=50))
    assert retained.bytes == 200
    assert retained.set(Kept("c", size=50))


def test_levels_are_charged_for_so_that_deep_topics_cannot_fill_the_memory():
    retained = store(max_bytes=100 + 3 * BRANCH_BYTES)
    assert not retained.set(Kept("a/b/c/d/e"))
    assert (retained.bytes, retained._root.children) == (0, {})
    assert retained.set(Kept("a/b/c/d"))
    assert retained.bytes == 100 + 3 * BRANCH_BYTES
    retained.clear("a/b/c/d")
    assert retained.bytes == 0


def test_a_topic_of_sixty_thousand_slashes_is_kept_at_the_price_of_64_levels():
    retained = store("/" * 60_000, "/" * 59_999, "x")
    assert retained.bytes == 300 + 64 * BRANCH_BYTES
    assert matched(retained, "/" * 62 + "/#") == ["/" * 59_999, "/" * 60_000]
    assert matched(retained, "+/" * 63 + "+") == []
    retained.clear("/" * 60_000)
    retained.clear("/" * 59_999)
    assert retained.bytes == 100


# --- expiry


def test_a_message_is_not_seen_from_its_expiry_on():
    retained = store()
    retained.set(Kept("a", expires_at=10.0))
    retained.set(Kept("b"))
    assert retained.get("a", 9.9) is not None
    assert retained.get("a", 10.0) is None
    assert matched(retained, "#", now=9.9) == ["a", "b"]
    assert matched(retained, "#", now=10.0) == ["b"]
    assert len(retained) == 2


def test_a_sweep_forgets_what_has_expired_a_bounded_number_at_a_time():
    retained = store("stays")
    for n in range(5):
        retained.set(Kept(f"e/{n}", expires_at=float(n)))
    assert [message.topic for message in retained.sweep(3.0, 2)] == ["e/0", "e/1"]
    assert [message.topic for message in retained.sweep(3.0, 9)] == ["e/2", "e/3"]
    assert retained.sweep(3.0) == []
    assert sorted(message.topic for message in retained) == ["e/4", "stays"]
    assert retained.bytes == 200 + BRANCH_BYTES


def test_a_replaced_message_does_not_expire_when_the_old_one_would_have():
    retained = store()
    retained.set(Kept("a", expires_at=1.0))
    retained.set(Kept("a", expires_at=5.0))
    retained.set(Kept("b", expires_at=1.0))
    retained.set(Kept("b"))
    assert retained.sweep(2.0) == []
    assert [message.topic for message in retained.sweep(5.0)] == ["a"]


def test_a_million_replacements_leave_no_million_notes_of_expiry():
    retained = store()
    for n in range(20_000):
        retained.set(Kept("a", expires_at=1e9 + n))
    assert len(retained._expiries) < 1_100
    retained.set(Kept("b", expires_at=5.0))
    assert [message.topic for message in retained.sweep(6.0)] == ["b"]


# --- replays while the store changes


def test_what_is_set_after_the_replay_began_is_left_out_for_it_went_out_live():
    retained = store("a/1", "a/2", "a/3")
    replay = retained.match(parse_filter("a/+"))
    retained.set(Kept("a/2", b"new"))
    retained.set(Kept("a/4"))
    assert drain(replay, 1) == ["a/1", "a/3"]
    assert matched(retained, "a/+") == ["a/1", "a/2", "a/3", "a/4"]


def test_each_replay_leaves_out_what_is_newer_than_itself_only():
    retained = store("a")
    first = retained.match(parse_filter("#"))
    retained.set(Kept("a", b"2"))
    second = retained.match(parse_filter("#"))
    assert drain(second) == ["a"]
    assert drain(first) == []


def test_what_is_cleared_during_a_replay_is_left_out_also_when_it_comes_again():
    retained = store("a/1/x", "a/2/x", "a/3/x")
    replay = retained.match(parse_filter("a/+/x"))
    assert [message.topic for message in replay.take(2, 0.0)] == ["a/1/x"]
    retained.clear("a/2/x")
    retained.clear("a/3/x")
    retained.set(Kept("a/3/x"))
    assert drain(replay) == []


@given(
    st.sets(TOPIC, max_size=12),
    FILTER,
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from("sct"), TOPIC), max_size=25),
)
def test_a_replay_gives_each_message_that_stayed_once_and_no_other(topics, filter_, slice_, steps):
    retained = store(*topics)
    replay = retained.match(parse_filter(filter_))
    touched: set[str] = set()
    found: list[str] = []
    for verb, topic in steps:
        if verb == "s":
            retained.set(Kept(topic, b"live"))
            touched.add(topic)
        elif verb == "c":
            retained.clear(topic)
            touched.add(topic)
        else:
            taken = replay.take(slice_, 0.0)
            assert all(message.payload == b"1" for message in taken)
            found += [message.topic for message in taken]
    found += drain(replay, slice_)
    wanted = {topic for topic in topics if matches(filter_, topic)}
    assert len(found) == len(set(found))
    assert wanted - touched <= set(found) <= wanted


def test_notes_for_replays_go_with_the_last_of_them_however_it_ends():
    retained = store("a", "b")
    dropped, closed, drained = (retained.match(parse_filter("#")) for _ in range(3))
    retained.set(Kept("a"))
    assert retained._late.topics
    closed.close()
    closed.close()
    assert (closed.is_done, closed.take(9, 0.0)) == (True, [])
    drain(drained)
    assert drained.take(9, 0.0) == []
    assert retained._late.topics
    del dropped
    gc.collect()
    assert (retained._late.topics, retained._late.replays) == ({}, 0)
    retained.set(Kept("b"))
    assert retained._late.topics == {}


def test_topics_that_come_and_go_during_a_replay_leave_no_notes():
    retained = store("a")
    replay = retained.match(parse_filter("#"))
    for n in range(100):
        retained.set(Kept(f"t/{n}"))
        retained.clear(f"t/{n}")
    assert retained._late.topics == {}
    assert drain(replay) == ["a"]


# --- cost


def test_a_slice_looks_at_no_more_places_than_asked_also_where_nothing_matches():
    retained = store(*(f"a/{n}/b" for n in range(500)))
    replay = retained.match(parse_filter("a/+/c"))
    slices = 0
    while not replay.is_done:
        assert replay.take(10, 0.0) == []
        slices += 1
    assert slices >= 50


def test_replays_at_the_same_time_share_one_listing_of_a_level():
    retained = store(*(f"a/{n}" for n in range(100)))
    replays = [retained.match(parse_filter(filter_)) for filter_ in ("a/+", "a/#", "#", "#") for _ in range(5)]
    for replay in replays:
        replay.take(1, 0.0)
    branch = retained._root.children["a"]
    assert not isinstance(branch, str)
    assert branch.list() is branch.list()
    assert retained._root.all_of(()) is retained._root.all_of(())
    assert {len(drain(replay, 50)) for replay in replays} == {99, 100}


def test_ten_thousand_are_iterated_in_milliseconds_and_one_topic_does_not_pay_for_the_others():
    retained = store(*(f"plant/{n % 100}/dev{n}/status" for n in range(10_000)), max_messages=10_000)

    def cost(filter_: str, count: int) -> float:
        best = 1e9
        for _ in range(5):
            started = time.perf_counter()
            assert len(drain(retained.match(parse_filter(filter_)), 256)) == count
            best = min(best, time.perf_counter() - started)
        return best

    whole = cost("#", 10_000)
    assert whole < 0.05  # 3 ms are usual
    assert cost("plant/7/dev7/status", 1) < whole / 20
    assert cost("plant/+/dev7/status", 1) < whole / 5
