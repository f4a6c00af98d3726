"""Topic templates: `{prefix}/{device}` and the like, filled once per definition and checked once. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from gateway.errors import HeadgateError

LONGEST = 65535
"""Bytes of a topic: its length travels in two bytes."""

_HOLE = re.compile(r"\{([^{}]*)\}")
_MISSING = "_"


class TopicError(HeadgateError):
    """A filled template is no topic that can be published."""


def check_topic(topic: str) -> str | None:
    """What is wrong with the name of a topic to publish to, or None."""
    try:
        size = len(topic.encode())  # [MQTT-1.5.4-1]
    except UnicodeEncodeError:
        return "a topic is Unicode text"
    if not topic:  # [MQTT-4.7.3-1]
        return "a topic has at least one character"
    if size > LONGEST:  # [MQTT-4.7.3-3]
        return f"a topic has at most {LONGEST} bytes, this one has {size}"
    wrong = next((c for c in topic if c in "+#\0"), None)  # [MQTT-3.3.2-2] [MQTT-4.7.3-2]
    return None if wrong is None else f"a topic to publish to has no {wrong!r}"


def check_template(text: str, allowed: Collection[str]) -> str | None:
    """What is wrong with a template, with the cure, or None. `allowed`: the names that may stand in braces."""
    rest = _HOLE.sub("x", text)
    if "{" in rest or "}" in rest:
        return f"'{text}': each {{ needs its }}, with a name between them"
    unknown = [name for name in _HOLE.findall(text) if name not in allowed]
    if unknown:
        return f"'{text}': there is no {{{unknown[0]}}} here; there is {', '.join(f'{{{n}}}' for n in sorted(allowed))}"
    wrong = check_topic(rest)
    return None if wrong is None else f"'{text}': {wrong}"


class Template:
    """A parsed template. `constants` are filled in at once, what is left waits for `fill`.

    Raises ValueError where the text is no template.
    """

    def __init__(self, text: str, constants: Mapping[str, str]) -> None:
        wrong = check_template(text, _HOLE.findall(text))
        if wrong:
            raise ValueError(wrong)
        self.text = _HOLE.sub(lambda hole: constants.get(hole[1], hole[0]), text)
        self.names = frozenset(_HOLE.findall(self.text))

    def __repr__(self) -> str:
        return f"<Template {self.text}>"

    def fill(self, values: Mapping[str, str]) -> str:
        """The topic. A name without a value, or with an empty one, becomes `_`: a backlog outlives a changed file.

        Raises TopicError where the result cannot be published.
        """
        topic = _HOLE.sub(lambda hole: values.get(hole[1]) or _MISSING, self.text)
        wrong = check_topic(topic)
        if wrong:
            raise TopicError(f"'{topic[:200]}': {wrong}")
        return topic
