"""`headgate status`: what a person reads of a gateway that runs."""

import asyncio
import json
import re

import pytest

from gateway.app import App
from gateway.cli.main import main
from gateway.cli.status import _lines
from gateway.config import load
from gateway.model import Batch


@pytest.fixture
def status(tmp_path, capsys):
    """What the command says of a gateway that could not deliver some records, of two classes."""
    file = tmp_path / "g.yaml"
    tags = {"x": "holding:1", "y": {"address": "coil:1", "class": "alarm"}}
    device = {"driver": "modbus", "url": "tcp://127.0.0.1:1", "tags": tags}
    uplinks = {"u": {"url": "mqtt://127.0.0.1:1"}}
    file.write_text(json.dumps({"gateway": "g", "uplinks": uplinks, "devices": {"a": device}}))
    config = load(file)

    async def scenario():
        async with App(config) as app:
            for group in config.groups["a"]:
                app._sink(Batch(group, 1_795_330_000_000, [1]))
            await app.spool.durable()
            assert await asyncio.to_thread(main, ["status", str(file)]) == 0
            said = capsys.readouterr().out
            assert await asyncio.to_thread(main, ["status", str(file), "--json"]) == 0
            return said, json.loads(capsys.readouterr().out)

    return asyncio.run(scenario())


def test_it_says_how_full_the_spool_is_in_all_and_for_each_class(status):
    said, _ = status
    assert re.search(
        r"uplink u: not connected: .*; 0 records acknowledged, [2-9] waiting \(the oldest for [0-9.]+ s\)", said
    )
    assert re.search(
        r"^  spool: ok, [0-9.]+MiB of 1GiB used \([0-9]+%\).* in [0-9]+ flushes written today;", said, re.MULTILINE
    )
    assert re.search(r"^    alarm: ok, [0-9.]+MiB of 102.4MiB used", said, re.MULTILINE)
    assert re.search(r"^    data: ok, [0-9.]+MiB of 921.6MiB used", said, re.MULTILINE)


def test_it_says_when_a_backlog_is_done_how_long_there_is_room_and_what_was_lost(status):
    _, document = status
    backlog = {"backlog_records": 1234, "replay_rate": 500.4, "done_at": 1_795_330_000_000}
    document["uplinks"][0] |= {"connected": True, "server": "mqtt://b"} | backlog
    document["spool"] |= {"state": "full", "hours_left": 72.0, "evicted": 7, "thinned": 1000}
    document["spool"]["cursors"].append(document["spool"]["cursors"][0] | {"name": "old", "retired": True})
    said = "\n".join(_lines(document))
    assert "backlog of 1,234 records, 500 values/s, done at 2026-11-22T06:46:40.000Z" in said
    assert re.search("uplink old: not in the file any more; [2-9] records wait for it", said)
    assert re.search("spool: full, .* room for 3.0 days;", said)
    assert "records since the start: 7 evicted, 1,000 thinned; `headgate queue audit` has their ranges" in said
    document["uplinks"][0]["done_at"] = None
    assert "500 values/s\n" in "\n".join(_lines(document))


def test_it_says_of_each_device_and_line_what_is_sick_since_when_and_when_it_is_asked_again(status):
    _, document = status
    device = document["devices"][0] | {"name": "m", "state": "offline", "cause": "timeout", "since": 1_795_330_000_000}
    document["devices"] = [
        device | {"text": "d: no answer", "failures": 4, "ask_again_s": 12.34, "resting": 0, "tags": 2, "bad": 2},
        device
        | {"name": "n", "state": "online", "cause": "", "text": "", "failures": 0, "ask_again_s": None, "resting": 3},
    ]
    line = {"name": "rtu:///dev/ttyUSB0", "connected": True, "busy": 0.714, "sick": 0.096, "missed": 1234}
    document["lines"] = [line, line | {"connected": False, "busy": 0.0, "sick": 0.0, "missed": 0}]
    said = "\n".join(_lines(document))
    assert (
        "  device m: offline (timeout) since 2026-11-22T06:46:40.000Z, 4 failures in a row, asked again in 12.3 s,"
        " 2 tags, 2 bad\n    d: no answer\n" in said
    )
    assert re.search(r"  device n: online, 2 tags, \d bad, 3 resting\n", said)
    assert (
        "  line rtu:///dev/ttyUSB0: connected, busy 71% of the last minute, 10% for nothing, 1,234 polls missed\n"
        in said
    )
    assert "  line rtu:///dev/ttyUSB0: not connected, busy 0% of the last minute\n" in said
