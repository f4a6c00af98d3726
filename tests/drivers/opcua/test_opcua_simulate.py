"""The simulated server: what the demo shows, and that nothing of it is left."""

import asyncio
import logging
import socket
from urllib.parse import urlsplit

import pytest
from asyncua import Client, ua

from drivers.opcua.simulate import MODES, NAMESPACE, simulate


@pytest.fixture(autouse=True)
def quiet(caplog):
    """asyncua's client says much that is no fault of ours."""
    caplog.set_level(logging.CRITICAL + 1, "asyncua.client")


def test_every_address_of_its_section_leads_to_a_value():
    async def main():
        async with simulate() as devices, Client(devices["conveyor"]["url"]) as client:
            index = await client.get_namespace_index(NAMESPACE)
            tags = devices["conveyor"]["tags"]
            assert len(tags) == 9
            for tag in tags.values():
                if tag["address"].startswith("nsu="):
                    node = client.get_node(ua.NodeId(tag["address"].partition(";s=")[2], index))
                else:
                    names = [f"{index}:{name}" for name in tag["address"].strip("/").split("/")]
                    node = await client.nodes.objects.get_child(names)
                value = await node.read_data_value()
                assert value.StatusCode.is_good()
                assert value.Value.Value is not None

    asyncio.run(main())


def test_values_move_and_the_speed_follows_what_is_written():
    class Told:
        def __init__(self):
            self.seen = []
            self.more = asyncio.Event()

        def datachange_notification(self, _node, value, _data):
            self.seen.append(value)
            self.more.set()

    async def main():
        async with simulate() as devices, Client(devices["conveyor"]["url"]) as client:
            index = await client.get_namespace_index(NAMESPACE)
            told = Told()
            subscription = await client.create_subscription(100, told)
            await subscription.subscribe_data_change(client.get_node(f"ns={index};s=conveyor.speed"))
            target = client.get_node(f"ns={index};s=conveyor.target")
            await target.write_value(ua.DataValue(ua.Variant(1.5, ua.VariantType.Double)))
            async with asyncio.timeout(20):
                while not told.seen or told.seen[-1] < 1.4:
                    await told.more.wait()
                    told.more.clear()
            await subscription.delete()

    asyncio.run(main())


def test_only_its_setpoint_can_be_written():
    async def main():
        async with simulate() as devices, Client(devices["conveyor"]["url"]) as client:
            index = await client.get_namespace_index(NAMESPACE)
            with pytest.raises(ua.UaStatusCodeError):
                await client.get_node(f"ns={index};s=conveyor.pieces").write_value(ua.Variant(1, ua.VariantType.UInt32))

    asyncio.run(main())


def test_its_enumeration_names_its_numbers_in_both_ways():
    async def main():
        async with simulate() as devices, Client(devices["conveyor"]["url"]) as client:
            index = await client.get_namespace_index(NAMESPACE)
            kind = client.get_node(await client.get_node(f"ns={index};s=conveyor.mode").read_data_type())
            definition = await kind.read_data_type_definition()
            assert tuple(field.Name for field in definition.Fields) == MODES
            texts = await (await kind.get_child(["0:EnumStrings"])).read_value()
            assert tuple(text.Text for text in texts) == MODES

    asyncio.run(main())


def test_it_offers_one_endpoint_without_security_on_loopback_and_its_clock_goes():
    async def main():
        async with simulate() as devices:
            url = devices["conveyor"]["url"]
            assert urlsplit(url).hostname == "127.0.0.1"
            async with Client(url) as client:
                (endpoint,) = await client.get_endpoints()
                assert endpoint.SecurityMode is ua.MessageSecurityMode.None_
                assert [token.TokenType for token in endpoint.UserIdentityTokens] == [ua.UserTokenType.Anonymous]
                clock = client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime))
                assert await clock.read_value() < await clock.read_value()

    asyncio.run(main())


def test_it_leaves_nothing_behind_and_its_server_says_nothing(caplog):
    caplog.set_level(logging.INFO)

    async def main():
        level = logging.getLogger("asyncua.server").level
        async with simulate() as devices:
            port = urlsplit(devices["conveyor"]["url"]).port
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        assert logging.getLogger("asyncua.server").level == level
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert [record for record in caplog.records if record.name.startswith("asyncua.server")] == []
