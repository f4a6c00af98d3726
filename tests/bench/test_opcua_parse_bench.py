"""CPU time a value: recorded notifications through our parser and into a batch, and through the library's decoder.

What comes before that, the library's chunks with and without encryption, is measured beside it: both paths have it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256, SecurityPolicyNone
from asyncua.ua.ua_binary import header_from_binary, struct_from_binary
from cryptography import x509

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.listening.assembling import Layout
from drivers.opcua.nodes.known import Known
from drivers.opcua.plan import compile_groups
from drivers.opcua.values.belief import Belief
from drivers.opcua.values.parsing import parse_publish
from drivers.opcua.values.samples import Finisher
from drivers.opcua.values.variants import Decoder
from gateway.clock import SystemClock
from gateway.metrics import Counter
from gateway.model import Device, Tag

pytestmark = pytest.mark.bench

CASES = Path(__file__).parents[1] / "cases" / "opcua"
MOST_US = 3.0


def cost_us(values, work):
    """CPU microseconds a value, the best of several rounds of 50 ms."""
    best = float("inf")
    for _ in range(7):
        rounds, began = 0, time.process_time()
        while (spent := time.process_time() - began) < 0.05:
            work()
            rounds += 1
        best = min(best, spent / rounds / values * 1e6)
    return best


def group_for(columns):
    """A group with a tag for each client handle that was told, of the type that its value has."""
    seen = dict(zip(columns.handles, columns.values, strict=True))
    kinds = {bool: "bool", int: "int64", float: "float64"}
    tags = [
        Tag(name=f"t{handle}", address=f"ns=2;i={handle}", type=kinds.get(type(seen.get(handle)), "string"))
        for handle in range(max(seen) + 1)
    ]
    device = Device(name="plc", driver="opcua", url="opc.tcp://plc", tags=tuple(tags))
    return compile_groups(device, tags)[0]


@pytest.mark.parametrize(
    ("stem", "most_us", "least_ratio"),
    [
        ("node_opcua_doubles", 0.35, 20),
        ("asyncua_doubles", 0.35, 20),
        ("node_opcua_mixed", 1.2, 4),
        ("asyncua_mixed", 1.5, 4),
    ],
)
def test_cpu_a_value_of_a_recorded_notification(stem, most_us, least_ratio, record_property):
    body, clock = (CASES / f"{stem}.bin").read_bytes(), SystemClock()
    columns = parse_publish(body, Decoder()).columns
    count, group = len(columns.values), group_for(columns)
    layout = Layout([len(group.tags)])
    finisher = Finisher(group, [Known(node=tag.name) for tag in group.tags], Belief(SystemClock(), Counter()))

    def parse():
        return parse_publish(body, Decoder())

    def batches():
        cuts, _ = layout.cut(parse().columns)
        return [finisher.batch(cut.columns, clock.wall_ms(), cut.index) for cut in cuts]

    def library():
        return struct_from_binary(ua.PublishResponse, Buffer(body))

    assert sum(len(batch.values) for batch in batches()) == count
    parsed, batched, theirs = cost_us(count, parse), cost_us(count, batches), cost_us(count, library)
    print(
        f"\n{stem}, {count} values: parse {parsed:.2f} us a value, parse and batch {batched:.2f} us, "
        f"asyncua's decoder {theirs:.2f} us: {theirs / parsed:.0f} and {theirs / batched:.0f} times as much"
    )
    record_property("parse_us", parsed)
    record_property("batch_us", batched)
    assert parsed <= most_us
    assert batched <= MOST_US
    assert theirs / parsed >= least_ratio


def channel(secure):
    """Both ends of a channel whose keys are agreed on, without the handshake."""
    limits = TransportLimits(65535, 65535, 0, 0)
    if not secure:
        return SecureConnection(SecurityPolicyNone(), limits), SecureConnection(SecurityPolicyNone(), limits)
    key = certificates.make_key()
    der = certificates.make(key, "urn:bench", "localhost", datetime.now(UTC))
    own = x509.load_der_x509_certificate(der)
    ends = []
    for ours, theirs in ((b"a" * 32, b"b" * 32), (b"b" * 32, b"a" * 32)):
        policy = SecurityPolicyBasic256Sha256(own, own, key, ua.MessageSecurityMode.SignAndEncrypt)
        policy.make_local_symmetric_key(theirs, ours)
        policy.make_remote_symmetric_key(ours, theirs, 3_600_000)
        ends.append(SecureConnection(policy, limits))
    return ends


@pytest.mark.parametrize("secure", [False, True], ids=["none", "SignAndEncrypt"])
def test_cpu_of_the_librarys_channel_for_a_thousand_values(secure):
    body = (CASES / "node_opcua_doubles.bin").read_bytes()
    server, client = channel(secure)
    message = server.message_to_binary(body, request_id=1)

    def receive():
        client._peer_sequence_number = None
        buffer = Buffer(message)
        return bytes(client.receive_from_header_and_body(header_from_binary(buffer), buffer).body())

    assert receive() == body
    own = cost_us(1000, receive)
    parsed = cost_us(1000, lambda: parse_publish(body, Decoder()))
    print(
        f"\nchannel {'SignAndEncrypt' if secure else 'none'}: {own:.3f} us a value, beside {parsed:.3f} us to parse it"
    )
    assert own <= MOST_US / 3
