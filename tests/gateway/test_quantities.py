"""Durations and sizes as the file writes them."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway.quantities import (
    Duration,
    DurationRange,
    Size,
    SizeRange,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


class Model(BaseModel):
    every: Annotated[float, DurationRange("10ms", "1h")] = 1.0
    room: Annotated[int, SizeRange("1KiB", "1GiB")] = 1024
    timeout: Duration = 1.0
    size: Size = 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("1s", 1), ("1.5s", 1.5), ("5m", 300), ("2h", 7200), ("1d", 86400), ("0.5ms", 0.0005)],
)
def test_durations_are_read_as_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 s", "-1s", "s", "1m30s", "5M", "5sec", "1e3s", "\u0661s", "1s\n"])
def test_what_is_no_duration_is_refused_with_the_cure(text):
    with pytest.raises(ValueError, match=r"is no duration\. Write a number and its unit"):
        parse_duration(text)


@given(st.integers(1, 999_999_999), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_is_written_so_that_it_reads_back_the_same(number, unit):
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.1, "100ms"), (1, "1s"), (90, "90s"), (1.5, "1.5s"), (300, "5m"), (86400, "1d")]
)
def test_durations_are_written_in_the_largest_whole_unit(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 65536), ("1GiB", 2**30), ("10MB", 10**7), ("1.5kB", 1500), ("7B", 7)]
)
def test_sizes_are_read_as_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "64", "64 KiB", "1Gb", "1iB", "-1MB", "1gib"])
def test_what_is_no_size_is_refused_with_the_cure(text):
    with pytest.raises(ValueError, match=r"is no size\. Write a number and its unit"):
        parse_size(text)


def test_sizes_are_written_in_binary_units():
    assert [format_size(n) for n in (300, 1536, 2**30)] == ["300B", "1.5KiB", "1GiB"]


def test_fields_read_durations_and_sizes():
    model = Model(every="100ms", room="2KiB", timeout="5m", size=77)
    assert (model.every, model.room, model.timeout, model.size) == (0.1, 2048, 300, 77)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("every", "5ms", "'5ms' is outside 10ms … 1h"),
        ("every", "2h", "outside"),
        ("every", 5, "'5' is no duration"),
        ("every", 1.5, "no duration"),
        ("every", True, "no duration"),
        ("every", None, "has no value"),
        ("every", ["1s"], "no duration"),
        ("room", "1B", "'1B' is outside 1KiB … 1GiB"),
        ("room", 5.5, "no size"),
        ("room", True, "no size"),
    ],
)
def test_fields_refuse_what_is_out_of_bounds_or_of_another_kind(key, value, match):
    with pytest.raises(ValidationError, match=match):
        Model.model_validate({key: value})


def test_fields_are_written_to_json_as_they_were_read():
    assert Model(every="100ms", room="2KiB").model_dump(mode="json")["every"] == "100ms"
    assert Model(room="2KiB").model_dump(mode="json")["room"] == "2KiB"


def test_the_schema_shows_how_they_are_written():
    properties = Model.model_json_schema()["properties"]
    assert properties["every"]["type"] == "string"
    assert {branch["type"] for branch in properties["room"]["anyOf"]} == {"string", "integer"}
