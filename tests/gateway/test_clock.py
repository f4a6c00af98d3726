import time

from gateway.clock import SystemClock


def test_wall_time_is_in_milliseconds_since_1970():
    assert abs(SystemClock().wall_ms() - time.time() * 1000) < 1000


def test_monotonic_time_grows():
    clock = SystemClock()
    assert clock.monotonic() < clock.monotonic()


def test_the_boot_id_is_stable():
    assert SystemClock().boot_id == SystemClock().boot_id


def test_the_clock_says_whether_it_can_be_believed():
    assert SystemClock().state() in ("synced", "unsynced")


def test_an_undisciplined_kernel_clock_is_not_believed(monkeypatch, tmp_path):
    monkeypatch.setattr("gateway.clock._TIMESYNC_FLAG", tmp_path / "missing")
    for refused in (5, -1):
        monkeypatch.setattr("gateway.clock._adjtimex", lambda value=refused: value)
        assert SystemClock().state() == "unsynced"
    monkeypatch.setattr("gateway.clock._adjtimex", lambda: 0)
    assert SystemClock().state() == "synced"
