"""Password files: what they may look like, whom they let in, and how many are hashed at a time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading

import pytest
from argon2 import low_level

from gateway.broker.passwords import BusyError, Checker, Passwords, check_username, hashed, parse, replaced

# as mosquitto_passwd 2.0.11 wrote it
MOSQUITTO_2_0 = (
    "$7$101$aUQ4Sife9AnRfhZW$CYnf1zdRmp/l4C8kvDUjSySc5onb5bpThl+KhpG3crx0fwiTjb+GMssH08ep6vVsDWUcrdGHn1WpOODcvpMkJQ=="
)


def sha512(password, salt=b"twelve bytes"):
    digest = hashlib.sha512(password + salt).digest()
    return f"$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def argon2(password, *, kib=64, passes=1, salt=b"s" * 64, length=64):
    """As mosquitto 2.1 writes it, but cheaper."""
    return low_level.hash_secret(password, salt, passes, kib, 1, length, low_level.Type.ID).decode()


@pytest.mark.parametrize(
    "text", [MOSQUITTO_2_0, sha512(b"secret"), argon2(b"secret"), argon2(b"secret", salt=b"8 bytes!", length=16)]
)
def test_every_kind_of_hash_lets_in_who_knows_the_password(text):
    users = parse(f"bob:{text}\n".encode(), "passwd")
    assert users.fits("bob", b"secret")
    for wrong in (b"", b"Secret", b"secret ", b"secret\0", b"secret\n", b"x" * 65_535):
        assert not users.fits("bob", wrong)
    assert not users.fits("Bob", b"secret")


@pytest.mark.parametrize("password", [b"\0", b"a\0b", b"\xff\xfe", "pässwörd".encode(), b" ", b"a\nb"])
@pytest.mark.parametrize("kind", [sha512, argon2])
def test_passwords_are_compared_byte_for_byte(kind, password):
    users = parse(b"bob:" + kind(password).encode(), "passwd")
    assert users.fits("bob", password)
    assert not users.fits("bob", password + b"\0")
    assert not users.fits("bob", password[:-1])


@pytest.mark.parametrize("kind", ["argon2id", "pbkdf2"])
def test_a_new_hash_lets_in_and_is_another_each_time(kind):
    text = hashed(b"secret", kind)
    assert text != hashed(b"secret", kind)
    users = parse(f"bob:{text}".encode(), "passwd")
    assert users.cautions == ()
    assert users.fits("bob", b"secret")
    assert not users.fits("bob", b"secreT")


def test_comments_blanks_and_line_ends_do_not_count():
    data = f"# bob:x\r\n\r\n  bob : {sha512(b'1')}  \r\na b:{sha512(b'2')}\n\tcarol\t:{sha512(b'3')}".encode()
    users = parse(data, "passwd")
    assert [name for name, _ in users] == ["bob", "a b", "carol"]
    assert users.fits("a b", b"2")
    assert users.fits("carol", b"3")


def test_a_line_without_a_colon_is_skipped_with_a_word():
    users = parse(f"bob:{sha512(b'1')}\nhunter2\n".encode(), "passwd")
    assert "passwd:2: the line has no `:` and is skipped" in users.cautions[0]
    assert "hunter2" not in repr(users.cautions)


GOOD = sha512(b"1").split("$")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("bob:hunter2", "that is no hash, perhaps a password in plain text"),
        ("bob:", "that is no hash"),
        (":hunter2", "the user name is missing"),
        ("  :hunter2", "the user name is missing"),
        ("bob:$1$hunter2$x", "the kind of hash is unknown"),
        ("bob:$2b$hunter2", "the kind of hash is unknown"),
        ("bob:$6$hunter2", "not the parts"),
        ("bob:$6$hunter2$x==", "the salt is not base64"),
        (f"bob:$6$${GOOD[3]}", "the salt is not base64"),
        ("bob:$6$c2FsdA==$aHVudGVyMg==", "7 bytes instead of 64"),
        (f"bob:{sha512(b'1')}:more", "the hash is not base64"),
        (f"bob:$7$0$c2FsdA==${GOOD[3]}", "iterations of the hash is a number from 1 to"),
        (f"bob:$7$99999999999$c2FsdA==${GOOD[3]}", "iterations of the hash"),
        (f"bob:$7$-1$c2FsdA==${GOOD[3]}", "iterations of the hash"),
        (f"bob:$7$²$c2FsdA==${GOOD[3]}", "iterations of the hash"),
        ("bob:$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aHVudGVyMg", "the kind of hash is unknown"),
        ("bob:$argon2id$v=16$m=64,t=1,p=1$c2FsdHNhbHQ$aHVudGVyMg", "not the parts"),
        ("bob:$argon2id$v=19$m=64,t=1$c2FsdHNhbHQ$aHVudGVyMg", "parameters m, t and p"),
        ("bob:$argon2id$v=19$m=9999999999,t=1,p=1$c2FsdHNhbHQ$aHVudGVyMg", "m of the hash is a number from 8"),
        ("bob:$argon2id$v=19$m=64,t=1000,p=1$c2FsdHNhbHQ$aHVudGVyMg", "t of the hash"),
        ("bob:$argon2id$v=19$m=64,t=1,p=9$c2FsdHNhbHQ$aHVudGVyMg", "m of the hash is a number from 72"),
        ("bob:$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aHVudGVyMg", "a hash of 16 or more"),
        ("bob:$argon2id$v=19$m=64,t=1,p=1$hunter2!$aHVudGVyMg", "the salt is not base64"),
        ("b" * 65_536 + f":{sha512(b'1')}", "longer than 65535 bytes"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_without_what_may_be_a_password(line, wrong):
    with pytest.raises(ValueError) as caught:
        parse(f"# head\n{line}\n".encode(), "/etc/passwd")
    assert str(caught.value).startswith("/etc/passwd:2: ")
    assert wrong in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "aHVudGVyMg" not in str(caught.value)


def test_a_mistake_says_the_cure_with_the_file():
    with pytest.raises(ValueError, match="headgate passwd /etc/users USER"):
        parse(b"bob:plain", "/etc/users")


def test_bytes_that_are_no_utf_8_and_byte_order_marks_are_named():
    with pytest.raises(ValueError, match="passwd:1: the user name is not UTF-8"):
        parse(b"b\xffb:x", "passwd")
    with pytest.raises(ValueError, match="passwd:1: the file starts with a byte order mark"):
        parse(b"\xef\xbb\xbfbob:x", "passwd")


def test_a_user_that_stands_there_twice_is_a_mistake_with_both_places():
    line = f"bob:{sha512(b'1')}\n"
    with pytest.raises(ValueError, match=r"passwd:3: user 'bob' stands in line 1 already"):
        parse((line + "\n" + line).encode(), "passwd")


def test_all_mistakes_are_named_up_to_a_number():
    with pytest.raises(ValueError) as caught:
        parse(b"bob:plain\n" * 1000, "passwd")
    assert len(str(caught.value).splitlines()) == 20


def test_weak_hashes_are_counted_in_a_caution():
    data = f"a:{sha512(b'1')}\nb:{MOSQUITTO_2_0}\nc:{hashed(b'1', 'pbkdf2')}\nd:{argon2(b'1')}".encode()
    assert "2 of 4 hashes are weak" in parse(data, "passwd").cautions[0]


def test_hashes_and_users_stay_out_of_reprs():
    users = parse(f"bob:{sha512(b'hunter2')}".encode(), "passwd")
    assert repr(users) == "<Passwords of 1 users>"
    assert GOOD[3] not in repr(list(users))
    assert "salt" not in repr(list(users))


def test_changed_names_who_is_gone_and_whose_password_is_another():
    def users(**passwords):
        return parse("\n".join(f"{n}:{sha512(p)}" for n, p in passwords.items()).encode(), "passwd")

    before = users(stays=b"1", goes=b"1", changes=b"1")
    assert before.changed(users(stays=b"1", changes=b"2", comes=b"1")) == {"goes", "changes"}
    assert before.changed(before) == frozenset()


# --- the same work for everybody ------------------------------------------------------------------------------------


class Counted:
    """An entry that counts how often it is worked out, and may wait until it is told to go on."""

    text = "$"

    def __init__(self, right=b"right", gate=None):
        self.right, self.gate, self.calls, self.thread, self.at_once, self.most = right, gate, 0, None, 0, 0
        self.lock = threading.Lock()

    def fits(self, password):
        with self.lock:
            self.calls += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.thread = threading.current_thread()
        if self.gate is not None:
            assert self.gate.wait(20)
        with self.lock:
            self.at_once -= 1
        return password == self.right


def test_a_name_that_nobody_has_costs_one_hash_and_always_the_same():
    entries = {f"u{n}": Counted() for n in range(20)}
    users = Passwords(entries)
    for _ in range(3):
        assert not users.fits("nobody", b"right")
    assert sorted(e.calls for e in entries.values())[-2:] == [0, 3]
    for n in range(200):
        assert not users.fits(f"nobody{n}", b"right")
    assert sum(e.calls > 0 for e in entries.values()) > 10


def test_an_empty_file_lets_nobody_in():
    assert not parse(b"", "passwd").fits("bob", b"")


# --- threads --------------------------------------------------------------------------------------------------------


def run(work, **kwargs):
    """Run `work(checker)` with a checker that is closed after it."""

    async def main():
        checker = Checker(**kwargs)
        try:
            return await asyncio.wait_for(work(checker), 20)
        finally:
            checker.close()

    return asyncio.run(main())


async def until(holds):
    while not holds():  # noqa: ASYNC110 - what is waited for happens in a thread; `run` ends a wait in vain
        await asyncio.sleep(0)


def test_hashes_are_worked_out_in_a_thread_of_their_own():
    entry = Counted()

    async def work(checker):
        return await checker.fits("u", b"right"), await checker.fits("u", b"wrong")

    assert run(work, users=Passwords({"u": entry})) == (True, False)
    assert entry.thread is not threading.main_thread()
    assert entry.thread.name.startswith("broker-password")


def test_no_more_than_the_workers_hash_at_a_time_while_the_loop_goes_on():
    gate = threading.Event()
    entry = Counted(gate=gate)

    async def work(checker):
        logins = [asyncio.create_task(checker.fits("u", b"%d" % n)) for n in range(10)]
        await until(lambda: entry.at_once == 2)
        for _ in range(1000):
            await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*logins)

    assert run(work, users=Passwords({"u": entry}), workers=2) == [False] * 10
    assert entry.most == 2
    assert entry.calls == 10


def test_a_login_that_gives_up_leaves_no_third_hash_running():
    gate = threading.Event()
    entry = Counted(gate=gate)

    async def work(checker):
        for busy in (1, 2, 2, 2, 2, 2):
            login = asyncio.create_task(checker.fits("u", b"wrong"))
            await until(lambda busy=busy: entry.at_once == busy)
            login.cancel()
            await asyncio.wait([login])
            assert login.cancelled()
        assert checker._waiting == 0
        gate.set()
        return await checker.fits("u", b"right")

    assert run(work, users=Passwords({"u": entry}), workers=2) is True
    assert entry.most == 2


def test_too_many_waiting_logins_are_turned_away():
    gate = threading.Event()

    async def work(checker):
        logins = [asyncio.create_task(checker.fits("u", b"right")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="3 logins wait"):
            await checker.fits("u", b"right")
        gate.set()
        assert await asyncio.gather(*logins) == [True] * 3
        return await checker.fits("u", b"wrong")

    assert run(work, users=Passwords({"u": Counted(gate=gate)}), workers=1, waiting=3) is False


def test_devices_that_come_back_are_not_hashed_again():
    entry = Counted()

    async def work(checker):
        for _ in range(50):
            assert await checker.fits("u", b"right")
        return checker.hashed

    assert run(work, users=Passwords({"u": entry})) == 1
    assert entry.calls == 1


def test_a_wrong_password_is_hashed_each_time_and_never_remembered():
    entry = Counted()

    async def work(checker):
        await checker.fits("u", b"right")
        for _ in range(5):
            assert not await checker.fits("u", b"wrong")
            assert not await checker.fits("v", b"right")
        return len(checker._right)

    assert run(work, users=Passwords({"u": entry, "w": entry})) == 1
    assert entry.calls == 11


def test_what_is_remembered_is_bound_to_user_password_and_file():
    users = parse(f"a:{sha512(b'1')}\nb:{sha512(b'1')}".encode(), "passwd")
    again = parse(f"a:{sha512(b'1')}\nb:{sha512(b'1')}".encode(), "passwd")
    marks = [users.mark("a", b"1"), users.mark("b", b"1"), users.mark("a", b"2"), again.mark("a", b"1")]
    assert len(set(marks)) == 4
    assert users.mark("a", b"1") == marks[0]
    assert users.mark("c", b"1") is None
    assert b"1" not in marks


def test_so_many_right_answers_are_remembered_and_the_oldest_goes():
    users = Passwords({f"u{n}": Counted() for n in range(5)})

    async def work(checker):
        for n in range(5):
            await checker.fits(f"u{n}", b"right")
        await checker.fits("u4", b"right")
        assert checker.hashed == 5
        await checker.fits("u0", b"right")
        return checker.hashed, len(checker._right)

    assert run(work, users=users, most=3) == (6, 3)


def test_another_file_forgets_what_was_right():
    async def work(checker):
        assert await checker.fits("u", b"right")
        checker.take(Passwords({"u": Counted(right=b"new")}))
        assert not checker._right
        return await checker.fits("u", b"right"), await checker.fits("u", b"new")

    assert run(work, users=Passwords({"u": Counted()})) == (False, True)


def test_a_login_under_way_when_the_file_changes_is_checked_with_the_new_one():
    gate = threading.Event()
    old = Counted(gate=gate)

    async def work(checker):
        login = asyncio.create_task(checker.fits("u", b"right"))
        await until(lambda: old.at_once)
        checker.take(Passwords({"u": Counted(right=b"new")}))
        gate.set()
        answer = await login
        return answer, await checker.fits("u", b"right")

    assert run(work, users=Passwords({"u": old})) == (False, False)


# --- editing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "user", "text", "after"),
    [
        (b"", "bob", "$6$", b"bob:$6$\n"),
        (b"a:1\n", "bob", "$6$", b"a:1\nbob:$6$\n"),
        (b"a:1", "bob", "$6$", b"a:1\nbob:$6$\n"),
        (b"# c\nbob:1\n\nz:2\n", "bob", "$6$", b"# c\nbob:$6$\n\nz:2\n"),
        (b" bob :1\nz:2", "bob", "$6$", b"bob:$6$\nz:2"),
        (b"bob:1\nz:2\nbob:3\n", "bob", "$6$", b"bob:$6$\nz:2\n"),
        (b"#bob:1\nbobby:1\n", "bob", "$6$", b"#bob:1\nbobby:1\nbob:$6$\n"),
        (b"\xff:1\nbob:1\n", "bob", "$6$", b"\xff:1\nbob:$6$\n"),
        (b"a:1\nbob:1\nz:2\n", "bob", None, b"a:1\nz:2\n"),
        (b"bob:1\n", "bob", None, b""),
        (b"bob\n", "bob", None, b"bob\n"),
        (b"a:1\r\nbob:2\r\n", "bob", "$6$", b"a:1\r\nbob:$6$\n"),
    ],
)
def test_a_user_is_replaced_and_every_other_line_stays(before, user, text, after):
    assert replaced(before, user, text) == after


@pytest.mark.parametrize("name", ["", " bob", "bob ", "#bob", "bo:b", "bo\nb", "bo\0b", "b" * 65_536, "\ud800"])
def test_names_that_a_file_cannot_hold_are_refused(name):
    with pytest.raises(ValueError, match="user name"):
        check_username(name)


@pytest.mark.parametrize("name", ["bob", "a b", "ä", "CN=pump,O=Works", "a/b", "日本"])
def test_names_that_a_file_can_hold_are_taken(name):
    check_username(name)
    assert name in parse(replaced(b"", name, sha512(b"1")), "passwd")
