"""Whatever happens to the link, the session or the server: every value of every counter comes, once and in order.

By way of what is still on its way, of what the server kept for us (republish), or of its history.
"""

import asyncio

import pytest

BOTH = ["node-opcua", "asyncua"]
COUNT = 20
QUICK = {"timeout": "1s", "keep_alive": "500ms"}
"""So that a test need not wait long until a silent link is given up."""


class Story:
    """A server with counters, a link to it, and a line that listens through the link."""

    def __init__(self, server, link, rig, tags):
        self.server, self.link, self.rig, self.tags = server, link, rig, tags
        self.started = server.tell("state")["started"]

    async def come(self, more=5):
        """Wait until so many more values have come than the server had when this was called."""
        last = self.count() + more
        await self.rig.until(lambda: self.rig.has(self.tags, last), f"value {last} of each counter", 30)

    def count(self):
        return self.server.tell("state")["count"]

    async def pass_by(self, values):
        """Let the server count on."""
        last = self.count() + values
        await self.rig.until(lambda: self.count() >= last, "the server to count on")

    async def be_noticed(self):
        """Wait until the device is said to be offline."""
        await self.rig.until(lambda: not self.rig.states[-1].online, "the loss to be noticed")

    def faults(self):
        return self.rig.faults(self.tags, started=self.started, period=100)

    def history(self):
        """How many values came from the server's history, by tag."""
        return {tag: sum(seen.is_history for seen in self.rig.seen[tag]) for tag in self.tags}


async def frozen_for_a_moment(story):
    story.link.freeze()
    await story.pass_by(5)
    story.link.thaw()


async def frozen_until_it_is_noticed(story):
    last = story.count() + 30
    story.link.freeze()
    await story.be_noticed()
    await story.rig.until(lambda: story.count() >= last, "three seconds to have passed")
    story.link.thaw()


async def cut(story):
    story.link.cut()


async def cut_for_three_seconds(story):
    story.link.shut()
    await story.pass_by(30)
    story.link.open()


async def cut_again_and_again(story):
    for _ in range(3):
        story.link.cut()
        await story.come(3)


async def session_killed(story):
    assert story.server.tell("kill_session")["killed"] == 1


async def session_killed_but_not_its_subscriptions(story):
    assert story.server.tell("kill_session", keep_subscriptions=True)["killed"] == 1


async def subscription_deleted(story):
    assert story.server.tell("drop_subscription")["dropped"] == 1


async def server_restarted(story):
    story.server.quit()
    story.server.start(since=story.started)


async def server_killed(story):
    story.server.kill()
    await story.be_noticed()
    story.server.start(since=story.started)


LINK = [frozen_for_a_moment, frozen_until_it_is_noticed, cut, cut_for_three_seconds, cut_again_and_again]
SERVER = [
    session_killed, session_killed_but_not_its_subscriptions, subscription_deleted, server_restarted, server_killed,
]  # fmt: skip


@pytest.fixture
def tell_stories(opcua_shared, opcua_link, opcua_rig):
    """Let a server's link have many troubles, each a link and a line of its own, all at the same time.

    The first 20 counters have a history, the others do not. Gives the stories, by name.
    """

    def tell(kind, stories):
        server = opcua_shared(kind, counters=2 * COUNT, history=COUNT, types=False)

        async def one(trouble, *, first=0, delay_s=0.0, queue=None, **more):
            link = opcua_link(server.port)
            link.delay_s = delay_s
            tags = opcua_rig.counters(COUNT, first)
            if queue is not None:
                tags = {name: {**options, "queue": queue} for name, options in tags.items()}
            async with opcua_rig({"plc": opcua_rig.device(link.url, tags, **(QUICK | more))}) as rig:
                story = Story(server, link, rig, list(tags))
                await story.come()
                await trouble(story)
                await story.come()
                return story

        async def main():
            async with asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(one(trouble, **more)) for name, (trouble, more) in stories.items()}
            return {name: task.result() for name, task in tasks.items()}

        return asyncio.run(main())

    return tell


@pytest.mark.parametrize("kind", BOTH)
def test_whatever_happens_to_the_link_every_value_is_accounted_for(tell_stories, kind):
    stories = {trouble.__name__: (trouble, {}) for trouble in LINK}
    far = {"delay_s": 0.1, "timeout": "3s", "keep_alive": "1s"}
    stories |= {f"{trouble.__name__}, 200 ms away": (trouble, far) for trouble in (frozen_for_a_moment, cut)}
    stories |= {
        f"{trouble.__name__}, no history": (trouble, {"first": COUNT})
        for trouble in (cut, cut_for_three_seconds, frozen_until_it_is_noticed)
    }
    told = tell_stories(kind, stories)
    assert {name: faults for name, story in told.items() if (faults := story.faults())} == {}
    assert sum(told["cut_for_three_seconds, no history"].history().values()) == 0


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("trouble", SERVER, ids=lambda trouble: trouble.__name__)
def test_whatever_the_server_does_every_value_is_accounted_for(tell_stories, kind, trouble):
    is_only_transferred = kind == "node-opcua" and trouble is session_killed_but_not_its_subscriptions
    more = {"first": COUNT} if is_only_transferred else {}  # a history would hide a transfer that does not work
    (story,) = tell_stories(kind, {"it": (trouble, more)}).values()
    assert story.faults() == []


def test_what_the_server_s_queue_could_not_hold_comes_from_its_history(tell_stories):
    (story,) = tell_stories("node-opcua", {"it": (cut_for_three_seconds, {"queue": 5})}).values()
    assert story.faults() == []
    assert all(story.history().values())


@pytest.mark.parametrize("kind", BOTH)
def test_items_that_the_server_forgets_are_found_out_by_the_watchdog(tell_stories, kind):
    async def items_deleted(story):
        assert story.server.tell("drop_items")["dropped"] == COUNT

    (story,) = tell_stories(kind, {"it": (items_deleted, {"watchdog": "1s"})}).values()
    assert story.faults() == []


def test_what_no_history_has_is_missing_and_nothing_is_made_up(tell_stories):
    (story,) = tell_stories("node-opcua", {"it": (session_killed, {"first": COUNT})}).values()
    for tag in story.tags:
        values = [seen.value for seen in story.rig.good(tag)]
        assert values == sorted(set(values))
