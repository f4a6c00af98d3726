"""Ids of commands over restarts: what a stop keeps, what a crash puts in doubt, and a file that stops nothing."""

import asyncio
import json
from concurrent.futures import Executor, Future

import pytest

from gateway.commands import ids as pure
from gateway.commands.ids import DOUBT_S, Ids
from gateway.commands.keeping import FILE, Keeping

OP = ("broker", "op")
NOW_MS = 1_795_330_000_000 + 1_000_000


class Inline(Executor):
    """Does everything at once: virtual time does not wait for threads."""

    def submit(self, job, *arguments):
        future = Future()
        try:
            future.set_result(job(*arguments))
        except OSError as error:
            future.set_exception(error)
        return future


@pytest.fixture
def keeping(tmp_path, virtual_clock):
    return lambda folder=tmp_path: Keeping(folder, writing=Inline(), clock=virtual_clock)


@pytest.fixture
def run_once(keeping, run_virtual, desk):
    """`run_once(story)`: a run of the gateway that is stopped in order; `is_killed`: that is killed instead."""

    def run(story, *, is_killed=False):
        async def main():
            kept = await keeping().__aenter__()
            async with desk(ids=kept.ids).open() as it:
                found = await story(it)
            if not is_killed:
                await kept.__aexit__(None, None, None)
            return found

        return run_virtual(main())

    return run


def code(payload, **more):
    async def story(desk):
        return (await desk.reply("pump", payload, **more)).get("code")

    return story


COMMAND = '{"value":1,"id":"a"}'


def test_what_an_earlier_run_has_seen_is_refused_after_an_orderly_stop(run_once):
    run_once(code('{"value":1,"id":"x"}'))
    assert run_once(code(COMMAND)) is None
    assert run_once(code(COMMAND, is_again=True)) == "repeated"
    assert run_once(code(COMMAND)) == "repeated"
    assert run_once(code(COMMAND, who={"user": "other"})) is None
    assert run_once(code('{"value":1,"id":1}')) is None
    assert run_once(code('{"value":1,"id":"1"}')) is None


def test_an_id_that_is_new_may_come_again_after_an_orderly_stop(run_once, tmp_path):
    (tmp_path / FILE).write_bytes(b'{"version":1,"stopped":true,"doubt_s":0,"senders":[]}')
    run_once(code(COMMAND))
    assert run_once(code('{"value":1,"id":"b"}', is_again=True)) is None


@pytest.mark.parametrize(
    ("made_s", "answer"),
    [(None, "repeated"), (-100, "repeated"), (0, "repeated"), (59, "repeated"), (61, None), (200, "repeated")],
)
def test_after_a_crash_what_is_sent_again_must_show_that_it_is_of_this_run(run_once, made_s, answer, tmp_path):
    (tmp_path / FILE).write_bytes(b'{"version":1,"stopped":true,"doubt_s":0,"senders":[]}')
    run_once(code(COMMAND), is_killed=True)

    async def story(desk):
        await asyncio.sleep(100)
        stamp = "" if made_s is None else f',"ts":{NOW_MS + made_s * 1000}'
        again = await desk.reply("pump", f'{{"value":1,"id":"a"{stamp}}}', is_again=True)
        return again.get("code"), (await desk.reply("pump", '{"value":0,"id":"new"}')).get("code")

    assert run_once(story) == (answer, None)


def test_doubts_outlast_an_orderly_stop_and_end_after_a_day_of_running(run_once):
    async def later(desk):
        await asyncio.sleep(DOUBT_S - 10)

    async def soon(desk):
        await asyncio.sleep(11)
        return await code('{"value":1,"id":"b"}', is_again=True)(desk)

    run_once(later)  # the first run knows of none before
    assert run_once(code(COMMAND, is_again=True)) == "repeated"
    assert run_once(soon) is None


def test_while_the_clock_cannot_be_right_no_age_helps(run_once):
    async def story(desk):
        await asyncio.sleep(100)
        desk.is_clock_right = False
        return await code(f'{{"value":1,"id":"a","ts":{NOW_MS + 90_000}}}', is_again=True)(desk)

    assert run_once(story) == "repeated"


def test_ids_are_written_at_most_once_a_minute_and_a_crash_loses_the_rest(keeping, run_virtual, tmp_path):
    async def story():
        kept = await keeping().__aenter__()
        task = asyncio.create_task(kept.run())
        kept.ids.remember(OP, "a")
        await asyncio.sleep(61)
        kept.ids.remember(OP, "b")
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        again = await keeping().__aenter__()
        return again.ids.has(OP, "a"), again.ids.has(OP, "b"), again.ids.has_doubts(2000.0)

    assert run_virtual(story()) == (True, False, True)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"version":2,"stopped":true,"doubt_s":0,"senders":[]}',
        b'{"version":1,"stopped":1,"doubt_s":0,"senders":[]}',
        b'{"version":1,"stopped":true,"doubt_s":0,"senders":[1]}',
        b'{"version":1,"stopped":true,"doubt_s":0,"senders":[["a","b",[1]]]}',
        b'{"version":1,"stopped":false,"doubt_s":0,"senders":[]}',
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_trusted_leaves_doubts(run_once, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    assert run_once(code(COMMAND, is_again=True)) == "repeated"
    assert json.loads((tmp_path / FILE).read_bytes())["stopped"] is True


def test_where_the_file_cannot_be_written_none_is_left_that_lies(keeping, run_virtual, tmp_path, monkeypatch, caplog):
    (tmp_path / FILE).write_bytes(b'{"version":1,"stopped":true,"doubt_s":0,"senders":[]}')

    def full(_):
        raise OSError(28, "No space left on device")

    async def story():
        monkeypatch.setattr("gateway.lessons.os.fsync", full)
        async with keeping() as kept:
            kept.ids.remember(OP, "a")

    run_virtual(story())
    assert not (tmp_path / FILE).exists()
    assert [r.message for r in caplog.records] == [f"{tmp_path / FILE}: cannot be written (No space left on device)"]


def test_the_memory_of_ids_is_bounded(monkeypatch):
    monkeypatch.setattr(pure, "_IDS", 3)
    monkeypatch.setattr(pure, "_SENDERS", 4)
    ids = Ids()
    for number in range(10):
        ids.remember(OP, number)
        ids.remember(("uplink", f"{number}"), 1)
    senders = ids.document(now=0.0, stopped=True)["senders"]
    assert sorted(len(hashes) for *_, hashes in senders) == [1, 1, 1, 3]
    assert [ids.has(OP, number) for number in (6, 7, 9)] == [False, True, True]
    assert Ids.of(ids.document(now=0.0, stopped=True), now=0.0).document(now=0.0, stopped=True)["senders"] == senders
