"""A repaired store has everything that could be read before, tells what is lost, and is whole."""

import asyncio
import shutil

import pytest

from gateway.errors import FileError, RefusedError
from gateway.upkeep.folder import Part
from gateway.upkeep.records import Wanted, frames
from gateway.upkeep.repair import repair, repair_to
from gateway.upkeep.verify import Verified, verify


def quiet(_):
    return None


def mend(yard):
    return list(repair(Part("data", yard.folder), advance=quiet))


def contents(yard):
    return {
        r.seq: (r.epoch, r.batch.time, list(r.batch.values))
        for _, records in frames(yard.survey(), Wanted())
        for r in records
        if r.batch is not None
    }


def serious(yard):
    return [d for d in verify(yard.survey(), Verified()) if d.is_serious]


def test_a_whole_store_is_left_alone(yard):
    yard.fill(1, 60)
    before = {k: v for k, v in yard.bytes().items() if not k.endswith("lock")}
    assert mend(yard) == []
    assert {k: v for k, v in yard.bytes().items() if not k.endswith("lock")} == before


@pytest.mark.parametrize("hurt", ["flip", "wipe"])
@pytest.mark.parametrize("which", [0, 3, 7])
def test_all_that_is_whole_stays_and_the_rest_is_a_gap(yard, hurt, which):
    yard.fill(1, 60)
    victim = yard.heads()[which]
    whole = contents(yard)
    getattr(yard, hurt)(victim)
    before = contents(yard)
    assert len(before) == len(whole) - 4
    (mended,) = mend(yard)
    assert mended.file == yard.path_of(victim).name
    assert contents(yard) == before
    assert (yard.folder / mended.file.replace(".seg", ".bad")).exists()
    if which or hurt == "flip":
        assert mended.gaps == ((victim.first_seq, victim.last_seq, 4),)
    assert serious(yard) == []


def test_a_gateway_reads_the_repaired_store_and_tells_the_gap_once(yard):
    start = yard.fill(1, 60)
    yard.flip(yard.heads()[5], 300)
    mend(yard)

    async def main():
        async with yard.opened() as queue:
            cursor = queue.cursor("cloud")
            final = queue.append(yard.batch(99))
            found = []
            while cursor.position < final:
                found += await queue.read(cursor, 100)
            return found

    found = asyncio.run(main())
    (gap,) = [r.gap for r in found if r.gap is not None]
    assert (gap.cause, gap.first_seq, gap.last_seq, gap.count) == ("damaged", start + 20, start + 23, 4)
    assert len([r for r in found if r.batch is not None]) == 57


def test_a_definition_lost_with_its_frame_comes_from_another_file(yard):
    yard.fill(1, 120)
    files = yard.survey().files
    victim = next(h for h in yard.heads() if h.segment == files[1].number)
    yard.flip(victim, 300)
    before = contents(yard)
    mend(yard)
    for file in files:
        if file.number != files[1].number:
            (yard.folder / file.name).unlink()
    alone = contents(yard)
    assert alone
    assert alone.items() <= before.items()
    assert len(alone) == sum(h.count for h in yard.heads()) - 1  # all but the gap


def test_what_can_be_read_in_a_file_set_aside_comes_back(yard):
    yard.fill(1, 120)
    whole = contents(yard)
    name = yard.survey().files[1].name
    bad = name.replace(".seg", ".bad")
    (yard.folder / name).rename(yard.folder / bad)
    assert len(contents(yard)) < len(whole)
    (mended,) = mend(yard)
    assert mended.rescued == 120 - len(whole) + mended.rescued
    assert contents(yard) == whole
    assert (yard.folder / bad).exists()
    assert serious(yard) == []
    assert mend(yard) == []


def test_a_repaired_copy_leaves_the_original_untouched(yard, tmp_path):
    yard.fill(1, 60, acknowledge=9)
    yard.flip(yard.heads()[4], 300)
    before = yard.bytes()
    kept = contents(yard)
    marks = yard.survey().state().marks
    list(repair_to(Part("data", yard.folder), tmp_path / "copy", advance=quiet))
    assert yard.bytes() == before
    yard.folder = tmp_path / "copy"
    assert contents(yard) == kept
    assert serious(yard) == []
    assert yard.survey().state().marks == marks


def test_a_copy_goes_only_where_nothing_is(yard, tmp_path):
    yard.fill(1, 8)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(FileError, match="is not empty"):
        list(repair_to(Part("data", yard.folder), tmp_path / "full", advance=quiet))


def test_a_store_in_use_is_not_repaired(yard):
    async def main():
        async with yard.opened():
            with pytest.raises(RefusedError, match="uses this spool"):
                mend(yard)

    asyncio.run(main())


def test_an_interrupted_repair_loses_nothing_and_is_taken_up_again(yard, monkeypatch):
    yard.fill(1, 60)
    yard.flip(yard.heads()[4], 300)
    before = contents(yard)
    for step in ("_keep", "_name"):
        with monkeypatch.context() as patched:
            patched.setattr(f"gateway.upkeep.repair.{step}", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                mend(yard)
        assert contents(yard) == before
    mend(yard)
    assert contents(yard) == before
    assert serious(yard) == []
    assert not list(yard.folder.glob("repair-*"))


def test_a_folder_copied_from_elsewhere_is_repaired_like_any(yard, tmp_path):
    yard.fill(1, 30)
    yard.fill(31, 60)
    shutil.copytree(yard.folder, tmp_path / "card")
    yard.folder = tmp_path / "card"
    yard.wipe(yard.heads()[3])
    yard.flip(yard.heads()[9], 300)
    before = contents(yard)
    mend(yard)
    assert contents(yard) == before
    assert serious(yard) == []


@pytest.mark.parametrize("hurt", ["flip", "wipe"])
@pytest.mark.parametrize("which", ["last of a start", "first of a start"])
def test_at_the_border_of_two_starts_too_a_repair_leaves_nothing_to_complain_of(yard, hurt, which):
    yard.fill(1, 30)
    yard.fill(31, 60)
    heads = yard.heads()
    border = next(i for i, head in enumerate(heads) if head.epoch != heads[0].epoch)
    victim = heads[border - (which == "last of a start")]
    getattr(yard, hurt)(victim)
    before = contents(yard)
    assert len(serious(yard)) == 1
    (mended,) = mend(yard)
    assert len(mended.gaps) == 1
    assert serious(yard) == []
    assert contents(yard) == before
    assert mend(yard) == []
