"""What users and plants get wrong, each with its message and exit code; what part of the work can be done, is done."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SAMPLE = """\
gateway: plant
devices:
  boiler:
    driver: modbus
    url: tcp://127.0.0.1:{port}
    every: 100ms
    timeout: 200ms
    tags:
      flow: {{address: "holding:0", type: float32}}
"""


def headgate(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "gateway", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("every: 100ms", "evry: 100ms", "plant.yaml:6:5: device 'boiler': unknown key 'evry'. Did you mean 'every'?"),
        ("every: 100ms", "every: often", "plant.yaml:6:12: device 'boiler': every: 'often' is no duration"),
        ("every: 100ms", "url: tcp://127.0.0.1", "plant.yaml:6:5: key 'url' stands twice, first in line 5"),
        ("holding:0", "holding:65535", "plant.yaml:9:7: tag 'flow': float32 needs 2 registers, holding:65535 leaves 1"),
        ("      flow:", "      flow: holding:7\n      flow:", "plant.yaml:10:7: key 'flow' stands twice"),
        ("flow:", "flow rate:", "plant.yaml:9:7: tag 'flow rate': a name has letters, digits"),
        ("tcp://", "tpc://", "plant.yaml:5:10: device 'boiler': url: 'tpc://"),
        ("gateway: plant", "gateway: plant\nuplinks: {u: {url: 'mqtt://h:1883', qos: 3}}", "plant.yaml:2:"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_cure(tmp_path, monkeypatch, old, new, message):
    monkeypatch.chdir(tmp_path)
    Path("plant.yaml").write_text(SAMPLE.format(port=502).replace(old, new))
    for command in ("check", "run"):
        done = headgate(command, "plant.yaml")
        assert done.returncode == 2
        assert message in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plant.yaml"]


@pytest.fixture
def running(tmp_path, start, wait_for):
    """Run a gateway file until the log says something; gives the process and a function that reads the log."""

    def run(text, *said):
        file = tmp_path / "plant.yaml"
        file.write_text(text)
        process = start(sys.executable, "-m", "gateway", "run", str(file), name="headgate", env={**os.environ})
        log = tmp_path / "headgate.log"
        wait_for(lambda: all(s in log.read_text() for s in said), f"the log to say {said}", 20)
        return process, log.read_text

    return run


def stop(process):
    assert process.poll() is None, "the gateway did not stay up"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_an_unreachable_device_is_retried_and_logged_once(running, free_port):
    process, log = running(
        SAMPLE.format(port=free_port()), "device 'boiler' is offline (offline)", "connection refused"
    )
    stop(process)
    assert log().count("is offline") == 1


@pytest.fixture
def peer():
    """`peer(converse)` listens on a free port, gives it, and runs `converse(connection)` on each connection in turn."""
    with contextlib.ExitStack() as stack:

        def listen(converse):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve():
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection:
                        converse(connection)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return listener.getsockname()[1]

        yield listen


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_a_port_that_speaks_something_else_gives_no_value(running, peer, answer):
    def converse(connection):
        connection.recv(100)
        connection.sendall(answer)
        connection.settimeout(1)
        with contextlib.suppress(OSError):
            connection.recv(100)

    process, log = running(SAMPLE.format(port=peer(converse)), "device 'boiler' is offline")
    stop(process)
    assert "is online" not in log()


def test_a_device_that_closes_idle_connections_is_not_offline(running, peer, wait_for):
    """It answers one request a connection, as small devices do, and hangs up."""
    served = []

    def converse(connection):
        request = connection.recv(12)
        if request:
            connection.sendall(request[:4] + b"\0\x07" + request[6:8] + b"\x04" + b"\x42\x28\0\0")
            served.append(1)

    process, log = running(SAMPLE.format(port=peer(converse)), "device 'boiler' is online")
    wait_for(lambda: len(served) > 20, "twenty polls", 20)
    stop(process)
    assert "offline" not in log()


def test_a_stop_does_not_wait_for_a_server_that_does_not_answer(running):
    """Its queue of connections is full: the kernel drops what comes, as a link that is gone does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for s in waiting:
            s.setblocking(False)
            s.connect_ex(listener.getsockname())
        url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        process, _ = running(SAMPLE.format(port=1) + f"uplinks: {{u: {{url: '{url}'}}}}\n", "is offline")
        before = time.monotonic()
        stop(process)
        assert time.monotonic() - before < 5
        for s in waiting:
            s.close()


def test_a_spool_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "headgate-data").write_text("a file where a folder should be")
    (tmp_path / "plant.yaml").write_text(SAMPLE.format(port=502))
    done = headgate("run", tmp_path / "plant.yaml")
    assert done.returncode == 1
    assert str(tmp_path / "headgate-data") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_gateway_on_the_folder_exits_and_names_the_first(running, tmp_path, free_port):
    process, _ = running(SAMPLE.format(port=free_port()), "headgate 0")
    done = headgate("run", tmp_path / "plant.yaml")
    assert done.returncode == 1
    assert str(process.pid) in done.stderr
    stop(process)


@pytest.mark.parametrize("command", [["run"], ["fly"], [], ["run", "a", "b"], ["bench", "--qos", "7"]])
def test_wrong_use_exits_with_2_and_says_how(command):
    done = headgate(*command)
    assert done.returncode == 2
    assert "usage: headgate" in done.stderr


def test_a_file_that_is_not_there_is_wrong_use(tmp_path):
    done = headgate("run", tmp_path / "nothing.yaml")
    assert done.returncode == 2
    assert "nothing.yaml" in done.stderr


# --- the disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path, need):
    """A file system of its own; `resize(size)` changes how much it holds."""
    need("mount", "umount")
    folder = tmp_path / "card"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "card", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        if os.environ.get("HEADGATE_TESTS_STRICT"):
            pytest.fail("mount is not permitted here")
        pytest.skip("mount is not permitted here")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_the_gateway_stays_up_says_so_once_and_recovers(
    running, small_disk, simulated, free_port, wait_for
):
    folder, resize = small_disk
    text = simulated + f"spool: {{path: {folder}/spool}}\nuplinks: {{u: {{url: 'mqtt://127.0.0.1:{free_port()}'}}}}\n"
    process, log = running(text, "is online", "the spool's disk fails")
    resize("64m")
    wait_for(lambda: "the spool's disk works again" in log(), "the spool to recover", 30)
    stop(process)
    assert log().count("the spool's disk fails") == 1


def test_what_a_failing_disk_costs_at_a_stop_is_told_as_a_gap(
    need, running, small_disk, simulated, free_port, start, listening, wait_for, tmp_path
):
    need("mosquitto", "mosquitto_sub")
    folder, resize = small_disk
    port = free_port()
    text = simulated + f"spool: {{path: {folder}/spool}}\nuplinks: {{u: {{url: 'mqtt://127.0.0.1:{port}'}}}}\n"
    process, log = running(text, "is online", "the spool's disk fails")
    stop(process)
    assert "are lost: the disk fails" in log()
    resize("64m")
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    start("/usr/sbin/mosquitto", "-c", str(tmp_path / "mosquitto.conf"), name="mosquitto")
    wait_for(lambda: listening(port), "mosquitto to listen")
    start("mosquitto_sub", "-p", str(port), "-t", "headgate/plant/log", "-C", "1", name="gap")
    process, _ = running(text, "connected to")
    wait_for(lambda: (tmp_path / "gap.log").read_text().endswith("\n"), "the gap", 20)
    stop(process)
    gap = json.loads((tmp_path / "gap.log").read_text())
    assert gap["event"] == "gap"
    assert gap["count"] == gap["last"] - gap["first"] + 1 > 1


def test_a_damaged_segment_costs_itself_and_the_start_succeeds(running, simulated, tmp_path, free_port, wait_for):
    text = simulated + f"uplinks: {{u: {{url: 'mqtt://127.0.0.1:{free_port()}'}}}}\n"
    process, _ = running(text, "is online")
    spool = tmp_path / "headgate-data" / "spool"
    wait_for(lambda: frames_written(tmp_path) >= 2, "something on the disk", 20)
    process.kill()
    process.wait()
    damaged = 0
    for path in spool.rglob("*"):
        if path.is_file() and path.stat().st_size >= 1 << 20:
            content = bytearray(path.read_bytes())
            for at in range(300, len(content), 4096):
                if content[at]:
                    content[at] ^= 0xFF
                    damaged += 1
            path.write_bytes(content)
    assert damaged
    (tmp_path / "headgate.log").write_text("")
    process, log = running(text, "is online")
    stop(process)
    assert "Traceback" not in log()
    assert "damaged" in log() or "corrupt" in log()


def frames_written(tmp_path):
    done = headgate("status", "--json", tmp_path / "plant.yaml")
    return json.loads(done.stdout)["spool"]["frames"] if done.returncode == 0 else 0


@pytest.fixture
def simulated(start, tmp_path, wait_for):
    """The text of a gateway file that reads a simulated device of the benchmark's."""
    start(sys.executable, "-m", "gateway.cli.plant", "1", "5", "50ms", name="plant", stdin=subprocess.PIPE)
    log = tmp_path / "plant.log"
    wait_for(lambda: log.read_text().endswith("\n"), "the simulated device", 60)
    return "gateway: plant\ndevices: " + log.read_text()
