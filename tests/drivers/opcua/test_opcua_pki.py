"""The folder of certificates: our own made, kept and renewed; the servers' trusted, put aside and approved."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting import folder as folders
from drivers.opcua.connecting.pki import Pki, UntrustedError
from drivers.opcua.connecting.trusting import MOST_PENDING
from gateway.clock import RELEASED_MS
from gateway.errors import RefusedError

URL = "opc.tcp://plc:4840"
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = 365 * DAY


class Clock:
    """A wall clock that is set by hand."""

    boot_id = "0"

    def __init__(self, now=NOW, state="synced"):
        self.now = now
        self.state_now = state

    def wall_ms(self):
        return round(self.now.timestamp() * 1000)

    def monotonic(self):
        return 0.0

    def state(self):
        return self.state_now


@pytest.fixture(scope="session")
def keys():
    """Three keys for the whole run: each takes a while."""
    return [certificates.make_key() for _ in range(3)]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pki(tmp_path, clock, keys):
    """A folder with nothing but a key in it."""
    folders.write(tmp_path / "pki" / "own" / "key.pem", certificates.key_pem(keys[0]))
    return Pki(tmp_path / "pki", None, clock=clock)


@pytest.fixture
def shown(keys):
    """`shown()` is the certificate of a server; another name, another certificate of the same key."""

    def make(name="plc", now=NOW):
        return certificates.make(keys[1], f"urn:{name}:server", name, now)

    return make


@pytest.fixture
def issued(keys):
    """`issued("plc")` is (leaf, authority) in DER, the leaf issued by an authority of its own name."""
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant authority")])

    def build(subject, key, extensions, until):
        builder = x509.CertificateBuilder(
            authority_name, subject, key.public_key(), x509.random_serial_number(), NOW - YEAR, until
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(keys[2], hashes.SHA256()).public_bytes(Encoding.DER)

    def make(name="plc", *, key=None, is_authority=True, until=NOW + YEAR, hosts=("10.0.0.9", "plc")):
        constraints = x509.BasicConstraints(ca=is_authority, path_length=None)
        authority = build(authority_name, keys[2], [constraints], NOW + YEAR)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        named = [x509.DNSName(host) if host[0].isalpha() else x509.IPAddress(ip_address(host)) for host in hosts]
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:{name}:headgate"), *named])
        return build(subject, key or keys[1], [uri], until), authority

    return make


def put(pki, state, name, data):
    path = pki.folder / state / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- our own: made --------------------------------------------------------------------------------------------------


def test_a_pair_is_made_where_there_is_none_and_kept_from_then_on(tmp_path):
    pki = Pki(tmp_path / "data" / "pki", "urn:gw:headgate", clock=Clock())
    own = pki.own()
    assert own.is_new
    assert own.application_uri == "urn:gw:headgate"
    assert own.cautions == ()
    assert (own.not_before, own.not_after) == (NOW - DAY, NOW + 5 * YEAR)
    again = pki.own()
    assert not again.is_new
    assert (again.certificate, again.key) == (own.certificate, own.key)
    assert names(pki.folder / "own") == ["certificate.der", "key.pem"]


def test_only_its_owner_may_look_into_the_folder_and_at_the_key(tmp_path):
    before = os.umask(0)
    try:
        own = Pki(tmp_path / "data" / "pki", None, clock=Clock()).own()
    finally:
        os.umask(before)
    assert mode(own.key_path) == 0o600
    assert [mode(folder) for folder in (own.key_path.parent, own.key_path.parents[1])] == [0o700, 0o700]


def test_the_certificate_is_what_the_standard_asks_of_one_that_signs_itself(pki, keys):
    parsed = x509.load_der_x509_certificate(pki.own().certificate)
    parsed.verify_directly_issued_by(parsed)
    assert parsed.version is x509.Version.v3
    assert isinstance(parsed.signature_hash_algorithm, hashes.SHA256)
    assert parsed.public_key() == keys[0].public_key()
    value = {extension.oid: extension.value for extension in parsed.extensions}
    usage = value[x509.KeyUsage.oid]
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_cert_sign")
    assert all(getattr(usage, name) for name in names)
    assert not usage.key_agreement
    assert not usage.crl_sign
    assert not value[x509.BasicConstraints.oid].ca
    assert set(value[x509.ExtendedKeyUsage.oid]) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    alternative = value[x509.SubjectAlternativeName.oid]
    assert len(alternative.get_values_for_type(x509.UniformResourceIdentifier)) == 1
    assert len(alternative.get_values_for_type(x509.DNSName)) == 1
    authority = value[x509.AuthorityKeyIdentifier.oid]
    assert authority.key_identifier == value[x509.SubjectKeyIdentifier.oid].digest
    assert authority.authority_cert_serial_number == parsed.serial_number


def test_a_key_that_stands_alone_gets_a_certificate_as_after_a_power_cut_between_the_two(pki, keys):
    own = pki.own()
    assert load_pem_private_key(own.key, None).private_numbers() == keys[0].private_numbers()
    assert names(pki.folder / "own") == ["certificate.der", "key.pem"]


def test_lines_that_start_together_make_one_pair(tmp_path):
    found = []
    clock = Clock()

    def make():
        found.append(Pki(tmp_path / "pki", None, clock=clock).own())

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({own.certificate for own in found}) == len({own.key for own in found}) == 1
    assert sum(own.is_new for own in found) == 1


@pytest.mark.parametrize("uri", ["no uri", "urn:with space:x", "urn:ümlaut", "", "urn:"])
def test_a_name_that_is_no_uri_is_refused_with_the_cure(tmp_path, clock, keys, uri):
    with pytest.raises(ValueError, match=r"is no URI\. Write one like urn:HOST:headgate"):
        certificates.make(keys[0], uri, "h", NOW)
    if uri:  # an empty one is none at all
        with pytest.raises(RefusedError, match=r"application_uri: .* is no URI"):
            Pki(tmp_path, uri, clock=clock).own()


def test_a_file_in_the_way_is_told_by_its_path(tmp_path, clock):
    (tmp_path / "pki").write_text("I am a file")
    with pytest.raises(RefusedError, match=f"{tmp_path}/pki"):
        Pki(tmp_path / "pki", None, clock=clock).own()


def test_what_root_makes_belongs_to_whom_the_folder_belongs_to(tmp_path, clock, monkeypatch):
    given = {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.update({Path(path).name: (user, group)}))
    Pki(tmp_path / "pki", None, clock=clock).own()
    owner = tmp_path.stat().st_uid, tmp_path.stat().st_gid
    assert {"pki", "own"} <= given.keys()
    assert len(given) == 4  # and the drafts of both files
    assert set(given.values()) == {owner}


def test_who_may_not_look_is_told_who_may(pki, monkeypatch):
    pki.own()

    def refuse(*_args, **_more):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(RefusedError, match=r"permission denied\. The gateway's user must be able to read it"):
            pki.own()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        with pytest.raises(RefusedError, match=r"permission denied\. Run this as the gateway's user"):
            pki.own()


@pytest.mark.parametrize("call", ["mkdir", "replace"])
def test_where_nothing_can_be_written_another_folder_is_the_cure(pki, clock, monkeypatch, call):
    def refuse(*_args, **_more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, call, refuse)
    cure = r"read-only file system\. Name another folder with pki \(as a service /var/lib/headgate/pki\)"
    other = Pki(pki.folder / "other", None, clock=clock)
    with pytest.raises(RefusedError, match=cure):
        (other if call == "mkdir" else pki).own()


def test_looking_makes_nothing(pki):
    assert pki.seen() is None
    assert pki.former() is None
    assert names(pki.folder / "own") == ["key.pem"]
    own = pki.own()
    assert pki.seen().thumbprint == own.thumbprint


# --- our own: brought by the user -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_chain_that_the_user_brought_is_sent_whole_and_never_touched(tmp_path, clock, issued, keys, encoding):
    leaf, authority = issued("gw")
    pki = Pki(tmp_path, None, clock=clock)
    if encoding is Encoding.DER:
        at = put(pki, "own", "certificate.der", leaf + authority)
        form = (Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        key_at = put(pki, "own", "key.der", keys[1].private_bytes(*form))
    else:
        at = put(pki, "own", "certificate.pem", certificates.pem(leaf) + certificates.pem(authority))
        key_at = put(pki, "own", "key.pem", certificates.key_pem(keys[1]))
    key_at.chmod(0o400)
    before = at.read_bytes(), key_at.read_bytes()
    own = pki.own()
    assert (own.certificate, own.chain) == (leaf, leaf + authority)
    assert own.application_uri == "urn:gw:headgate"
    assert own.key == certificates.key_pem(keys[1])
    assert (own.certificate_path, own.key_path) == (at, key_at)
    assert own.cautions == ()
    assert (at.read_bytes(), key_at.read_bytes()) == before


def test_who_issued_it_must_renew_it_and_that_is_said_in_time(tmp_path, clock, issued, keys):
    pki = Pki(tmp_path, None, clock=clock)
    leaf, _ = issued("gw", until=NOW + 59 * DAY)
    at = put(pki, "own", "certificate.der", leaf)
    folders.write(tmp_path / "own" / "key.pem", certificates.key_pem(keys[1]))
    assert pki.own().cautions == ("the certificate ends on 2027-04-29. Ask 'CN=plant authority' for one",)
    with pytest.raises(RefusedError, match="issued by 'CN=plant authority', who alone can renew it"):
        pki.renew()
    clock.now += 60 * DAY
    assert "has ended on 2027-04-29" in pki.own().cautions[0]
    assert at.read_bytes() == leaf


def test_what_does_not_belong_together_is_told_by_its_path(tmp_path, clock, keys, issued):
    pki = Pki(tmp_path, None, clock=clock)
    at = put(pki, "own", "certificate.der", issued("gw")[0])
    with pytest.raises(RefusedError, match=r"certificate\.der: its private key is not beside it"):
        pki.own()
    key_at = put(pki, "own", "key.pem", certificates.key_pem(keys[0]))
    with pytest.raises(RefusedError, match=r"key\.pem is not the key of this certificate"):
        pki.own()
    key_at.write_bytes(certificates.key_pem(keys[1]))
    twice = put(pki, "own", "certificate.pem", b"")
    with pytest.raises(RefusedError, match=r"certificate\.pem is there as well"):
        pki.own()
    twice.unlink()
    at.write_bytes(b"not a certificate")
    with pytest.raises(RefusedError, match=r"certificate\.der: there is no certificate in it"):
        pki.own()
    at.write_bytes(b"0" * 70_000)
    with pytest.raises(RefusedError, match="more than 64 KiB"):
        pki.own()
    assert names(tmp_path / "own") == ["certificate.der", "key.pem"]


def test_a_certificate_without_a_uri_is_refused_before_a_server_does_it(tmp_path, clock, keys):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw")])
    builder = x509.CertificateBuilder(name, name, keys[0].public_key(), 7, NOW - DAY, NOW + YEAR)
    pki = Pki(tmp_path, None, clock=clock)
    put(pki, "own", "certificate.der", builder.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.DER))
    put(pki, "own", "key.pem", certificates.key_pem(keys[0]))
    with pytest.raises(RefusedError, match="no application URI: servers answer BadCertificateUriInvalid"):
        pki.own()


def test_keys_that_cannot_be_used_say_why(keys):
    locked = keys[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(ValueError, match="the key is encrypted"):
        certificates.read_key(locked)
    curve = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ValueError, match="none of RSA"):
        certificates.read_key(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="no private key in it"):
        certificates.read_key(b"hello")


def test_a_key_that_others_can_read_is_a_caution(pki):
    own = pki.own()
    own.key_path.chmod(0o644)
    assert pki.own().cautions == (f"{own.key_path}: others can read the private key. Run chmod 600 {own.key_path}",)


# --- our own: renewed -----------------------------------------------------------------------------------------------


def test_sixty_days_before_its_end_it_is_renewed_with_the_same_key_and_the_former_is_kept(pki, clock, keys):
    first = pki.own()
    clock.now = first.not_after - 60 * DAY - timedelta(seconds=1)
    assert pki.own().thumbprint == first.thumbprint
    assert pki.former() is None
    clock.now = first.not_after - 60 * DAY
    second = pki.own()
    assert second.is_new
    assert (second.not_before, second.not_after) == (clock.now - DAY, clock.now + 5 * YEAR)
    assert second.cautions == ()
    assert second.key == first.key
    assert (second.subject, second.application_uri, second.hosts) == (first.subject, first.application_uri, first.hosts)
    former = pki.former()
    assert former.certificate == first.certificate
    assert former.key == first.key
    assert not pki.own().is_new
    clock.now = first.not_after
    assert pki.former() is None


def test_a_renewed_certificate_has_all_that_the_former_had_and_a_number_of_its_own(pki):
    before = x509.load_der_x509_certificate(pki.own().certificate)
    after = x509.load_der_x509_certificate(pki.renew().certificate)
    after.verify_directly_issued_by(after)
    assert after.serial_number != before.serial_number

    def said(parsed):
        return {e.oid: (e.critical, e.value) for e in parsed.extensions if e.oid != x509.AuthorityKeyIdentifier.oid}

    assert said(after) == said(before)
    own = after.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert own.authority_cert_serial_number == after.serial_number


def test_after_an_outage_of_years_it_is_renewed_at_the_first_connection(pki, clock):
    pki.own()
    clock.now += 9 * YEAR
    assert pki.own().not_after == clock.now + 5 * YEAR
    assert pki.own().cautions == ()


def test_a_second_renewal_keeps_the_certificate_that_servers_know(pki, clock):
    first = pki.own()
    clock.now += YEAR
    pki.renew()
    pki.renew()
    assert pki.former().certificate == first.certificate
    clock.now += 40 * DAY  # by now the servers were told
    third = pki.own()
    pki.renew()
    assert pki.former().certificate == third.certificate


def test_another_application_uri_in_the_file_is_told_and_taken_by_renewing(pki, clock):
    own = pki.own()
    changed = Pki(pki.folder, "urn:new:headgate", clock=clock)
    told = changed.own()
    assert told.application_uri == own.application_uri
    assert told.cautions[0].startswith(
        f"the file says application_uri urn:new:headgate, the certificate {own.application_uri}"
    )
    assert "headgate certificate FILE --renew" in told.cautions[0]
    renewed = changed.renew()
    assert (renewed.application_uri, renewed.hosts, renewed.cautions) == ("urn:new:headgate", own.hosts, ())
    assert changed.former().application_uri == own.application_uri


def test_what_cannot_be_renewed_for_the_medium_is_used_on_and_said(pki, clock, monkeypatch):
    own = pki.own()

    def full(path, data):
        raise RefusedError(f"{path}: cannot be written: no space left on device")

    monkeypatch.setattr("drivers.opcua.connecting.pki.write", full)
    clock.now = own.not_after - DAY
    told = pki.own()
    assert told.certificate == own.certificate
    assert any("should be renewed, but" in caution and "no space left" in caution for caution in told.cautions)
    clock.now = own.not_after + DAY
    with pytest.raises(RefusedError, match="no space left"):
        pki.own()


def test_a_cut_while_it_is_renewed_leaves_a_pair_that_can_be_used(pki, clock, monkeypatch):
    own = pki.own()
    clock.now = own.not_after - DAY

    class CutError(Exception): ...

    replace = Path.replace

    def cut(self, target):
        if Path(target).name == "certificate.der":
            raise CutError
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(CutError):
            pki.own()
    assert pki.seen().certificate == own.certificate
    assert pki.former() is None  # the same is no other
    assert pki.own().is_new
    assert names(pki.folder / "own") == ["certificate.der", "former.der", "key.pem"]


def test_a_certificate_in_pem_stays_in_pem(pki):
    own = pki.own()
    own.certificate_path.unlink()
    at = put(pki, "own", "certificate.pem", certificates.pem(own.certificate))
    renewed = pki.renew()
    assert renewed.certificate_path == at
    assert at.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("data", [b"", b"junk", b"0" * 70_000])
def test_a_former_certificate_that_is_no_good_is_none(pki, data):
    pki.own()
    put(pki, "own", "former.der", data)
    assert pki.former() is None


def test_a_former_certificate_of_another_key_is_none(pki, shown):
    pki.own()
    put(pki, "own", "former.der", shown())
    assert pki.former() is None


# --- a clock that is not set ----------------------------------------------------------------------------------------


def test_made_in_1970_it_is_valid_when_the_clock_is_set(pki, clock):
    clock.now = datetime(1970, 1, 1, tzinfo=UTC)
    own = pki.own()
    released = datetime.fromtimestamp(RELEASED_MS / 1000, UTC)
    assert (own.not_before, own.not_after) == (released - DAY, released + 5 * YEAR)
    assert len(own.cautions) == 1
    assert "clock says 1970-01-01" in own.cautions[0]
    clock.now = NOW
    assert pki.own().cautions == ()
    assert pki.own().certificate == own.certificate


def test_nothing_is_renewed_in_1970_and_the_former_is_still_tried(pki, clock):
    first = pki.own()
    clock.now = first.not_after - DAY
    second = pki.own()
    clock.now = datetime(1970, 1, 1, tzinfo=UTC)
    assert pki.own().certificate == second.certificate
    assert pki.former().certificate == first.certificate


def test_renewed_by_a_clock_that_is_years_ahead_it_is_valid_when_the_clock_is_right_again(pki, clock):
    own = pki.own()
    clock.now, clock.state_now = NOW + 20 * YEAR, "unsynced"
    assert pki.own().is_new
    clock.now, clock.state_now = NOW, "synced"
    again = pki.own()
    assert again.not_before <= NOW <= again.not_after
    assert again.cautions == ()
    assert pki.former().certificate == own.certificate


def test_made_by_a_clock_that_is_ahead_it_says_so_later(pki, clock):
    clock.now = NOW + YEAR
    pki.own()
    clock.now = NOW
    assert "begins only on 2028-02-28: this machine's clock is behind, or was ahead" in pki.own().cautions[0]


def test_in_1970_a_trusted_server_is_talked_to_and_that_is_said(pki, clock, shown):
    clock.now = datetime(1970, 1, 1, tzinfo=UTC)
    put(pki, "trusted", "plc.der", der := shown())
    said = pki.check(der, url=URL, trust="approved")
    assert "clock says 1970-01-01" in said
    assert "Set the clock" in said


def test_in_1970_the_first_certificate_is_pinned_for_no_date_can_be_believed(pki, clock, shown):
    clock.now = datetime(1970, 1, 1, tzinfo=UTC)
    assert "came first" in pki.check(shown(), url=URL, trust="first_use")


# --- servers: refused and approved ----------------------------------------------------------------------------------


def test_an_unknown_certificate_is_refused_put_aside_and_told_how_to_approve_it(pki, shown):
    with pytest.raises(UntrustedError) as caught:
        pki.check(shown(), url=URL, trust="approved")
    leaf = certificates.read(shown_of(pki))
    text = str(caught.value)
    assert text.startswith(f"{URL}: the server's certificate is not trusted yet")
    assert leaf.thumbprint in text
    assert leaf.sha256 in text
    assert text.endswith(f"headgate trust FILE --approve {leaf.thumbprint[:12]}")
    assert (caught.value.thumbprint, caught.value.is_changed) == (leaf.thumbprint, False)
    assert caught.value.cause == "BadCertificateUntrusted"
    assert names(pki.folder / "pending") == [f"{leaf.thumbprint}.der", f"{leaf.thumbprint}.json"]
    note = json.loads((pki.folder / "pending" / f"{leaf.thumbprint}.json").read_text())
    assert note == {"urls": [URL], "since": "2027-03-01T12:00:00Z", "why": "unknown"}


def shown_of(pki):
    (path,) = (pki.folder / "pending").glob("*.der")
    return path.read_bytes()


def test_approved_it_is_trusted_and_removed_it_waits_again_and_removed_again_it_is_forgotten(pki, shown):
    der = shown()
    with pytest.raises(UntrustedError):
        pki.check(der, url=URL, trust="approved")
    (entry,) = pki.servers.entries()
    assert (entry.state, entry.note.why) == ("pending", "unknown")
    pki.servers.approve(entry)
    assert pki.check(der, url=URL, trust="approved") == ""
    (entry,) = pki.servers.entries()
    assert (entry.state, entry.note.why, entry.note.urls) == ("trusted", "approved", (URL,))
    assert names(pki.folder / "pending") == []
    pki.servers.remove(entry)
    (entry,) = pki.servers.entries()
    assert (entry.state, entry.note.why, entry.note.urls) == ("pending", "removed", (URL,))
    with pytest.raises(UntrustedError):
        pki.check(der, url=URL, trust="approved")
    pki.servers.remove(entry)
    assert names(pki.folder / "pending") == names(pki.folder / "trusted") == []


@pytest.mark.parametrize("name", ["plc.der", "PLC.CRT", "plc.cer", "plc.pem"])
def test_whatever_is_put_into_trusted_by_hand_counts(pki, shown, name):
    data = certificates.pem(shown_once := shown()) if name.endswith(("pem", "CRT")) else (shown_once := shown())
    put(pki, "trusted", name, data)
    assert pki.check(shown_once, url=URL, trust="approved") == ""
    assert names(pki.folder / "pending") == []


def test_a_file_that_is_no_certificate_harms_no_other_and_is_told(pki, shown):
    put(pki, "trusted", "a.der", b"junk")
    put(pki, "trusted", "b.der", b"0" * 70_000)
    put(pki, "trusted", "c.txt", b"not looked at")
    der = shown()
    put(pki, "trusted", "d.der", der)
    assert pki.check(der, url=URL, trust="approved") == ""
    faults = pki.servers.faults()
    assert len(faults) == 2
    assert "a.der: there is no certificate in it" in faults[0]
    assert "b.der: more than 64 KiB" in faults[1]


def test_a_connection_that_is_tried_each_minute_writes_its_certificate_once(pki, shown, clock):
    der = shown()
    for _ in range(3):
        with pytest.raises(UntrustedError):
            pki.check(der, url=URL, trust="approved")
        clock.now += timedelta(minutes=1)
        files = {path: path.stat().st_mtime_ns for path in (pki.folder / "pending").iterdir()}
        with pytest.raises(UntrustedError):
            pki.check(der, url="opc.tcp://PLC", trust="approved")  # the same place, spelled otherwise
        assert {path: path.stat().st_mtime_ns for path in (pki.folder / "pending").iterdir()} == files
    (entry,) = pki.servers.entries()
    assert entry.note.since == "2027-03-01T12:00:00Z"


def test_a_server_with_two_urls_is_noted_with_both(pki, shown):
    der = shown()
    for url in (URL, "opc.tcp://10.0.0.9:4840"):
        with pytest.raises(UntrustedError):
            pki.check(der, url=url, trust="approved")
    assert pki.servers.entries()[0].note.urls == (URL, "opc.tcp://10.0.0.9:4840")


def test_no_more_than_twenty_wait_and_the_oldest_goes_first(pki, keys):
    for i in range(MOST_PENDING + 5):
        der = certificates.make(keys[1], f"urn:{i}", "plc", NOW)
        with pytest.raises(UntrustedError):
            pki.check(der, url=URL, trust="approved")
        path = pki.folder / "pending" / f"{certificates.thumbprint_of(der)}.der"
        os.utime(path, (i, i))
    uris = {entry.certificate.application_uri for entry in pki.servers.entries()}
    assert uris == {f"urn:{i}" for i in range(5, MOST_PENDING + 5)}
    assert len(names(pki.folder / "pending")) == 2 * MOST_PENDING


def test_where_pending_cannot_be_written_the_refusal_says_what_is_refused(pki, shown):
    put(pki, ".", "pending", b"a file in the way")
    with pytest.raises(UntrustedError, match=r"not trusted yet.*pending"):
        pki.check(shown(), url=URL, trust="approved")


@pytest.mark.parametrize("shown", [b"", b"junk", b"\x30\x03abc", b"\x30" * 70_000])
def test_what_is_no_certificate_is_refused_and_not_kept(pki, shown):
    with pytest.raises(UntrustedError) as caught:
        pki.check(shown, url=URL, trust="first_use")
    assert caught.value.cause == "BadCertificateInvalid"
    assert str(caught.value).startswith(URL)
    assert names(pki.folder / "pending") == names(pki.folder / "trusted") == []


def test_a_name_that_would_write_on_the_terminal_is_shown_as_question_marks(keys):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plc\x1b[2Jevil\n")])
    builder = x509.CertificateBuilder(name, name, keys[1].public_key(), 7, NOW, NOW + YEAR)
    leaf = certificates.read(builder.sign(keys[1], hashes.SHA256()).public_bytes(Encoding.DER))
    assert leaf.subject == "CN=plc?[2Jevil?"


# --- servers: first use ---------------------------------------------------------------------------------------------


def test_the_first_certificate_is_pinned_once_and_that_is_said(pki, shown):
    der = shown()
    said = pki.check(der, url=URL, trust="first_use")
    assert "came first and is trusted from now on" in said
    assert certificates.thumbprint_of(der) in said
    assert pki.check(der, url=URL, trust="first_use") == ""
    (entry,) = pki.servers.entries()
    assert (entry.state, entry.note.why) == ("trusted", "first_use")


def test_a_changed_certificate_waits_also_on_first_use_and_is_said_as_what_it_may_be(pki, shown):
    pki.check(shown(), url=URL, trust="first_use")
    other = shown("other")
    for trust in ("first_use", "approved"):
        with pytest.raises(UntrustedError) as caught:
            pki.check(other, url=URL, trust=trust)
        assert caught.value.is_changed
        assert "it was renewed, or the server was replaced, or somebody is in between" in str(caught.value)
    waiting = [entry for entry in pki.servers.entries() if entry.state == "pending"]
    assert [(entry.note.why, entry.certificate.der) for entry in waiting] == [("changed", other)]


def test_a_certificate_known_from_one_url_is_that_of_the_next_one_too(pki, shown):
    other_url = "opc.tcp://10.0.0.9:4840"
    der = shown()
    pki.check(der, url=URL, trust="first_use")
    assert pki.check(der, url=other_url, trust="first_use") == ""
    with pytest.raises(UntrustedError) as caught:
        pki.check(shown("other"), url=other_url, trust="first_use")
    assert caught.value.is_changed


def test_first_use_is_for_each_url_by_itself(pki, shown):
    pki.check(shown(), url=URL, trust="first_use")
    assert "came first" in pki.check(shown("press"), url="opc.tcp://press:4840", trust="first_use")


def test_what_a_person_removed_is_never_pinned_again_but_another_may_be(pki, shown):
    der = shown()
    pki.check(der, url=URL, trust="first_use")
    pki.servers.remove(pki.servers.entries()[0])
    with pytest.raises(UntrustedError):
        pki.check(der, url=URL, trust="first_use")
    assert "came first" in pki.check(shown("new"), url=URL, trust="first_use")


def test_removed_ones_stay_longest_among_those_that_wait(pki, keys, shown):
    der = shown()
    pki.check(der, url=URL, trust="first_use")
    pki.servers.remove(pki.servers.entries()[0])
    os.utime(pki.folder / "pending" / f"{certificates.thumbprint_of(der)}.der", (0, 0))
    for i in range(MOST_PENDING + 1):
        with pytest.raises(UntrustedError):
            pki.check(certificates.make(keys[1], f"urn:{i}", "plc", NOW), url=URL, trust="approved")
    assert der in [entry.certificate.der for entry in pki.servers.entries()]


def test_one_that_waits_is_pinned_when_the_file_is_changed_to_first_use(pki, shown):
    der = shown()
    with pytest.raises(UntrustedError):
        pki.check(der, url=URL, trust="approved")
    assert "came first" in pki.check(der, url=URL, trust="first_use")
    assert names(pki.folder / "pending") == []


def test_what_cannot_be_pinned_is_not_trusted(pki, shown):
    put(pki, ".", "trusted", b"a file in the way")
    with pytest.raises(RefusedError, match="trusted"):
        pki.check(shown(), url=URL, trust="first_use")


# --- servers: out of date -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "wrong"),
    [(NOW - 6 * YEAR, "has ended on 2026-03-01"), (NOW + 9 * DAY, "begins only on 2027-03-09")],
)
def test_out_of_date_it_is_not_pinned_but_once_approved_it_is_used_with_a_caution(pki, shown, made, wrong):
    der = shown(now=made)
    with pytest.raises(UntrustedError, match=wrong):
        pki.check(der, url=URL, trust="first_use")
    (entry,) = pki.servers.entries()
    assert entry.note.why == "out_of_date"
    pki.servers.approve(entry)
    said = pki.check(der, url=URL, trust="first_use")
    assert wrong in said
    assert "for it was approved" in said


# --- servers: authorities -------------------------------------------------------------------------------------------


def revoked(keys, *serials, issuer="plant authority", key=2):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(NOW).next_update(NOW + YEAR)
    for serial in serials:
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        builder = builder.add_revoked_certificate(one)
    return builder.sign(keys[key], hashes.SHA256()).public_bytes(Encoding.DER)


def test_what_a_trusted_authority_issued_is_trusted_renewed_or_not(pki, issued):
    leaf, authority = issued()
    put(pki, "trusted", "authority.der", authority)
    assert pki.check(leaf, url=URL, trust="approved") == ""
    assert pki.check(leaf + authority, url=URL, trust="approved") == ""
    assert pki.check(issued()[0], url=URL, trust="approved") == ""


@pytest.mark.parametrize(
    ("hosts", "said"), [(["mixer"], "was issued for mixer, not for plc"), ([], "was issued for no host, not for plc")]
)
def test_what_a_trusted_authority_issued_for_another_host_waits_for_a_person(pki, issued, hosts, said):
    leaf, authority = issued("mixer", hosts=hosts)
    put(pki, "trusted", "authority.der", authority)
    with pytest.raises(UntrustedError, match=said):
        pki.check(leaf, url=URL, trust="approved")
    (waiting,) = [entry for entry in pki.servers.entries() if entry.state == "pending"]
    assert waiting.note.why == "elsewhere"
    pki.servers.approve(waiting)
    assert pki.check(leaf, url=URL, trust="approved") == ""


@pytest.mark.parametrize("host", ["PLC", "[fe80::1]", "10.0.0.9"])
def test_what_a_trusted_authority_issued_for_the_host_of_the_url_is_trusted(pki, issued, host):
    leaf, authority = issued(hosts=["Plc", "fe80::1" if ":" in host else "10.0.0.9"])
    put(pki, "trusted", "authority.der", authority)
    assert pki.check(leaf, url=f"opc.tcp://{host}:4840", trust="approved") == ""


def test_servers_that_change_places_are_talked_to_and_that_is_said(pki, shown):
    plc, mixer = shown("plc"), shown("mixer")
    other = "opc.tcp://mixer:4840"
    pki.check(plc, url=URL, trust="first_use")
    pki.check(mixer, url=other, trust="first_use")
    assert pki.check(plc, url=URL, trust="approved") == ""
    said = pki.check(mixer, url=URL, trust="approved")
    assert said.startswith(f"{URL}: the server shows another trusted certificate than before, as {other} did: ")
    assert "changed places" in said


def test_who_is_no_authority_issues_nothing(pki, issued):
    leaf, false = issued(is_authority=False)
    put(pki, "trusted", "false.der", false)
    with pytest.raises(UntrustedError):
        pki.check(leaf, url=URL, trust="approved")


def test_the_key_of_a_trusted_server_issues_nothing_though_its_certificate_may(pki, keys):
    plc, other = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("plc", "other"))
    builder = x509.CertificateBuilder(plc, plc, keys[2].public_key(), 1, NOW - DAY, NOW + YEAR)
    for extension in (
        x509.BasicConstraints(ca=True, path_length=0),
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:plc:server")]),
    ):
        builder = builder.add_extension(extension, critical=False)
    put(pki, "trusted", "plc.der", builder.sign(keys[2], hashes.SHA256()).public_bytes(Encoding.DER))
    false = x509.CertificateBuilder(plc, other, keys[1].public_key(), 2, NOW - DAY, NOW + YEAR)
    with pytest.raises(UntrustedError):
        pki.check(false.sign(keys[2], hashes.SHA256()).public_bytes(Encoding.DER), url=URL, trust="approved")


def test_a_stranger_who_shows_what_a_trusted_authority_issued_to_others_gets_nowhere(pki, issued, keys):
    other, authority = issued()
    put(pki, "trusted", "authority.der", authority)
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("evil", "plc"))
    builder = x509.CertificateBuilder(issuer, subject, keys[0].public_key(), 9, NOW - DAY, NOW + YEAR)
    for signer in keys[:2]:  # by a key of its own, and by one whose certificate is no authority's
        leaf = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)
        for above in (other + authority, authority):
            with pytest.raises(UntrustedError):
                pki.check(leaf + above, url=URL, trust="approved")


def test_what_stands_above_a_trusted_certificate_may_be_anything(pki, shown):
    put(pki, "trusted", "plc.der", der := shown())
    assert pki.check(der + b"\x30\x03abc", url=URL, trust="approved") == ""


def test_asked_for_a_certificate_is_told_apart_by_whether_another_one_is_trusted(pki, shown):
    first = pki.servers.look_at(der := shown(), URL)
    assert (first.state, first.note.why) == ("pending", "asked")
    pki.servers.approve(first)
    assert pki.servers.look_at(der, URL).state == "trusted"
    second = pki.servers.look_at(shown("other"), URL)
    assert (second.state, second.note.why) == ("pending", "changed")


def test_what_is_beyond_any_size_is_not_looked_at(pki, shown):
    put(pki, "trusted", "plc.der", der := shown())
    assert pki.check(der + b"more", url=URL, trust="approved") == ""
    with pytest.raises(UntrustedError, match="the certificate has 70"):
        pki.check(der + bytes(70_000), url=URL, trust="approved")


def test_a_chain_to_an_authority_that_nobody_trusts_is_worth_nothing(pki, issued):
    leaf, authority = issued()
    with pytest.raises(UntrustedError):
        pki.check(leaf + authority, url=URL, trust="approved")


def test_a_renewed_certificate_of_the_same_key_waits_though_the_old_one_could_have_signed_it(pki, keys):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plc")])

    def self_signed(serial):
        builder = x509.CertificateBuilder(name, name, keys[1].public_key(), serial, NOW - DAY, NOW + YEAR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=False)
        return builder.sign(keys[1], hashes.SHA256()).public_bytes(Encoding.DER)

    pki.check(self_signed(1), url=URL, trust="first_use")
    with pytest.raises(UntrustedError) as caught:
        pki.check(self_signed(2), url=URL, trust="first_use")
    assert caught.value.is_changed


def test_what_its_authority_revoked_is_refused(pki, issued, keys):
    leaf, authority = issued()
    serial = certificates.read(leaf).parsed.serial_number
    put(pki, "trusted", "authority.der", authority)
    put(pki, "trusted", "other.crl", revoked(keys, serial, issuer="somebody else"))
    put(pki, "trusted", "forged.crl", revoked(keys, serial, key=1))
    at = put(pki, "trusted", "authority.crl", revoked(keys, serial + 1))
    assert pki.check(leaf, url=URL, trust="approved") == ""
    at.write_bytes(revoked(keys, serial + 1, serial))
    for trust in ("approved", "first_use"):
        with pytest.raises(UntrustedError, match="and it was revoked"):
            pki.check(leaf, url=URL, trust=trust)
    at.write_bytes(b"junk")
    with pytest.raises(RefusedError, match=r"authority\.crl: there is no list of revoked"):
        pki.check(leaf, url=URL, trust="approved")


def test_what_an_authority_issued_counts_for_as_long_as_it_says(pki, issued, clock):
    leaf, authority = issued()
    put(pki, "trusted", "authority.der", authority)
    clock.now = NOW + YEAR + DAY
    with pytest.raises(UntrustedError, match="has ended"):
        pki.check(leaf, url=URL, trust="approved")


# --- taken apart ----------------------------------------------------------------------------------------------------


def test_a_chain_is_cut_where_each_certificate_ends(issued):
    leaf, authority = issued()
    assert certificates.split(leaf + authority) == [leaf, authority]
    assert certificates.leaf_of(leaf + authority) == leaf
    assert certificates.split(leaf + authority[:-1]) == [leaf]
    assert certificates.split(b"") == []


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_certificate_or_a_value_error(data, is_sequence):
    for text in (data, b"\x30" + data if is_sequence else b"-----BEGIN CERTIFICATE-----\n" + data):
        assert b"".join(certificates.split(text)) == text[: sum(map(len, certificates.split(text)))]
        for read in (certificates.read, certificates.read_chain, certificates.read_key):
            with pytest.raises(ValueError):
                read(text)
