"""What is due when."""

import random

from gateway.broker.agenda import Agenda


def taken(agenda, now):
    found = []
    while (key := agenda.take(now)) is not None:
        found.append(key)
    return found


def test_keys_come_in_the_order_of_their_times_and_not_before():
    agenda = Agenda()
    agenda.put("late", 30.0)
    agenda.put("soon", 10.0)
    agenda.put("sooner", 5.0)
    assert not agenda.is_due(4.9)
    assert taken(agenda, 4.9) == []
    assert agenda.is_due(10.0)
    assert taken(agenda, 10.0) == ["sooner", "soon"]
    assert taken(agenda, 100.0) == ["late"]
    assert len(agenda) == 0


def test_a_key_that_is_put_again_is_due_at_its_new_time_only():
    agenda = Agenda()
    agenda.put("k", 10.0)
    agenda.put("k", 20.0)
    assert taken(agenda, 15.0) == []
    agenda.put("k", 16.0)
    assert taken(agenda, 17.0) == ["k"]
    assert taken(agenda, 100.0) == []


def test_a_key_that_was_dropped_is_never_due():
    agenda = Agenda()
    agenda.put("k", 10.0)
    agenda.drop("k")
    agenda.drop("unknown")
    assert taken(agenda, 100.0) == []


def test_what_was_replaced_takes_no_room():
    agenda = Agenda()
    for n in range(10_000):
        agenda.put(n % 3, 1e9 + n)
    assert len(agenda) == 3
    assert len(agenda._heap) < 200


def test_it_does_what_a_plain_dictionary_does():
    rng = random.Random(7)
    agenda, times, order = Agenda(), {}, 0
    now = 0.0
    for _ in range(5_000):
        action = rng.random()
        key = rng.randrange(40)
        if action < 0.6:
            order += 1
            due = now + rng.choice([0.0, 1.0, 5.0, 1000.0])
            times[key] = (due, order)
            agenda.put(key, due)
        elif action < 0.8:
            times.pop(key, None)
            agenda.drop(key)
        else:
            now += rng.random() * 3
            due = sorted((times[k], k) for k in times if times[k][0] <= now)
            assert taken(agenda, now) == [k for _, k in due]
            for _, k in due:
                del times[k]
        assert len(agenda) == len(times)
