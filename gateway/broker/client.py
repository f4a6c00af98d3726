"""A live connection as the broker sees it: what is to be sent, until when it is held back, and who is at the other end.

Pure: the transport is a subclass (`link.Link`), tests have one of their own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.mqtt.connection import Connection

if TYPE_CHECKING:
    from gateway.broker.access import Peer
    from gateway.broker.authenticating import Proof
    from gateway.broker.session import Session


@dataclass(slots=True, eq=False)
class Identity:
    """Who a client has shown itself to be. Compared and hashed as an object: one per login.

    `username` is None for an anonymous client. `address` is the peer's, as text. `is_gateway`: the gateway itself,
    through its door in the process; `is_admin` may read `$SYS`. `proof`: what proved the user name, `none` where it is
    only claimed. `expires_at` (s since 1970 as the wall clock says it, which may be set while we run): when what proved
    it, a token, is over, and the connection with it; None = never.
    """

    client_id: str
    username: str | None = None
    address: str = ""
    is_admin: bool = False
    is_gateway: bool = False
    proof: Literal["none", "password", "token", "certificate"] = "none"
    expires_at: float | None = None


class Client:
    """One connection. The broker calls `send` and `finish`; the subclass empties `out` and tells when it is congested.

    `hold`: the store's mark that must be written before anything now in `out` may leave (see `store.Store.mark`).
    `is_congested`: the transport takes no more; the broker keeps PUBLISH packets in the session until `resumed`.
    `exchange`: an enhanced authentication that is under way, or can be repeated (4.12).
    """

    __slots__ = (
        "connection",
        "exchange",
        "held",
        "hold",
        "identity",
        "is_congested",
        "is_finished",
        "last_packet",
        "out",
        "out_bytes",
        "session",
    )

    def __init__(self, connection: Connection, identity: Identity) -> None:
        self.connection = connection
        self.identity = identity
        self.session: Session | None = None
        self.exchange: Proof | None = None
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.hold = 0
        self.held: deque[tuple[int, bytes]] | None = None
        self.is_congested = False
        self.is_finished = False
        self.last_packet = 0.0

    def send(self, data: bytes) -> None:
        """Have bytes sent at the end of this turn."""
        if not self.out:
            self.ready()
        self.out.append(data)
        self.out_bytes += len(data)

    def ready(self) -> None:
        """`out` is no longer empty: empty it soon."""
        raise NotImplementedError

    def finish(self) -> None:
        """Send what is in `out`, then close. Nothing is read any more. Called once or more."""
        raise NotImplementedError

    def other_end(self) -> Peer | None:
        """What is known of the other end, for methods of enhanced authentication; None: the address and no more."""
        return None
