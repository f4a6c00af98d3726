import asyncio
import socket
import stat

import pytest

from gateway.control import SOCKET, Control, ControlError, ask
from gateway.errors import HeadgateError, RefusedError


def refuse(_request):
    raise HeadgateError("there is no device 'boilr'")


HANDLERS = {"echo": lambda request: {"said": request.get("text")}, "refuse": refuse}


def served(folder, *calls):
    """Run each call in a thread while the server runs; gives their results."""

    async def scenario():
        async with Control(folder, HANDLERS):
            return [await asyncio.to_thread(call) for call in calls]

    return asyncio.run(scenario())


def raw(folder, data):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(str(folder / SOCKET))
        s.sendall(data)
        out = b""
        while not out.endswith(b"\n"):
            chunk = s.recv(4096)
            if not chunk:
                break
            out += chunk
        return out


def test_a_request_is_answered(tmp_path):
    assert served(tmp_path, lambda: ask(tmp_path, {"do": "echo", "text": "hé"})) == [{"said": "hé"}]


def test_the_socket_is_for_its_owner_only_and_goes_with_the_process(tmp_path):
    def mode():
        return stat.S_IMODE((tmp_path / SOCKET).stat().st_mode)

    assert served(tmp_path, mode) == [0o600]
    assert not (tmp_path / SOCKET).exists()


def test_what_the_asker_did_wrong_comes_back_as_an_error(tmp_path):
    with pytest.raises(ControlError, match="there is no device 'boilr'"):
        served(tmp_path, lambda: ask(tmp_path, {"do": "refuse"}))


@pytest.mark.parametrize(
    "line", [b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'{"do":"fly"}\n', b'{"do":[1]}\n', b"\xff\n"]
)
def test_nonsense_is_answered_with_the_verbs_there_are(tmp_path, line):
    (answer,) = served(tmp_path, lambda: raw(tmp_path, line))
    assert b'"ok":false' in answer
    assert b"echo, refuse" in answer


def test_a_request_that_never_ends_is_cut_off_and_the_next_asker_is_served(tmp_path):
    def flood():
        try:
            return raw(tmp_path, b"x" * 1_000_000)
        except OSError:
            return b""

    answers = served(tmp_path, flood, lambda: ask(tmp_path, {"do": "echo", "text": 1}))
    assert answers == [b"", {"said": 1}]


def test_too_many_askers_are_turned_away_and_the_first_ones_stay(tmp_path):
    async def scenario():
        async with Control(tmp_path, HANDLERS) as control:
            pairs = [await asyncio.open_unix_connection(str(tmp_path / SOCKET)) for _ in range(40)]
            _, pending = await asyncio.wait([asyncio.ensure_future(r.read(1)) for r, _ in pairs], timeout=0.5)
            alive = len(pending)
            shown = repr(control)
            for _, w in pairs:
                w.close()
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)
            return alive, shown

    alive, shown = asyncio.run(scenario())
    assert alive == 16
    assert "16 connected" in shown


def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / SOCKET))
    assert served(tmp_path, lambda: ask(tmp_path, {"do": "echo", "text": 1})) == [{"said": 1}]


def test_without_a_running_gateway_the_error_says_how_to_start_one(tmp_path):
    with pytest.raises(ControlError, match="start it with 'headgate run FILE'"):
        ask(tmp_path, {"do": "echo"})


def test_a_folder_may_lie_deeper_than_a_socket_can_be_named(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    assert served(folder, lambda: ask(folder, {"do": "echo", "text": 1})) == [{"said": 1}]


def test_a_folder_that_cannot_take_the_socket_is_named(tmp_path):
    with pytest.raises(RefusedError, match="cannot listen here: No such file or directory"):
        served(tmp_path / "missing", lambda: None)
