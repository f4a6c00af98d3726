"""From arrival to answer: who is refused, in what order things are done, what is counted, remembered and recorded."""

import asyncio
import json
import logging
from dataclasses import replace

import pytest

from gateway.commands.taking import MOST_WAITING
from gateway.errors import DeviceError, HeadgateError, LineError, TagError
from gateway.model import DeviceState, ScanGroup, WriteRules

NOW_MS = 1_795_330_000_000 + 1_000_000  # the virtual clock's wall time at the start


def ok(answer):
    return {key: answer[key] for key in ("ok", "value", "code") if key in answer}


# --- done -------------------------------------------------------------------------------------------------------------


def test_a_command_is_written_read_back_and_answered(play):
    async def story(desk):
        answer = await desk.reply("temp", '{"value":21.5,"id":"7f"}')
        assert desk.plant.log == [("write", "boiler", "temp", 215), ("read", "boiler", "temp", None)]
        assert desk.plant.hurried == [("boiler", "temp")]
        assert desk.plant.shown == [("boiler", "temp", 215)]
        return answer, desk

    answer, desk = play(story)
    assert answer == {"id": "7f", "ok": True, "value": 21.5}
    assert desk.count("commands_total", outcome="done") == 1
    assert desk.count("command_seconds_count") == 1
    assert desk.count("command_seconds_bucket", le="+Inf") == 1
    assert desk.count("command_seconds_bucket", le="0.005") == 0
    assert desk.count("command_seconds_sum") == pytest.approx(0.011)
    assert desk.count("commands_waiting") == 0


def test_a_reply_without_an_id_names_none(play):
    async def story(desk):
        return await desk.reply("pump", "on")

    assert play(story) == {"ok": True, "value": True}


def test_without_read_back_the_value_is_the_one_that_was_sent(play, device_of):
    async def story(desk):
        answer = await desk.reply("level", "7")
        assert [verb for verb, *_ in desk.plant.log] == ["write"]
        return answer

    assert play(story, device_of(rules=WriteRules(read_back=False))) == {"ok": True, "value": 7}


@pytest.mark.parametrize(("held", "told"), [(0.30000001192092896, 0.3), (1e300, 1e300), (None, None)])
def test_a_32_bit_float_is_answered_with_the_digits_that_its_samples_have(play, held, told):
    async def story(desk):
        desk.plant.at_read = lambda _value: held
        return (await desk.reply("flow", "0.3"))["value"]

    assert play(story) == told


def test_types_that_the_device_told_count_and_the_pace_of_writes_goes_on(play, device_of):
    device = device_of(rules=WriteRules(every_s=60))
    untyped = replace(device, tags=tuple(replace(tag, type="") for tag in device.tags))
    told = ScanGroup.of(untyped, untyped.tags[::-1], types=["string"] * 6, every_s=1.0, plan=None)

    async def story(desk):
        first = await desk.reply("raw", "5")
        answers = [await desk.reply("mode", "5"), await desk.reply("level", "5")]
        desk.targets.learn([told])
        return [first, *answers, await desk.reply("flow", "5"), await desk.reply("mode", "6"), desk.plant.writes()]

    raw, mode, level, flow, again, writes = play(story, untyped)
    assert raw["code"] == "not_writable"
    assert (mode["value"], level["value"], flow["value"], again["code"]) == ("5", 5, "5", "rate")
    assert writes == [("mode", "5"), ("level", 5), ("flow", "5")]


def test_another_value_read_back_is_told_with_both(play):
    async def story(desk):
        desk.plant.at_write = lambda _tag, value: value - 5
        answer = await desk.reply("temp", "21.5")
        return answer, desk.count("commands_refused_total", reason="read_back"), desk.count("commands_total")

    answer, refused, total = play(story)
    assert (answer["ok"], answer["code"]) == (False, "read_back")
    assert (answer["written"], answer["value"]) == (21.5, 21.0)
    assert answer["error"] == "written 21.5, but the tag reads 21.0"
    assert (refused, total) == (1, 1)


# --- refused before anything is sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "payload", "more", "code"),
    [
        ("pump", "perhaps", {}, "invalid"),
        ("pump", b"\xff", {}, "invalid"),
        ("level", "1001", {}, "range"),
        ("temp", "21.55", {}, "range"),
        ("raw", "1", {}, "not_writable"),
        ("none", "1", {}, "unknown"),
        ("pump", "1", {"device": "plc"}, "unknown"),
        ("pump", "1", {"is_retained": True}, "retained"),
        ("pump", "1", {"expires_at": 999.0}, "expired"),
        ("pump", "1", {"expires_at": 1000.0}, "expired"),
        ("pump", "1", {"is_again": True}, "repeated"),
        ("pump", f'{{"value":1,"expires":"5s","ts":{NOW_MS - 5000}}}', {}, "expired"),
        ("pump", f'{{"value":1,"expires":"5s","ts":{NOW_MS + 61_000}}}', {}, "clock"),
    ],
)
def test_what_must_not_be_written_is_refused_counted_and_answered(play, tag, payload, more, code):
    async def story(desk):
        answer = await desk.reply(tag, payload, **more)
        return answer, desk

    answer, desk = play(story)
    assert (answer["ok"], answer["code"]) == (False, code), answer
    assert desk.plant.log == []
    assert desk.store.entries == []
    assert desk.count("commands_refused_total", reason=code) == 1
    assert desk.count("commands_total", outcome="refused") == 1
    assert desk.count("commands_waiting") == 0


@pytest.mark.parametrize("age_ms", [4999, 0, -59_000])
def test_a_command_that_says_when_it_was_made_lives_from_then_on(play, age_ms):
    async def story(desk):
        return await desk.reply("pump", f'{{"value":1,"expires":"5s","ts":{NOW_MS - age_ms}}}')

    assert play(story)["ok"] is True


def test_the_tag_may_say_how_old_a_command_may_be(play, device_of):
    async def story(desk):
        old = await desk.reply("pump", f'{{"value":1,"ts":{NOW_MS - 2500}}}')
        older = await desk.reply("pump", f'{{"value":1,"ts":{NOW_MS - 2500},"expires":"1h"}}')
        fresh = await desk.reply("pump", f'{{"value":1,"ts":{NOW_MS - 1000},"expires":"1h"}}')
        timeless = await desk.reply("pump", "1")
        return old.get("code"), older.get("code"), fresh["ok"], timeless["ok"]

    assert play(story, device_of(rules=WriteRules(expires_s=2.0))) == ("expired", "expired", True, True)


def test_while_the_clock_cannot_be_right_no_command_of_an_age_is_believed(play):
    async def story(desk):
        desk.is_clock_right = False
        return [
            (await desk.reply("pump", f'{{"value":1,"ts":{NOW_MS},"expires":"5s"}}'))["code"],
            (await desk.reply("pump", '{"value":1,"expires":"5s"}'))["ok"],
            (await desk.reply("pump", f'{{"value":1,"ts":{NOW_MS}}}'))["ok"],
        ]

    assert play(story) == ["clock", True, True]


def test_time_in_the_queue_counts_for_expiry(play):
    async def story(desk):
        desk.plant.takes_s = 3.0
        desk.send("pump", "1")
        desk.send("level", '{"value":5,"expires":"2s"}')
        desk.send("level", "6", expires_at=desk.clock.monotonic() + 2.9)
        desk.send("level", '{"value":7,"expires":"9s"}')
        answers = await desk.until(4)
        return [ok(a) for a in answers], desk.plant.writes()

    answers, writes = play(story)
    assert [a.get("code") for a in answers] == [None, "expired", "expired", None]
    assert writes == [("pump", True), ("level", 7)]


def test_an_offline_device_is_refused_at_once_with_its_cause(play):
    async def story(desk):
        desk.states["boiler"] = DeviceState("boiler", online=False, cause="timeout", since=1)
        before = desk.clock.monotonic()
        answer = await desk.reply("pump", "1")
        assert desk.clock.monotonic() - before < 0.01
        desk.states["boiler"] = DeviceState("boiler", online=True, cause="", since=1)
        return answer, await desk.reply("pump", "1")

    offline, online = play(story)
    assert offline["code"] == "offline"
    assert offline["error"] == "not written: device 'boiler' is offline (timeout)"
    assert online["ok"]


def test_a_line_that_is_not_connected_is_refused(play):
    async def story(desk):
        desk.plant.is_connected = False
        return await desk.reply("pump", '{"value":1,"id":"a"}'), desk.plant.log, await desk.reply("pump", '{"value":1}')

    first, log, _ = play(story)
    assert (first["code"], log) == ("offline", [])


def test_a_device_that_goes_offline_while_commands_wait_is_not_written_to(play):
    async def story(desk):
        desk.plant.takes_s = 1.0
        desk.send("pump", "1")
        desk.send("level", "5")
        await asyncio.sleep(0.5)
        desk.states["boiler"] = DeviceState("boiler", online=False, cause="offline", since=1)
        return [ok(a) for a in await desk.until(2)], desk.plant.writes()

    answers, writes = play(story)
    assert answers[1] == {"ok": False, "code": "offline"}
    assert writes == [("pump", True)]


def test_writes_that_come_too_fast_are_refused_until_the_time_is_over(play, device_of):
    async def story(desk):
        first = await desk.reply("pump", "1")
        other = await desk.reply("level", "1")
        soon = await desk.reply("pump", "0")
        await asyncio.sleep(2.0)
        return [ok(a) for a in (first, other, soon, await desk.reply("pump", "0"))], soon["error"]

    answers, text = play(story, device_of(rules=WriteRules(every_s=2.0)))
    assert [a.get("code") for a in answers] == [None, None, "rate", None]
    assert text.startswith("not written: the next write may come in 1.9")


def test_a_burst_of_writes_to_a_slow_tag_is_refused_but_for_the_first(play, device_of):
    async def story(desk):
        for value in range(5):
            desk.send("level", str(value))
        return [a.get("code") for a in await desk.until(5)], desk.plant.writes()

    codes, writes = play(story, device_of(rules=WriteRules(every_s=2.0)))
    assert (codes, writes) == ([None, "rate", "rate", "rate", "rate"], [("level", 0)])


# --- order and bounds -------------------------------------------------------------------------------------------------


def test_commands_to_a_device_go_one_after_the_other_in_their_order(play, device_of):
    async def story(desk):
        for value in range(20):
            desk.send(("level", "temp")[value % 2], str(value), device=("boiler", "mill")[value % 3 == 0])
        await desk.until(20)
        return desk

    desk = play(story, device_of("boiler"), device_of("mill"))
    assert desk.plant.most_at_once == {"boiler": 1, "mill": 1}
    for device in ("boiler", "mill"):
        sent = [
            value if tag == "level" else value // 10
            for verb, d, tag, value in desk.plant.log
            if d == device and verb == "write"
        ]
        assert sent == sorted(sent)


def test_a_full_queue_refuses_clearly_and_recovers(play):
    async def story(desk):
        desk.plant.takes_s = 0.05
        for value in range(MOST_WAITING + 3):
            desk.send("level", str(value))
        assert [a["code"] for a in desk.answers] == ["busy"] * 3
        assert desk.answers[0]["error"] == "not written: 64 commands wait for tcp://plc:502 already"
        assert desk.count("commands_waiting") == MOST_WAITING
        await desk.until(MOST_WAITING + 3)
        assert desk.count("commands_waiting") == 0
        return await desk.reply("level", "1"), desk.plant.writes()

    answer, writes = play(story)
    assert answer["ok"]
    assert writes == [("level", value) for value in range(MOST_WAITING)] + [("level", 1)]


def test_a_command_whose_turn_does_not_come_is_given_up(play):
    async def story(desk):
        desk.plant.takes_s = 4.0
        for value in range(5):
            desk.send("level", str(value))
        return [a.get("code") for a in await desk.until(5)], desk.plant.writes()

    codes, writes = play(story)
    assert codes == [None, None, "busy", "busy", "busy"]
    assert writes == [("level", 0), ("level", 1)]


def test_a_write_that_nobody_answers_is_given_up_in_time(play):
    async def story(desk):
        desk.plant.takes_s = 3600.0
        before = desk.clock.monotonic()
        answer = await desk.reply("level", "5")
        return answer, desk.clock.monotonic() - before, desk.store.entries

    answer, took_s, entries = play(story)
    assert answer["code"] == "timeout"
    assert answer["error"] == "no answer within 10 s: it may have been done or not"
    assert took_s == pytest.approx(10, abs=0.01)
    assert entries[1]["code"] == "timeout"


def test_without_its_task_every_command_is_refused(desk):
    it = desk()
    it.send("pump", "1")
    assert it.answers[0]["code"] == "stopping"


def test_an_ordered_stop_answers_all_who_wait(run_virtual, desk):
    async def main():
        it = desk()
        async with it.open():
            it.plant.takes_s = 5.0
            it.send("pump", '{"value":1,"id":1}')
            it.send("level", '{"value":2,"id":2}')
            await asyncio.sleep(1)
        assert it.count("commands_waiting") == 0
        async with it.open():  # and the task can be started again
            it.plant.takes_s = 0.01
            await it.until(2)
            return it.answers[:2], await it.reply("level", '{"value":3,"id":2}'), it.store.entries

    answers, after, entries = run_virtual(main())
    assert [(a["id"], a["code"]) for a in answers] == [(1, "failed"), (2, "stopping")]
    assert after["ok"], "what was not sent may be sent again"
    assert [(e["phase"], e.get("code")) for e in entries[:2]] == [("intent", None), ("outcome", "failed")]


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("the register holds 0 to 9"), "range"),
        (TagError("exception 2", cause="exception:2"), "refused"),
        (DeviceError("no answer", cause="timeout"), "failed"),
        (LineError("gone", cause="offline"), "failed"),
    ],
)
def test_a_failed_write_says_whether_it_may_have_been_done(play, error, code):
    def fail(_tag, _value):
        raise error

    async def story(desk):
        desk.plant.at_write = fail
        answer = await desk.reply("pump", '{"value":1,"id":"x"}')
        desk.plant.at_write = None
        again = await desk.reply("pump", '{"value":1,"id":"x"}')
        return answer, again, desk.store.entries, desk.count("commands_total", outcome="failed")

    answer, again, entries, failed = play(story)
    assert (answer["code"], str(error) in answer["error"]) == (code, True)
    assert [(e["phase"], e.get("code")) for e in entries[:2]] == [("intent", None), ("outcome", code)]
    is_known = code == "range"
    assert again.get("code") == (None if is_known else "repeated"), "nobody knows whether it was written: not again"
    assert failed == (0 if is_known else 1)


def test_a_read_back_that_fails_says_that_it_was_written(play):
    def fail(_value):
        raise DeviceError("no answer", cause="timeout")

    async def story(desk):
        desk.plant.at_read = fail
        return await desk.reply("pump", "1")

    answer = play(story)
    assert answer["code"] == "read_back"
    assert answer["error"] == "written, but it cannot be read back: no answer"


def test_a_read_back_that_nobody_answers_says_that_it_was_written(play):
    async def story(desk):
        desk.plant.reading_takes_s = 3600.0
        return await desk.reply("pump", "1")

    answer = play(story)
    assert answer["code"] == "read_back"
    assert answer["error"] == "written, but it was not read back in time"


def test_a_driver_may_know_how_a_value_reads_that_was_written_in_another_way(play):
    async def story(desk):
        desk.plant.at_write = lambda _tag, value: {"2": "auto"}.get(value, value)
        strange = await desk.reply("mode", "2")
        type(desk.plant).as_read = classmethod(lambda _cls, _device, _tag, value: {"2": "auto"}.get(value, value))
        try:
            return strange["code"], await desk.reply("mode", "2")
        finally:
            del type(desk.plant).as_read

    assert play(story) == ("read_back", {"ok": True, "value": "auto"})


# --- ids --------------------------------------------------------------------------------------------------------------


def test_a_known_id_of_a_source_is_refused_whatever_it_says(play):
    async def story(desk):
        answers = [
            await desk.reply("pump", '{"value":1,"id":"a"}'),
            await desk.reply("pump", '{"value":1,"id":"a"}', is_again=True),
            await desk.reply("level", '{"value":2,"id":"a"}'),
            await desk.reply("level", '{"value":2,"id":"a"}', source="uplink cloud", who={}),
            await desk.reply("level", '{"value":3,"id":"a"}', who={"user": "other"}),
            await desk.reply("level", '{"value":4,"id":"b"}', is_again=True),
        ]
        return [a.get("code") for a in answers], desk.plant.writes()

    codes, writes = play(story)
    assert codes == [None, "repeated", "repeated", None, None, None]
    assert writes == [("pump", True), ("level", 2), ("level", 3), ("level", 4)]


LONG = '{"value":%s,"id":"6f1c9c3e-5b0e-4f0a"}'


def test_one_command_that_comes_by_two_ways_is_written_once(play):
    async def story(desk):
        desk.plant.is_connected = False
        failed = await desk.reply("level", LONG % 1, source="uplink a", who={})
        desk.plant.is_connected = True
        first = await desk.reply("level", LONG % 1, source="uplink a", who={})
        second = await desk.reply("level", LONG % 1, source="uplink b", who={})
        value = await desk.reply("level", LONG % 2, source="uplink c", who={})
        tag = await desk.reply("raw", LONG % 1, source="uplink d", who={})
        short = await desk.reply("level", '{"value":1,"id":"123456789012345"}', source="uplink a", who={})
        other = await desk.reply("level", '{"value":1,"id":"123456789012345"}', source="uplink b", who={})
        answers = (failed, first, second, value, tag, short, other)
        return [a.get("code") for a in answers], desk.plant.writes()

    codes, writes = play(story)
    assert codes == ["offline", None, "repeated", None, "not_writable", None, None]
    assert writes == [("level", 1), ("level", 2), ("level", 1), ("level", 1)]


def test_an_id_is_known_while_its_command_still_waits(play):
    async def story(desk):
        desk.send("pump", '{"value":1,"id":"a"}')
        desk.send("pump", '{"value":1,"id":"a"}', is_again=True)
        return [a.get("code") for a in await desk.until(2)], desk.plant.writes()

    codes, writes = play(story)
    assert (codes, writes) == (["repeated", None], [("pump", True)])


def test_what_was_refused_before_it_was_sent_may_come_again_with_its_id(play):
    async def story(desk):
        desk.plant.is_connected = False
        first = await desk.reply("pump", '{"value":1,"id":"a"}')
        desk.plant.is_connected = True
        return first["code"], await desk.reply("pump", '{"value":1,"id":"a"}')

    code, second = play(story)
    assert (code, second["ok"]) == ("offline", True)


# --- the record -------------------------------------------------------------------------------------------------------


def test_intent_and_outcome_say_who_wrote_what_and_what_came_of_it(play):
    async def story(desk):
        await desk.reply("level", '{"value":5,"id":"7f"}', who={"user": "op", "client": "hmi1", "address": "10.0.0.9"})
        desk.plant.at_write = lambda _tag, value: value + 1
        await desk.reply("level", "6", source="uplink cloud", who={})
        return desk

    desk = play(story)
    who = {"source": "broker", "user": "op", "client": "hmi1", "address": "10.0.0.9"}
    what = {"device": "boiler", "tag": "level", "value": 5, "id": "7f"}
    intent, outcome, _, mismatch = desk.store.entries
    assert intent == {"phase": "intent", **who, **what}
    assert outcome == {"phase": "outcome", "intent": 1, **who, **what, "ok": True, "found": 5}
    assert mismatch["source"] == "uplink cloud"
    assert (mismatch["value"], mismatch["found"], mismatch["written"], mismatch["code"]) == (6, 7, 6, "read_back")
    assert desk.store.urgent == [1, 3], "intents are written at once, outcomes when it is time"
    assert [record.seq for record in desk.told] == [1, 2, 3, 4]
    json.dumps(desk.store.entries)


def test_a_strict_audit_has_the_intent_safe_before_anything_is_sent(play):
    async def story(desk):
        desk.send("pump", "1")
        await asyncio.sleep(0.004)
        assert (len(desk.store.entries), desk.plant.log) == (1, [])
        return (await desk.until(1))[0], desk.plant.writes()

    answer, writes = play(story, strict=True)
    assert (answer["ok"], writes) == (True, [("pump", True)])


def test_a_strict_audit_that_cannot_be_kept_lets_nothing_through(play):
    async def story(desk):
        desk.store.is_slow = True
        answer = await desk.reply("pump", "1")
        return answer, desk.plant.log, desk.store.entries

    answer, log, entries = play(story, strict=True)
    assert (answer["code"], log) == ("audit", [])
    assert [(e["phase"], e.get("code")) for e in entries] == [("intent", None), ("outcome", "audit")]


def test_a_strict_audit_whose_intent_gave_way_lets_nothing_through(play):
    async def story(desk):
        desk.store.is_full = True
        return await desk.reply("pump", "1"), desk.plant.log

    answer, log = play(story, strict=True)
    assert (answer["code"], log) == ("audit", [])
    assert answer["error"].startswith("not written: the audit entry is not kept: the spool is full")


def test_a_normal_audit_holds_nothing_up(play):
    async def story(desk):
        desk.store.is_slow = True
        return await desk.reply("pump", "1")

    assert play(story)["ok"]


def test_a_command_that_expires_while_the_audit_is_kept_is_not_sent(play):
    async def story(desk):
        return await desk.reply("pump", '{"value":1,"expires":"3ms"}'), desk.plant.log

    answer, log = play(story, strict=True)
    assert (answer["code"], log) == ("expired", [])


def test_a_command_that_expires_while_the_line_is_busy_is_not_sent_and_may_come_again(play):
    async def story(desk):
        desk.plant.waits_s = 0.5
        late = await desk.reply("pump", '{"value":1,"id":"a","expires":"400ms"}')
        assert desk.plant.log == []
        good = await desk.reply("pump", '{"value":1,"id":"a","expires":"505ms"}')  # its answer may come later
        return late["code"], good["ok"], desk.store.entries[1]["code"]

    assert play(story) == ("expired", True, "expired")


# --- the log and the control socket -----------------------------------------------------------------------------------


def test_the_log_names_tag_source_and_outcome_and_is_not_flooded(play, caplog):
    caplog.set_level(logging.INFO, "headgate.commands")

    async def story(desk):
        await desk.reply("pump", "on")
        for _ in range(500):
            await desk.reply("raw", "1")
        await asyncio.sleep(61)
        await desk.reply("pump", "off")

    play(story)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "boiler/pump = true, as broker (op) wants it: done in 11 ms"
    assert lines[1].startswith("boiler/raw: the command of broker (op) is refused (not_writable): boiler/raw may not")
    assert len(lines) == 22
    assert lines[20] == "481 further commands were not logged one by one"


def test_the_control_socket_asks_by_the_same_rules(play):
    async def story(desk):
        good = await desk.commands.ask({"do": "write", "device": "boiler", "tag": "level", "payload": "5"})
        bad = await desk.commands.ask({"do": "write", "device": "boiler", "tag": "level", "payload": "5000"})
        with pytest.raises(HeadgateError, match="a write needs `device`, `tag` and `payload`"):
            await desk.commands.ask({"do": "write", "device": "boiler"})
        return good["reply"], bad["reply"]["code"], desk.store.entries[0]["source"]

    assert play(story) == ({"ok": True, "value": 5}, "range", "control")


def test_names_that_a_stranger_made_up_cannot_forge_lines_of_the_log(play, caplog):
    caplog.set_level(logging.INFO, "headgate.commands")

    async def story(desk):
        await desk.reply("x\nERROR: all is lost", "1")
        await desk.reply("x" * 60_000, "1")

    play(story)
    assert all(text.isprintable() and len(text) <= 310 for text in caplog.messages)
    assert len(caplog.messages) == 2


# --- parts of a device ------------------------------------------------------------------------------------------------


def test_a_tag_of_a_part_is_written_in_the_name_of_the_part_to_the_whole(play, device_of):
    whole = device_of(pump=None)
    (tag,) = (tag for tag in device_of().tags if tag.name == "pump")
    part = replace(whole, name="feeder", part_of="boiler", tags=(replace(tag, part="feeder"),))
    whole = replace(whole, parts=(part,), tags=(*whole.tags, *part.tags))

    async def story(desk):
        good = await desk.reply("pump", "on", device="feeder")
        own = await desk.reply("pump", "on")
        level = await desk.reply("level", "5", device="feeder")
        desk.states["boiler"] = DeviceState("boiler", online=False, cause="timeout", since=1)
        return good, own["code"], level["code"], (await desk.reply("pump", "on", device="feeder"))["code"], desk

    good, own, level, offline, desk = play(story, whole)
    assert good["ok"]
    assert desk.plant.log[0] == ("write", "boiler", "pump", True)
    assert desk.plant.hurried == [("feeder", "pump")], "by the name that its line knows it by"
    assert desk.plant.shown == [("feeder", "pump", True)]
    assert desk.store.entries[0]["device"] == "feeder"
    assert (own, level, offline) == ("not_writable", "unknown", "offline")
