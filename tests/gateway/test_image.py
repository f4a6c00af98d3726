import pytest

from gateway.image import Image
from gateway.model import GOOD, Batch, Device, DeviceState, ScanGroup, Tag, bad


@pytest.fixture
def group():
    tags = [Tag(name=n, address="", unit="K") for n in "abc"]
    return ScanGroup.of(Device(name="d", driver="x", url=""), tags, types=["float32"] * 3, every_s=1.0, plan=None)


@pytest.fixture
def image(group):
    it = Image()
    it.add(group)
    return it


def rows(image, device=None):
    return [(s.tag, s.value, s.quality, s.time) for s in image.samples(device)]


def test_before_the_first_batch_every_tag_says_startup(image):
    assert {(value, quality) for _, value, quality, _ in rows(image)} == {(None, bad("startup"))}


def test_a_dense_batch_replaces_all_values(image, group):
    image.note(Batch(group, 5, [1.0, 2.0, 3.0]))
    assert rows(image) == [("a", 1.0, GOOD, 5), ("b", 2.0, GOOD, 5), ("c", 3.0, GOOD, 5)]
    assert next(image.samples()).unit == "K"


def test_a_sparse_batch_touches_only_its_tags(image, group):
    image.note(Batch(group, 5, [1.0, 2.0, 3.0]))
    image.note(Batch(group, 9, [None], bad("timeout"), index=[1]))
    assert rows(image) == [("a", 1.0, GOOD, 5), ("b", None, bad("timeout"), 9), ("c", 3.0, GOOD, 5)]


def test_a_batch_that_was_handed_on_is_never_changed(image, group):
    first = Batch(group, 5, [1.0, 2.0, 3.0])
    image.note(first)
    image.note(Batch(group, 9, [7.0], index=[0]))
    assert first.values == [1.0, 2.0, 3.0]


def test_source_times_are_kept_per_tag(image, group):
    image.note(Batch(group, 5, [1.0, 2.0, 3.0], times=[1, 2, 3]))
    image.note(Batch(group, 9, [7.0], index=[0], times=[8]))
    assert [time for *_, time in rows(image)] == [8, 2, 3]


def test_a_removed_device_is_forgotten(image, group):
    image.states["d"] = DeviceState("d", True, "", 0)
    image.remove("d")
    assert rows(image) == []
    assert image.states == {}


def test_bad_tags_are_counted(image, group):
    image.note(Batch(group, 5, [1.0, None, 3.0], [GOOD, bad("exception:2"), GOOD]))
    assert image.count_bad("d") == 1
