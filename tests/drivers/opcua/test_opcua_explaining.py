"""What refusals mean: each has a meaning and a cure, in the words of the file and the commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from asyncua import ua
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.opcua.connecting import explaining
from drivers.opcua.connecting.explaining import About, explain, meaning
from drivers.opcua.options import DeviceOptions
from gateway.cli.main import _parser

NAMES = sorted(explaining._MEANING)
WORDS = {"security", "security_mode", "username", "password", "user_certificate", "user_key", "application_uri"}


@pytest.mark.parametrize("name", NAMES)
def test_every_meaning_is_a_plain_sentence_about_a_code_of_the_standard(name):
    assert hasattr(ua.StatusCodes, name)
    text = meaning(name, About())
    assert text
    assert text[0].islower()
    assert not text.endswith(".")
    assert "{" not in text
    assert "}" not in text


def test_the_keys_that_the_texts_name_are_keys_of_the_file():
    assert set(DeviceOptions.model_fields) > WORDS
    whole = " ".join(explaining._MEANING.values())
    for word in ("max_per_call", "publish_requests", "security_mode", "application_uri", "user_key", "timeout"):
        assert word in whole
        assert word in DeviceOptions.model_fields


@pytest.mark.parametrize(
    "name",
    [
        "BadCertificateUriInvalid", "BadCertificateUntrusted", "BadSecurityChecksFailed", "BadCertificateTimeInvalid",
        "BadCertificateHostNameInvalid", "BadIdentityTokenRejected", "BadIdentityTokenInvalid", "BadUserAccessDenied",
        "BadSecurityPolicyRejected", "BadSecurityModeRejected", "BadTooManySessions", "BadTcpEndpointUrlInvalid",
        "BadCertificateUseNotAllowed", "BadNonceInvalid", "BadMaxConnectionsReached", "BadServerHalted",
        "BadTooManySubscriptions",
    ],
)  # fmt: skip
def test_what_people_meet_has_a_cure(name):
    text = meaning(name)
    assert ". " in text, "a meaning and a cure"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_a_text_goes_as_it_is_typed(name):
    for _, typed in re.findall(r"(^|\W)headgate ((?:certificate|trust)[^.,;)]*)", meaning(name)):
        words = re.match(r"\w+ FILE( --[a-z]+)*", typed)
        assert words, typed
        assert _parser([typed.split()[0]]).parse_args(words[0].split()).file == Path("FILE")


def test_who_reads_of_a_command_is_told_its_file():
    whole = " ".join(map(meaning, NAMES))
    assert whole.count("headgate certificate FILE") == whole.count("headgate certificate") > 10


def test_a_text_names_our_certificate_and_our_login():
    about = About(own="/pki/own/certificate.der", thumbprint="ab12", uri="urn:plant7", login="user 'joe'")
    text = explain("opc.tcp://plc:4840", "BadCertificateUntrusted", about)
    assert text == (
        "opc.tcp://plc:4840: BadCertificateUntrusted: the server does not trust the gateway's certificate. Copy "
        "/pki/own/certificate.der into the server's folder of trusted clients, or accept ab12 in its list of refused "
        "ones"
    )
    assert "(urn:plant7)" in meaning("BadCertificateUriInvalid", about)
    assert "user 'joe'" in meaning("BadUserAccessDenied", about)


def test_names_with_braces_in_them_stay_as_they_are():
    assert "user '{own}'" in meaning("BadUserAccessDenied", About(login="user '{own}'"))


def test_an_unknown_code_is_shown_without_a_meaning():
    assert meaning("0x80AB0000") == ""
    assert explain("opc.tcp://plc:4840", "0x80AB0000") == "opc.tcp://plc:4840: 0x80AB0000"


@settings(max_examples=100)
@given(st.text(max_size=500))
@example("x" * 500)
def test_what_the_server_says_is_one_short_line(said):
    text = explain("plc", "BadServerHalted", said=said)
    assert text.isprintable()
    assert len(text) < 300


def test_the_servers_words_stay_apart():
    assert explain("plc", "0x80AB0000", said=" two\n\twords ") == "plc: 0x80AB0000 (the server says: two words)"


def test_the_table_costs_no_library():
    code = "import sys; import drivers.opcua.connecting.explaining; sys.exit('asyncua' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
