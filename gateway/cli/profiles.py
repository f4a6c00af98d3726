"""`headgate profiles [WORD …]`: the library of device profiles; by its name, one profile with its tags and sources."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.mapping.schema import MappingEntry

SUMMARY = "List the device profiles, search them, or show one with its tags and where its facts come from."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "words", metavar="NAME|WORD", nargs="*", help="one profile (eastron/sdm630), or words that all must be there"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print. Exit code 1 when no profile is meant."""
    import orjson

    from gateway.mapping.profiles import profiles

    names = profiles()
    if len(options.words) == 1 and options.words[0].lower() in names:
        name = options.words[0].lower()
        entry = _read(name)
        document: Any = _document(name, entry)
        lines = _shown(document)
    else:
        found = [(name, _read(name)) for name in names]
        found = [(name, entry) for name, entry in found if _has(name, entry, options.words)]
        document = [_summary(name, entry) for name, entry in found]
        lines = _listed(document, options.words, names)
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() if options.json else "\n".join(lines))
    return 0 if document else 1


def _read(name: str) -> MappingEntry:
    """A profile of the library, checked. Raises FileError."""
    from gateway.driver import find
    from gateway.mapping.profiles import find_profile
    from gateway.mapping.reading import Reading
    from gateway.mapping.schema import mapping_model
    from gateway.model import Place

    path = find_profile(name)
    reading = Reading(Path(), find)
    data = reading.yaml(path) or {}
    driver = str(data.get("driver", ""))
    model = mapping_model(driver, find(driver).DeviceOptions)
    entry = reading.validate(model, data, Place(str(path), 1, 1), lambda _: "")
    reading.mistakes.check()
    assert entry is not None  # noqa: S101 - without mistakes there is an entry
    return entry


def _has(name: str, entry: MappingEntry, words: list[str]) -> bool:
    text = " ".join((name, entry.maker or "", entry.model or "", entry.description or "", *entry.tags)).lower()
    return all(word.lower() in text for word in words)


def _summary(name: str, entry: MappingEntry) -> dict[str, Any]:
    return {
        "name": name,
        "maker": entry.maker,
        "model": entry.model,
        "description": entry.description,
        "driver": entry.driver,
        "tags": len(entry.tags),
    }


def _document(name: str, entry: MappingEntry) -> dict[str, Any]:
    """Everything a profile says; each tag with its source in full."""
    head = entry.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"tags", "sources"})
    tags = {tag: dict(keys) if isinstance(keys, dict) else {"address": keys} for tag, keys in entry.tags.items()}
    return {"name": name, **head, "sources": entry.sources, "tags": tags}


def _listed(summaries: list[dict[str, Any]], words: list[str], names: list[str]) -> list[str]:
    if not summaries:
        close = get_close_matches("/".join(words).lower(), names, 1)
        meant = f" Did you mean {close[0]}?" if close else ""
        return [f"no profile has {' and '.join(words)}.{meant} Write headgate profiles for all of them"]
    width = max(len(summary["name"]) for summary in summaries)
    lines = [f"{s['name']:{width}}  {s['tags']:3} tags  {s['maker']}: {s['description']}" for s in summaries]
    found = f"{len(summaries)} profile{'s' * (len(summaries) != 1)}"
    return [*lines, f"{found}; headgate profiles NAME shows one with its tags and sources"]


def _shown(document: dict[str, Any]) -> list[str]:
    """One profile: what it is for, how to use it, a line a tag, and the sources."""
    lines = [
        f"{document['name']}: {document['description']}",
        f"  for {document['maker']} {document['model']}",
        f"  use: {{driver: {document['driver']}, url: …, profile: {document['name']}}}",
    ]
    told = {"name", "description", "maker", "model", "driver", "sources", "tags", "identify"}
    lines += [f"  {key}: {value}" for key, value in document.items() if key not in told]
    rows = [_row(tag, keys) for tag, keys in document["tags"].items()]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    lines += ["  " + "  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]
    return lines + [f"  source {short}: {text}" for short, text in document["sources"].items()]


def _row(tag: str, keys: dict[str, Any]) -> list[str]:
    kind = keys.get("type", "bool" if re.match("coil|discrete", keys["address"]) else "")
    unit = keys.get("unit", "") or keys.get("quantity", "")
    return [tag, keys["address"], kind, unit, keys.get("every", ""), keys.get("source", "")]
