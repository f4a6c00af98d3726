"""A driver that knows enough to be checked against, and readers of small files."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from gateway.driver import LineKey, UnknownDriverError
from gateway.errors import FileError, Mistake
from gateway.mapping.document import Places, read_yaml
from gateway.mapping.mistakes import Mistakes
from gateway.mapping.reading import Reading
from gateway.model import ScanGroup
from gateway.quantities import DurationRange
from gateway.secrets import Secret


class _DeviceOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: int = Field(1, ge=0, le=247, description="Unit.")
    timeout_s: Annotated[float, DurationRange("10ms", "1m")] = Field(1.0, alias="timeout", description="Timeout.")
    pin: Secret | None = Field(None, description="Pin.")


class _TagOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int | None = Field(None, ge=1, description="Length.")
    encoding: Literal["ascii", "utf-8"] = Field("ascii", description="Encoding.")
    swap: bool = Field(False, description="Swap.")
    sentinels: list[int] = Field(default_factory=list, description="Sentinels.")
    settle_s: Annotated[float, DurationRange()] = Field(0.001, alias="settle", description="Settle.")


class FakeDriver:
    """Addresses are `word:0` … `word:99`; a line is `tcp://HOST:PORT`, with `?baud=N` as its parameters."""

    DeviceOptions = _DeviceOptions
    TagOptions = _TagOptions

    @classmethod
    def line_key(cls, url: str, options: Any) -> LineKey:
        port, _, parameters = url.partition("?")
        if not port.startswith("tcp://"):
            raise ValueError(f"'{url}' is no url. Write tcp://HOST:PORT")
        return LineKey(port, parameters)

    @classmethod
    def compile(cls, device, tags):
        wrong = [
            Mistake(tag.place, f"tag '{tag.name}': '{tag.address}' is no address. Write word:0 to word:99")
            for tag in tags
            if not (tag.address.startswith("word:") and tag.address[5:].isdigit() and int(tag.address[5:]) < 100)
        ]
        if wrong:
            raise FileError(wrong)
        rates: dict[float, list[Any]] = {}
        for tag in tags:
            rates.setdefault(tag.every_s, []).append(tag)
        return [
            ScanGroup.of(device, same, types=["int16"] * len(same), every_s=every_s, plan=None)
            for every_s, same in rates.items()
        ]

    @classmethod
    def check_write(cls, device, tag):
        if tag.address == "word:99":
            raise ValueError("word:99 can only be read. Take write out")

    async def write(self, device, tag, value, *, is_wanted=None):
        raise NotImplementedError

    async def read_tag(self, device, tag):
        raise NotImplementedError


class MuteDriver:
    """One that cannot write."""

    DeviceOptions = _DeviceOptions
    TagOptions = _TagOptions
    line_key = FakeDriver.line_key
    compile = FakeDriver.compile


@pytest.fixture
def fake():
    return FakeDriver


@pytest.fixture
def drivers():
    def find(name):
        if name not in {"fake", "mute"}:
            raise UnknownDriverError(f"there is no driver '{name}'; installed are: fake")
        return FakeDriver if name == "fake" else MuteDriver

    return find


@pytest.fixture
def reading(tmp_path, drivers):
    """A load whose files lie in tmp_path."""
    return Reading(tmp_path, drivers)


@pytest.fixture
def write(tmp_path):
    """`write("a.yaml", text)` writes a dedented file into tmp_path and gives its path."""

    def put(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).lstrip("\n").encode())
        return path

    return put


@pytest.fixture
def parse(write):
    """`parse(text)` gives (data, places, mistakes as text without the folder)."""

    def read(text: str | bytes, text_keys: frozenset[str] = frozenset()):
        path = write("f.yaml", text)
        places, mistakes = Places(), Mistakes()
        data = read_yaml(path, places=places, mistakes=mistakes, text_keys=text_keys)
        try:
            mistakes.check()
        except FileError as error:
            return data, places, [str(m).replace(f"{path.parent}/", "") for m in error.mistakes]
        return data, places, []

    return read


@pytest.fixture
def told(tmp_path):
    """`told(reading)` gives the mistakes so far as text, without the folder."""

    def tell(reading: Reading) -> list[str]:
        try:
            reading.mistakes.check()
        except FileError as error:
            return [str(m).replace(f"{tmp_path}/", "") for m in error.mistakes]
        return []

    return tell


@pytest.fixture
def load_devices(write, reading, told):
    """`load_devices(devices_yaml, templates_yaml)` gives (devices, mistakes) of the sections in gw.yaml."""
    from gateway.mapping.loader import Loader

    def load(devices: str, templates: str = ""):
        text = "devices:\n" + _indent(devices) + ("templates:\n" + _indent(templates) if templates else "")
        data = reading.yaml(write("gw.yaml", text.encode())) or {}
        found = Loader(reading).devices(data.get("devices") or {}, data.get("templates") or {})
        return found, told(reading)

    return load


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" if line else "\n" for line in dedent(text).strip("\n").split("\n"))
