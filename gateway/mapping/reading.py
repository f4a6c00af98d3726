"""One load of the user's files: what its parts share while it lasts, and pydantic models checked against places."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.driver import Driver
from gateway.mapping.document import Places, read_yaml
from gateway.mapping.mistakes import Mistakes, explain, nearest, unknown
from gateway.mapping.schema import NAME_PATTERN, TEXT_KEYS
from gateway.model import Place
from gateway.secrets import BASE, Secret

_M = TypeVar("_M", bound=BaseModel)

Label = Callable[[Place], str]
"""What a message begins with, given where it points: the device's name, or that of the template it comes from."""


class Reading:
    """The folder that relative files are relative to, where everything stands, and what is wrong with it so far."""

    def __init__(self, base: Path, drivers: Callable[[str], type[Driver]], library: Path | None = None) -> None:
        self.base = base
        self.library = library
        self.drivers = drivers
        self.places = Places()
        self.mistakes = Mistakes()

    def yaml(self, path: Path, asked: Place | None = None) -> dict[str, Any] | None:
        """The keys and values of a YAML file; None when it cannot be read, with the reasons noted."""
        return read_yaml(path, places=self.places, mistakes=self.mistakes, text_keys=TEXT_KEYS, asked=asked)

    def validate(self, model: type[_M], data: Any, place: Place, label: Label) -> _M | None:
        """Data as a model; None when it does not fit, with every reason noted where it stands."""
        try:
            section = model.model_validate(data, context={BASE: self.base})
        except ValidationError as error:
            self.note(error, model, data, place, label)
            return None
        self._warn_of_secrets(section, data, place, label)
        return section

    def note(self, error: ValidationError, model: type[BaseModel], data: Any, place: Place, label: Label) -> None:
        """Note what pydantic found in `data`, each finding where it stands."""
        if self.mistakes.is_full:
            self.mistakes.count += error.error_count()
            return
        for path, is_key, text in explain(error, model):
            at = self.places.locate(data, path, place, key=is_key)
            self.mistakes.add(at, label(at) + text)

    def pick(self, data: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
        """The part of a dict with these keys, each where it stood."""
        return self.overlay({key: data for key in keys if key in data})

    def overlay(self, sources: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """A dict of these keys, each with the value and place that it has in its source."""
        data = {key: source[key] for key, source in sources.items()}
        marks = array("Q")
        for key, source in sources.items():
            marks.extend(self.places.positions(source, key))
        self.places.note(data, marks)
        self.places.keep(data)
        return data

    def refuse_unknown(
        self, data: dict[str, Any], model: type[BaseModel], known: Iterable[str], label: Label, start: Place
    ) -> None:
        """Note each key that is neither the model's nor among `known`."""
        expected = set(known)
        for key in data:
            if key not in expected:
                at = self.places.locate(data, [key], start, key=True)
                self.mistakes.add(at, label(at) + unknown(key, model, expected))

    def check_name(self, name: str, what: str, place: Place, reserved: frozenset[str] = frozenset()) -> bool:
        """Whether a name fits the alphabet and is not reserved; noted when it does not."""
        if not NAME_PATTERN.fullmatch(name):
            self.mistakes.add(place, f"{what} '{name[:80]}': {wrong_name(name)}")
            return False
        if name in reserved:
            self.mistakes.add(place, f"{what} '{name}': this name is reserved for topics of headgate. Choose another")
            return False
        return True

    def _warn_of_secrets(self, section: BaseModel, data: Any, place: Place, label: Label) -> None:
        """Warn of secrets that are kept badly."""
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            if isinstance(value, Secret) and value.caution:
                at = self.places.locate(data, [field.alias or name], place)
                self.mistakes.warn(at, label(at) + value.caution)


def wrong_name(name: str) -> str:
    """Why a name does not fit the alphabet, with a name that does."""
    if not name:
        return "a name must not be empty"
    if len(name) > 64:
        return f"{len(name)} characters are too many. A name has at most 64"
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in name).lstrip("_.-")
    cure = f". '{cleaned}' would do" if cleaned else ""
    return f"a name has letters, digits and _ . - only, and begins with a letter or digit{cure}"


def missing(name: str, what: str, known: Iterable[str]) -> str:
    """What to say of a name that refers to nothing."""
    return f"there is no {what} '{name}'{nearest(name, known)}"
