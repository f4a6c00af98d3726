from gateway.metrics import Metrics


def test_a_counter_is_one_object_for_equal_labels():
    metrics = Metrics()
    metrics.counter("polls_total", line="a").value += 2
    metrics.counter("polls_total", line="a").value += 1
    metrics.counter("polls_total", line="b").value += 5
    assert list(metrics) == [("polls_total", {"line": "a"}, 3), ("polls_total", {"line": "b"}, 5)]


def test_a_gauge_is_read_when_somebody_looks():
    metrics = Metrics()
    level = [1.0]
    metrics.gauge("depth", lambda: level[0])
    level[0] = 7.0
    assert list(metrics) == [("depth", {}, 7.0)]
