"""What the bench concludes from what it measured, and how it meets a medium that refuses."""

import os

import pytest

from gateway.errors import RefusedError
from gateway.upkeep.card import Medium, Speed, advice, measure, medium, suspicion


def speed(p50, p99):
    return Speed(flushes=10, flushes_per_s=1 / p50, p50_s=p50, p99_s=p99, longest_s=p99, bytes_per_s=1e7)


@pytest.mark.parametrize(
    ("file_system", "device", "is_rotating", "p50", "text"),
    [
        ("ext4", "mmcblk0p2", False, 0.004, None),
        ("ext4", "mmcblk0p2", False, 0.00003, "flash card"),
        ("ext4", "sda1", True, 0.0005, "rotating disk"),
        ("ext4", "sda1", True, 0.009, None),
        ("ext4", "nvme0n1p1", False, 0.00002, None),
        ("ext4", "nvme0n1p1", False, 0.000002, "any disk|no disk|disk"),
        ("tmpfs", "", False, 0.000001, "memory"),
    ],
)
def test_a_medium_that_is_too_fast_is_not_believed(file_system, device, is_rotating, p50, text):
    doubt = suspicion(Medium(file_system=file_system, device=device, is_rotating=is_rotating), speed(p50, 2 * p50))
    if text is None:
        assert doubt is None
    else:
        assert any(word in doubt for word in text.split("|"))


@pytest.mark.parametrize(("p99", "interval"), [(0.001, 1), (0.05, 1), (0.06, 2), (0.4, 10), (9, 60)])
def test_the_advice_leaves_a_slow_card_time_to_breathe(p99, interval):
    assert advice(speed(p99 / 2, p99)) == interval


def test_measuring_leaves_nothing_and_clears_what_a_killed_run_left(tmp_path):
    (tmp_path / "bench-1").write_bytes(b"x")
    gone = []
    found = measure(tmp_path, 0.2, advance=gone.append)
    assert found.flushes >= 1
    assert found.bytes_per_s > 0
    assert list(tmp_path.iterdir()) == []


def test_progress_adds_up_to_the_time_measured_on_media_far_faster_than_its_unit(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    gone = []
    measure(tmp_path, 0.2, advance=gone.append)
    assert sum(gone) >= 198


def test_a_full_medium_is_refused_by_name_and_nothing_stays(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RefusedError, match="No space left"):
        measure(tmp_path, 0.2, advance=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_the_medium_is_told_by_the_system(tmp_path):
    number = tmp_path.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    root = tmp_path / "root"
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"36 35 {name} / /mnt rw,noatime - ext4 /dev/sdz1 rw\n")
    disk = root / "sys/devices/sdz"
    (disk / "sdz1").mkdir(parents=True)
    (disk / "queue").mkdir()
    (disk / "queue" / "rotational").write_text("1\n")
    (root / "sys/dev/block").mkdir(parents=True)
    (root / "sys/dev/block" / name).symlink_to(disk / "sdz1")
    assert medium(tmp_path, system=root) == Medium(file_system="ext4", device="sdz1", is_rotating=True)
    assert medium(tmp_path, system=tmp_path / "nowhere") == Medium(file_system="", device="", is_rotating=False)
