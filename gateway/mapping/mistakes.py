"""Collecting mistakes with a bound, and saying pydantic's findings in the words of the file, with the cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import FileError, Mistake
from gateway.model import Place

SHOWN = 100
"""How many mistakes are told in full; of the rest, only how many there are."""

_REMEMBERED = 50_000

LATER = "is not built yet, it comes in a later version. Take it out"


class Mistakes:
    """Every mistake once, in no order, at most `SHOWN` in full. Warnings stand beside them and stop nothing."""

    def __init__(self) -> None:
        self._mistakes: list[Mistake] = []
        self._warnings: list[Mistake] = []
        self._seen: set[int] = set()
        self.count = 0

    def add(self, place: Place, text: str) -> None:
        """Note a mistake, unless the very same was noted before."""
        mistake = Mistake(place, text)
        if self._is_new(mistake):
            self.count += 1
            if not self.is_full:
                self._mistakes.append(mistake)

    @property
    def is_full(self) -> bool:
        """Whether further mistakes are counted and not told, so that nobody need find words for them."""
        return len(self._mistakes) >= SHOWN

    def warn(self, place: Place, text: str) -> None:
        """Note what works but should not stay so."""
        warning = Mistake(place, text)
        if self._is_new(warning) and len(self._warnings) < SHOWN:
            self._warnings.append(warning)

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """The warnings in the order of the files."""
        return tuple(FileError(self._warnings).mistakes)

    def check(self) -> None:
        """Raise FileError with the mistakes, if there are any; the last one counts those that are left out."""
        if not self.count:
            return
        ordered = FileError(self._mistakes).mistakes
        if self.count > len(ordered):  # at the place of the last one, so that any sorting leaves it there
            text = f"… and {self.count - len(ordered)} more mistakes. Mend these first, then check again"
            ordered.append(Mistake(ordered[-1].place, text))
        raise FileError(ordered)

    def _is_new(self, mistake: Mistake) -> bool:
        key = hash(mistake)
        if key in self._seen:
            return False
        if len(self._seen) < _REMEMBERED:
            self._seen.add(key)
        return True


def show(value: Any) -> str:
    """A value of the file as a message names it, short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 40 else f"'{value[:37]}…'"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else str(value)[:40]


def nearest(word: str, known: Iterable[str]) -> str:
    """`. Did you mean 'x'?`, or the known words when none is near; for the end of a message."""
    words = sorted(set(known))
    close = get_close_matches(word, words, 1, 0.6) or get_close_matches(word.lower(), words, 1, 0.6)
    if close:
        return f". Did you mean '{close[0]}'?"
    listed = ", ".join(words[:30]) + (", …" if len(words) > 30 else "")
    return f". Known here: {listed}" if words else ""


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys of a model as the file writes them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[int | str, ...], bool, str]]:
    """Each finding as (path of keys below the validated value, whether the key is meant, text with the cure).

    A key that is missing because it is misspelled is told once, as the misspelling.
    """
    details = error.errors(include_url=False)
    strange = {str(d["loc"][-1]) for d in details if d["type"] == "extra_forbidden"}
    for detail in details:
        path = detail["loc"]
        name = next((part for part in reversed(path) if isinstance(part, str)), "")  # an entry of a list has its key's
        if detail["type"] == "missing" and get_close_matches(name, strange, 1, 0.6):
            continue
        if detail["type"] == "extra_forbidden":
            yield path, True, unknown(name, _model_at(model, path[:-1]) or model)
        elif detail["type"] == "missing":
            yield path, True, f"'{name}' is missing{_purpose(model, path)}"
        elif path[-1:] == (_KEY,):  # the key itself is wrong, not what stands below it
            yield path[:-1], True, _say(detail, model)
        else:
            yield path, False, (f"{name}: " if name else "") + _say(detail, model)


def unknown(key: str, model: type[BaseModel], known: Iterable[str] = ()) -> str:
    """What to say of a key that a section does not have. `known`: further keys that it has."""
    if key in getattr(model, "later", ()):
        return f"'{key}' {LATER}"
    if key.isdigit():  # { deadband: 0,1 } is two keys
        return f"unknown key '{key}'. A decimal is written with a point, 0.{key} for example"
    return f"unknown key '{key}'{nearest(key, [*keys_of(model), *known])}"


def _say(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong with one value, and the cure."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if value is None:
        return f"has no value. Write one, or take the key out{_purpose(model, detail['loc'])}"
    if kind == "literal_error":
        choices = _choices(model, detail["loc"])
        return f"{show(value)} is none of {', '.join(choices)}{_suggest(value, choices)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {show(value)}{_hint(kind, value)}"
    if kind == "too_short":
        return "the list is empty. Write at least one entry, or take the key out"
    if kind in _BOUNDS:
        return f"{show(value)} is too {'small' if 'greater' in kind else 'large'}. {_BOUNDS[kind].format(**context)}"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {show(value)}"


_KEY = "[key]"  # ends pydantic's path to a key
_EXPECTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS: Mapping[str, str] = {
    "greater_than": "It must be more than {gt}",
    "greater_than_equal": "It must be at least {ge}",
    "less_than": "It must be less than {lt}",
    "less_than_equal": "It must be at most {le}",
}


def _hint(kind: str, value: Any) -> str:
    """The cure for a value of the wrong type, where there is a usual one."""
    if kind == "bool_type" and isinstance(value, str) and value.lower() in {"yes", "no", "on", "off"}:
        return f". Write {'true' if value.lower() in {'yes', 'on'} else 'false'}"
    if kind == "string_type" and not isinstance(value, dict | list):
        return ". Put it in quotes"
    if kind.startswith(("int", "float")) and isinstance(value, str):
        bare = value.replace(",", ".", 1)
        if bare.replace(".", "", 1).lstrip("+-").isdigit():
            return ". Write it without quotes" if bare == value else f". Write {bare}"
    if kind in {"dict_type", "model_type"}:
        return ". Write 'key: value' lines below it, indented"
    return ""


def _suggest(value: Any, choices: list[str]) -> str:
    close = get_close_matches(str(value).lower(), choices, 1, 0.5)
    return f". Did you mean {close[0]}?" if close else ""


def _field_at(model: type[BaseModel], path: tuple[int | str, ...]) -> Any:
    """The pydantic field at the end of a path, or None."""
    inner = _model_at(model, path[:-1])
    if inner is None or not path:
        return None
    return next((f for n, f in inner.model_fields.items() if path[-1] in {n, f.alias}), None)


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of the section at a path, or None where there is no model."""
    steps = list(path)
    found: type[BaseModel] | None = model
    while steps and found is not None:
        field = _field_at(found, (steps.pop(0),))
        models = _models_in(field.annotation) if field else []
        found = models[0] if models else None
        if steps and field and get_origin(field.annotation) in {dict, list, tuple}:
            steps.pop(0)  # the name of an entry, or its number
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _choices(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """What a field with a fixed choice takes, from its JSON Schema."""
    is_key = path[-1:] == (_KEY,)
    field = _field_at(model, path[:-2] if is_key else path[:-1] if path and isinstance(path[-1], int) else path)
    if field is None:
        return []
    schema = TypeAdapter(field.annotation).json_schema()
    if is_key:
        schema = schema.get("propertyNames", {})
    branches = [branch.get("items", branch) for branch in schema.get("anyOf", [schema])]
    return [
        show(word).strip("'")
        for branch in branches
        for word in branch.get("enum", [branch.get("const")])
        if word is not None
    ]


def _purpose(model: type[BaseModel], path: tuple[int | str, ...]) -> str:
    """What a key is for, from its field's description; for the end of a message."""
    field = _field_at(model, path)
    return f". {field.description.rstrip('.')}" if field and field.description else ""
