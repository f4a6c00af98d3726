"""ACL files: what they may look like, and who may then do what. tests/real compares the same rules with mosquitto."""

from __future__ import annotations

import contextlib
import itertools
import timeit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.broker.acl import READ, WRITE, parse

FILE = b"""\
# anonymous clients
topic read public/#
topic write inbox
topic deny public/secret

user alice
topic plant/#
topic deny plant/secret/#
topic read $SYS/broker/uptime

user bob the builder
topic read plant/+/flow
topic write plant/+/set
topic read with blanks/a b

pattern readwrite dev/%c/#
pattern read mail/%u
pattern deny dev/%c/secret
pattern write log/all

user alice
topic write extra
"""


@pytest.mark.parametrize(
    ("username", "topic", "may"),
    [
        (None, "public/a", "r"),
        (None, "public", "r"),
        (None, "public/secret", ""),
        (None, "inbox", "w"),
        (None, "inbox/a", ""),
        (None, "plant/a", ""),
        (None, "mail/", ""),
        (None, "mail/alice", ""),
        ("alice", "plant", "rw"),
        ("alice", "plant/a/b/c", "rw"),
        ("alice", "plant/secret", ""),
        ("alice", "plant/secret/a", ""),
        ("alice", "plantation", ""),
        ("alice", "public/a", ""),
        ("alice", "extra", "w"),
        ("alice", "mail/alice", "r"),
        ("alice", "mail/bob", ""),
        ("alice", "$SYS/broker/uptime", "r"),
        ("alice", "$SYS/broker/load", ""),
        ("bob the builder", "plant/a/flow", "r"),
        ("bob the builder", "plant//flow", "r"),
        ("bob the builder", "plant/a/set", "w"),
        ("bob the builder", "plant/a/b/set", ""),
        ("bob the builder", "plant/flow", ""),
        ("bob the builder", "with blanks/a b", "r"),
        ("bob the builder", "mail/bob the builder", "r"),
        ("carol", "plant/a", ""),
        ("carol", "dev/c1", "rw"),
        ("carol", "dev/c1/a/b", "rw"),
        ("carol", "dev/c1/secret", ""),
        ("carol", "dev/c1/secret/deeper", "rw"),
        ("carol", "dev/c2/a", ""),
        ("carol", "dev/+/a", ""),
        ("carol", "log/all", "w"),
        ("carol", "", ""),
        ("carol", "/", ""),
    ],
)
def test_rules_say_who_may_read_and_write_what(username, topic, may):
    acl = parse(FILE, "acl")
    assert acl.allows(username, "c1", topic, READ) == ("r" in may)
    assert acl.allows(username, "c1", topic, WRITE) == ("w" in may)


def test_a_deny_wins_wherever_it_stands_among_the_lines_of_its_kind():
    for lines in itertools.permutations([b"topic read a/#", b"topic deny a/b", b"topic write a/b"]):
        acl = parse(b"\n".join([b"user u", *lines]), "acl")
        assert not acl.allows("u", "c", "a/b", READ)
        assert not acl.allows("u", "c", "a/b", WRITE)
        assert acl.allows("u", "c", "a/c", READ)


def test_a_grant_of_the_user_goes_before_a_pattern_that_denies():
    acl = parse(b"user u\ntopic read a/b\npattern deny a/b\npattern a/#", "acl")
    assert acl.allows("u", "c", "a/b", READ)
    assert not acl.allows("u", "c", "a/b", WRITE)
    assert not acl.allows("v", "c", "a/b", READ)
    assert acl.allows("v", "c", "a/c", WRITE)


def test_a_deny_of_the_user_goes_before_a_pattern_that_grants():
    acl = parse(b"user u\ntopic deny a/b\npattern a/#", "acl")
    assert not acl.allows("u", "c", "a/b", READ)
    assert acl.allows("u", "c", "a/c", READ)


def test_a_file_without_rules_allows_nothing():
    acl = parse(b"# nobody\n\n", "acl")
    assert not acl.allows("u", "c", "a", READ)
    assert not acl.allows(None, "c", "a", WRITE)
    assert not acl.may_match("u", "c", "#")


@pytest.mark.parametrize(
    "rule", [b"topic #", b"topic +/x", b"topic +/#", b"pattern #", b"pattern %c/x", b"pattern %u/x"]
)
def test_a_rule_reaches_topics_with_a_dollar_only_if_it_starts_with_one(rule):
    acl = parse(b"user $u\n" + rule, "acl")
    assert not acl.allows("$u", "$u", "$u/x", READ)
    assert not acl.may_match("$u", "$u", "$u/x")
    assert not acl.may_match("$u", "$u", "$u/#")
    literal = parse(b"user $u\ntopic $u/#", "acl")
    assert literal.allows("$u", "$u", "$u/x", READ)
    assert not literal.may_match("$u", "$u", "#")
    assert not literal.may_match("$u", "$u", "+/x")


@pytest.mark.parametrize("name", ["+", "#", "a+", "a#b", "a/#", "+/+"])
def test_names_with_wildcards_get_nothing_from_patterns(name):
    acl = parse(b"user x\ntopic read own\npattern dev/%c/#\npattern u/%u\npattern all", "acl")
    for username, client_id in (("x", name), (name, "c")):
        for topic in ("dev/a", "dev/+", f"dev/{client_id}", f"u/{username}", "u/a", "all"):
            assert not acl.allows(username, client_id, topic, READ)
        assert not acl.may_match(username, client_id, "#") or username == "x"
    assert acl.allows("x", name, "own", READ)


def test_a_name_with_a_slash_reaches_into_nobodys_topics():
    acl = parse(b"pattern dev/%c/#\npattern u/%u\npattern read all/#", "acl")
    for client_id in ("a/b", "a/", "/a", "/"):
        assert not acl.allows("x/y", client_id, f"dev/{client_id}", READ)
        assert not acl.allows("x/y", client_id, "dev/a/b/c", WRITE)
        assert not acl.allows("x/y", client_id, "u/x/y", READ)
        assert not acl.may_match("x/y", client_id, "dev/#")
        assert acl.allows("x/y", client_id, "all/x", READ)


def test_a_name_with_a_slash_is_denied_what_a_pattern_denies():
    acl = parse(b"pattern deny dev/%c/secret\npattern deny u/%u\npattern read #", "acl")
    assert not acl.allows("x/y", "a/b", "dev/a/b/secret", READ)
    assert not acl.allows("x/y", "a/b", "u/x/y", READ)
    assert acl.allows("x/y", "a/b", "dev/a/secret", READ)
    assert not acl.may_match("x/y", "a/b", "dev/a/b/secret")
    assert acl.may_match("x/y", "a/b", "dev/a/b/+")


def test_an_id_is_not_matched_by_its_beginning():
    acl = parse(b"pattern dev/%c", "acl")
    assert not acl.allows("u", "pump12", "dev/pump1", READ)
    assert not acl.allows("u", "pump1", "dev/pump12", READ)


def test_a_client_that_has_no_id_yet_gets_nothing_from_patterns():
    acl = parse(b"pattern dev/%c\npattern all", "acl")
    assert not acl.allows("u", "", "dev/", READ)
    assert not acl.allows("u", "", "all", READ)


def test_an_empty_user_name_stands_for_nothing():
    assert not parse(b"pattern u/%u", "acl").allows("", "c", "u/", READ)


def test_a_percent_sign_in_a_topic_line_is_text():
    acl = parse(b"user u\ntopic dev/%c", "acl")
    assert acl.allows("u", "c1", "dev/%c", READ)
    assert not acl.allows("u", "c1", "dev/c1", READ)


def test_thousands_of_names_leave_only_so_many_behind():
    acl = parse(b"pattern dev/%c", "acl")
    for number in range(45_000):
        assert acl.allows("u", f"c{number}", f"dev/c{number}", READ)
    assert len(acl._names) <= 20_000


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"topic", "names no topic"),
        (b"topic read", "names no topic"),
        (b"topic deny   ", "names no topic"),
        (b"pattern", "names no topic"),
        (b"topic foo a/b", "'foo' is none of read, write, readwrite, deny"),
        (b"topic a#", "'a#' is no filter"),
        (b"topic a/#/b", "'a/#/b' is no filter"),
        (b"topic a/b+", "'a/b+' is no filter"),
        (b"topic read a\0b", "no NUL"),
        (b"topic " + b"a" * 65_536, "1 to 65535 bytes"),
        (b"user", "names nobody"),
        (b"user   ", "names nobody"),
        (b"blah", "'blah' is no word of an ACL file"),
        (b" # a comment?", "a comment starts with # in the first column"),
        (b"topic\tread a", "separated by blanks"),
        (b"\xef\xbb\xbftopic read a", "is no word of an ACL file"),
        (b"topic read \xff", "not UTF-8"),
        (b"pattern dev-%c/x", "whole level"),
        (b"pattern %u%c", "whole level"),
    ],
)
def test_a_mistake_is_named_with_its_place(line, wrong):
    with pytest.raises(ValueError) as caught:
        parse(b"# head\r\n\r\n" + line + b"\r\ntopic read fine", "/etc/acl")
    assert str(caught.value).startswith("/etc/acl:3: ")
    assert wrong in str(caught.value)


def test_all_mistakes_are_named_up_to_a_number():
    with pytest.raises(ValueError) as caught:
        parse(b"blah\n" * 3, "acl")
    assert [line[:6] for line in str(caught.value).splitlines()] == ["acl:1:", "acl:2:", "acl:3:"]
    with pytest.raises(ValueError) as caught:
        parse(b"blah\n" * 1000, "acl")
    assert len(str(caught.value).splitlines()) == 20


@pytest.mark.parametrize(
    ("line", "topic"),
    [
        (b"topic read  a b ", "a b"),
        (b"   topic   read   a", "a"),
        (b"topic a", "a"),
        (b"topic read read", "read"),
        (b"topic read a\r", "a"),
        (b"topic read \xc3\xa4", "ä"),
        (b"topic read /", "/"),
        (b"topic read topic", "topic"),
    ],
)
def test_blanks_around_words_do_not_count(line, topic):
    assert parse(line, "acl").allows(None, "c", topic, READ)


@pytest.mark.parametrize(
    ("filter_", "may"),
    [
        ("plant/#", True),
        ("plant/+/flow", True),
        ("#", True),
        ("+/+", True),
        ("plant/secret", False),
        ("plant/secret/#", False),
        ("plant/secret/+/x", False),
        ("extra", False),
        ("other/#", False),
        ("mail/+", True),
        ("mail/bob", False),
        ("dev/c1/#", True),
        ("dev/c1/secret", False),
        ("dev/c1/secret/#", True),
        ("dev/c2/#", False),
        ("dev/+", True),
        ("dev/+/secret", False),
        ("$SYS/#", True),
        ("$SYS/broker/+", True),
        ("$SYS/broker/load/#", False),
        ("$SYS", False),
        ("log/all", False),
        ("public/#", False),
    ],
)
def test_a_subscription_is_refused_only_where_no_rule_can_ever_match(filter_, may):
    assert parse(FILE, "acl").may_match("alice", "c1", filter_) == may


def test_a_deny_of_every_level_below_the_root_denies_all():
    assert not parse(b"user u\ntopic #\ntopic deny +/#", "acl").may_match("u", "c", "#")


# --- against a plain reading of the rules ---------------------------------------------------------------------------

WORDS = ["a", "b", "$s"]
rule_filters = st.lists(st.sampled_from([*WORDS, "+", "%c", "%u"]), min_size=1, max_size=3).flatmap(
    lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"]), "#"])
)
rules = st.lists(
    st.tuples(
        st.sampled_from(["topic", "pattern"]), st.sampled_from(["read", "write", "readwrite", "deny"]), rule_filters
    ),
    max_size=6,
)
subscribed = st.lists(st.sampled_from([*WORDS, "+", "z"]), min_size=1, max_size=3).flatmap(
    lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"]), "#"])
)
TOPICS = ["/".join(t) for n in (1, 2, 3, 4) for t in itertools.product([*WORDS, "%c", "%u", "u", "y", "z"], repeat=n)]


def _plainly(filter_levels, levels):
    """Whether a filter matches a topic, level by level, as 4.7 of the standard says."""
    if levels[0].startswith("$") and filter_levels[0] in ("+", "#"):
        return False
    for number, level in enumerate(filter_levels):
        if level == "#":
            return True
        if number == len(levels) or level not in ("+", levels[number]):
            return False
    return len(filter_levels) == len(levels)


def _read_plainly(lines, names, topic, access):
    """What mosquitto's own check does, with one line after the other."""
    levels = topic.split("/")
    for kind in ("topic", "pattern"):
        found = []
        for word, right, text in lines:
            parts = text.split("/")
            if word != kind or (levels[0].startswith("$") and not parts[0].startswith("$")):
                continue
            if word == "pattern":
                parts = [names.get(part, part) for part in parts]
            if _plainly(parts, levels):
                found.append(right)
        if "deny" in found:
            return False
        if any(access in right for right in found):
            return True
    return False


def _file(lines):
    return "\n".join(["user u", *(" ".join(line) for line in lines)]).encode()


@settings(max_examples=300, deadline=None)
@given(rules, st.sampled_from(TOPICS))
def test_the_tries_agree_with_a_plain_reading_of_the_rules(lines, topic):
    acl = parse(_file(lines), "acl")
    names = {"%c": "a", "%u": "u"}
    assert acl.allows("u", "a", topic, READ) == _read_plainly(lines, names, topic, "read")
    assert acl.allows("u", "a", topic, WRITE) == _read_plainly(lines, names, topic, "write")


@settings(max_examples=100, deadline=None)
@given(rules, subscribed)
def test_what_may_be_subscribed_is_what_can_be_read(lines, filter_):
    acl = parse(_file(lines), "acl")
    readable = any(
        acl.allows("u", "a", topic, READ) for topic in TOPICS if _plainly(filter_.split("/"), topic.split("/"))
    )
    if readable:
        assert acl.may_match("u", "a", filter_)
    elif sum(right == "deny" for _, right, _ in lines) < 2:  # what several deny together is not added up
        assert not acl.may_match("u", "a", filter_)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_rules_or_a_mistake(data):
    with contextlib.suppress(ValueError):
        parse(data, "acl")


def test_ten_thousand_rules_cost_a_check_no_more_than_ten():
    def us(count):
        lines = [b"user u"] + [b"topic read site%d/+/flow" % n for n in range(count)]
        acl = parse(b"\n".join(lines), "acl")
        topic = f"site{count - 1}/x/flow"
        assert acl.allows("u", "c", topic, READ)
        return min(timeit.repeat(lambda: acl.allows("u", "c", topic, READ), number=2_000, repeat=7)) / 2_000 * 1e6

    few, many = us(10), us(10_000)
    assert many < 5 * few + 1


def test_a_deep_topic_and_a_deep_rule_end_in_time():
    acl = parse(b"user u\ntopic read " + b"/".join([b"+"] * 5_000) + b"\ntopic read +/#", "acl")
    topic = "/".join(["x"] * 30_000)
    assert acl.allows("u", "c", topic, READ)
    assert acl.may_match("u", "c", "/".join(["+"] * 5_000))
