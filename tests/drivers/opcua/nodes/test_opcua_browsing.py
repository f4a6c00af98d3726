"""What is below nodes: in few requests, in pages, from servers that have few continuation points or are wrong."""

import asyncio

import pytest
from asyncua import ua

from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.browsing import METHOD, OBJECT, VARIABLE, Browser
from drivers.opcua.nodes.requests import attributes, code_of
from gateway.errors import LineError

OBJECTS = ua.NodeId(85)
UNKNOWN = 0x80340000


def wide(server, folders, leaves):
    """Folders with leaves; gives the folders."""
    found = []
    for f in range(folders):
        found.append(server.add(f"F{f}", kind=1, reference=35))
        for leaf in range(leaves):
            server.add(f"L{leaf}", found[-1])
    return found


def below(server, nodes, most=10**6, **options):
    browser = Browser(session=server, **options)
    return asyncio.run(browser.below(nodes, most=most))


def names(listing):
    return [reference.name for reference in listing.references]


def test_what_is_below_a_node_is_told_with_names_classes_and_properties(server):
    plant = server.add("Plant", kind=1, reference=35)
    server.add("Level", plant)
    server.add("Maker", plant, reference=46, space=0)
    (listing,) = below(server, [plant])
    assert [(r.node, r.namespace, r.name, r.node_class, r.is_property) for r in listing.references] == [
        (ua.NodeId("Plant/Level", 2), 2, "Level", VARIABLE, False),
        (ua.NodeId("Plant/Maker", 0), 0, "Maker", VARIABLE, True),
    ]
    assert (listing.code, listing.is_cut) == (0, False)


def test_only_the_classes_that_are_wanted_are_asked_for(server):
    server.add("Folder", kind=1)
    server.add("Level")
    server.add("Reset", kind=4)
    assert names(*below(server, [OBJECTS])) == ["Folder", "Level"]
    assert names(*below(server, [OBJECTS], mask=OBJECT | VARIABLE | METHOD)) == ["Folder", "Level", "Reset"]


def test_ten_thousand_nodes_take_a_few_requests_and_several_are_under_way(server):
    folders = wide(server, 2000, 4)
    leaves = [ua.NodeId(f"F{f}/L{leaf}", 2) for f in range(2000) for leaf in range(4)]
    listings = below(server, folders + leaves)
    assert [names(listing) for listing in listings[:2000]] == [["L0", "L1", "L2", "L3"]] * 2000
    assert not any(listing.references for listing in listings[2000:])
    assert server.count("Browse") < 30
    assert server.most_in_flight == 3


def test_no_request_names_more_nodes_than_the_server_takes(server):
    folders = wide(server, 100, 1)
    server.limits.max_nodes_per_browse = server.most = 7
    assert len(below(server, folders)) == 100
    assert max(len(request.Parameters.NodesToBrowse) for request in server.heard) == 7


def test_a_server_that_takes_less_than_it_says_is_asked_in_halves(server):
    folders = wide(server, 100, 1)
    server.most = 6
    listings = below(server, folders)
    assert [names(listing) for listing in listings] == [["L0"]] * 100
    assert not any(listing.code for listing in listings)
    assert server.count("Browse") < 50


def test_pages_are_continued_to_the_end_for_many_nodes_at_once(server):
    folders = wide(server, 10, 25)
    server.page = 10
    listings = below(server, folders)
    assert [names(listing) for listing in listings] == [[f"L{i}" for i in range(25)]] * 10
    assert (server.count("Browse"), server.count("BrowseNext")) == (1, 2)
    assert not server.open


def test_nodes_for_which_the_server_had_no_continuation_point_are_asked_again_alone(server):
    folders = wide(server, 10, 25)
    server.page, server.points = 10, 3
    listings = below(server, folders)
    assert [names(listing) for listing in listings] == [[f"L{i}" for i in range(25)]] * 10
    assert not any(listing.code for listing in listings)


def test_pages_of_more_nodes_than_the_server_takes_are_continued_in_halves(server):
    folders = wide(server, 9, 25)
    usual, server.page = server._browsenext, 10

    def picky(request):
        if len(request.Parameters.ContinuationPoints) > 2:
            raise ServiceFault(0x80100000, "BadTooManyOperations", "browse next")
        return usual(request)

    server._browsenext = picky
    assert [len(listing.references) for listing in below(server, folders)] == [25] * 9


def test_a_server_without_any_continuation_point_is_asked_for_all_at_once(server):
    folders = wide(server, 3, 1200)
    server.points = 0
    assert [len(listing.references) for listing in below(server, folders)] == [1200] * 3


def test_a_point_that_the_server_gave_to_another_request_is_no_loss(server):
    folders = wide(server, 8, 25)
    server.page, server.steals = 10, True
    listings = below(server, folders, nodes_a_request=2)
    assert [names(listing) for listing in listings] == [[f"L{i}" for i in range(25)]] * 8
    assert not any(listing.code for listing in listings)


def test_a_continuation_that_brings_nothing_new_ends_and_is_given_back(server):
    wide(server, 1, 25)
    server.page, server.repeats = 10, True
    (listing,) = below(server, [ua.NodeId("F0", 2)])
    assert names(listing) == [f"L{i}" for i in range(10)]
    assert server.count("BrowseNext") == 2
    assert server.released == [b"same"]


def test_the_same_point_with_news_each_time_is_followed_to_the_end(server):
    wide(server, 1, 25)
    server.page = 10
    paged = server._paged

    def same(references, page):
        result = paged(references, page)
        if result.ContinuationPoint:
            server.open = {b"same": server.open.popitem()[1]}
            result.ContinuationPoint = b"same"
        return result

    server._paged = same
    assert names(*below(server, [ua.NodeId("F0", 2)])) == [f"L{i}" for i in range(25)]


def test_no_more_references_are_kept_than_wanted_and_points_are_given_back(server):
    folders = wide(server, 4, 30)
    server.page = 10
    listings = below(server, folders, most=55)
    assert sum(len(listing.references) for listing in listings) == 55
    assert any(listing.is_cut for listing in listings)
    assert not server.open
    assert len(server.released) == 4


def test_nothing_is_asked_any_more_once_there_is_enough(server):
    folders = wide(server, 500, 1)
    listings = below(server, folders, most=10, nodes_a_request=10)
    assert server.count("Browse") <= 3
    assert sum(listing.is_cut for listing in listings) >= 490 - 20


def test_a_node_that_cannot_be_browsed_has_the_reason_and_harms_no_other(server):
    folders = wide(server, 3, 1)
    server.refused[folders[1]] = 0x801F0000
    listings = below(server, [*folders, ua.NodeId("nowhere", 2)])
    assert [listing.code for listing in listings] == [0, 0x801F0000, 0, UNKNOWN]
    assert names(listings[2]) == ["L0"]


def test_a_refusal_of_a_whole_request_is_the_reason_of_each_of_its_nodes(server):
    async def refuse(_request, **_):
        raise ServiceFault(0x800B0000, "BadServiceUnsupported", "browse")

    server.call = refuse
    assert [listing.code for listing in below(server, [OBJECTS] * 3)] == [0x800B0000] * 3


def odd(server, is_odd, verb="_browse"):
    """Answers that hold anything of such a node cannot be understood."""
    usual = getattr(server, verb)

    def answer(request):
        own = request.Parameters
        if any(is_odd(one.NodeId) for one in getattr(own, "NodesToBrowse", None) or own.NodesToRead):
            raise ServiceFault(0x80070000, "BadDecodingError", "the answer")
        return usual(request)

    setattr(server, verb, answer)


def test_an_answer_that_cannot_be_understood_costs_only_the_node_that_is_to_blame(server):
    folders = wide(server, 300, 1)
    odd(server, lambda node: node == folders[77])
    listings = below(server, folders)
    assert [i for i, listing in enumerate(listings) if listing.code] == [77]
    assert [names(listing) for listing in listings if not listing.code] == [["L0"]] * 299


def test_a_server_that_nobody_understands_is_not_asked_for_ever(server):
    folders = wide(server, 3000, 0)
    odd(server, lambda _: True)
    assert {listing.code for listing in below(server, folders)} == {0x80070000}
    assert len(server.heard) < 1000


def test_a_value_that_cannot_be_understood_costs_only_itself(server):
    nodes = [server.add(f"V{i}") for i in range(3000)]
    odd(server, lambda node: node == nodes[1234], "_read")
    values = asyncio.run(attributes(server, [(node, 13) for node in nodes]))
    assert [i for i, value in enumerate(values) if code_of(value)] == [1234]
    server.heard.clear()
    odd(server, lambda _: True, "_read")
    values = asyncio.run(attributes(server, [(node, 13) for node in nodes]))
    assert {code_of(value) for value in values} == {0x80070000}
    assert len(server.heard) < 500


def test_a_lost_link_ends_all_requests(server):
    async def lose(_request, **_):
        await asyncio.sleep(0)
        raise LineError("gone", cause="offline")

    server.call = lose

    async def main():
        browser = Browser(session=server, nodes_a_request=1)
        with pytest.raises(LineError):
            await browser.below([OBJECTS] * 9, most=10)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_nodes_of_other_servers_and_backward_references_are_left_out(server):
    own = server.add("Plant")
    result = ua.BrowseResult()
    for reference in (
        ua.ReferenceDescription(NodeId=ua.ExpandedNodeId("far", 2, ServerIndex=1)),
        ua.ReferenceDescription(NodeId=ua.ExpandedNodeId("strange", 0, NamespaceUri="urn:elsewhere")),
        ua.ReferenceDescription(NodeId=ua.ExpandedNodeId("back", 2), IsForward=False),
        ua.ReferenceDescription(NodeId=ua.ExpandedNodeId("near", 0, NamespaceUri="urn:plant")),
    ):
        reference.NodeClass = ua.NodeClass.Variable
        result.References.append(reference)
    server._paged = lambda references, page: result
    (listing,) = below(server, [own])
    assert [reference.node for reference in listing.references] == [ua.NodeId("near", 2)]


def test_an_answer_with_too_few_results_leaves_the_others_empty(server):
    folders = wide(server, 3, 1)
    usual = server._browse

    def short(request):
        response = usual(request)
        del response.Results[1:]
        return response

    server._browse = short
    listings = below(server, folders)
    assert names(listings[0]) == ["L0"]
    assert [listing.code for listing in listings[1:]] == [0x80010000] * 2


def asked(server):
    return [len(request.Parameters.NodesToBrowse) for request in server.heard if hasattr(request.Parameters, "View")]


def test_a_request_names_the_more_nodes_the_less_is_below_them(server):
    below(server, wide(server, 2000, 0))
    assert max(asked(server)) >= 300


def test_a_request_names_few_nodes_where_much_is_below_them(server):
    below(server, wide(server, 100, 600))
    assert asked(server)[-1] <= 10
