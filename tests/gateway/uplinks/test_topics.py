"""Topic templates."""

import pytest

from gateway.uplinks.topics import Template, TopicError, check_template, check_topic


@pytest.mark.parametrize(
    ("topic", "complaint"),
    [
        ("a/b", None),
        ("/", None),
        ("ä" * 32767, None),
        ("", "at least one character"),
        ("a/+/b", "'+'"),
        ("a/#", "'#'"),
        ("a\0b", r"'\x00'"),
        ("ä" * 32768, "65536"),
        ("\ud800", "Unicode"),
    ],
)
def test_a_topic_to_publish_to_is_checked(topic, complaint):
    found = check_topic(topic)
    assert found is None if complaint is None else complaint in found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{prefix}/{device}", None),
        ("plain", None),
        ("{prefix}/{site}", "no {site} here; there is {device}, {prefix}"),
        ("{prefix}/{}", "no {} here"),
        ("{prefix", "needs its }"),
        ("prefix}", "needs its }"),
        ("{prefix}/#", "'#'"),
        ("", "at least one"),
    ],
)
def test_a_template_is_checked_without_its_values(text, complaint):
    found = check_template(text, {"prefix", "device"})
    assert found is None if complaint is None else complaint in found


def test_constants_are_filled_at_once_and_the_rest_later():
    template = Template("{prefix}/{site}/{device}", {"prefix": "headgate/plant7"})
    assert template.names == {"site", "device"}
    assert template.fill({"site": "north", "device": "boiler"}) == "headgate/plant7/north/boiler"


def test_a_name_without_a_value_becomes_an_underscore_for_a_backlog_outlives_a_changed_file():
    assert Template("{site}/{device}", {}).fill({"device": "boiler", "site": ""}) == "_/boiler"


@pytest.mark.parametrize("site", ["a+b", "#", "a\0", "x" * 65536])
def test_a_value_that_makes_no_topic_is_an_error(site):
    with pytest.raises(TopicError):
        Template("{site}/x", {}).fill({"site": site})


def test_a_template_that_is_none_cannot_be_made():
    with pytest.raises(ValueError, match="needs its"):
        Template("{prefix", {})


def test_a_value_is_not_filled_again():
    assert Template("{a}", {"a": "{b}"}).text == "{b}"
    assert Template("{a}", {}).fill({"a": "{b}", "b": "c"}) == "{b}"
