"""What there is to say about certificates, their keys and their authorities. Files are read; nobody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from gateway.checkup.certificates import Certificate, crl_until, read_chain
from gateway.checkup.findings import Chart

SOON = timedelta(days=30)


def read(path: Path, chart: Chart) -> list[Certificate]:
    """The certificates of a file; empty where there are none, which is noted."""
    try:
        return read_chain(path.read_bytes())
    except OSError as error:
        chart.wrong((error.strerror or str(error)).lower(), "Check the path and its permissions")
    except ValueError as error:
        chart.wrong(str(error), "Put the certificate there in PEM: -----BEGIN CERTIFICATE-----")
    return []


def judge_own(cert: Path, key: Path | None, now: datetime, chart: Chart) -> list[Certificate]:
    """Look at a certificate that is shown to others, its chain and its key. The certificates of its file."""
    chart = chart.of(str(cert))
    chain = read(cert, chart)
    if not chain:
        return []
    if judge_dates(chain[0], now, chart):
        chart.well(f"valid until {day(chain[0].not_after)}: {chain[0].subject}")
    judge_strength(chain[0], chart)
    judge_order(chain, now, chart)
    judge_key(chain[0], key or cert, chart)
    return chain


def judge_dates(certificate: Certificate, now: datetime, chart: Chart, who: str = "the certificate") -> bool:
    """Whether it is valid now and for the next month; noted where not."""
    renew = "Renew it; a running gateway takes the new file without dropping connections"
    if certificate.not_before > now:
        text = f"{who} is not valid before {day(certificate.not_before)}: {certificate.subject}"
        chart.wrong(text, "Set this machine's clock, or have a certificate issued that is valid now")
    elif certificate.not_after <= now:
        chart.wrong(f"{who} expired on {day(certificate.not_after)}: {certificate.subject}", renew)
    elif certificate.not_after <= now + SOON:
        days = (certificate.not_after - now).days
        chart.warn(f"{who} expires on {day(certificate.not_after)}, in {days} days: {certificate.subject}", renew)
    else:
        return True
    return False


def judge_strength(certificate: Certificate, chart: Chart) -> None:
    """Note a key or a signature that TLS libraries of today refuse."""
    if certificate.weakness:
        chart.warn(
            f"{certificate.weakness}: {certificate.subject}",
            "Have one issued with ECDSA, or RSA of 2048 bits and SHA-256",
        )


def judge_order(chain: Sequence[Certificate], now: datetime, chart: Chart) -> None:
    """Note a chain that does not lead from link to link, and links that have expired."""
    for lower, upper in pairwise(chain):
        if not lower.is_issued_by(upper):
            chart.warn(
                f"{upper.subject} did not issue {lower.subject}, which stands before it in the file",
                "Put the server's certificate first, then the one that issued it, and so on",
            )
        judge_dates(upper, now, chart, "a certificate of the chain")


def judge_key(certificate: Certificate, path: Path, chart: Chart) -> None:
    """Note a key that is not the certificate's, or cannot be read."""
    chart = chart.of(str(path))
    try:
        if certificate.fits(path.read_bytes()):
            chart.well("the key belongs to the certificate")
        else:
            chart.wrong("the key does not belong to the certificate", "Put the certificate and its own key together")
    except OSError as error:
        chart.wrong((error.strerror or str(error)).lower(), "Check the path and its permissions")
    except ValueError as error:
        chart.wrong(str(error), "Write the key without a password, in PEM: openssl pkey -in KEY -out KEY")


def judge_authorities(path: Path, now: datetime, chart: Chart) -> list[Certificate]:
    """Look at a file of authorities that are believed. Its certificates."""
    chart = chart.of(str(path))
    authorities = read(path, chart)
    fine = [judge_dates(authority, now, chart, "an authority") for authority in authorities]
    if all(fine) and fine:
        chart.well(f"{len(fine)} authorit{'y' if len(fine) == 1 else 'ies'}, valid")
    return authorities


def judge_crl(path: Path, now: datetime, chart: Chart) -> None:
    """Note a list of revoked certificates that is out of date: every client certificate is refused then."""
    chart = chart.of(str(path))
    try:
        until = crl_until(path.read_bytes())
    except OSError as error:
        chart.wrong((error.strerror or str(error)).lower(), "Check the path and its permissions")
        return
    except ValueError as error:
        chart.wrong(str(error), "Put the authority's list there: openssl ca -gencrl")
        return
    if until is not None and until <= now:
        chart.wrong(
            f"the list of revoked certificates was to be replaced by {day(until)}: clients are refused",
            "Have the authority issue a new list",
        )
    else:
        chart.well("the list of revoked certificates is up to date")


def day(moment: datetime) -> str:
    """A date as people write it down."""
    return moment.strftime("%Y-%m-%d")
