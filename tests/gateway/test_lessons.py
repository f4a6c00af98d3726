"""What drivers learned: one small file that is whole or not there, and that never stops anything."""

import asyncio
import contextlib
import json
import logging
import os
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import lessons as room
from gateway.lessons import ASIDE, FILE, LIMIT_BYTES, Lessons
from gateway.metrics import Metrics

DOCUMENT = {"units": {"3": {"holes": [[40001, 7]], "turnaround_ms": 12.5}}}


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
def metrics():
    return Metrics()


@pytest.fixture
def lessons(tmp_path, metrics):
    def build(folder=tmp_path):
        return Lessons(folder, writing=Inline(), metrics=metrics)

    return build


def once(book, *deeds):
    """Enter, do each deed, leave."""

    async def scenario():
        async with book:
            return [deed(book) for deed in deeds]

    return asyncio.run(scenario())


def stored(folder):
    return json.loads((folder / FILE).read_bytes())


def test_what_was_kept_is_there_in_the_next_run(tmp_path, lessons):
    once(lessons(), lambda book: book.keep("tcp://a:502", DOCUMENT))
    assert stored(tmp_path) == {"version": 1, "lines": {"tcp://a:502": DOCUMENT}}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert once(lessons(), lambda book: book.recall("tcp://a:502"), lambda book: book.recall("tcp://b:502")) == [
        DOCUMENT,
        None,
    ]


def test_nothing_is_written_where_nothing_changed(tmp_path, lessons):
    once(lessons(), lambda book: book.keep("a", {"units": {}}))
    assert not (tmp_path / FILE).exists()
    once(lessons(), lambda book: book.keep("a", DOCUMENT))
    before = (tmp_path / FILE).stat().st_ino
    once(lessons(), lambda book: book.keep("a", json.loads(json.dumps(DOCUMENT))))
    assert (tmp_path / FILE).stat().st_ino == before
    once(lessons(), lambda book: book.keep("a", {"units": {}}))  # forgotten on purpose: that is a change
    assert stored(tmp_path)["lines"] == {"a": {"units": {}}}


def test_a_document_that_is_changed_after_it_was_kept_is_kept_as_it_was(tmp_path, lessons):
    document = {"holes": [1]}
    once(lessons(), lambda book: book.keep("a", document), lambda _: document["holes"].append(2))
    assert stored(tmp_path)["lines"] == {"a": {"holes": [1]}}


def test_lines_that_did_not_run_are_dropped_with_the_next_write(tmp_path, lessons):
    once(lessons(), lambda book: book.keep("a", DOCUMENT), lambda book: book.keep("b", DOCUMENT))
    once(lessons(), lambda book: book.recall("a"))
    assert set(stored(tmp_path)["lines"]) == {"a", "b"}
    once(lessons(), lambda book: book.recall("b"), lambda book: book.keep("c", DOCUMENT))
    assert set(stored(tmp_path)["lines"]) == {"b", "c"}


def test_it_is_written_at_most_each_ten_minutes(lessons, metrics, run_virtual):
    def writes():
        return sum(v for n, _, v in metrics if n == "lessons_writes_total")

    async def scenario():
        counts = []
        async with lessons() as book:
            task = asyncio.create_task(book.run())
            for k in range(3600):
                book.keep("a", {"k": k + 1})
                await asyncio.sleep(1)
                counts.append(writes())
            task.cancel()
            await asyncio.wait([task])
        return counts

    counts = run_virtual(scenario())
    assert counts[0] == 1
    assert counts[598] == 1
    assert counts[-1] <= 7
    assert writes() == counts[-1] + 1  # and at the stop


DAMAGED = {
    "nested deeper than can be written": b'{"version":1,"lines":{"a":{"x":' + b"[" * 500 + b"]" * 500 + b"}}}",
    "torn": b'{"version":1,"lines":{"a":{"uni',
    "empty": b"",
    "not JSON": b"\x00" * 512,
    "a list": b"[1]",
    "of a later version": b'{"version":2,"lines":{}}',
    "without lines": b'{"version":1}',
    "with a line that is none": b'{"version":1,"lines":{"a":[1]}}',
    "too large": b'{"version":1,"lines":{"a":{"x":"' + b"x" * LIMIT_BYTES + b'"}}}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_file_of_no_use_is_kept_aside_with_one_warning(tmp_path, lessons, content, caplog):
    (tmp_path / FILE).write_bytes(content)
    assert once(lessons(), lambda book: book.recall("a")) == [None]
    (warning,) = caplog.messages
    assert f"kept aside as {ASIDE}" in warning
    assert (tmp_path / ASIDE).read_bytes() == content
    once(lessons(), lambda book: book.keep("a", DOCUMENT))
    assert len(caplog.messages) == 1
    assert stored(tmp_path)["lines"] == {"a": DOCUMENT}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_content_of_the_file_stops_the_start(tmp_path, lessons, content):
    (tmp_path / FILE).write_bytes(content)
    once(lessons(), lambda book: book.recall("a"), lambda book: book.keep("a", DOCUMENT))
    assert stored(tmp_path)["lines"] == {"a": DOCUMENT}


def test_a_file_that_cannot_be_read_or_written_is_said_and_stops_nothing(tmp_path, lessons, caplog):
    (tmp_path / FILE).mkdir()
    once(lessons(), lambda book: book.keep("a", DOCUMENT))
    assert "cannot be read" in caplog.messages[0]
    assert "cannot be written" in caplog.messages[1]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]  # no draft is left


def test_a_disk_that_is_full_is_said_once_and_what_was_there_stays(tmp_path, lessons, caplog, monkeypatch):
    once(lessons(), lambda book: book.keep("a", DOCUMENT))

    def full(_):
        raise OSError(28, "No space left on device")

    async def scenario():
        async with lessons() as book:
            with monkeypatch.context() as patch:
                patch.setattr(room.os, "fsync", full)
                for k in range(3):
                    book.keep("a", {"k": k + 1})
                    await book._write()
            assert stored(tmp_path)["lines"] == {"a": DOCUMENT}

    asyncio.run(scenario())
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.messages[0]
    assert stored(tmp_path)["lines"] == {"a": {"k": 3}}  # there was room again


def test_more_than_fits_is_refused_and_said_once_and_the_others_are_kept(tmp_path, lessons, caplog, metrics):
    huge = {"x": "x" * LIMIT_BYTES}
    half = {"x": "x" * (LIMIT_BYTES * 2 // 3)}
    once(
        lessons(),
        lambda book: book.keep("small", DOCUMENT),
        lambda book: book.keep("huge", huge),
        lambda book: book.keep("huge", huge),
        lambda book: book.keep("first", half),
        lambda book: book.keep("second", half),
        lambda book: book.keep("first", DOCUMENT),
        lambda book: book.keep("second", half),
    )
    assert [m.split(":")[0] for m in caplog.messages] == ["line huge", "line second"]
    assert set(stored(tmp_path)["lines"]) == {"small", "first", "second"}
    assert (tmp_path / FILE).stat().st_size <= LIMIT_BYTES
    assert sum(v for n, _, v in metrics if n == "lessons_refused_total") == 3


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, LIMIT_BYTES), max_size=8))
def test_whatever_is_kept_the_file_can_be_read_again(tmp_path, lessons, sizes):
    (tmp_path / FILE).unlink(missing_ok=True)
    (tmp_path / ASIDE).unlink(missing_ok=True)
    once(lessons(), *[lambda book, n=name, s=size: book.keep(n, {"x": "x" * s}) for name, size in sizes.items()])
    once(lessons(), *[lambda book, n=name: book.recall(n) for name in sizes])
    assert not (tmp_path / ASIDE).exists()


def test_what_is_no_json_is_refused(tmp_path, lessons, caplog):
    once(lessons(), lambda book: book.keep("a", {"x": object()}), lambda book: book.keep("b", {3: "x"}))
    assert len(caplog.messages) == 2
    assert "it is no JSON" in caplog.messages[0]
    assert not (tmp_path / FILE).exists()


def test_a_disk_that_does_not_answer_does_not_hold_up_the_stop(tmp_path, metrics, caplog):
    answer = threading.Event()
    writing = ThreadPoolExecutor(1)

    async def scenario():
        async with asyncio.timeout(10):
            async with Lessons(tmp_path, writing=writing, metrics=metrics) as book:
                writing.submit(answer.wait)
                book.keep("a", DOCUMENT)

    try:
        asyncio.run(scenario())
    finally:
        answer.set()
        writing.shutdown()
    assert "the disk does not answer" in caplog.text
    assert logging.ERROR in [r.levelno for r in caplog.records]


def test_a_crash_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path, lessons, monkeypatch):
    """Each system call of the write fails in turn, as if the process had ended there."""
    once(lessons(), lambda book: book.keep("a", {"old": 1}))
    calls = []

    class EndOfProcessError(BaseException):
        pass

    def cut(name, real):
        def call(*arguments, **more):
            calls.append(name)
            if len(calls) == at:
                raise EndOfProcessError
            return real(*arguments, **more)

        return call

    for at in range(1, 12):
        calls.clear()
        with monkeypatch.context() as patch:
            for name in ("open", "fsync", "close"):
                patch.setattr(room.os, name, cut(name, getattr(os, name)))
            patch.setattr(room.Path, "replace", cut("replace", room.Path.replace))
            with contextlib.suppress(EndOfProcessError):
                room.replace_file(tmp_path, FILE, b'{"version":1,"lines":{"a":{"new":%d}}}' % at)
        assert stored(tmp_path)["lines"]["a"] in ({"old": 1}, *[{"new": k} for k in range(at + 1)])
    assert calls[:5] == ["open", "fsync", "replace", "open", "fsync"]
