from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.shared import SharedGroup
from gateway.broker.topics import parse_filter


def anybody(session: str, entry: int, message: object) -> int:
    return 0


def group_of(*sessions: str) -> SharedGroup[str, int]:
    group: SharedGroup[str, int] = SharedGroup(parse_filter("$share/g/a"))
    for number, session in enumerate(sessions):
        group.put(session, number)
    return group


def picked(group: SharedGroup[str, int], count: int, rank=anybody) -> list[str | None]:
    picks = [group.pick(rank, None) for _ in range(count)]
    return [pick and pick[0] for pick in picks]


def test_4_8_2_each_message_of_a_shared_subscription_goes_to_the_next_member():
    assert picked(group_of("x", "y", "z"), 7) == ["x", "y", "z", "x", "y", "z", "x"]


def test_a_member_that_cannot_take_the_message_is_passed_over_and_the_turn_goes_on():
    group = group_of("x", "y", "z")
    assert picked(group, 4, lambda s, _e, _m: 1 if s == "y" else 0) == ["x", "z", "x", "z"]


def test_where_none_takes_it_now_the_member_that_could_best_gets_it():
    group = group_of("x", "y", "z")
    ranks = {"x": 3, "y": 1, "z": -1}
    assert picked(group, 3, lambda s, _e, _m: ranks[s]) == ["y", "y", "y"]


def test_nobody_gets_what_nobody_may_have():
    assert picked(group_of("x", "y"), 2, lambda *_: -1) == [None, None]


def test_a_member_that_is_away_gets_messages_only_while_nobody_is_here():
    group = group_of("x", "y", "z")
    group.leave("y")
    assert picked(group, 4) == ["x", "z", "x", "z"]
    assert picked(group, 2, lambda s, _e, _m: 0 if s == "y" else -1) == ["y", "y"]
    group.leave("x")
    group.leave("z")
    assert set(picked(group, 3)) == {"x", "y", "z"}
    group.come("y")
    assert picked(group, 2) == ["y", "y"]


def test_leaving_and_coming_twice_or_as_a_stranger_changes_nothing():
    group = group_of("x")
    group.come("x")
    group.leave("stranger")
    group.come("stranger")
    group.leave("x")
    group.leave("x")
    assert ("x" in group, "stranger" in group, len(group)) == (True, False, 1)


def test_members_away_are_not_asked_while_somebody_is_here():
    group = group_of(*(f"s{n}" for n in range(1_000)))
    for n in range(1, 1_000):
        group.leave(f"s{n}")
    asked = []
    for _ in range(10):
        group.pick(lambda s, _e, _m: asked.append(s) or 0, None)
    assert asked == ["s0"] * 10


def test_a_new_entry_of_a_member_keeps_its_place_here_or_away():
    group = group_of("x", "y")
    group.leave("y")
    assert group.put("y", 9)
    assert group.put("x", 8)
    assert picked(group, 2) == ["x", "x"]
    assert group.drop("x")
    assert group.pick(anybody, None) == ("y", 9)
    assert len(group) == 1


def test_the_message_reaches_the_rank_and_the_entry_the_caller():
    group = group_of("x", "y")
    assert group.pick(lambda _s, entry, message: entry - message, 1) == ("y", 1)


@given(st.lists(st.tuples(st.sampled_from("pdlc"), st.integers(0, 5)), max_size=60))
def test_a_group_serves_each_member_that_is_here_once_a_round(steps):
    group: SharedGroup[int, int] = SharedGroup(parse_filter("$share/g/a"))
    here: set[int] = set()
    away: set[int] = set()
    for verb, who in steps:
        if verb == "p":
            assert group.put(who, who) == (who in here | away)
            here |= {who} - away
        elif verb == "d":
            assert group.drop(who) == (who in here | away)
            here.discard(who)
            away.discard(who)
        elif verb == "l":
            group.leave(who)
            away |= {who} & here
            here.discard(who)
        else:
            group.come(who)
            here |= {who} & away
            away.discard(who)
        assert len(group) == len(here | away)
        around = here or away
        served = [group.pick(anybody, None) for _ in around]
        assert sorted(pick[0] for pick in served if pick) == sorted(around)
