"""Which endpoint is taken, which never is, and what is said where none is left."""

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.connecting.endpoints import STRONG, choose, verify
from drivers.opcua.options import DeviceOptions
from drivers.opcua.url import place_of
from gateway.errors import LineError

PLACE = place_of("opc.tcp://plc:4840")
OLD = "http://opcfoundation.org/UA/SecurityPolicy#Basic256"
FUTURE = "http://opcfoundation.org/UA/SecurityPolicy#ECC_nistP256"
ANYBODY = ("anonymous", 0, None)
USER = ("user", 1, None)
HOLDER = ("holder", 2, None)


def options(**said):
    return DeviceOptions(**said)


@pytest.fixture
def refused():
    def check(endpoints, **said):
        with pytest.raises(LineError) as caught:
            choose(endpoints, PLACE, options(**said))
        assert str(caught.value).startswith("opc.tcp://plc:4840: ")
        return caught.value

    return check


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (["none", "Aes128_Sha256_RsaOaep", "Basic256Sha256", "Aes256_Sha256_RsaPss"], "Aes256_Sha256_RsaPss"),
        (["Aes128_Sha256_RsaOaep", "none", "Basic256Sha256"], "Basic256Sha256"),
        ([OLD, FUTURE, "Aes128_Sha256_RsaOaep", "none"], "Aes128_Sha256_RsaOaep"),
    ],
)
def test_auto_takes_the_strongest_that_both_have(ua_endpoint, offered, taken):
    found = [ua_endpoint(name, "none" if name == "none" else "sign_and_encrypt") for name in offered]
    choice = choose(found, PLACE, options())
    assert choice.policy == taken
    assert str(choice) == f"{taken} sign_and_encrypt"
    assert choice.is_secure
    assert choice.is_encrypted
    assert choice.uses_certificate


@pytest.mark.parametrize("offered", [["none"], [OLD], [FUTURE], [], ["none", OLD, FUTURE]])
def test_auto_never_takes_none_nor_a_deprecated_one(ua_endpoint, refused, offered):
    found = [ua_endpoint(name, "none" if name == "none" else "sign_and_encrypt") for name in offered]
    error = refused(found)
    assert error.cause == "BadSecurityPolicyRejected"
    said = {
        "none": "where it has none, name that: security: none",
        OLD: "or name the deprecated one, security: Basic256",
    }
    last = OLD if OLD in offered else next(iter(offered), "")
    assert said.get(last, "") in str(error)


def test_a_deprecated_policy_is_taken_where_it_is_named(ua_endpoint):
    assert (
        choose([ua_endpoint(OLD, "sign")], PLACE, options(security="Basic256", security_mode="sign")).policy
        == "Basic256"
    )


def test_a_named_policy_is_taken_and_no_other(ua_endpoint, refused):
    found = [ua_endpoint("Aes256_Sha256_RsaPss", "sign_and_encrypt"), ua_endpoint("Basic256Sha256", "sign_and_encrypt")]
    assert choose(found, PLACE, options(security="Basic256Sha256")).policy == "Basic256Sha256"
    error = refused(found[:1], security="Basic256Sha256")
    assert "offers Aes256_Sha256_RsaPss sign_and_encrypt, not Basic256Sha256" in str(error)


def test_none_is_taken_where_it_is_named_even_where_there_is_better(ua_endpoint):
    found = [ua_endpoint("Aes256_Sha256_RsaPss", "sign_and_encrypt"), ua_endpoint()]
    choice = choose(found, PLACE, options(security="none"))
    assert (choice.policy, choice.is_secure, choice.uses_certificate, str(choice)) == (
        "none",
        False,
        False,
        "no security",
    )


def test_nothing_of_an_anonymous_login_hangs_on_the_servers_certificate(ua_endpoint):
    found = ua_endpoint(tokens=[("anonymous", 0, "Basic256Sha256")], certificate=b"x")
    assert not choose([found], PLACE, options(security="none")).uses_certificate


def test_the_mode_is_the_one_of_the_file(ua_endpoint, refused):
    both = [ua_endpoint("Basic256Sha256", "sign"), ua_endpoint("Basic256Sha256", "sign_and_encrypt")]
    assert choose(both, PLACE, options()).is_encrypted
    assert not choose(both, PLACE, options(security_mode="sign")).is_encrypted
    error = refused(both[:1])
    assert error.cause == "BadSecurityModeRejected"
    assert "security_mode asks for sign_and_encrypt. Name the other mode" in str(error)


def test_a_mode_that_does_not_go_with_its_policy_is_not_taken(ua_endpoint, refused):
    assert refused([ua_endpoint("Basic256Sha256", "none")]).cause == "BadSecurityModeRejected"
    assert refused([ua_endpoint("none", "sign_and_encrypt")], security="none").cause == "BadSecurityModeRejected"


def test_a_weaker_policy_is_taken_where_the_stronger_one_has_no_such_login(ua_endpoint):
    found = [
        ua_endpoint("Aes256_Sha256_RsaPss", "sign_and_encrypt", [ANYBODY]),
        ua_endpoint("Basic256Sha256", "sign_and_encrypt", [USER]),
    ]
    assert choose(found, PLACE, options(username="joe")).policy == "Basic256Sha256"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, "anonymous"),
        ({"username": "joe"}, "a user name"),
        ({"user_certificate": "a.pem", "user_key": "b.pem"}, "a certificate"),
    ],
)
def test_a_login_that_the_server_does_not_take_is_said(ua_endpoint, refused, said, wanted):
    tokens = {"anonymous": ANYBODY, "a user name": USER, "a certificate": HOLDER}
    others = [token for name, token in tokens.items() if name != wanted]
    names = ", ".join(name for name in tokens if name != wanted)
    error = refused([ua_endpoint("Basic256Sha256", "sign_and_encrypt", others)], **said)
    assert error.cause == "BadIdentityTokenRejected"
    assert f"the server takes these logins: {names}; the file says {wanted}" in str(error)
    choose([ua_endpoint("Basic256Sha256", "sign_and_encrypt", [tokens[wanted]])], PLACE, options(**said))


@pytest.mark.parametrize(
    ("policy", "mode", "token", "taken"),
    [
        ("Basic256Sha256", "sign_and_encrypt", None, "Basic256Sha256"),
        ("Basic256Sha256", "sign_and_encrypt", "none", "none"),  # the channel encrypts it
        ("Basic256Sha256", "sign", "none", None),
        ("Basic256Sha256", "sign", None, "Basic256Sha256"),
        ("Basic256Sha256", "sign", OLD, None),
        ("none", "none", None, "none"),
        ("none", "none", "none", "none"),
        ("none", "none", "Basic256Sha256", "Basic256Sha256"),
        ("none", "none", OLD, None),
        ("none", "none", FUTURE, None),
    ],
)
def test_a_password_is_never_sent_for_others_to_read_where_security_was_asked_for(
    ua_endpoint, refused, policy, mode, token, taken
):
    found = [ua_endpoint(policy, mode, [("it", 1, token)])]
    said = {"security": policy, "security_mode": mode if mode != "none" else "sign", "username": "joe"}
    if taken is None:
        error = refused(found, **said)
        assert "takes a user name only in a way that others could read or forge" in str(error)
    else:
        assert choose(found, PLACE, options(**said)).token_policy == taken


def test_the_best_protection_of_a_login_is_taken(ua_endpoint):
    tokens = [("plain", 1, "none"), ("weak", 1, "Aes128_Sha256_RsaOaep"), ("strong", 1, "Aes256_Sha256_RsaPss")]
    choice = choose([ua_endpoint(tokens=tokens)], PLACE, options(security="none", username="joe"))
    assert (choice.token.PolicyId, choice.uses_certificate) == ("strong", True)


def test_a_user_certificate_without_a_signature_proves_nothing(ua_endpoint, refused):
    said = {"security": "none", "user_certificate": "a.pem", "user_key": "b.pem"}
    assert refused([ua_endpoint(tokens=[("it", 2, None)])], **said).cause == "BadIdentityTokenRejected"
    choose([ua_endpoint(tokens=[("it", 2, "Basic256Sha256")])], PLACE, options(**said))


@pytest.mark.parametrize(
    ("ours", "announced", "sent"),
    [
        ("opc.tcp://plc:4840", "opc.tcp://inside:4840/line1", "opc.tcp://plc:4840/line1"),
        ("opc.tcp://plc:4840/mine", "opc.tcp://inside:4840/line1", "opc.tcp://plc:4840/line1"),
        ("opc.tcp://plc:4840/mine", "opc.tcp://inside:9", "opc.tcp://plc:4840/mine"),
        ("opc.tcp://[fe80::1]:4840", "opc.tcp://[::1]:4840/line1", "opc.tcp://[fe80::1]:4840/line1"),
        ("opc.tcp://plc:4840", "opc.tcp://[oops/line1", "opc.tcp://plc:4840"),
        ("opc.tcp://plc:4840", None, "opc.tcp://plc:4840"),
    ],
)
def test_the_host_is_ours_and_the_path_the_servers(ua_endpoint, ours, announced, sent):
    choice = choose([ua_endpoint(url=announced)], place_of(ours), options(security="none"))
    assert choice.url == sent


@pytest.mark.parametrize(
    ("urls", "taken"),
    [
        (["opc.tcp://a:1/other", "opc.tcp://a:1/mine/", "opc.tcp://plc:1/mine", "opc.tcp://plc:1/other"], 2),
        (["opc.tcp://plc:1/other", "opc.tcp://a:1/other", "opc.tcp://a:1/mine"], 2),
        (["opc.tcp://a:1/other", "opc.tcp://plc:1/other", "opc.tcp://plc:1/third"], 1),
    ],
)
def test_among_equals_our_path_comes_first_and_then_our_host(ua_endpoint, urls, taken):
    found = [ua_endpoint(url=url, tokens=[(url, 0, None)]) for url in urls]
    choice = choose(found, place_of("opc.tcp://plc:4840/mine"), options(security="none"))
    assert choice.token.PolicyId == urls[taken]


def test_other_transports_are_left_out(ua_endpoint, refused):
    found = ua_endpoint()
    found.TransportProfileUri = "http://opcfoundation.org/UA-Profile/Transport/https-uabinary"
    assert "no endpoint that speaks opc.tcp" in str(refused([found], security="none"))
    found.TransportProfileUri = None
    choose([found], PLACE, options(security="none"))
    found.EndpointUrl = "https://plc"
    refused([found], security="none")


def test_the_signed_list_leads_to_the_same_choice_or_somebody_sits_between(ua_endpoint):
    weak = ua_endpoint("Aes128_Sha256_RsaOaep", "sign_and_encrypt", certificate=b"x")
    strong = ua_endpoint("Basic256Sha256", "sign_and_encrypt")
    own = options()
    choice = choose([weak], PLACE, own)
    assert verify(choice, [], PLACE, own) is choice
    signed = ua_endpoint("Aes128_Sha256_RsaOaep", "sign_and_encrypt", [("other", 0, None)])
    verified = verify(choice, [signed], PLACE, own)
    assert (verified.token.PolicyId, verified.certificate) == ("other", b"x")
    with pytest.raises(
        LineError, match="it led to Aes128_Sha256_RsaOaep sign_and_encrypt, the signed one to Basic256Sha256"
    ):
        verify(choice, [weak, strong], PLACE, own)
    with pytest.raises(LineError):
        verify(choice, [ua_endpoint()], PLACE, own)


def test_without_security_the_second_list_is_worth_no_more(ua_endpoint):
    own = options(security="none")
    choice = choose([ua_endpoint()], PLACE, own)
    assert verify(choice, [ua_endpoint("Basic256Sha256", "sign")], PLACE, own) is choice


ODD = st.one_of(st.none(), st.text(max_size=20), st.sampled_from([OLD, FUTURE, "opc.tcp://[", "opc.tcp://plc:4840/x"]))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_a_server_lists_it_is_a_safe_choice_or_an_error(data):
    found = []
    for _ in range(data.draw(st.integers(0, 4))):
        one = ua.EndpointDescription()
        one.EndpointUrl = data.draw(ODD)
        one.SecurityPolicyUri = data.draw(
            st.one_of(ODD, st.sampled_from(STRONG).map(lambda n: f"http://opcfoundation.org/UA/SecurityPolicy#{n}"))
        )
        one.SecurityMode = data.draw(st.sampled_from(list(ua.MessageSecurityMode)))
        one.TransportProfileUri = data.draw(ODD)
        one.ServerCertificate = data.draw(st.one_of(st.none(), st.binary(max_size=20)))
        kinds = st.sampled_from(list(ua.UserTokenType))
        tokens = [
            ua.UserTokenPolicy(PolicyId=data.draw(ODD), TokenType=data.draw(kinds), SecurityPolicyUri=data.draw(ODD))
            for _ in range(data.draw(st.integers(0, 3)))
        ]
        one.UserIdentityTokens = data.draw(st.one_of(st.none(), st.just(tokens)))
        found.append(one)
    said = data.draw(st.sampled_from([{}, {"username": "joe"}, {"user_certificate": "a", "user_key": "b"}]))
    try:
        choice = choose(found, PLACE, options(**said))
    except LineError:
        return
    assert choice.policy in STRONG
    assert choice.is_encrypted
    assert choice.url.startswith("opc.tcp://plc:4840")
