"""What a running gateway does for the commands: the right records go, they are counted, and a trace stays."""

import asyncio

import pytest

from gateway.clock import SystemClock
from gateway.errors import HeadgateError
from gateway.metrics import Metrics
from gateway.upkeep.handlers import Upkeep


class Uplink:
    def __init__(self):
        self.asked = []

    def replay(self, first_ms, last_ms):
        self.asked.append((first_ms, last_ms))

    def stop_replay(self):
        self.asked.append("stop")


def run(yard, work, uplinks=()):
    async def main():
        async with yard.opened() as queue:
            metrics = Metrics()
            upkeep = Upkeep(lambda: [queue], dict(uplinks), clock=SystemClock(), metrics=metrics)
            cursor = queue.cursor("cloud")
            queue.cursor("plant")
            for n in range(1, 21):
                queue.append(yard.batch(n))
            await queue.durable()
            return await work(queue, cursor, upkeep.handlers, metrics)

    return asyncio.run(main())


def purge(uplink, last_seq):
    share = {"record_class": "data", "uplink": uplink, "last_seq": last_seq, "first_time": 1, "last_time": 2}
    return {"shares": [share]}


def purged(metrics):
    return [value for name, _, value in metrics if name == "spool_purged_records_total"]


def test_a_purge_lets_one_uplink_go_on_and_tells_it(yard):
    async def work(queue, cursor, handlers, metrics):
        answer = handlers["queue purge"](purge("cloud", 15))
        assert [(s["first_seq"], s["last_seq"], s["count"]) for s in answer["shares"]] == [(1, 15, 15)]
        assert purged(metrics) == [15]
        found = []
        while cursor.position < 21:
            found += await queue.read(cursor, 100)
        assert [r.seq for r in found] == [16, 17, 18, 19, 20, 21]
        note = found[-1]
        assert (note.kind, note.other.name, note.other.fields["count"]) == ("audit", "purge", 15)
        lags = {c.name: c.lag_records for c in queue.status().cursors}
        assert lags == {"cloud": 6, "plant": 21}

    run(yard, work)


def test_a_purge_of_everything_goes_up_to_the_newest(yard):
    async def work(queue, cursor, handlers, metrics):
        handlers["queue purge"](purge("cloud", None))
        assert cursor.committed == 20
        assert handlers["queue purge"](purge("cloud", 3))["shares"] == []
        assert handlers["queue purge"](purge("nobody", 3))["shares"] == []
        assert purged(metrics) == [20]

    run(yard, work)


def test_forgetting_frees_what_only_that_uplink_held(yard):
    async def work(queue, cursor, handlers, metrics):
        queue.commit(cursor, 20)
        before = queue.status().acked
        answer = handlers["queue forget"]({"uplink": "plant"})
        assert answer["shares"][0]["count"] == 20
        assert [c.name for c in queue.status().cursors] == ["cloud"]
        assert queue.status().acked > before
        assert purged(metrics) == [20]

    run(yard, work)


def test_an_uplink_that_runs_is_not_forgotten(yard):
    async def work(queue, cursor, handlers, metrics):
        with pytest.raises(HeadgateError, match="runs, and would begin anew"):
            handlers["queue forget"]({"uplink": "cloud"})
        with pytest.raises(HeadgateError, match="knows no uplink 'x'; there are: cloud, plant"):
            handlers["queue forget"]({"uplink": "x"})

    run(yard, work, {"cloud": Uplink()})


def test_a_replay_is_handed_to_its_uplink(yard):
    uplink = Uplink()

    async def work(queue, cursor, handlers, metrics):
        handlers["queue replay"]({"uplink": "cloud", "first_ms": 5, "last_ms": 9})
        handlers["queue stop replay"]({"uplink": "cloud"})
        assert uplink.asked == [(5, 9), "stop"]
        with pytest.raises(HeadgateError, match="no uplink 'x' runs; there are: cloud"):
            handlers["queue replay"]({"uplink": "x", "first_ms": 5, "last_ms": 9})

    run(yard, work, {"cloud": uplink})


@pytest.mark.parametrize(
    ("verb", "request_"),
    [
        ("queue purge", {}),
        ("queue purge", {"shares": [{"record_class": "x"}]}),
        ("queue purge", {"shares": 5}),
        ("queue replay", {"uplink": "cloud", "first_ms": "x", "last_ms": 1}),
        ("queue replay", {"uplink": "cloud"}),
    ],
)
def test_nonsense_is_an_answer_and_not_a_crash(yard, verb, request_):
    async def work(queue, cursor, handlers, metrics):
        with pytest.raises(HeadgateError, match="not a"):
            handlers[verb](request_)
        assert cursor.committed == 0

    run(yard, work, {"cloud": Uplink()})


def test_forgetting_an_uplink_that_has_all_tells_of_no_range(yard, caplog):
    async def work(queue, _cursor, handlers, _metrics):
        queue.commit(queue.cursor("late"), queue.head)
        handlers["queue forget"]({"uplink": "late"})

    run(yard, work)
    assert "forget by a person: uplink 'late' has all of class data" in caplog.text
    assert "gives up records" not in caplog.text
