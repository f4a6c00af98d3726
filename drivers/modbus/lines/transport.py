"""Which transport a line gets: the one place that knows them all. What no line of the file needs is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drivers.modbus.frames.framer import Framer
from drivers.modbus.lines.exchange import Transport
from drivers.modbus.lines.url import Framing, Route
from drivers.modbus.options import DeviceOptions
from drivers.stream import Endpoint
from gateway.clock import Clock
from gateway.metrics import Metrics


def transport_of(
    route: Route,
    wishes: Sequence[DeviceOptions],
    *,
    gaps: Mapping[int, float],
    clock: Clock,
    metrics: Metrics,
    endpoint: Endpoint | None = None,
) -> Transport:
    """The transport of a line whose devices have these options. `endpoint` stands in for the route's own, in tests.

    `gaps` says for each unit how long it wants to be left in peace between two requests, in seconds.
    """
    lingers = [wish.linger for wish in wishes if wish.linger is not None]
    if route.framing == "tcp":
        from drivers.modbus.lines.client import Client  # noqa: PLC0415 - see above

        return Client(
            endpoint or route.endpoint,
            units=frozenset(gaps),
            timeout_s=max(wish.timeout for wish in wishes),
            connect_delay_s=max(wish.connect_delay for wish in wishes),
            linger_s=min(lingers, default=None),
            max_in_flight=min(wish.max_in_flight for wish in wishes),
            in_order=any(wish.match == "order" for wish in wishes),
            clock=clock,
            metrics=metrics,
        )
    from drivers.modbus.lines.bus import Bus  # noqa: PLC0415 - see above

    return Bus(
        endpoint or route.endpoint,
        _framer(route.framing),
        units=frozenset(gaps),
        timeout_s=max(wish.timeout for wish in wishes),
        connect_delay_s=max(wish.connect_delay for wish in wishes),
        linger_s=min(lingers, default=None),
        character_s=route.character_s,
        max_late_s={wish.unit: wish.max_late for wish in wishes if wish.max_late is not None},
        retries={wish.unit: wish.retries for wish in wishes},
        echo=route.echo,
        clock=clock,
        metrics=metrics,
    )


def _framer(framing: Framing) -> Framer:
    """What finds frames on a bus."""
    if framing == "rtu":
        from drivers.modbus.frames import rtu  # noqa: PLC0415 - see above

        return rtu.Framer()
    from drivers.modbus.frames import ascii as ascii_frames  # noqa: PLC0415 - see above

    return ascii_frames.Framer()
