from __future__ import annotations

import random
import sys
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.topics import FullError, Trie, parse_filter

LEVEL = st.sampled_from(["", "a", "b", "$x", "é", "\ufeffa", "A", "\U0001f600"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)
FILTER = (
    st.tuples(st.lists(LEVEL | st.just("+"), max_size=4), st.sampled_from([[], ["#"], ["+"], ["a"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)

LONG = st.lists(st.sampled_from("a+"), min_size=1, max_size=9).map("/".join)
"""Filters that share long beginnings, so that nodes are split and joined in many places."""


def naive(filter_: str, topic: str) -> bool:
    """The words of 4.7, level by level, with no thought of speed."""
    if topic.startswith("$") and filter_[0] in "+#":
        return False
    wanted, given_ = filter_.split("/"), topic.split("/")
    if wanted[-1] == "#":
        head = wanted[:-1]
        return len(given_) >= len(head) and all(w in ("+", g) for w, g in zip(head, given_, strict=False))
    return len(wanted) == len(given_) and all(w in ("+", g) for w, g in zip(wanted, given_, strict=True))


def trie_of(*filters: str) -> Trie[str, int]:
    trie: Trie[str, int] = Trie()
    for number, text in enumerate(filters):
        trie.add(parse_filter(text), text, number)
    return trie


def found(trie: Trie[str, int], topic: str) -> set[str]:
    plain, shared = trie.match(topic)
    assert len(plain) == len(set(plain))
    return {session for session, _ in plain} | {group.filter.text for group in shared}


def nodes_that_serve(trie: Trie[int, int]) -> int:
    """How many nodes there are below the root. Each holds a subscription, branches, or leads to a `#`."""
    count, todo = 0, [trie._root]
    while todo:
        node = todo.pop()
        below = node.children
        if node is not trie._root:
            count += 1
            assert node.plain or node.shared or len(below or ()) > 1 or list(below or ()) == ["#"]
            assert "#" not in node.run or node.run == ("#",)
        assert below != {}
        todo += (below or {}).values()
        assert all(level == child.run[0] for level, child in (below or {}).items())
    return count


# --- filters


@pytest.mark.parametrize(
    "text", ["a", "/", "//", "a/b", "+", "#", "+/+", "a/+/b", "a/#", "/#", "+/#", "$SYS/#", "$share"]
)
def test_a_valid_filter_is_taken_apart(text):
    parsed = parse_filter(text)
    assert parsed.text == parsed.plain == text
    assert parsed.share is None
    assert "/".join(parsed.levels) == text
    assert parsed.has_wildcard == any(c in text for c in "+#")


@pytest.mark.parametrize(
    "text", ["", "a#", "#a", "a/#/b", "#/", "##", "a/b#", "a+", "+a", "a/b+/c", "++", "+#", "a/+#"]
)
def test_4_7_1_wildcards_stand_alone_and_the_multi_level_one_is_last(text):
    with pytest.raises(ValueError, match=r"topic filter|alone"):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "share", "plain"),
    [
        ("$share/g/a", "g", "a"),
        ("$share/g/#", "g", "#"),
        ("$share/g//", "g", "/"),
        ("$share/g/$share/h/a", "g", "$share/h/a"),
        ("$share/$g/+/b", "$g", "+/b"),
        ("$SHARE/g/a", None, "$SHARE/g/a"),
        ("$shared/g/a", None, "$shared/g/a"),
    ],
)
def test_4_8_2_a_shared_filter_is_split_into_name_and_filter(text, share, plain):
    parsed = parse_filter(text)
    assert (parsed.share, parsed.plain, "/".join(parsed.levels)) == (share, plain, plain)


@pytest.mark.parametrize(
    "text", ["$share/", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/#", "$share/#/a", "$share/g+/a"]
)
def test_4_8_2_a_share_without_a_name_or_filter_or_with_a_wildcard_in_its_name_is_invalid(text):
    with pytest.raises(ValueError, match=r"shared subscription|topic filter"):
        parse_filter(text)


@pytest.mark.parametrize("text", ["$share/g/a#", "$share/g/#/a", "$share/g/a+"])
def test_wildcards_are_checked_behind_the_name_of_a_share_too(text):
    with pytest.raises(ValueError, match="alone"):
        parse_filter(text)


def test_a_filter_has_at_most_so_many_levels_not_counting_the_share():
    assert len(parse_filter("/" * 63).levels) == 64
    assert len(parse_filter("$share/g/" + "/" * 63).levels) == 64
    assert len(parse_filter("a/b", levels=2).levels) == 2
    for text in ("/" * 64, "/" * 65_535, "$share/g/" + "/" * 64):
        with pytest.raises(ValueError, match="more than 64 levels"):
            parse_filter(text)


@given(st.text("ab/+#$shareg", max_size=30))
def test_any_text_is_a_filter_or_a_value_error(text):
    try:
        parsed = parse_filter(text, 8)
    except ValueError:
        return
    assert "/".join(parsed.levels) == parsed.plain
    assert text == (parsed.plain if parsed.share is None else f"$share/{parsed.share}/{parsed.plain}")
    assert all(level in ("+", "#") or not set(level) & set("+#") for level in parsed.levels)
    assert "#" not in parsed.levels[:-1]


# --- matching


@pytest.mark.parametrize(
    ("filter_", "topic", "is_match"),
    [
        ("a/#", "a", True),
        ("a/#", "a/", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("+", "/", False),
        ("+/+", "/", True),
        ("+/+", "/x", True),
        ("/+", "/x", True),
        ("+", "x", True),
        ("#", "/", True),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
        ("a//b", "a//b", True),
        ("a//b", "a/b", False),
        ("a/+/b", "a//b", True),
        ("#", "$SYS", False),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("+", "$SYS", False),
        ("$SYS/#", "$SYS", True),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/+", "$SYS/x", True),
        ("a/#", "a/$SYS", True),
        ("a/+", "a/$SYS", True),
        ("é", "e\u0301", False),
        ("a", "A", False),
        ("\ufeffa", "a", False),
    ],
)
def test_4_7_a_filter_matches_as_the_standard_says(filter_, topic, is_match):
    assert naive(filter_, topic) == is_match
    assert found(trie_of(filter_), topic) == ({filter_} if is_match else set())
    shared = f"$share/g/{filter_}"
    assert found(trie_of(shared), topic) == ({shared} if is_match else set())


@given(
    st.sets(FILTER, max_size=12) | st.sets(LONG | LONG.map(lambda text: text + "/#"), max_size=12),
    st.lists(TOPIC | LONG.map(lambda text: text.replace("+", "b")), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_trie_finds_what_a_naive_matcher_finds_also_after_removals(filters, topics, rng):
    trie: Trie[str, int] = Trie()
    kept = {text: number for number, text in enumerate(sorted(filters))}
    for text, number in kept.items():
        assert not trie.add(parse_filter(text), text, number)
        assert not trie.add(parse_filter(f"$share/g/{text}"), text, number)
    for text in rng.sample(sorted(filters), rng.randint(0, len(filters))):
        del kept[text]
        assert trie.remove(parse_filter(text), text)
        assert trie.remove(parse_filter(f"$share/g/{text}"), text)
    assert trie.count == 2 * len(kept)
    assert trie.shared_count == len(kept)
    for topic in topics:
        expected = {text for text in kept if naive(text, topic)}
        plain, shared = trie.match(topic)
        assert Counter(plain) == Counter((text, kept[text]) for text in expected)
        assert Counter(group.filter.plain for group in shared) == Counter(expected)


@given(st.lists(st.tuples(st.booleans(), FILTER | LONG, st.integers(0, 3)), max_size=40))
def test_a_trie_that_was_emptied_holds_nothing(steps):
    trie: Trie[int, int] = Trie()
    held: dict[tuple[str, int], None] = {}
    for adds, text, session in steps:
        before = trie.generation
        if adds:
            assert trie.add(parse_filter(text), session, 0) == ((text, session) in held)
            held[text, session] = None
            assert trie.generation > before
        else:
            existed = (text, session) in held
            assert trie.remove(parse_filter(text), session) == existed
            assert (trie.generation > before) == existed
            held.pop((text, session), None)
        assert trie.nodes == nodes_that_serve(trie) <= 3 * len(held)
    for text, session in held:
        assert trie.remove(parse_filter(text), session)
    assert (trie.count, trie.nodes, trie._root.children) == (0, 0, None)


def test_an_entry_is_replaced_not_doubled():
    trie = trie_of("a/+")
    assert trie.add(parse_filter("a/+"), "a/+", 7)
    assert trie.match("a/b") == ([("a/+", 7)], [])
    assert trie.count == 1


def test_removing_what_is_not_there_changes_nothing():
    trie = trie_of("a/b", "$share/g/a/b")
    before = trie.generation
    for text in ("a", "a/b/c", "a/+", "x", "$share/h/a/b", "$share/g/a"):
        assert not trie.remove(parse_filter(text), "a/b")
    assert not trie.remove(parse_filter("a/b"), "nobody")
    assert not trie.remove(parse_filter("$share/g/a/b"), "nobody")
    assert (trie.generation, trie.count) == (before, 2)


def test_a_session_may_hold_overlapping_filters_each_of_which_is_told():
    trie: Trie[str, int] = Trie()
    for number, text in enumerate(["a/b", "a/+", "a/#", "#", "+/b"]):
        trie.add(parse_filter(text), "me", number)
    assert sorted(entry for _, entry in trie.match("a/b")[0]) == [0, 1, 2, 3, 4]


# --- bounds


def test_a_filter_deeper_than_the_trie_is_refused():
    trie: Trie[str, int] = Trie(levels=3)
    with pytest.raises(ValueError, match="more than 3 levels"):
        trie.add(parse_filter("a/b/c/d"), "me", 0)
    assert trie.nodes == 0


def test_a_topic_deeper_than_the_trie_is_matched_by_the_multi_level_wildcard_only():
    trie: Trie[str, int] = Trie(levels=3)
    for text in ("a/b/c", "a/b/+", "+/+/+", "a/#", "a/+/#", "#", "/+/#"):
        trie.add(parse_filter(text), text, 0)
    assert found(trie, "a/b/c/d") == {"a/#", "a/+/#", "#"}
    assert found(trie, "a/b/c") == {"a/b/c", "a/b/+", "+/+/+", "a/#", "a/+/#", "#"}


def test_the_trie_refuses_what_it_has_no_room_for_and_stays_as_it_was():
    trie: Trie[str, int] = Trie(nodes_maximum=4)
    trie.add(parse_filter("a/b/c"), "me", 0)
    trie.add(parse_filter("a/b/d"), "me", 0)
    before = trie.generation
    for text in ("x/y", "a/#"):
        with pytest.raises(FullError):
            trie.add(parse_filter(text), "me", 0)
    assert (trie.nodes, trie.count, trie.generation) == (3, 2, before)
    assert found(trie, "x/y") == set()
    trie.add(parse_filter("a/b/d"), "you", 0)
    trie.add(parse_filter("a/b"), "you", 0)
    assert (trie.nodes, trie.count) == (3, 4)


def test_filters_made_to_match_almost_cost_a_step_each_not_one_a_level():
    rng = random.Random(1)
    trie: Trie[int, int] = Trie()
    for number in range(1_000):
        trie.add(parse_filter("/".join(rng.choice("a+") for _ in range(63)) + "/z"), number, 0)
    assert trie.nodes < 2_000
    topic = "a/" * 63 + "q"
    best = min(timed(lambda: trie.match(topic)) for _ in range(10))
    assert best < 0.02  # 2 ms are usual, 40 ms without compression


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_hostile_topics_neither_recurse_nor_cost():
    trie = trie_of("/" * 63, "+/" * 63 + "+", "+/" * 63 + "#", "#", "a")
    slashes = "/" * 60_000
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(120)
    try:
        assert found(trie, slashes) == {"#", "+/" * 63 + "#"}
        assert found(trie, "/" * 63) == {"/" * 63, "+/" * 63 + "+", "+/" * 63 + "#", "#"}
        for text in ("/" * 63, "+/" * 63 + "+", "+/" * 63 + "#", "#", "a"):
            trie.remove(parse_filter(text), text)
    finally:
        sys.setrecursionlimit(limit)
    assert trie.nodes == 0
    started = time.process_time()
    for _ in range(1_000):
        trie.match(slashes)
    assert time.process_time() - started < 0.5  # 10 us each are usual, a walk over all levels takes 2 ms


def test_filters_that_do_not_match_cost_nothing():
    def cost(others: int) -> float:
        trie: Trie[int, int] = Trie()
        trie.add(parse_filter("plant/7/dev/status"), 0, 0)
        for n in range(others):
            trie.add(parse_filter(f"plant/{n % 100}/dev{n}/status"), n, 0)
            trie.add(parse_filter(f"plant/+/dev{n}/#"), n, 0)
        best = 1e9
        for _ in range(15):
            started = time.perf_counter()
            for _ in range(200):
                trie.match("plant/7/dev/status")
            best = min(best, time.perf_counter() - started)
        return best

    assert cost(5_000) < 5 * cost(5)


# --- shared subscriptions


def test_members_of_other_shares_and_plain_subscribers_get_their_own_copy():
    trie: Trie[str, int] = Trie()
    for share in ("$share/g/a", "$share/h/a", "a"):
        for session in ("x", "y"):
            trie.add(parse_filter(share), session, 0)
    plain, shared = trie.match("a")
    assert [session for session, _ in plain] == ["x", "y"]
    assert [(group.filter.share, len(group)) for group in shared] == [("g", 2), ("h", 2)]
    assert (trie.count, trie.shared_count) == (6, 4)


def test_a_shared_group_is_found_by_its_filter_and_goes_with_its_last_member():
    trie: Trie[str, int] = Trie()
    filter_ = parse_filter("$share/g/a/+")
    assert trie.group(filter_) is None
    trie.add(filter_, "x", 0)
    trie.add(filter_, "y", 0)
    group = trie.group(filter_)
    assert group is not None
    assert len(group) == 2
    assert trie.group(parse_filter("$share/h/a/+")) is None
    assert trie.group(parse_filter("a/+")) is None
    group.leave("y")
    trie.remove(filter_, "x")
    trie.remove(filter_, "y")
    assert trie.group(filter_) is None
    assert trie.nodes == 0


def test_a_storm_of_subscriptions_and_removals_leaves_other_subscriptions_alone():
    rng = random.Random(7)
    trie: Trie[int, int] = Trie()
    trie.add(parse_filter("keep/+/me"), -1, 0)
    texts = ["/".join(rng.choice("abcd+") for _ in range(rng.randint(1, 6))) for _ in range(2_000)]
    for number, text in enumerate(texts):
        trie.add(parse_filter(text), number, 0)
    for number, text in enumerate(texts):
        assert trie.remove(parse_filter(text), number)
    assert trie.match("keep/x/me")[0] == [(-1, 0)]
    assert trie.nodes == nodes_that_serve(trie) == 1
