"""The section `spool`: what the file says, and what each class's queue may take by it."""

import pytest

from gateway.config import from_mapping
from gateway.errors import FileError


def spool_of(tmp_path, **spool):
    return from_mapping({"gateway": "g", "broker": {}, "spool": spool}, base=tmp_path)


def mistakes(tmp_path, **spool):
    with pytest.raises(FileError) as caught:
        spool_of(tmp_path, **spool)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_everything_that_can_be_said_arrives_in_the_limits(tmp_path):
    spool = spool_of(
        tmp_path,
        max_bytes="2GiB",
        min_free_bytes="100MiB",
        full="thin",
        thin_window="10s",
        persist="always",
        keep_after_ack=["1d", "500MiB"],
        clock_wait="1m",
    ).spool
    limits = spool.limits
    assert (limits.max_bytes, limits.min_free_bytes, limits.full, limits.thin_s) == (2 << 30, 100 << 20, "thin", 10.0)
    assert (limits.keep_s, limits.keep_bytes, spool.clock_wait_s) == (86_400.0, 500 << 20, 60.0)


@pytest.mark.parametrize(("written", "kept"), [("1h", (3600.0, 0)), ("64MiB", (0.0, 64 << 20)), ("0", (0.0, 0))])
def test_one_bound_is_enough_for_what_is_kept_after_its_acknowledgement(tmp_path, written, kept):
    limits = spool_of(tmp_path, persist="always", keep_after_ack=written).spool.limits
    assert (limits.keep_s, limits.keep_bytes) == kept


def test_keeping_what_is_never_written_is_warned_of(tmp_path):
    (warning,) = [w for w in spool_of(tmp_path, keep_after_ack="1h").warnings if "keep_after_ack" in str(w)]
    assert "persist: always" in str(warning)


def test_classes_that_are_used_take_their_share_from_data(tmp_path):
    spool = spool_of(tmp_path, max_bytes="1000MiB").spool
    assert spool.limits_of(["data"])["data"].max_bytes == 1000 << 20
    limits = spool.limits_of(["data", "alarm", "diag"])
    assert limits["alarm"].max_bytes == 100 << 20
    assert limits["diag"].max_bytes == 50 << 20
    assert limits["data"].max_bytes == 850 << 20
    assert sum(limits[name].ram_bytes for name in ("data", "alarm", "diag")) == 16 << 20


def test_alarms_are_written_at_once_unless_the_file_says_otherwise(tmp_path):
    assert spool_of(tmp_path).spool.limits_of(["alarm"])["alarm"].commit_interval_s == 0.0
    spool = spool_of(tmp_path, classes={"alarm": {"commit_interval": "200ms", "max_bytes": "8MiB"}}).spool
    alarm = spool.limits_of(["alarm"])["alarm"]
    assert (alarm.commit_interval_s, alarm.max_bytes) == (0.2, 8 << 20)


def test_a_class_may_give_way_in_its_own_manner(tmp_path):
    spool = spool_of(tmp_path, full="thin", classes={"diag": {"full": "drop_newest"}}).spool
    limits = spool.limits_of(["data", "alarm", "diag"])
    assert [limits[name].full for name in ("data", "alarm", "diag")] == ["thin", "drop_oldest", "drop_newest"]


@pytest.mark.parametrize(
    ("spool", "text"),
    [
        ({"keep_after_ack": "1 hour"}, "no duration"),
        ({"keep_after_ack": "5XB"}, "no size"),
        ({"keep_after_ack": ["1h", "2h"], "persist": "always"}, "one duration and one size"),
        ({"classes": {"urgent": {}}}, "urgent"),
        ({"classes": {"data": {"max_bytes": "2GiB"}}}, "Make it 2GiB or more"),
        ({"full": "drop"}, "full"),
        ({"thin_window": "0s"}, "thin_window"),
        ({"keep_after_ack": 5}, "'5' is no duration"),
        ({"keep_after_ack": ["1h", "2h", "1MiB"]}, "one duration and one size"),
        ({"classes": {"alarms": {}}}, "'alarms' is none of alarm, event, data, diag. Did you mean alarm?"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path, spool, text):
    found = mistakes(tmp_path, **spool)
    assert any(text in mistake for mistake in found), found


@pytest.mark.parametrize(
    ("spool", "text"),
    [
        ({"thin_window": "5s"}, "thin_window is for full: thin and does nothing here"),
        ({"keep_after_ack": ["1d", "2GiB"], "persist": "always"}, "asks for more than max_bytes"),
    ],
)
def test_what_does_nothing_is_warned_of(tmp_path, spool, text):
    assert any(text in str(warning) for warning in spool_of(tmp_path, **spool).warnings)


@pytest.mark.parametrize(
    "spool",
    [
        {"full": "thin", "thin_window": "5s"},
        {"classes": {"diag": {"full": "thin"}}, "thin_window": "5s"},
        {"keep_after_ack": ["1d", "500MiB"], "persist": "always"},
    ],
)
def test_what_does_something_is_not_warned_of(tmp_path, spool):
    assert not [warning for warning in spool_of(tmp_path, **spool).warnings if "spool" in str(warning)]


def test_alarms_beside_data_never_take_more_than_all_may(tmp_path):
    tags = {"x": {"address": "coil:1", "class": "alarm"}}
    file = {"gateway": "g", "broker": {}, "devices": {"d": {"driver": "modbus", "url": "tcp://h:502", "tags": tags}}}
    with pytest.raises(FileError, match=r"the classes take more: alarm 1MiB, data 1MiB\. Make it 2MiB or more"):
        from_mapping({**file, "spool": {"max_bytes": "1MiB"}}, base=tmp_path)
    with pytest.raises(FileError, match="alarm 1GiB, data 1MiB"):
        from_mapping({**file, "spool": {"classes": {"alarm": {"max_bytes": "1GiB"}}}}, base=tmp_path)
    limits = from_mapping({**file, "spool": {"max_bytes": "2MiB"}}, base=tmp_path).spool.limits_of(["alarm"])
    assert limits["alarm"].max_bytes + limits["data"].max_bytes == 2 << 20
