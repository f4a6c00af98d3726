from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.checkup.certificates import crl_until, read_chain, read_one


def test_a_chain_is_read_in_the_order_of_its_file(authority):
    middle = authority.issue("middle", ca=True)
    leaf = middle.issue("leaf", names=("plant7", "10.0.0.5", "fd00::1", "*.example.com"))
    chain = read_chain(leaf.cert + middle.cert + authority.cert)
    assert [c.subject for c in chain] == ["CN=leaf", "CN=middle", "CN=authority"]
    assert [c.is_root for c in chain] == [False, False, True]
    assert chain[0].names == ("plant7", "*.example.com", "10.0.0.5", "fd00::1")
    assert chain[0].is_issued_by(chain[1])
    assert chain[1].is_issued_by(chain[2])
    assert not chain[0].is_issued_by(chain[2])
    assert read_one(leaf.der) == chain[0]


@pytest.mark.parametrize(
    ("host", "is_covered"),
    [
        ("plant7", True),
        ("PLANT7", True),
        ("plant7.", True),
        ("plant8", False),
        ("a.example.com", True),
        ("example.com", False),
        ("a.b.example.com", False),
        ("10.0.0.5", True),
        ("10.0.0.6", False),
        ("fd00::1", True),
        ("fd00:0::1", True),
        ("::1", False),
    ],
)
def test_a_host_is_covered_by_its_name_its_address_or_a_star_for_one_label(authority, host, is_covered):
    issued = authority.issue(names=("plant7", "*.example.com", "10.0.0.5", "fd00::1"))
    assert read_one(issued.der).covers(host) == is_covered


def test_a_certificate_without_names_covers_nothing(authority):
    certificate = read_one(authority.issue("plant7", names=()).der)
    assert certificate.names == ()
    assert not certificate.covers("plant7")


def test_a_key_is_told_from_another_and_one_that_cannot_be_read(authority):
    issued, other = authority.issue(), authority.issue()
    certificate = read_one(issued.der)
    assert certificate.fits(issued.key())
    assert certificate.fits(issued.cert + issued.key())
    assert not certificate.fits(other.key())
    with pytest.raises(ValueError, match="encrypted"):
        certificate.fits(issued.key(b"secret"))
    with pytest.raises(ValueError, match="no private key"):
        certificate.fits(issued.cert)


def test_a_short_rsa_key_is_weak(authority, weak_key):
    assert "1024 bits" in read_one(authority.issue(private=weak_key).der).weakness
    assert read_one(authority.issue().der).weakness == ""


def test_a_crl_says_until_when_it_holds(authority, now):
    assert crl_until(authority.crl(now)) == now


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_error(data):
    for read in (read_chain, read_one, crl_until):
        with pytest.raises(ValueError, match="read"):
            read(data)


def test_damaged_certificates_are_a_value_error(authority):
    with pytest.raises(ValueError, match="read"):
        read_chain(authority.cert.replace(b"MII", b"MIX", 1))
    with pytest.raises(ValueError, match="read"):
        read_one(authority.der[:-9])
