"""Where a tag lives in a server: a node id, or a path of browse names, perhaps with wildcards. Pure.

    nsu=urn:plant:line;s=Tank.Level     the namespace by its URI: found anew in each session, whatever its index is then
    ns=2;s=Tank.Level   i=2258          the namespace by its index; none is 0 [Part 6 5.3.1.10]
    /Plant/2:Tank/Level                 browse names from `root` on; a name without index may be in any namespace
    /Plant/*/Level      /Plant/**       * and ? stand for parts of one name, ** for any number of levels: many tags

In a name of a path `&` makes the next character plain, as in Part 4 A.2: `/Plant/A&/B` has the two names Plant and A/B.
In a URI `%3B` stands for a semicolon and `%25` for a percent sign [Part 6 5.1.12].
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias
from uuid import UUID

Identifier: TypeAlias = int | str | bytes

LAST_NAMESPACE = 0xFFFF
LAST_NUMBER = 0xFFFF_FFFF
MAX_TEXT = 4096
"""How long an identifier may be [Part 3 8.2.4]."""
MAX_NAME = 512
"""How long a browse name may be [Part 3 8.3]."""
MAX_STEPS = 100
"""How deep a path may go: nothing that is deeper was ever seen."""

ANY_DEPTH = "**"
_FORMS = "Write a node id like nsu=urn:plant:line;s=Tank.Level or ns=2;i=1001, or a path like /Plant/Tank/Level"
_NODE = re.compile(r"(?:(nsu|ns)=([^;]*);)?([a-zA-Z]+)=(.*)", re.DOTALL)
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_INDEXED = re.compile(r"([0-9]+):(.*)", re.DOTALL)
_CHARACTER = re.compile(r"&.|[^&]|&", re.DOTALL)
_ESCAPED_IN_URI = re.compile(r"%3[Bb]|%25")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node id. `namespace` is an index or a URI; `kind` says what the identifier is: i, s, g (text), b (bytes)."""

    namespace: int | str
    kind: Literal["i", "s", "g", "b"]
    identifier: Identifier

    def __str__(self) -> str:
        if isinstance(self.namespace, str):
            space = f"nsu={self.namespace.replace('%', '%25').replace(';', '%3B')};"
        else:
            space = f"ns={self.namespace};" if self.namespace else ""
        own = b64encode(self.identifier).decode() if isinstance(self.identifier, bytes) else self.identifier
        return f"{space}{self.kind}={own}"


@dataclass(frozen=True, slots=True)
class Step:
    """One browse name of a path. `namespace` None: any. `name` is a pattern where `is_pattern`; `**` where `is_deep`.

    In a pattern `&` still stands before `*`, `?` and `&` that mean themselves; a name that is none is plain text.
    """

    namespace: int | None
    name: str
    is_pattern: bool = False
    is_deep: bool = False

    def __str__(self) -> str:
        if self.is_deep:
            return ANY_DEPTH
        text = self.name if self.is_pattern else re.sub(r"[&*?]", r"&\g<0>", self.name)
        text = text.replace("/", "&/")
        if self.namespace is not None:
            return f"{self.namespace}:{text}"
        return re.sub(r"^([0-9]+):", r"\1&:", text)


@dataclass(frozen=True, slots=True)
class PathAddress:
    """Browse names, one below the other, from the root that the device names."""

    steps: tuple[Step, ...]

    @property
    def is_pattern(self) -> bool:
        """Whether it may stand for many tags."""
        return any(step.is_pattern or step.is_deep for step in self.steps)

    def __str__(self) -> str:
        return "".join(f"/{step}" for step in self.steps)


Address: TypeAlias = NodeAddress | PathAddress


def parse(text: str) -> Address:
    """Read an address; `str` of what comes back means the same. Raises ValueError with the reason and the cure."""
    if text.startswith("/"):
        return PathAddress(_steps(text))
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{_shown(text)}' is no address in an OPC UA server. {_FORMS}")
    form, space, kind, identifier = match.groups()
    if kind in ("ns", "nsu"):
        raise ValueError(f"'{_shown(text)}' names a namespace and no identifier in it. {_FORMS}")
    if kind == "svr":
        raise ValueError(f"'{_shown(text)}' names another server by its index. Give that server a device of its own")
    return _node(_namespace(form, space), kind, identifier, text)


def _namespace(form: str | None, text: str) -> int | str:
    if form is None:
        return 0
    if form == "nsu":
        if not text:
            raise ValueError("nsu= names no namespace. Write its URI, like nsu=urn:plant:line;s=Tank.Level")
        return _ESCAPED_IN_URI.sub(lambda found: ";" if found[0] != "%25" else "%", text)
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > LAST_NAMESPACE:
        raise ValueError(f"ns={_shown(text)} is no namespace index: 0 to {LAST_NAMESPACE}. A URI is written nsu=")
    return int(text)


def _node(namespace: int | str, kind: str, text: str, whole: str) -> NodeAddress:
    """A node id of that namespace. Raises ValueError where its identifier is none of its kind."""
    if not text or len(text) > MAX_TEXT:
        fault = f"is longer than {MAX_TEXT} characters" if text else "is empty"
        raise ValueError(f"the identifier of '{_shown(whole)}' {fault}. {_FORMS}")
    if kind == "s":
        return NodeAddress(namespace, "s", text)
    if kind == "i":
        if not re.fullmatch("[0-9]{1,10}", text) or int(text) > LAST_NUMBER:
            raise ValueError(f"i={_shown(text)} is no number from 0 to {LAST_NUMBER}. Text is written s=")
        return NodeAddress(namespace, "i", int(text))
    if kind == "g":
        if not _GUID.fullmatch(text):
            raise ValueError(f"g={_shown(text)} is no GUID. Write it like g=09087e75-8e5e-499b-954f-f2a9603db28a")
        return NodeAddress(namespace, "g", str(UUID(text)))
    if kind == "b":
        try:
            return NodeAddress(namespace, "b", b64decode(text, validate=True))
        except binascii.Error:
            raise ValueError(f"b={_shown(text)} is no base64. Write it like b=M/RbKBsRVkePCePcx24oRA==") from None
    raise ValueError(f"'{_shown(kind)}' is no kind of identifier: i, s, g or b. {_FORMS}")


def _steps(text: str) -> tuple[Step, ...]:
    names = _cut(text[1:])
    if len(names) > MAX_STEPS:
        raise ValueError(f"the path has {len(names)} names, {MAX_STEPS} are the most. Name the node by its id")
    steps = tuple(_step(characters, text) for characters in names)
    for one, other in pairwise(steps):
        if one.is_deep and other.is_deep:
            raise ValueError(f"'{_shown(text)}' has ** twice in a row. Once is any number of levels already")
    return steps


def _cut(text: str) -> list[list[str]]:
    """Names as lists of characters, each with the `&` before it that makes it plain."""
    names: list[list[str]] = [[]]
    for character in _CHARACTER.findall(text):
        if character == "/":
            names.append([])
        else:
            names[-1].append(character)
    return names


def _step(characters: list[str], whole: str) -> Step:
    raw = "".join(characters)
    if characters and characters[-1] == "&":
        raise ValueError(f"'{_shown(whole)}' has & at the end of a name. Write && for the character itself")
    if raw == ANY_DEPTH:
        return Step(None, ANY_DEPTH, is_deep=True)
    namespace = None
    if match := _INDEXED.fullmatch(raw):
        namespace = int(_namespace("ns", match[1]))
        characters = characters[len(match[1]) + 1 :]
    if not characters:
        raise ValueError(f"'{_shown(whole)}' has a name that is empty. Take the slash too many out, or finish the path")
    if ANY_DEPTH in (pattern := "".join(one if one[-1] in "&*?" else one[-1] for one in characters)).replace("&*", ""):
        raise ValueError(f"'{_shown(whole)}' has ** within a name. Use *, or ** as a name of its own for many levels")
    if len(characters) > MAX_NAME:
        raise ValueError(f"a name of '{_shown(whole)}' has more than {MAX_NAME} characters. No browse name is so long")
    if "*" in characters or "?" in characters:
        return Step(namespace, pattern, is_pattern=True)
    return Step(namespace, "".join(one[-1] for one in characters))


def _shown(text: str) -> str:
    """Enough of it for a message."""
    return text if len(text) <= 120 else f"{text[:117]}..."
