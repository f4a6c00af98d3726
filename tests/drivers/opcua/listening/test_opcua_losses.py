"""Whatever happens to the link and to the server, in whatever order: every value once."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import cycle

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

STEPS = st.one_of(
    st.tuples(st.just("change"), st.integers(1, 8)),
    st.tuples(st.just("wait"), st.floats(0.05, 3)),
    st.tuples(st.just("swallow"), st.integers(0, 2)),
    st.tuples(st.just("delay"), st.sampled_from([0, 0.3, 5])),
    st.tuples(st.just("lose"), st.sampled_from(["resumed", "transferred", "ours", "restarted", "refused"])),
    st.tuples(st.just("forget"), st.sampled_from([1, 1000])),
    st.tuples(st.just("expire"), st.just(0)),
    st.tuples(st.just("cut_reading"), st.floats(0.01, 2)),
    st.tuples(st.just("jitter"), st.lists(st.sampled_from([0, 0.05, 0.3, 0.7]), min_size=1, max_size=6)),
    st.tuples(st.just("split"), st.sampled_from([1, 10_000])),
    st.tuples(st.just("slow_making"), st.sampled_from([0, 0.25])),
)
NAMES = ["a", "b", "c"]
PLAIN = "n"
"""A tag without history: what is acknowledged of it must have come out."""


class Play:
    """A rig and what happens to it. `again` counts how often what was told may be told once more."""

    def __init__(self, r, queue, model):
        self.r = r
        self.n = self.again = 0
        self.acknowledged = set()
        r.group(NAMES[:2], every_s=0.1, options={"queue": queue})
        (item,) = r.group([PLAIN], every_s=0.1, options={"queue": queue}).plan.items
        r.catalogue.own[PLAIN] = model.known(item, access=1)
        r.server.on_acknowledged = self.note
        r.group(NAMES[2:], every_s=0.5, options={"queue": queue})

    def note(self, subscription, message):
        """The server was told that this message is here."""
        handles = {item.handle for item in subscription.items.values() if item.node == PLAIN}
        for news in message.NotificationData:
            told = getattr(news, "MonitoredItems", ())
            self.acknowledged |= {one.Value.Value.Value for one in told if one.ClientHandle in handles}

    async def begin(self):
        for name in [*NAMES, PLAIN]:
            self.r.server.change(name, 0.0)
        self.r.start()
        await self.r.until(lambda: len(self.r.samples()) == 4)

    async def end(self):
        self.r.server.delay.clear()
        await asyncio.sleep(30)
        self.n += 1
        for name in [*NAMES, PLAIN]:
            self.r.server.change(name, float(self.n))
        await asyncio.sleep(90)
        assert self.r.error is None

    async def on_change(self, times):
        for _ in range(times):
            self.n += 1
            for name in [PLAIN, *NAMES[: 1 + self.n % 3]]:
                self.r.server.change(name, float(self.n))
            await asyncio.sleep(0.03)

    async def on_wait(self, seconds):
        await asyncio.sleep(seconds)

    async def on_swallow(self, ahead):
        self.r.server.swallow |= {one.next + ahead for one in self.r.server.subscriptions.values()}

    async def on_delay(self, seconds):
        self.r.server.delay["Publish"] = seconds

    async def on_jitter(self, seconds):
        self.r.server.delay["Publish"] = cycle(seconds)

    async def on_split(self, most):
        self.r.server.splits = most

    async def on_slow_making(self, seconds):
        for kind in ("CreateSubscription", "CreateMonitoredItems", "DeleteSubscriptions", "Republish"):
            self.r.server.delay[kind] = seconds

    async def on_forget(self, keeps):
        self.r.server.keeps = keeps

    async def on_expire(self, _):
        for number in list(self.r.server.subscriptions)[:1]:
            self.r.server.expire(number)

    async def on_cut_reading(self, seconds):
        self.r.server.delay["HistoryRead"] = seconds
        await self.on_lose("restarted")
        await asyncio.sleep(0.5)

    async def on_lose(self, how):
        self.again += 1
        r = self.r
        r.server.refusals.clear()
        await r.lose(seconds=0.2, is_resumed=how in ("resumed", "ours"), restart=how == "restarted")
        if how == "refused":
            r.server.refusals["TransferSubscriptions"].append(0x800B0000)
        r.start(is_resumed=how == "resumed")


async def _play(r, queue, script, model):
    play = Play(r, queue, model)
    await play.begin()
    for what, how in script:
        await getattr(play, f"on_{what}")(how)
    await play.end()
    return play


def _check(r, again, acknowledged):
    for name in NAMES:
        wanted = [value for value, _, _ in r.server.history[name]]
        live = [s[1] for s in r.samples(name) if not s[4]]
        read = [s[1] for s in r.samples(name) if s[4]]
        assert sorted({*live, *read}) == wanted, "every value"
        assert len(read) == len({*read}), "none twice from history"
        assert not {*live} & {*read}, "not from history and live"
        assert live == sorted(live), "in order"
        doubles = {value: times for value, times in Counter(live).items() if times > 1}
        assert sum(doubles.values()) - len(doubles) <= again, "said again at most once for each loss"
    plain = r.values(PLAIN)
    assert acknowledged <= {*plain}, "what was acknowledged came out"
    assert plain == sorted(plain), "in order"
    ours = {one.id for one in r.listener._subscriptions}
    for one in r.server.subscriptions.values():
        assert not one.kept or one.number not in ours, "all delivered is acknowledged"
        assert one.number in ours or one.session != r.server.session, "nobody's are deleted"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([4, 1000]), st.lists(STEPS, max_size=14))
@example(1000, [("change", 3), ("delay", 5), ("change", 3), ("wait", 0.5), ("lose", "resumed"), ("change", 3)])
@example(1000, [("change", 3), ("delay", 5), ("change", 3), ("wait", 0.5), ("lose", "transferred"), ("change", 3)])
@example(1000, [("change", 3), ("lose", "restarted"), ("change", 3), ("lose", "restarted"), ("change", 3)])
@example(1000, [("forget", 1), ("delay", 5), ("change", 8), ("wait", 1.0), ("lose", "resumed"), ("change", 2)])
@example(1000, [("change", 4), ("cut_reading", 1.0), ("change", 4), ("cut_reading", 0.4), ("change", 4)])
@example(1000, [("forget", 1), ("swallow", 0), ("swallow", 2), ("change", 8), ("change", 8)])
@example(1000, [("forget", 1), ("swallow", 0), ("change", 8), ("change", 2), ("expire", 0), ("wait", 0.3)])
@example(1000, [("swallow", 0), ("change", 5), ("swallow", 1), ("change", 5), ("expire", 0), ("change", 5)])
def test_every_value_comes_once_in_order(kit, model, queue, script):
    metrics = kit.Metrics()
    with asyncio.Runner(loop_factory=kit.VirtualLoop) as runner:

        async def story():
            r = model.Rig(kit.VirtualClock(), metrics, keep_alive="1s", watchdog=None)
            try:
                play = await _play(r, queue, script, model)
                _check(r, play.again, play.acknowledged)
            finally:
                await r.stop()

        runner.run(story())
