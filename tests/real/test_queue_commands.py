"""`headgate queue` on gateways that run: beside them, by their socket, after they were killed, on copies."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

HEADGATE = [sys.executable, "-m", "gateway"]


def headgate(*arguments, **options):
    return subprocess.run(
        [*HEADGATE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60, **options
    )


def document(*arguments):
    done = headgate(*arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def plant(start, wait_for, tmp_path):
    """A gateway file that reads two simulated devices fast and stores all; its uplink's broker is not there."""
    start(sys.executable, "-m", "gateway.cli.plant", "2", "10", "20ms", name="plant", stdin=subprocess.PIPE)
    log = tmp_path / "plant.log"
    wait_for(lambda: log.read_text().endswith("\n"), "the simulated devices", 60)

    def write(port, **spool):
        file = tmp_path / "plant.yaml"
        settings = {"path": str(tmp_path / "spool"), "commit_interval": "50ms", "max_bytes": "256MiB", **spool}
        url = f"mqtt://127.0.0.1:{port}"
        uplinks = {name: {"url": url, "client_id": name} for name in ("cloud", "other")}
        devices = json.loads(log.read_text())
        devices["d001"]["class"] = "alarm"
        file.write_text(json.dumps({"gateway": "g", "spool": settings, "uplinks": uplinks, "devices": devices}))
        return file

    return write


@pytest.fixture
def gateway(start, wait_for, tmp_path):
    """Run a gateway until it says that it runs."""

    def run(file, name="gateway"):
        process = start(*HEADGATE, "run", str(file), name=name)
        log = tmp_path / f"{name}.log"
        wait_for(lambda: "runs 'g'" in log.read_text() or process.poll() is not None, "the start", 30)
        assert process.poll() is None, log.read_text()
        return process

    return run


@pytest.fixture
def running(plant, gateway, wait_for, free_port):
    file = plant(free_port())
    process = gateway(file)
    wait_for(lambda: waiting(file) > 100, "records", 30)
    return file, process


def waiting(file, uplink="cloud"):
    queues = document("queue", "status", file)["queues"]
    return sum(c["lag_records"] for q in queues for c in q["cursors"] if c["name"] == uplink)


def test_what_only_looks_works_beside_a_gateway_that_writes(running, tmp_path):
    file, process = running
    for target in (file, tmp_path / "spool"):
        status = document("queue", "status", target)
        assert status["running"]
        assert {q["record_class"] for q in status["queues"]} == {"alarm", "data"}
        for _ in range(2):
            verified = document("queue", "verify", target)
            assert verified["ok"], verified
            audited = document("queue", "audit", target)
            assert audited["ok"], [a["totals"] for a in audited["accounts"]]
            unknown = [t["count"] for a in audited["accounts"] for t in a["totals"] if t["fate"] == "unknown"]
            assert sum(unknown) < 10_000, "numbers that were only set aside are no riddle while the gateway can say so"
        done = headgate("queue", "export", target, "--json")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(rows) > 500
        assert len({(r["class"], r["epoch"], r["seq"], r["tag"]) for r in rows}) == len(rows)
        assert {r["quality"] for r in rows} == {"good"}
        assert "a gateway runs here" in done.stderr
        assert headgate("queue", "inspect", target, "--frames").returncode == 0
    assert "uplink cloud: not connected" in headgate("queue", "status", file).stdout
    assert process.poll() is None


def test_looking_beside_a_store_that_goes_round_finds_no_damage(plant, gateway, free_port, tmp_path):
    file = plant(free_port(), max_bytes="4MiB", commit_interval="10ms")
    gateway(file)

    def went_round():
        numbers = [int(p.stem, 16) for p in (tmp_path / "spool" / "alarm").glob("*.seg")]
        return numbers and min(numbers) > 2

    looks = 0
    while not went_round() or looks < 5:
        done = headgate("queue", "verify", file)
        assert done.returncode == 0, done.stdout
        looks += 1


def test_purge_and_forget_are_done_by_the_gateway_that_runs(running):
    file, _ = running
    before = waiting(file, "other")
    done = headgate("queue", "purge", file, "--uplink", "cloud")
    assert done.returncode == 1
    assert "Give --yes" in done.stderr
    gone = document("queue", "purge", file, "--uplink", "cloud", "--yes")["given_up"]
    assert {share["uplink"] for share in gone} == {"cloud"}
    assert {share["record_class"] for share in gone} == {"alarm", "data"}
    assert sum(share["count"] for share in gone) > 90
    assert waiting(file, "cloud") < before
    assert waiting(file, "other") >= before
    refused = headgate("queue", "forget", file, "other", "--yes")
    assert refused.returncode == 1
    assert "has the uplink 'other'" in refused.stderr
    assert "knows no uplink 'x'; there are: cloud, other" in headgate("queue", "forget", file, "x", "--yes").stderr
    assert headgate("queue", "repair", file).returncode == 1


def test_an_uplink_taken_out_of_the_file_is_forgotten_while_the_gateway_runs(running, gateway, tmp_path):
    file, process = running
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    content = json.loads(file.read_text())
    del content["uplinks"]["other"]
    file.write_text(json.dumps(content))
    gateway(file, "again")
    log = tmp_path / "again.log"
    assert "headgate queue forget" in log.read_text()
    assert waiting(file, "other") > 50
    done = headgate("queue", "forget", file, "other", "--yes")
    assert done.returncode == 0, done.stderr
    assert "uplink 'other' is forgotten" in done.stdout
    assert {c["name"] for q in document("queue", "status", file)["queues"] for c in q["cursors"]} == {"cloud"}
    assert "by a person" in log.read_text()


def test_a_store_that_was_killed_is_whole_and_can_be_read_elsewhere(running, tmp_path):
    file, process = running
    process.kill()
    process.wait()
    card = tmp_path / "card"
    shutil.copytree(tmp_path / "spool", card, ignore=shutil.ignore_patterns("control.sock"))
    for target in (file, card):
        assert document("queue", "verify", target)["ok"]
        assert document("queue", "audit", target)["ok"]
        status = document("queue", "status", target)
        assert not status["running"]
        assert all(c["lag_records"] > 40 for q in status["queues"] for c in q["cursors"])
    rows = [headgate("queue", "export", target).stdout for target in (file, card)]
    assert rows[0] == rows[1]
    assert len(rows[0].splitlines()) > 500


@pytest.fixture
def broker(need, start, listening, wait_for, tmp_path, free_port):
    need("mosquitto", "mosquitto_sub")
    port = free_port()
    file = tmp_path / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    start("/usr/sbin/mosquitto", "-c", str(file), name="mosquitto")
    wait_for(lambda: listening(port), "mosquitto to listen")
    return port


def test_a_stretch_of_time_is_sent_once_more(plant, gateway, start, wait_for, broker, tmp_path):
    file = plant(broker, persist="always", keep_after_ack="8MiB")
    gateway(file)

    def stored():
        rows = headgate("queue", "export", file, "--class", "data", "--json").stdout.splitlines()
        return [json.loads(row) for row in rows]

    wait_for(lambda: len({r["seq"] for r in stored()}) > 60, "records on the disk", 30)
    rows = stored()
    seqs = sorted({r["seq"] for r in rows})[10:30]
    times = {r["seq"]: r["ts_ms"] for r in rows}
    topic = "headgate/g/d000"
    start("mosquitto_sub", "-p", str(broker), "-t", topic, name="heard")
    wait_for(lambda: heard(tmp_path), "live messages", 20)
    span = ("--from", times[seqs[0]], "--to", times[seqs[-1]])
    done = document("queue", "replay", file, "--uplink", "cloud", *span)
    assert (done["done"], done["error"], done["first_ms"]) == (True, "", times[seqs[0]])
    wait_for(lambda: set(seqs) <= {m["seq"] for m in heard(tmp_path) if m.get("replay")}, "all of it", 20)
    again = [m for m in heard(tmp_path) if m.get("replay")]
    assert sorted(m["seq"] for m in again if m["seq"] in seqs) == seqs
    values = {r["seq"]: {} for r in rows}
    for r in rows:
        values[r["seq"]][r["tag"]] = r["value"]
    assert all(m["values"].keys() == values[m["seq"]].keys() for m in again)
    stopped = headgate("queue", "replay", file, "--uplink", "cloud", "--stop")
    assert (stopped.returncode, "done" in stopped.stdout) == (0, True)


def heard(tmp_path):
    lines = (tmp_path / "heard.log").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def test_replay_wants_a_gateway_that_runs_and_an_uplink_it_has(running):
    file, process = running
    refused = headgate("queue", "replay", file, "--uplink", "x", "--from", "-1h")
    assert (refused.returncode, "there are: cloud, other" in refused.stderr) == (1, True)
    assert headgate("queue", "replay", file, "--uplink", "cloud").returncode == 2
    assert "has no replay" in headgate("queue", "replay", file, "--uplink", "cloud", "--stop").stderr
    process.terminate()
    process.wait(10)
    refused = headgate("queue", "replay", file, "--uplink", "cloud", "--from", "-1h")
    assert (refused.returncode, "no gateway runs on" in refused.stderr) == (1, True)
