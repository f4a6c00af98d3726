"""What a server answers in place of a result, and how it reads in a quality."""

from __future__ import annotations

from gateway.errors import HeadgateError


class ServiceFault(HeadgateError):  # noqa: N818 - the standard's word for it [Part 4 7.34]
    """The server refused a whole request. `code` is the StatusCode without its info bits, `name` what it is called."""

    def __init__(self, code: int, name: str, what: str) -> None:
        super().__init__(f"{what}: {name}")
        self.code = code & 0xFFFF_0000
        self.name = name
