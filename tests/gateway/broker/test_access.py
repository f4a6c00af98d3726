"""Who may come in with what, what they may do then, and what reading the files anew changes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import subprocess
import sys
import threading

import jwt
import pytest

from gateway.broker.access import (
    AccessError,
    Guard,
    Open,
    Peer,
    Refusal,
    common_name,
    is_reserved,
    is_sys,
    read,
    subject,
)
from gateway.broker.client import Identity
from gateway.broker.options import Address, Jwt, Options, Tls
from gateway.broker.passwords import Passwords
from gateway.mqtt.packets import Connect
from gateway.mqtt.reasons import Reason

LOCAL = Peer(address="127.0.0.1", port=4711, is_local=True)
REMOTE = Peer(address="192.0.2.7", port=4711)
SECRET = b"0123456789abcdef0123456789abcdef"
CERTIFICATE = {"subject": ((("countryName", "GB"),), (("organizationName", "Works"),), (("commonName", "pump1"),))}


def sha512(password):
    salt = b"twelve bytes"
    digest = hashlib.sha512(password + salt).digest()
    return f"$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


@pytest.fixture
def house(tmp_path, virtual_clock):
    """`house(users={...}, acl="...", token=True, ...)` makes the files and a guard over them."""
    guards = []

    def write(name, text):
        file = tmp_path / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    def build(*, users=None, acl=None, token=False, identity=None, **kwargs):
        build.users = lambda users: write("passwd", "".join(f"{n}:{sha512(p)}\n" for n, p in users.items()))
        build.acl = lambda text: write("acl", text)
        build.key = lambda key: write("token.key", key.decode())
        options = Options(
            listen=(Address("mqtt", "127.0.0.1", 0),),
            users=None if users is None else build.users(users),
            acl=None if acl is None else build.acl(acl),
            jwt=Jwt(key=build.key(SECRET), algorithms=("HS256",)) if token else None,
            tls=None if identity is None else Tls(cert=tmp_path / "c", ca=tmp_path / "ca", identity=identity),
            **kwargs,
        )
        guards.append(Guard(options, clock=virtual_clock))
        return guards[-1]

    yield build
    for guard in guards:
        guard.close()


def login(guard, peer=REMOTE, **connect):
    return asyncio.run(guard.login(Connect(client_id="c1", **connect), peer))


def token(clock, key=SECRET, seconds=60, **claims):
    return jwt.encode({"sub": "pump1", "exp": clock.wall_ms() / 1000 + seconds, **claims}, key, "HS256").encode()


def refused(answer, reason, cause):
    assert isinstance(answer, Refusal)
    assert answer.reason == reason
    assert cause in answer.cause
    return True


# --- coming in ------------------------------------------------------------------------------------------------------


def test_with_a_password_file_who_knows_the_password_comes_in(house):
    guard = house(users={"bob": b"secret"}, admins=frozenset({"root"}))
    who = login(guard, username="bob", password=b"secret")
    assert isinstance(who, Identity)
    assert (who.client_id, who.username, who.address, who.proof) == ("c1", "bob", "192.0.2.7", "password")
    assert (who.is_admin, who.is_gateway, who.expires_at) == (False, False, None)


def test_administrators_are_those_that_the_settings_name_and_that_prove_it(house):
    guard = house(users={"root": b"secret"}, admins=frozenset({"root"}))
    assert login(guard, username="root", password=b"secret").is_admin
    open_house = house(admins=frozenset({"root"}))
    assert not login(open_house, username="root").is_admin


@pytest.mark.parametrize(
    ("connect", "reason", "cause"),
    [
        ({"username": "bob", "password": b"wrong"}, Reason.BAD_USER_NAME_OR_PASSWORD, "wrong password of user 'bob'"),
        ({"username": "eve", "password": b"secret"}, Reason.BAD_USER_NAME_OR_PASSWORD, "there is no user 'eve'"),
        ({"username": "", "password": b"secret"}, Reason.BAD_USER_NAME_OR_PASSWORD, "there is no user ''"),
        ({"username": "bob"}, Reason.BAD_USER_NAME_OR_PASSWORD, "user 'bob' sent no password"),
        ({"username": "bob", "password": b""}, Reason.BAD_USER_NAME_OR_PASSWORD, "wrong password of user 'bob'"),
        ({}, Reason.NOT_AUTHORIZED, "client 'c1' names no user, and anonymous clients are not let in"),
        ({"password": b"secret"}, Reason.NOT_AUTHORIZED, "names no user"),
    ],
)
def test_who_does_not_is_refused_and_the_log_knows_why(house, connect, reason, cause):
    assert refused(login(house(users={"bob": b"secret"}), LOCAL, **connect), reason, cause)


def test_a_stranger_is_not_told_which_of_the_two_is_wrong(house):
    guard = house(users={"bob": b"secret"}, token=True)
    answers = [
        login(guard, username=name, password=password)
        for name in ("bob", "eve")
        for password in (b"wrong", b"eyJ.eyJ.x", None)
    ]
    assert len({(answer.reason, answer.text) for answer in answers}) == 1


def test_a_name_in_the_log_is_cut_and_shows_what_it_is_made_of(house):
    answer = login(house(users={}), username="x\n" * 1000, password=b"hunter2")
    assert len(answer.cause) < 300
    assert "\n" not in answer.cause
    assert "hunter2" not in repr(answer)


def test_anonymous_clients_come_in_beside_users_where_the_settings_say_so(house):
    guard = house(users={"bob": b"secret"}, anonymous=True)
    who = login(guard, LOCAL)
    assert (who.username, who.proof, who.is_admin) == (None, "none", False)
    assert refused(login(guard, username="bob"), Reason.BAD_USER_NAME_OR_PASSWORD, "no password")
    assert refused(login(guard, username="eve", password=b"x"), Reason.BAD_USER_NAME_OR_PASSWORD, "no user 'eve'")


def test_where_nobody_is_asked_local_users_are_administrators(house):
    guard = house()
    assert login(guard, LOCAL, username="anyone", password=b"whatever").is_admin
    who = login(guard, REMOTE, username="anyone")
    assert (who.username, who.proof, who.is_admin) == ("anyone", "none", False)


def test_a_token_lets_in_whom_it_is_for_until_it_ends(house, virtual_clock):
    guard = house(token=True, admins=frozenset({"pump1"}))
    who = login(guard, password=token(virtual_clock))
    assert (who.username, who.proof, who.is_admin) == ("pump1", "token", True)
    assert who.expires_at == pytest.approx(virtual_clock.wall_ms() / 1000 + 90)
    assert login(guard, username="pump1", password=token(virtual_clock)).username == "pump1"


@pytest.mark.parametrize(
    ("connect", "reason", "cause"),
    [
        ({"seconds": -31}, Reason.BAD_USER_NAME_OR_PASSWORD, "client 'c1' is not believed: it ended 31 s ago"),
        ({"username": "eve"}, Reason.BAD_USER_NAME_OR_PASSWORD, "the token of user 'eve' is not believed: it is for"),
        ({"key": b"x" * 32}, Reason.BAD_USER_NAME_OR_PASSWORD, "its signature"),
        ({"username": "eve", "password": b"secret"}, Reason.BAD_USER_NAME_OR_PASSWORD, "user 'eve' sent no token"),
        ({"username": "eve", "password": None}, Reason.BAD_USER_NAME_OR_PASSWORD, "user 'eve' sent no token"),
        ({"password": None}, Reason.NOT_AUTHORIZED, "names no user"),
    ],
)
def test_a_token_that_is_not_believed_lets_nobody_in(house, virtual_clock, connect, reason, cause):
    made = {name: connect.pop(name) for name in ("seconds", "key") if name in connect}
    connect.setdefault("password", token(virtual_clock, **made))
    answer = login(house(token=True), LOCAL, **connect)
    assert refused(answer, reason, cause)
    if connect["password"] is not None:
        assert connect["password"].decode()[:20] not in repr(answer)


def test_a_bad_token_is_no_anonymous_client(house, virtual_clock):
    guard = house(token=True, anonymous=True)
    assert refused(
        login(guard, password=token(virtual_clock, key=b"x" * 32)), Reason.BAD_USER_NAME_OR_PASSWORD, "signature"
    )
    assert login(guard).username is None


def test_passwords_and_tokens_serve_side_by_side(house, virtual_clock):
    guard = house(users={"bob": b"secret", "odd": b"eyJ.looks.like"}, token=True)
    assert login(guard, username="bob", password=b"secret").proof == "password"
    assert login(guard, username="pump1", password=token(virtual_clock)).proof == "token"
    assert login(guard, username="odd", password=b"eyJ.looks.like").proof == "password"
    bad = login(guard, username="bob", password=token(virtual_clock))
    assert refused(bad, Reason.BAD_USER_NAME_OR_PASSWORD, "it is for 'pump1', but CONNECT names 'bob'")


@pytest.mark.parametrize(("identity", "name"), [("cn", "pump1"), ("subject", "CN=pump1,O=Works,C=GB")])
def test_a_certificate_gives_the_user_name_whatever_connect_says(house, identity, name):
    guard = house(users={"bob": b"secret"}, identity=identity, admins=frozenset({name}))
    peer = Peer(address="192.0.2.7", certificate=CERTIFICATE, scheme="mqtts")
    for connect in ({}, {"username": "bob"}, {"username": "bob", "password": b"secret"}):
        who = login(guard, peer, **connect)
        assert (who.username, who.proof, who.is_admin) == (name, "certificate", True)


@pytest.mark.parametrize("certificate", [None, {}])
def test_without_a_certificate_the_password_counts(house, certificate):
    guard = house(users={"bob": b"secret"}, identity="cn")
    peer = Peer(address="192.0.2.7", certificate=certificate, scheme="mqtts")
    assert login(guard, peer, username="bob", password=b"secret").proof == "password"
    assert isinstance(login(guard, peer, username="bob", password=b"wrong"), Refusal)


def test_a_certificate_that_names_nobody_is_refused(house):
    guard = house(users={"bob": b"secret"}, identity="cn")
    peer = Peer(address="192.0.2.7", certificate={"subject": ((("organizationName", "Works"),),)})
    answer = login(guard, peer, username="bob", password=b"secret")
    assert refused(answer, Reason.NOT_AUTHORIZED, "the certificate of user 'bob' gives no user name")


def test_a_certificate_that_is_no_identity_leaves_the_name_to_connect(house):
    peer = Peer(address="127.0.0.1", certificate=CERTIFICATE, is_local=True)
    who = login(house(identity="none"), peer, username="bob")
    assert (who.username, who.proof, who.is_admin) == ("bob", "none", False)
    guard = house(users={"bob": b"secret"}, identity="none")
    assert isinstance(login(guard, peer, username="bob", password=b"wrong"), Refusal)


def test_too_many_logins_at_once_are_told_to_come_again(house):
    guard = house(users={"bob": b"secret"})
    guard._checker._most_waiting = 0
    answer = login(guard, username="bob", password=b"secret")
    assert refused(answer, Reason.SERVER_BUSY, "0 logins wait")


# --- names of certificates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), ("a", "b"), ("",), ("a\0b",)], ids=["none", "two", "empty", "with NUL"])
def test_a_common_name_is_one_and_whole(names):
    with pytest.raises(ValueError, match="common name"):
        common_name({"subject": tuple((("commonName", name),) for name in names)})


def test_a_subject_without_or_with_unknown_parts_is_refused():
    with pytest.raises(ValueError, match="no subject"):
        subject({"subject": ()})
    with pytest.raises(ValueError, match=r"a part '1\.2\.3\.4'"):
        subject({"subject": ((("1.2.3.4", "x"),),)})


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([[("domainComponent", "org")], [("userId", "4711")], [("commonName", "x")]], "CN=x,UID=4711,DC=org"),
        ([[("givenName", "Ada"), ("surname", "Byron")], [("commonName", "x")]], "CN=x,SN=Byron+GN=Ada"),
        ([[("commonName", 'a,b+c"d<e>f;g\\h=i')]], r"CN=a\,b\+c\"d\<e\>f\;g\\h=i"),
        ([[("commonName", "#1")]], r"CN=\#1"),
        ([[("commonName", " x ")]], r"CN=\ x\ "),
        ([[("commonName", "pümp日")]], r"CN=p\C3\BCmp\E6\97\A5"),
        ([[("commonName", "a\tb\x7f")]], r"CN=a\09b\7F"),
        ([[("commonName", "CN=x,O=y")]], r"CN=CN=x\,O=y"),
    ],
)
def test_a_subject_is_written_so_that_no_value_looks_like_another_part(parts, text):
    """The same texts as OpenSSL's: tests/real asks it."""
    assert subject({"subject": tuple(map(tuple, parts))}) == text


# --- doing something ------------------------------------------------------------------------------------------------

ACL = """\
topic read public/#
user bob
topic readwrite plant/#
topic readwrite $SYS/broker/uptime
pattern readwrite dev/%c/#
"""
BOB = Identity("c1", "bob")
NOBODY = Identity("c2")
ROOT = Identity("c3", "root", is_admin=True)
GATEWAY = Identity("gateway", is_gateway=True)


@pytest.mark.parametrize(
    ("who", "topic", "may"),
    [
        (BOB, "plant/a", "prs"),
        (BOB, "public/a", ""),
        (BOB, "dev/c1/a", "prs"),
        (BOB, "$SYS/broker/uptime", "rs"),
        (BOB, "$SYS/broker/load", ""),
        (BOB, "$share/g/plant", ""),
        (NOBODY, "public/a", "rs"),
        (NOBODY, "plant/a", ""),
        (NOBODY, "dev/c2/a", "prs"),
        (ROOT, "plant/a", ""),
        (ROOT, "$SYS/broker/load", "rs"),
        (ROOT, "$SYS", "rs"),
        (ROOT, "$SYSTEM/a", ""),
        (GATEWAY, "plant/a", "prs"),
        (GATEWAY, "$SYS/broker/load", "prs"),
    ],
)
def test_with_an_acl_its_rules_hold_and_administrators_read_sys(house, who, topic, may):
    guard = house(acl=ACL)
    said = (guard.may_publish(who, topic), guard.may_read(who, topic), guard.may_subscribe(who, topic))
    assert said == tuple(right in may for right in "prs")


@pytest.mark.parametrize(
    ("who", "topic", "may"),
    [
        (BOB, "plant/a", "prs"),
        (BOB, "$other/a", "prs"),
        (BOB, "$SYS/broker/uptime", ""),
        (BOB, "$SYS", ""),
        (BOB, "$SYSTEM/a", "prs"),
        (BOB, "$share/g/a", "rs"),
        (ROOT, "$SYS/broker/uptime", "rs"),
        (GATEWAY, "$SYS/broker/uptime", "prs"),
    ],
)
def test_without_an_acl_everything_is_allowed_but_sys(house, who, topic, may):
    guard = house(users={})
    said = (guard.may_publish(who, topic), guard.may_read(who, topic), guard.may_subscribe(who, topic))
    assert said == tuple(right in may for right in "prs")


@pytest.mark.parametrize(
    ("who", "filter_", "may"),
    [
        (BOB, "#", True),
        (BOB, "+/a", True),
        (BOB, "$SYS/#", True),
        (BOB, "$SYS/broker/load/+", False),
        (BOB, "other/#", False),
        (NOBODY, "plant/#", False),
        (NOBODY, "#", True),
        (ROOT, "$SYS/#", True),
        (ROOT, "$SYS/+/load", True),
        (Identity("c", "carol"), "public/#", False),
    ],
)
def test_a_filter_is_refused_only_where_it_can_bring_nothing(house, who, filter_, may):
    assert house(acl=ACL).may_subscribe(who, filter_) == may


def test_sys_filters_are_refused_without_an_acl_to_all_but_administrators(house):
    guard = house()
    assert not guard.may_subscribe(BOB, "$SYS/#")
    assert guard.may_subscribe(ROOT, "$SYS/#")
    assert guard.may_subscribe(BOB, "#")


@pytest.mark.parametrize(
    ("topic", "sys_", "reserved"),
    [
        ("$SYS", True, True),
        ("$SYS/", True, True),
        ("$SYS/a", True, True),
        ("$SYSA", False, False),
        ("$share/g/a", False, True),
        ("$share", False, False),
        ("a/$SYS", False, False),
        ("", False, False),
    ],
)
def test_what_is_the_brokers_own(topic, sys_, reserved):
    assert is_sys(topic) == sys_
    assert is_reserved(topic) == reserved


def test_open_access_lets_anybody_do_anything_but_publish_what_is_the_brokers_own():
    guard = Open()
    who = login(guard, username="anyone", password=b"x")
    assert (who.username, who.is_admin) == ("anyone", True)
    assert guard.may_publish(who, "a")
    assert guard.may_read(who, "$SYS/a")
    assert guard.may_subscribe(who, "$SYS/#")
    assert not guard.may_publish(who, "$SYS/a")
    assert guard.may_publish(GATEWAY, "$SYS/a")
    assert not guard.methods


# --- files ----------------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_with_all_files_is_said_at_once(house, tmp_path):
    with pytest.raises(AccessError) as caught:
        house(users={"bob": b"x"}, acl="topic\n\ntopic a#\n")
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        f"{tmp_path}/acl:1:",
        f"{tmp_path}/acl:3:",
    ]


@pytest.mark.parametrize("kind", ["users", "acl", "jwt"])
def test_a_file_that_is_not_there_is_named_with_the_cure(tmp_path, virtual_clock, kind):
    path = tmp_path / "missing"
    value = Jwt(key=path, algorithms=("HS256",)) if kind == "jwt" else path
    with pytest.raises(AccessError, match=r"missing: no such file or directory\. Make the file"):
        Guard(Options(listen=(), **{kind: value}), clock=virtual_clock)


def test_a_file_without_end_is_not_read_to_it(virtual_clock):
    from pathlib import Path

    with pytest.raises(AccessError, match="/dev/zero: larger than 64 MiB"):
        Guard(Options(listen=(), users=Path("/dev/zero")), clock=virtual_clock)


def test_rights_that_let_everybody_read_secrets_or_change_rules_are_cautioned(house):
    guard = house(users={}, acl="", token=True)
    assert guard.files.cautions == ()
    guard._options.users.chmod(0o644)
    guard._options.jwt.key.chmod(0o604)
    guard._options.acl.chmod(0o644)
    said = read(guard._options).cautions
    assert [caution.split(" ")[0] for caution in said] == [str(guard._options.users), str(guard._options.jwt.key)]
    guard._options.acl.chmod(0o646)
    assert f"chmod o= {guard._options.acl}" in "".join(read(guard._options).cautions)


def test_rules_for_users_that_anybody_can_claim_to_be_are_cautioned(house):
    assert "nothing proves who is which user" in house(acl=ACL).files.cautions[0]
    assert house(acl="topic #\npattern a/%u").files.cautions == ()
    assert house(acl=ACL, identity="cn").files.cautions == ()
    assert not any("proves" in caution for caution in house(acl=ACL, users={}).files.cautions)


def reload(guard):
    return asyncio.run(guard.reload())


def test_reading_anew_takes_new_users_and_rules(house):
    guard = house(users={"bob": b"secret"}, acl=ACL)
    house.users({"eve": b"new"})
    house.acl("user bob\ntopic read other")
    assert guard.generation == 0
    assert reload(guard).problems == ()
    assert guard.generation == 1
    assert isinstance(login(guard, username="bob", password=b"secret"), Refusal)
    assert login(guard, username="eve", password=b"new").username == "eve"
    assert not guard.may_read(BOB, "plant/a")
    assert guard.may_read(BOB, "other")


def test_reading_anew_names_who_must_go(house):
    guard = house(users={"stays": b"1", "goes": b"1", "changes": b"1"})
    house.users({"stays": b"1", "changes": b"2", "comes": b"1"})
    change = reload(guard)
    assert change.revoked == {"goes", "changes"}

    def who(name, proof):
        return Identity("c", name, proof=proof)

    assert [change.ends(who(name, "password")) for name in ("stays", "goes", "changes")] == [False, True, True]
    assert not any(change.ends(who("goes", proof)) for proof in ("none", "token", "certificate"))
    assert not reload(guard).revoked


def test_other_keys_end_what_came_in_by_token(house, virtual_clock):
    guard = house(token=True)
    assert not reload(guard).ends(Identity("c", "pump1", proof="token"))
    house.key(b"x" * 32)
    change = reload(guard)
    assert change.ends(Identity("c", "pump1", proof="token"))
    assert not change.ends(Identity("c", "pump1", proof="password"))
    assert isinstance(login(guard, password=token(virtual_clock)), Refusal)
    assert login(guard, password=token(virtual_clock, key=b"x" * 32)).username == "pump1"


@pytest.mark.parametrize("broken", ["users", "acl", "key"])
def test_one_broken_file_leaves_all_as_it_was(house, broken):
    guard = house(users={"bob": b"secret"}, acl=ACL, token=True)
    house.users({"eve": b"new"})
    house.acl("topic read other")
    house.key(b"y" * 32)
    {"users": guard._options.users, "acl": guard._options.acl, "key": guard._options.jwt.key}[broken].write_text("x:y")
    change = reload(guard)
    assert len(change.problems) == 1
    assert not change.ends(Identity("c", "bob", proof="password"))
    assert not change.ends(Identity("c", "bob", proof="token"))
    assert guard.generation == 0
    assert login(guard, username="bob", password=b"secret").username == "bob"
    assert guard.may_read(BOB, "plant/a")


def test_a_login_under_way_when_its_user_is_deleted_is_refused(house, virtual_clock):
    guard = house(users={"bob": b"secret"})
    gate, started = threading.Event(), threading.Event()

    class Slow:
        text, line = "$", 1

        def fits(self, password):
            started.set()
            return gate.wait(20) and password == b"secret"

    guard._checker.users = Passwords({"bob": Slow()})

    async def work():
        entering = asyncio.create_task(guard.login(Connect(username="bob", password=b"secret"), REMOTE))
        await asyncio.to_thread(started.wait, 20)
        house.users({})
        change = await guard.reload()
        gate.set()
        return change, await entering

    change, answer = asyncio.run(work())
    assert "bob" in change.revoked
    assert refused(answer, Reason.BAD_USER_NAME_OR_PASSWORD, "there is no user 'bob'")


def test_a_reload_on_a_slow_disk_does_not_undo_a_later_one(house, tmp_path):
    guard = house(users={"bob": b"1"})
    passwd = guard._options.users
    passwd.unlink()
    os.mkfifo(passwd)

    def opened():
        """The writing end, which can be had only once the first reload has the reading end."""
        while True:
            with contextlib.suppress(OSError):
                return os.open(passwd, os.O_WRONLY | os.O_NONBLOCK)

    async def work():
        first = asyncio.create_task(guard.reload())
        pipe = await asyncio.wait_for(asyncio.to_thread(opened), 20)
        passwd.unlink()
        house.users({"bob": b"new"})
        second = asyncio.create_task(guard.reload())
        while not (second.done() or guard._reloading._waiters):  # noqa: ASYNC110 - one of them comes
            await asyncio.sleep(0)
        os.write(pipe, f"bob:{sha512(b'old')}\n".encode())
        os.close(pipe)
        return await asyncio.gather(first, second)

    first, second = asyncio.run(work())
    assert first.problems == second.problems == ()
    assert guard.generation == 2
    assert login(guard, username="bob", password=b"new").username == "bob"


def test_without_users_and_tokens_their_libraries_are_not_imported():
    script = (
        "import sys; from gateway.broker.access import Guard, Options; from gateway.clock import SystemClock;"
        "Guard(Options(listen=()), clock=SystemClock()).close();"
        "print([m for m in ('jwt', 'argon2', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
