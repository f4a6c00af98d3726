"""YAML into plain data with places; YAML 1.2 scalars; everything that must not be taken."""

from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mapping import document
from gateway.mapping.document import Places, read_yaml, resolve_scalar
from gateway.mapping.mistakes import Mistakes
from gateway.model import Place


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-17", -17), ("+3", 3), ("0777", 777), ("0o17", 15), ("0xFF", 255), ("1.5", 1.5), (".5", 0.5),
        ("5.", 5.0), ("1e3", 1000.0), ("-1.5E-3", -0.0015), (".inf", math.inf), ("-.INF", -math.inf),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("Null", None),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_the_core_schema(text, value):
    assert resolve_scalar(text) == value
    assert type(resolve_scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "yes", "no", "on", "off", "Yes", "OFF", "y", "n", "tRUE", "12:30:00", "1:30", "2001-12-14", "1_000", "0b11",
        "1,5", "1e", "e3", "-", "+", ".", "--1", "0x", "0o8", "1.2.3", "10.0.0.5", "nan", "inf", "=", "<<x",
    ],
)  # fmt: skip
def test_what_yaml_1_1_took_for_something_else_stays_text(text):
    assert resolve_scalar(text) == text


def test_nan_is_a_number():
    assert math.isnan(resolve_scalar(".nan"))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back_from_its_repr(number):
    assert resolve_scalar(repr(number)) == number


def test_keys_stay_text(parse):
    data, _, mistakes = parse("on: 1\n1: 2\ntrue: 3\nnull: 4\n1.0: 5\n")
    assert data == {"on": 1, "1": 2, "true": 3, "null": 4, "1.0": 5}
    assert not mistakes


def test_quoted_scalars_are_text(parse):
    data, _, _ = parse("""a: '1'\nb: "true"\nc: ''\nd: |\n  5\n""")
    assert data == {"a": "1", "b": "true", "c": "", "d": "5\n"}


def test_text_keys_keep_what_looks_like_a_number_but_not_emptiness(parse):
    data, _, _ = parse(
        "address: 00001\nother: 00001\nlist: {address: [1.0, true]}\nnone: {address: }", frozenset({"address"})
    )
    assert data == {"address": "00001", "other": 1, "list": {"address": ["1.0", "true"]}, "none": {"address": None}}


def test_every_key_and_value_has_its_place(parse):
    data, places, _ = parse("a:\n  bb: [x, {c: 1}]\né: z\n")
    where = {path: places.locate(data, path, Place()) for path in (("a",), ("a", "bb"), ("a", "bb", 1, "c"), ("é",))}
    assert {path: (p.line, p.column) for path, p in where.items()} == {
        ("a",): (2, 3),
        ("a", "bb"): (2, 7),
        ("a", "bb", 1, "c"): (2, 15),
        ("é",): (3, 4),
    }
    assert (places.key(data, "é").line, places.key(data, "é").column) == (3, 1)
    assert [p.line for p in places.keys(data)] == [1, 3]
    assert places.locate(data, ("a", "bb", 1, "c"), Place(), key=True).column == 12


def test_a_path_that_leads_nowhere_ends_at_the_last_part_that_exists(parse):
    data, places, _ = parse("a:\n  b: 1\n")
    assert places.locate(data, ("a", "x", "y"), Place("s", 9, 9)).line == 2
    assert places.locate(data, ("x",), Place("s", 9, 9)) == Place("s", 9, 9)


def test_a_key_that_stands_twice_is_told_at_its_second_place(parse):
    data, _, mistakes = parse("a: 1\nb:\n  c: 1\n  d: 2\n  c: {e: 3}\na: 2\n")
    assert data == {"a": 1, "b": {"c": 1, "d": 2}}
    assert mistakes == [
        "f.yaml:5:3: key 'c' stands twice, first in line 3. Take one of them out",
        "f.yaml:6:1: key 'a' stands twice, first in line 1. Take one of them out",
    ]


def test_an_alias_gives_the_same_object(parse):
    data, _, mistakes = parse("a: &x {k: 1}\nb: *x\nc: &n 5\nd: *n\n")
    assert data["b"] is data["a"]
    assert data["d"] == 5
    assert not mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f.yaml:1:1: the file is empty. Write 'key: value' lines"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty"),
        ("---\n", "f.yaml:1:1: the file is empty"),
        ("- a\n", "f.yaml:1:1: the file must hold keys and values"),
        ("just text", "f.yaml:1:1: the file must hold keys and values"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document ('---') starts here"),
        ("a:\n\tb: 1\n", "A tab stands here"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2:2: "),
        ("a: {unit: ${unit}}\n", "Put a value with ${…} in quotes inside { } and [ ]"),
        ("a: b: c\n", "f.yaml:1:5: mapping values are not allowed in this context. Put a text with ': ' in quotes"),
        ("a: %\n", "Put the text in quotes"),
        ("a: 'x\n", "Check indentation, brackets and quotes"),
        ("? [a]\n: 1\n", "f.yaml:1:3: a key must be plain text"),
        ("<<: {a: 1}\n", "f.yaml:1:1: merge keys ('<<') are not part of YAML 1.2"),
        ("a: !env X\n", "f.yaml:1:4: the tag !env means nothing here"),
        ("a: !!python/object:os.system {}\n", "means nothing here"),
        ("a: !!int '5'\n", "means nothing here"),
        ("a: *nobody\n", "f.yaml:1:4: there is no anchor &nobody above"),
        ("a: &x [*x]\n", "f.yaml:1:8: an alias inside an anchor is not taken"),
        (b"\xff\xfea\x00:\x00", "f.yaml:1:1: the file is UTF-16. Save it as UTF-8"),
        (b"a: 1\nunit: m\xb3/h\n", "f.yaml:2:8: the file is not UTF-8 (byte 0xb3). Save it as UTF-8"),
        ("é: 1\nb: é\x00\n", "f.yaml:2:5: control character U+0000. Take it out"),
        ("a: \x1b[0m\n", "f.yaml:1:4: control character U+001B"),
    ],
)  # fmt: skip
def test_what_is_not_taken_says_where_and_the_cure(parse, text, said):
    data, _, mistakes = parse(text)
    assert data is None
    assert len(mistakes) == 1
    assert said in mistakes[0]
    assert mistakes[0].startswith("f.yaml:")


def test_a_byte_order_mark_is_no_mistake(parse):
    data, places, mistakes = parse(b"\xef\xbb\xbfa: 1\n")
    assert data == {"a": 1}
    assert places.key(data, "a").column == 1
    assert not mistakes


def test_windows_line_ends_are_no_mistake(parse):
    data, places, _ = parse(b"a: 1\r\nb: x\r\n")
    assert data == {"a": 1, "b": "x"}
    assert places.key(data, "b").line == 2


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_is_none_is_a_mistake_at_whoever_named_it(tmp_path, name):
    mistakes = Mistakes()
    asked = Place("gw.yaml", 3, 7)
    arguments = {"places": Places(), "mistakes": mistakes, "text_keys": frozenset()}
    assert read_yaml(tmp_path / name, asked=asked, **arguments) is None
    with pytest.raises(Exception, match=r"gw\.yaml:3:7: .*(no such file or directory\. Check|is not a file)"):
        mistakes.check()


def test_deep_nesting_is_refused(parse):
    _, _, mistakes = parse("a: " + "[" * 200 + "]" * 200)
    assert "nested deeper than 32 levels" in mistakes[0]


def test_a_large_file_is_refused_unread(parse, monkeypatch):
    monkeypatch.setattr(document, "LARGEST_FILE", 10)
    _, _, mistakes = parse("a: 12345678\n")
    assert "is larger than" in mistakes[0]


def test_aliases_cannot_multiply(parse):
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    started = time.process_time()
    data, _, mistakes = parse(laughs)
    assert data is None
    assert "an alias inside an anchor is not taken" in mistakes[0]
    assert time.process_time() - started < 1


def test_what_aliases_expand_to_is_bounded(parse, monkeypatch):
    monkeypatch.setattr(document, "MOST_NODES", 5000)
    text = "a: &a [" + "x, " * 100 + "]\nb: [" + "*a, " * 100 + "]\n"
    data, _, mistakes = parse(text)
    assert data is None
    assert "aliases expand to more than 5,000 values" in mistakes[0]


@pytest.fixture(scope="module")
def fuzz_path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "f.yaml"


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"#%@,? \n\t${}0", max_size=60))
def test_no_text_crashes_the_reader(fuzz_path, text):
    fuzz_path.write_text(text)
    mistakes = Mistakes()
    data = read_yaml(fuzz_path, places=Places(), mistakes=mistakes, text_keys=frozenset())
    assert (data is None) <= bool(mistakes.count)


def test_the_pure_parser_reads_the_same(parse, monkeypatch):
    text = "a: {b: [1, x], c: 'q'}\nd: &e {f: 1}\ng: *e\n"
    fast, places, _ = parse(text)
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    slow, slow_places, _ = parse(text)
    assert slow == fast
    assert slow_places.locate(slow, ("a", "b", 1), Place()) == places.locate(fast, ("a", "b", 1), Place())
    _, _, mistakes = parse("a: [\n")
    assert mistakes[0].startswith("f.yaml:2:1: ")
