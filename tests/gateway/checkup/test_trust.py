from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.checkup.findings import Chart
from gateway.checkup.trust import judge_authorities, judge_crl, judge_own

DAY = timedelta(days=1)


@pytest.fixture
def chart():
    return Chart("broker", "")


@pytest.fixture
def put(tmp_path):
    def write(name, *parts):
        path = tmp_path / name
        path.write_bytes(b"".join(parts))
        return path

    return write


def test_a_good_certificate_with_its_key_is_well(authority, now, chart, put, shown):
    issued = authority.issue()
    chain = judge_own(put("c.pem", issued.cert), put("k.pem", issued.key()), now, chart)
    assert shown(chart.findings) == ["ok: valid until 2027-09-27: CN=server", "ok: the key belongs to the certificate"]
    assert [f.place.rsplit("/")[-1] for f in chart.findings] == ["c.pem", "k.pem"]
    assert len(chain) == 1


def test_a_key_that_stands_in_the_certificates_file_is_found_there(authority, now, chart, put, shown):
    issued = authority.issue()
    judge_own(put("both.pem", issued.key(), issued.cert), None, now, chart)
    assert shown(chart.findings, "warning", "wrong") == []


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ((-40, -1), "wrong: the certificate expired on 2026-09-26: CN=server"),
        ((-40, 0), "wrong: the certificate expired on 2026-09-27: CN=server"),
        ((-40, 30), "warning: the certificate expires on 2026-10-27, in 30 days: CN=server"),
        ((-40, 31), "ok: valid until 2026-10-28: CN=server"),
        ((1, 90), "wrong: the certificate is not valid before 2026-09-28: CN=server"),
    ],
)
def test_dates_are_judged_by_the_day(authority, now, chart, put, shown, days, expected):
    issued = authority.issue(days=days)
    judge_own(put("c.pem", issued.cert), put("k.pem", issued.key()), now, chart)
    assert shown(chart.findings)[0] == expected


def test_a_link_of_the_chain_that_expires_or_does_not_belong_is_told(authority, now, chart, put, shown):
    middle = authority.issue("middle", ca=True, days=(-9, 5))
    leaf = middle.issue("leaf")
    key = put("k.pem", leaf.key())
    judge_own(put("c.pem", leaf.cert, middle.cert), key, now, chart)
    assert shown(chart.findings, "warning") == [
        "warning: a certificate of the chain expires on 2026-10-02, in 5 days: CN=middle"
    ]
    chart.findings.clear()
    judge_own(put("d.pem", leaf.cert, authority.cert), key, now, chart)
    assert shown(chart.findings, "warning") == [
        "warning: CN=authority did not issue CN=leaf, which stands before it in the file"
    ]


@pytest.mark.parametrize(
    ("cert", "key", "expected"),
    [
        ("own", "other", "wrong: the key does not belong to the certificate"),
        ("own", "locked", "wrong: the key is encrypted, and headgate has no place for its password"),
        ("own", "text", "wrong: there is no private key in PEM that can be read"),
        ("own", "missing", "wrong: no such file or directory"),
        ("text", "own", "wrong: there is no certificate in PEM that can be read"),
        ("missing", "own", "wrong: no such file or directory"),
    ],
)
def test_files_that_cannot_be_used_are_wrong_and_have_a_cure(
    authority, now, chart, put, tmp_path, shown, cert, key, expected
):
    issued = authority.issue()
    put("own.pem", issued.cert)
    put("own.key", issued.key())
    put("other.key", authority.issue().key())
    put("locked.key", issued.key(b"secret"))
    put("text.pem", b"hello")
    put("text.key", b"hello")
    judge_own(tmp_path / f"{cert}.pem", tmp_path / f"{key}.key", now, chart)
    assert shown(chart.findings, "wrong") == [expected]
    assert all(f.cure for f in chart.findings if f.state == "wrong")


def test_a_weak_key_is_told(authority, weak_key, now, chart, put, shown):
    issued = authority.issue(private=weak_key)
    judge_own(put("c.pem", issued.cert), put("k.pem", issued.key()), now, chart)
    assert shown(chart.findings, "warning") == ["warning: its RSA key has 1024 bits only: CN=server"]


def test_authorities_are_judged_one_by_one(authority, now, chart, put, shown):
    old = authority.issue("old", ca=True, days=(-9, -1))
    judge_authorities(put("ca.pem", authority.cert, old.cert), now, chart)
    assert shown(chart.findings) == ["wrong: an authority expired on 2026-09-26: CN=old"]
    chart.findings.clear()
    judge_authorities(put("ca.pem", authority.cert), now, chart)
    judge_authorities(put("ca.pem", authority.cert, authority.cert), now, chart)
    assert shown(chart.findings) == ["ok: 1 authority, valid", "ok: 2 authorities, valid"]


def test_a_list_of_revoked_certificates_that_is_out_of_date_is_wrong(authority, now, chart, put, tmp_path, shown):
    judge_crl(put("new.crl", authority.crl(now + DAY)), now, chart)
    judge_crl(put("old.crl", authority.crl(now)), now, chart)
    judge_crl(put("no.crl", b"hello"), now, chart)
    judge_crl(tmp_path / "missing.crl", now, chart)
    assert shown(chart.findings) == [
        "ok: the list of revoked certificates is up to date",
        "wrong: the list of revoked certificates was to be replaced by 2026-09-27: clients are refused",
        "wrong: there is no CRL in PEM that can be read",
        "wrong: no such file or directory",
    ]
