"""`headgate passwd`: what it writes, what it leaves alone, and that passwords are seen nowhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.broker.passwords import parse
from gateway.cli.main import main

PBKDF2 = ("--hash", "pbkdf2")


@pytest.fixture
def typed(monkeypatch):
    """`typed(b"...")` is what the next command reads on standard input."""

    def give(data):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    return give


def users_of(file):
    return parse(file.read_bytes(), str(file))


def test_a_user_is_added_to_a_new_file_that_only_its_owner_can_read(tmp_path, typed, capsys):
    file = tmp_path / "passwd"
    typed(b"s3cret-word\nsecond line\n")
    assert main(["passwd", str(file), "bob", "--stdin"]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert users_of(file).fits("bob", b"s3cret-word")
    assert b"$argon2id$v=19$m=19456,t=2,p=1$" in file.read_bytes()
    said = capsys.readouterr()
    assert said.out == ""
    assert "the password of user 'bob' is set" in said.err
    assert "s3cret" not in said.err
    assert list(tmp_path.iterdir()) == [file]


def test_a_user_gets_another_password_and_every_other_line_stays(tmp_path, typed):
    file = tmp_path / "passwd"
    file.write_bytes(b"# ours\nalice:$6$c2FsdA==$" + b"A" * 86 + b"==\nbob:plain\n\n# end\n")
    typed(b"new\r\n")
    assert main(["passwd", str(file), "bob", "--stdin", *PBKDF2]) == 0
    lines = file.read_bytes().split(b"\n")
    assert lines[:2] == [b"# ours", b"alice:$6$c2FsdA==$" + b"A" * 86 + b"=="]
    assert lines[2].startswith(b"bob:$7$210000$")
    assert lines[3:] == [b"", b"# end", b""]
    assert users_of(file).fits("bob", b"new")


def test_owner_group_and_the_groups_right_to_read_stay_and_others_lose_theirs(tmp_path, typed):
    file = tmp_path / "passwd"
    file.write_bytes(b"")
    file.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(file, 12345, 23456)
    before = file.stat()
    typed(b"x\n")
    assert main(["passwd", str(file), "bob", "--stdin", *PBKDF2]) == 0
    after = file.stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert after.st_ino != before.st_ino  # replaced in one step, not written over


def test_a_link_stays_a_link(tmp_path, typed):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"")
    link.symlink_to(real)
    typed(b"x\n")
    assert main(["passwd", str(link), "bob", "--stdin", *PBKDF2]) == 0
    assert link.is_symlink()
    assert users_of(real).fits("bob", b"x")


@pytest.mark.parametrize("password", [" blanks ", "pässwörd", "a:b$c"])
def test_a_password_is_taken_as_it_is(tmp_path, typed, password):
    file = tmp_path / "passwd"
    typed(password.encode() + b"\n")
    assert main(["passwd", str(file), "bob", "--stdin", *PBKDF2]) == 0
    assert users_of(file).fits("bob", password.encode())


@pytest.mark.parametrize(
    ("given", "wrong"), [(b"", "empty"), (b"\n", "empty"), (b"a\0b\n", "NUL"), (b"x" * 65_536, "65535")]
)
def test_a_password_that_cannot_be_one_changes_nothing(tmp_path, typed, capsys, given, wrong):
    file = tmp_path / "passwd"
    typed(given)
    assert main(["passwd", str(file), "bob", "--stdin"]) == 1
    assert wrong in capsys.readouterr().err
    assert not file.exists()


def test_a_user_is_deleted(tmp_path, typed, capsys):
    file = tmp_path / "passwd"
    for name in ("alice", "bob"):
        typed(b"x\n")
        assert main(["passwd", str(file), name, "--stdin", *PBKDF2]) == 0
    assert main(["passwd", str(file), "alice", "--delete"]) == 0
    assert [name for name, _ in users_of(file)] == ["bob"]
    capsys.readouterr()
    assert main(["passwd", str(file), "alice", "--delete"]) == 1
    assert "there is no user 'alice'" in capsys.readouterr().err


def test_options_may_stand_before_the_name(tmp_path, typed):
    file = tmp_path / "passwd"
    for name in ("alice", "-bob"):
        typed(b"x\n")
        assert main(["passwd", str(file), "--stdin", *PBKDF2, "--", name]) == 0
    assert main(["passwd", str(file), "--delete", "alice"]) == 0
    assert [name for name, _ in users_of(file)] == ["-bob"]


@pytest.mark.parametrize(
    "content", [b"gateway: g\nbroker:\n", b"\x7fELF\0\n", b"root:x:0:0::/root:/bin/sh\nplain words\n"]
)
def test_a_file_that_is_something_else_stays_as_it_is(tmp_path, typed, capsys, content):
    file = tmp_path / "gateway.yaml"
    file.write_bytes(content)
    typed(b"x\n")
    assert main(["passwd", str(file), "bob", "--stdin", *PBKDF2]) == 1
    assert "this is no password file" in capsys.readouterr().err
    assert file.read_bytes() == content


def test_users_are_listed_with_how_their_password_is_kept(tmp_path, typed, capsys):
    file = tmp_path / "passwd"
    typed(b"x\n")
    assert main(["passwd", str(file), "alice", "--stdin"]) == 0
    with file.open("ab") as out:
        out.write(b"bob:$6$c2FsdA==$" + b"A" * 86 + b"==\n")
    capsys.readouterr()
    assert main(["passwd", str(file), "--list"]) == 0
    said = capsys.readouterr()
    assert said.out == "alice: argon2id\nbob: $6$, weak\n"
    assert "1 of 2 hashes are weak" in said.err
    assert main(["passwd", str(file), "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "users": [{"user": "alice", "hash": "argon2id", "weak": False}, {"user": "bob", "hash": "6", "weak": True}]
    }


def test_a_file_with_mistakes_is_not_listed_but_said_to_be_wrong(tmp_path, capsys):
    file = tmp_path / "passwd"
    file.write_bytes(b"bob:hunter2\n")
    assert main(["passwd", str(file), "--list"]) == 2
    said = capsys.readouterr()
    assert f"{file}:1: user 'bob'" in said.err
    assert "hunter2" not in said.err + said.out


def test_other_mistakes_of_the_file_are_said_after_the_change(tmp_path, typed, capsys):
    file = tmp_path / "passwd"
    file.write_bytes(b"alice:hunter2\n")
    typed(b"x\n")
    assert main(["passwd", str(file), "bob", "--stdin", *PBKDF2]) == 0
    said = capsys.readouterr().err
    assert f"{file}:1: user 'alice'" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bob", "--list"],
        ["--delete"],
        ["--list", "--delete"],
        ["bo:b", "--stdin"],
        ["#bob", "--stdin"],
        [" ", "--stdin"],
    ],
)
def test_wrong_use_is_refused_with_2(tmp_path, typed, arguments):
    typed(b"x\n")
    with pytest.raises(SystemExit) as ended:
        main(["passwd", str(tmp_path / "passwd"), *arguments])
    assert ended.value.code == 2
    assert not (tmp_path / "passwd").exists()


@pytest.mark.parametrize("arguments", [["--list"], ["bob", "--delete"]])
def test_a_file_that_is_not_there_is_named(tmp_path, capsys, arguments):
    assert main(["passwd", str(tmp_path / "passwd"), *arguments]) == 1
    assert "passwd: no such file" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(tmp_path, typed, capsys):
    typed(b"x\n")
    assert main(["passwd", str(tmp_path / "missing" / "passwd"), "bob", "--stdin", *PBKDF2]) == 1
    assert "no such file" in capsys.readouterr().err


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, typed, capsys):
    folder = tmp_path / "passwd"  # a folder where the file should be: reading it fails in the same words everywhere
    folder.mkdir()
    typed(b"x\n")
    assert main(["passwd", str(folder), "bob", "--stdin", *PBKDF2]) == 1
    assert "is a directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]


def test_many_at_once_do_not_undo_one_another(tmp_path):
    file = tmp_path / "passwd"
    file.write_bytes(b"".join(b"u%d:x\n" % number for number in range(40_000)))  # long, so that one takes a while
    command = [sys.executable, "-m", "gateway", "passwd", str(file)]
    running = [subprocess.Popen([*command, f"u{number}", "--delete"], stderr=subprocess.DEVNULL) for number in range(8)]
    assert [process.wait(100) for process in running] == [0] * 8
    assert file.read_bytes().startswith(b"u8:x\n")


# --- the terminal ---------------------------------------------------------------------------------------------------


def ask(file: Path, *answers: bytes) -> tuple[int, bytes]:
    """Run the command on a terminal, type the answers; give its exit code and all that the terminal showed."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "gateway", "passwd", str(file), "bob", *PBKDF2]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    waiting = list(answers)
    with contextlib.suppress(OSError):  # Linux says so where the other end is closed
        while data := os.read(ours, 4096):
            shown += data
            while waiting and shown.count(b": ") > len(answers) - len(waiting):
                os.write(ours, waiting.pop(0) + b"\n")
    os.close(ours)
    return process.wait(60), shown


def test_a_password_is_asked_for_twice_and_never_shown(tmp_path):
    code, shown = ask(tmp_path / "passwd", b"s3cret-word", b"s3cret-word")
    assert code == 0, shown
    assert b"Password of bob: " in shown
    assert b"Again: " in shown
    assert b"s3cret" not in shown
    assert users_of(tmp_path / "passwd").fits("bob", b"s3cret-word")


def test_two_passwords_that_differ_change_nothing(tmp_path):
    code, shown = ask(tmp_path / "passwd", b"s3cret-word", b"s3cret-wort")
    assert code == 1
    assert b"not the same" in shown
    assert b"s3cret" not in shown
    assert not (tmp_path / "passwd").exists()


def test_without_a_terminal_it_says_to_use_standard_input(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "passwd", str(tmp_path / "passwd"), "bob"],
        input=b"secret\nsecret\n",
        capture_output=True,
        start_new_session=True,  # no terminal to fall back to
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"--stdin" in done.stderr
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "passwd").exists()
