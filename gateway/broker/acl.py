"""What users may publish and read: rules in mosquitto's ACL file format, compiled to tries.

    topic [read|write|readwrite|deny] <filter>      before the first `user`: for clients without a user name
    user <name>                                     the `topic` lines that follow are this user's
    pattern [read|write|readwrite|deny] <filter>    for all clients; a level %c is the client id, %u the user name
    # ...                                           a comment, where # is the line's first character

Who may do what is decided in mosquitto's order: the user's own `topic` lines first, where a deny goes before any
grant; where none of them matches, the patterns in the same way; where nothing matches, no. A rule reaches into topics
that start with $ only if it starts with $ itself.

A name is never part of a filter's text: a level %c or %u is compared with the name as a whole, so that no name can
smuggle in a wildcard or a further level. Names with + or # get nothing from patterns at all, as with mosquitto. A name
with / gets nothing from a pattern that contains it; where such a pattern denies, it is denied.

Pure: files are read elsewhere. The order of lines of one kind does not matter, hence a trie for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

READ, WRITE = 1, 2
_DENY = 4
_ACCESS = {"read": READ, "write": WRITE, "readwrite": READ | WRITE, "deny": _DENY}

_PLUS, _HASH, _END, _USER, _CLIENT = range(5)
"""Keys of a node that are no text, and so can be mistaken for no level of a topic. Plain ints: they hash fastest."""

_LARGEST = 65_535
"""Bytes of a filter (MQTT-1.5.4)."""
_MOST_MISTAKES = 20
"""More are not listed."""

_Level = str | int
_Node = dict[_Level, Any]
"""A node of a trie. Levels lead to nodes; _HASH (a filter goes on with #) and _END (it ends here) to bits of access."""


_Name = tuple[tuple[int, tuple[str, ...]], ...]
"""What stands for %u and %c: pairs of the key and a name's levels. What is missing stands for nothing."""
_NOBODY: _Name = ()
_MOST_NAMES = 20_000


class Acl:
    """The rules of one file. Made by `parse`."""

    __slots__ = ("_denials", "_grants", "_names", "_users")

    def __init__(self) -> None:
        self._users: dict[str | None, _Node] = {}
        self._grants: _Node = {}
        self._denials: _Node = {}
        self._names: dict[tuple[str | None, str], tuple[_Name, _Name]] = {}

    def add(self, username: str | None, access: int, levels: Sequence[_Level]) -> None:
        """Add a `topic` line of a user, or of clients without user name (None)."""
        _insert(self._users.setdefault(username, {}), levels, access)

    def add_pattern(self, access: int, levels: Sequence[_Level]) -> None:
        """Add a `pattern` line."""
        _insert(self._denials if access == _DENY else self._grants, levels, access)

    @property
    def users(self) -> frozenset[str]:
        """The names that have rules of their own."""
        return frozenset(name for name in self._users if name is not None)

    def allows(self, username: str | None, client_id: str, topic: str, access: int) -> bool:
        """Whether that client may do that, READ or WRITE, with a concrete topic."""
        levels = topic.split("/")
        is_dollar = topic.startswith("$")
        own = self._users.get(username)
        if own is not None:
            found = _bits(own, levels, _NOBODY, is_dollar=is_dollar)
            if found & _DENY:
                return False
            if found & access:
                return True
        if not self._grants or _is_dangerous(username, client_id):
            return False
        whole, name = self._standing(username, client_id)
        if self._denials and _bits(self._denials, levels, name, is_dollar=is_dollar):
            return False
        return bool(_bits(self._grants, levels, whole, is_dollar=is_dollar) & access)

    def may_match(self, username: str | None, client_id: str, filter: str) -> bool:  # noqa: A002 - MQTT's word
        """Whether there can be a topic that this filter matches and that client may read."""
        levels = _compiled(filter)
        own = self._users.get(username, {})
        if any(not _covers(own, common, _NOBODY) for common in _overlaps(own, levels, _NOBODY)):
            return True
        if not self._grants or _is_dangerous(username, client_id):
            return False
        whole, name = self._standing(username, client_id)
        return any(
            not _covers(own, common, _NOBODY) and not _covers(self._denials, common, name)
            for common in _overlaps(self._grants, levels, whole)
        )

    def _standing(self, username: str | None, client_id: str) -> tuple[_Name, _Name]:
        """What stands for a client in patterns that grant, where a name is one level, and in those that deny."""
        standing = self._names.get((username, client_id))
        if standing is None:
            name: _Name = ((_CLIENT, tuple(client_id.split("/"))),)
            if username:
                name = ((_USER, tuple(username.split("/"))), *name)
            standing = tuple(pair for pair in name if len(pair[1]) == 1), name
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[username, client_id] = standing
        return standing


def _insert(node: _Node, levels: Sequence[_Level], access: int) -> None:
    for level in levels:
        if level == _HASH:
            break
        node = node.setdefault(level, {})
    end = _HASH if levels[-1] == _HASH else _END
    node[end] = node.get(end, 0) | access


def _is_dangerous(username: str | None, client_id: str) -> bool:
    """Whom mosquitto keeps away from patterns; also a client that has no id yet."""
    names = f"{username or ''}{client_id}"
    return not client_id or "+" in names or "#" in names


def _bits(root: _Node, levels: Sequence[_Level], name: _Name, *, is_dollar: bool, is_whole: bool = True) -> int:
    """The access that all filters of a trie name together which match a topic, here in levels.

    `levels` may be a filter as well, and then those count that match all it can match; where it ends in #, that is
    left out and `is_whole` False. `is_dollar`: it starts with $, so that only the same text can stand for its head.
    """
    found = 0
    count = len(levels)
    end = _END if is_whole else -1  # no node has that
    stack: list[tuple[_Node, int]] = [(root, 0)]
    while stack:
        node, at = stack.pop()
        is_open = at > 0 or not is_dollar
        if is_open and _HASH in node:
            found |= node[_HASH]  # also where the topic ends: `a/#` matches `a`
        if at == count:
            found |= node.get(end, 0)
            continue
        if (child := node.get(levels[at])) is not None:
            stack.append((child, at + 1))
        if not is_open:
            continue
        if (any_level := node.get(_PLUS)) is not None and any_level is not child:
            stack.append((any_level, at + 1))
        for key, own in name:
            if key in node:
                after = at + len(own)
                if tuple(levels[at:after]) == own:
                    stack.append((node[key], after))
    return found


def _covers(root: _Node, levels: tuple[_Level, ...], name: _Name) -> bool:
    """Whether a single line denies all that a filter can match; that several do so together is not looked for."""
    is_whole = levels[-1] != _HASH
    found = _bits(
        root,
        levels if is_whole else levels[:-1] or (_PLUS,),  # `#` and `+/#` match the same topics
        name,
        is_dollar=str(levels[0]).startswith("$"),
        is_whole=is_whole,
    )
    return bool(found & _DENY)


def _overlaps(root: _Node, levels: Sequence[_Level], name: _Name) -> Iterator[tuple[_Level, ...]]:
    """For each line that lets read something of what a filter matches: what both match, which is a filter again."""
    is_dollar = str(levels[0]).startswith("$")
    stack: list[tuple[_Node, int, tuple[_Level, ...]]] = [(root, 0, ())]
    while stack:
        node, at, common = stack.pop()
        wanted = levels[at] if at < len(levels) else _END
        if (common or not is_dollar) and node.get(_HASH, 0) & READ:
            yield (*common, *levels[at:])
        if wanted in (_END, _HASH) and node.get(_END, 0) & READ:
            yield common
        if wanted != _END:
            after = at if wanted == _HASH else at + 1
            stack.extend((child, after, (*common, level)) for level, child in _agreeing(node, wanted, name, common))


def _agreeing(node: _Node, wanted: _Level, name: _Name, before: tuple[_Level, ...]) -> Iterator[tuple[_Level, _Node]]:
    """The children of a node that agree with a level of a filter, each with the level that stands for both."""
    is_text = isinstance(wanted, str)
    for key in (wanted, _PLUS, _USER, _CLIENT) if is_text else tuple(node):
        if key not in node or key in (_HASH, _END):
            continue
        stands: _Level = key
        if key in (_USER, _CLIENT):
            if (own := dict(name).get(key)) is None:
                continue
            stands = own[0]
        if isinstance(stands, str) and is_text and stands != wanted:
            continue
        level = stands if isinstance(stands, str) else wanted if is_text else _PLUS
        if not before and str(level).startswith("$") and not (isinstance(key, str) and is_text):
            continue
        yield level, node[key]


def _compiled(filter: str, *, is_pattern: bool = False) -> tuple[_Level, ...]:  # noqa: A002 - MQTT's word
    """A filter as levels. Raises ValueError, with the cure, where it is none."""
    if not filter or "\0" in filter or len(filter.encode()) > _LARGEST:
        raise ValueError("a filter has 1 to 65535 bytes and no NUL")
    levels: list[_Level] = []
    texts = filter.split("/")
    for number, text in enumerate(texts, 1):
        if text == "#" and number == len(texts):
            levels.append(_HASH)
        elif text == "+":
            levels.append(_PLUS)
        elif "+" in text or "#" in text:
            raise ValueError(f"{filter!r} is no filter: + stands for a whole level, # for all levels at the end")
        elif is_pattern and text in ("%u", "%c"):
            levels.append(_USER if text == "%u" else _CLIENT)
        elif is_pattern and ("%u" in text or "%c" in text):
            raise ValueError(f"{filter!r}: %u and %c stand for a whole level. Make {text!r} a level %u or %c alone")
        else:
            levels.append(text)
    return tuple(levels)


def parse(data: bytes, file: str) -> Acl:
    """Read an ACL file. Raises ValueError with a line `file:number: what, and the cure` for each mistake."""
    acl = Acl()
    mistakes = []
    user: str | None = None
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.rstrip()
        if not line or line.startswith(b"#"):
            continue
        try:
            user = _read_line(acl, line.decode(), user)
        except UnicodeDecodeError:
            mistakes.append(f"{file}:{number}: not UTF-8. Save the file as UTF-8")
        except ValueError as error:
            mistakes.append(f"{file}:{number}: {error}")
        if len(mistakes) == _MOST_MISTAKES:
            break
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return acl


def _read_line(acl: Acl, line: str, user: str | None) -> str | None:
    """Take one line. Returns whose section the next line stands in."""
    word, _, rest = line.lstrip(" ").partition(" ")
    rest = rest.strip()
    if word == "user":
        if not rest:
            raise ValueError("`user` names nobody. Write `user NAME`")
        return rest
    if word not in ("topic", "pattern"):
        hint = "a comment starts with # in the first column" if word.startswith("#") else "write topic, pattern or user"
        raise ValueError(f"{word[:40]!r} is no word of an ACL file: {hint}. Words are separated by blanks")
    first, _, after = rest.partition(" ")
    if not first or (not after and first in _ACCESS):
        raise ValueError(f"`{word} {first}` names no topic. Write `{word} {first or 'readwrite'} TOPIC`")
    if after and first not in _ACCESS:
        raise ValueError(
            f"access {first[:40]!r} is none of read, write, readwrite, deny (needed before topics with blanks)"
        )
    access = _ACCESS[first] if after else READ | WRITE
    levels = _compiled(after.strip() or first, is_pattern=word == "pattern")
    if word == "pattern":
        acl.add_pattern(access, levels)
    else:
        acl.add(user, access, levels)
    return user
