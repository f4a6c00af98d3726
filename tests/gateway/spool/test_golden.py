"""A store of every format ever released opens, and gives all that was in it."""

import asyncio
import importlib.util
import json
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from gateway.errors import RefusedError
from gateway.journal import compression, frame
from gateway.spool.limits import Limits
from gateway.spool.spool import Spool

CASES = Path(__file__).parents[2] / "cases" / "spool"
FORMATS = sorted(int(path.stem.partition("-")[2]) for path in CASES.glob("format-*.zip"))

_spec = importlib.util.spec_from_file_location("make_golden", CASES / "make_golden.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)


@pytest.fixture(params=[*(f"format-{number}" for number in FORMATS), "history"])
def store(request, tmp_path):
    """The folder of a golden store, and what is in it."""
    folder = tmp_path / "spool"
    with zipfile.ZipFile(CASES / f"{request.param}.zip") as archive:
        archive.extractall(folder)
    return folder, json.loads((CASES / f"{request.param}.json").read_text())


def test_there_is_a_golden_store_of_every_format_up_to_the_present_one():
    assert list(range(1, frame.VERSION + 1)) == FORMATS


def test_every_record_of_a_golden_store_is_read_value_for_value(store):
    folder, expected = store
    assert golden.stored(folder) == expected["stored"]


def test_the_store_with_history_holds_history_and_the_times_of_servers():
    stored = json.loads((CASES / "history.json").read_text())["stored"]
    marks = [("history" in row, "server_times" in row, row.get("times") is not None) for row in stored]
    assert {(True, True, True), (True, False, False), (False, True, False), (False, False, True)} <= set(marks)
    assert {row["time"] for row in stored if "history" in row and row["names"][0] == "flow"} == {
        golden.Clock(1).wall_ms() - 3_600_000 + 1000 * n for n in range(4)
    }


@pytest.mark.parametrize("name", ["cloud", "tap"])
def test_every_cursor_of_a_golden_store_gets_what_it_is_owed(store, name):
    folder, expected = store
    assert asyncio.run(golden.owed(folder, name)) == expected["cursors"][name]


def test_what_is_appended_to_an_old_store_stands_behind_what_was_in_it(store):
    folder, expected = store

    async def scenario():
        queue = await golden.opened(folder, 1)
        queue.cursor("cloud")
        queue.append(next(golden.batches(1)))
        await queue.close()

    asyncio.run(scenario())
    found = golden.stored(folder)
    assert found[:-1] == expected["stored"]
    assert found[-1]["seq"] > found[-2]["seq"]
    assert found[-1]["epoch"] == "9f31c2-3"


def made_foreign(path, at=0):
    """Say of a file's frame that a later version wrote it."""
    data = bytearray(path.read_bytes())
    data[at + 4] = 3
    data[at + 132 : at + 136] = struct.pack("<I", zlib.crc32(data[at : at + 132]))
    path.write_bytes(bytes(data))


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


async def start(folder):
    limits = dict.fromkeys(("alarm", "event", "data", "diag"), Limits(max_bytes=1 << 20))
    spool = await Spool.open(folder, limits, clock=golden.Clock(1), metrics=golden.Metrics())
    await spool.close()


@pytest.mark.parametrize("place", ["0000000000000002.seg", "slots", "alarm/0000000000000001.seg"])
def test_a_store_of_a_later_version_is_refused_by_name_and_nothing_in_it_is_touched(store, place):
    folder, _ = store
    path = folder / place
    if not path.exists():
        path.parent.mkdir()
        path.write_bytes((folder / path.name).read_bytes())
    at = 65536 if place == "slots" and not path.read_bytes().startswith(b"HGJ1") else 0
    made_foreign(path, at)
    before = contents(folder)
    with pytest.raises(RefusedError, match=rf"{path.parent}: .*{path.name}: .* version 3 .* up to 2: run the version"):
        asyncio.run(start(folder))
    assert contents(folder) == before


def test_a_queue_that_is_opened_by_itself_is_refused_too(store):
    folder, _ = store
    made_foreign(folder / "0000000000000002.seg")
    before = contents(folder)
    with pytest.raises(RefusedError, match="version 3"):
        asyncio.run(golden.opened(folder, 1))
    assert contents(folder) == before


def in_zstd(path, at):
    """Say of a file's frame that its body is compressed with zstd."""
    data = bytearray(path.read_bytes())
    data[at + 4 : at + 6] = b"\x02\x03"
    data[at + 132 : at + 136] = struct.pack("<I", zlib.crc32(data[at : at + 132]))
    path.write_bytes(bytes(data))


def test_a_store_that_needs_zstd_is_refused_by_name_where_it_is_not_installed(store, monkeypatch):
    folder, _ = store
    in_zstd(folder / "0000000000000001.seg", 0)
    monkeypatch.setattr(compression, "zstd", lambda: None)
    before = contents(folder)
    with pytest.raises(RefusedError, match="compressed with zstd: install zstandard"):
        asyncio.run(start(folder))
    assert contents(folder) == before


def test_a_single_frame_that_needs_zstd_is_told_by_name_and_stays_where_it_is(store, monkeypatch, caplog):
    folder, expected = store
    path = folder / "0000000000000001.seg"
    first = frame.parse(path.read_bytes()[:512])
    in_zstd(path, first.extent)
    monkeypatch.setattr(compression, "zstd", lambda: None)
    before = path.read_bytes()
    owed = asyncio.run(golden.owed(folder, "cloud"))
    assert 0 < len(owed) < len(expected["cursors"]["cloud"])
    assert "install zstandard" in caplog.text
    assert path.read_bytes() == before
