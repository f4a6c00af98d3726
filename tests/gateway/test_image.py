import pytest

from gateway.image import Image
from gateway.model import GOOD, Batch, Device, DeviceState, Quality, ScanGroup, Tag, bad, uncertain


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


def test_a_good_value_with_a_status_of_its_own_is_not_bad(image, group):
    image.note(Batch(group, 5, [1.0, None, 3.0], [Quality("good:GoodClamped"), bad("x"), uncertain("y")]))
    assert image.count_bad("d") == 2
    assert image.count("d") == 3


def test_sparse_batches_change_what_is_the_images_own_and_nothing_that_was_handed_out(image, group):
    image.note(Batch(group, 5, [1.0, 2.0, 3.0]))
    image.note(Batch(group, 6, [4.0], index=[0]))
    (handed,) = image.batches()
    image.note(Batch(group, 7, [5.0], bad("x"), index=[0]))
    image.note(Batch(group, 8, [6.0], index=[1]))
    assert (list(handed.values), list(handed.quality), list(handed.times)) == ([4.0, 2.0, 3.0], [GOOD] * 3, [6, 5, 5])
    assert rows(image) == [("a", 5.0, bad("x"), 7), ("b", 6.0, GOOD, 8), ("c", 3.0, GOOD, 5)]


def test_a_dense_batch_that_came_after_sparse_ones_is_not_changed_by_the_next(image, group):
    image.note(Batch(group, 5, [1.0], index=[0]))
    dense = Batch(group, 6, [1.0, 2.0, 3.0], [GOOD] * 3, times=[1, 2, 3])
    image.note(dense)
    image.note(Batch(group, 7, [9.0], bad("x"), index=[0]))
    assert (dense.values, dense.quality, dense.times) == ([1.0, 2.0, 3.0], [GOOD] * 3, [1, 2, 3])


def test_the_servers_times_are_kept_per_tag(image, group):
    image.note(Batch(group, 5, [1.0, 2.0, 3.0], index=[0, 1, 2]))
    image.note(Batch(group, 6, [4.0], index=[1], server_times=[66]))
    assert next(image.batches()).server_times == [0, 66, 0]
    image.note(Batch(group, 7, [1.0, 2.0, 3.0], server_times=[7, 8, 9]))
    assert next(image.batches()).server_times == [7, 8, 9]
    image.note(Batch(group, 8, [None] * 3, bad("offline")))
    assert next(image.batches()).server_times is None


def test_a_part_of_a_page_keeps_each_samples_own_time(image, group):
    image.note(Batch(group, 5, [1.0, 2.0, 3.0]))
    image.note(Batch(group, 9, [7.0], bad("x"), index=[2], times=[8], server_times=[6]))
    part = image.part(group, [0, 2], 100)
    assert (part.time, part.values, part.index, part.times) == (100, [1.0, 7.0], [0, 2], [5, 8])
    assert (part.quality, part.server_times) == ([GOOD, bad("x")], [0, 6])
    assert image.part(group, [0, 1], 100).quality is GOOD


def other(name, *tags):
    tags = [Tag(name=n, address="") for n in tags]
    return ScanGroup.of(
        Device(name=name, driver="x", url=""), tags, types=["float32"] * len(tags), every_s=1, plan=None
    )


def test_groups_are_replaced_in_their_place_and_what_stays_is_kept(image, group):
    stays, after, new = other("d", "s"), other("e", "x"), other("d", "n", "m")
    for it in (stays, after):
        image.add(it)
    image.note(Batch(stays, 5, [4.0]))
    image.replace([group, stays], [new, stays])
    assert [(s.device, s.tag, s.value) for s in image.samples()] == [
        ("d", "n", None),
        ("d", "m", None),
        ("d", "s", 4.0),
        ("e", "x", None),
    ]
    image.replace([new, stays], [])
    assert [s.tag for s in image.samples()] == ["x"]
    image.replace([], [group])
    assert [s.tag for s in image.samples()] == ["x", "a", "b", "c"]
