"""CSV as spreadsheets of the field write it: BOM, semicolons or tabs, decimal commas, `sep=` lines, empty rows.

A mistake's column is the number of the cell, counted from 1.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from gateway.mapping.document import read_text
from gateway.mapping.mistakes import nearest
from gateway.mapping.reading import Reading
from gateway.model import Place

Row: TypeAlias = tuple[dict[str, str], dict[str, Any], int]
"""The filled cells of a row, by column: those the caller wants apart, the others; and the row's position."""

_COMMA_NUMBER = re.compile(r"[-+]?[0-9]+,[0-9]+(?:[eE][-+]?[0-9]+)?%?")


def read_table(
    path: Path,
    reading: Reading,
    *,
    known: Collection[str],
    required: Collection[str],
    asked: Place,
    apart: Collection[str] = (),
    cell: Callable[[str, str], Any],
) -> Iterator[Row]:
    """The rows of a CSV file. `cell(column, text)` says what a cell means; decimal commas are points by then.

    Cells of the columns `apart` stay text and stand apart from the others. Column names are compared without regard to
    case. Mistakes are noted: in the header they end the reading, in a row they skip it.
    """
    text = read_text(path, reading.mistakes, asked)
    if text is None:
        return
    delimiter = _delimiter(text)
    file = reading.places.file(str(path))
    rows = _rows(path, text, delimiter, reading)
    header = next(rows, None)
    if header is None:
        reading.mistakes.add(
            Place(str(path), 1, 1), f"the file is empty. Its first line must name the columns: {', '.join(known)}"
        )
        return
    columns = _columns(header, path, reading, known, required)
    if columns is None:
        return
    for line, cells in rows:
        if len(cells) > len(columns):
            place = Place(str(path), line, len(columns) + 1)
            reading.mistakes.add(
                place,
                f"the row has {len(cells)} cells, the header {len(columns)}. Put a cell with '{delimiter}' in quotes",
            )
            continue
        aside: dict[str, str] = {}
        data: dict[str, Any] = {}
        marks = array("Q")
        for number, (column, raw) in enumerate(zip(columns, cells, strict=False), 1):
            word = raw.strip()
            if not word:
                continue
            if column in apart:
                aside[column] = word
                continue
            if delimiter != "," and _COMMA_NUMBER.fullmatch(word):
                word = word.replace(",", ".")
            data[column] = cell(column, word)
            position = reading.places.pack(file, line, number)
            marks.extend((position, position))
        reading.places.note(data, marks)
        reading.places.keep(data)
        yield aside, data, reading.places.pack(file, line, 1)


def _rows(path: Path, text: str, delimiter: str, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each begins in, without those that are empty or begin with `#`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            reading.mistakes.add(Place(str(path), line, 0), f"CSV: {error}. Check the quotes from here on")
            return
        if cells is None:
            return
        while cells and not cells[-1].strip():
            del cells[-1]
        if cells and not cells[0].startswith(("#", "sep=")):
            yield line, cells
        line = reader.line_num + 1


def _delimiter(text: str) -> str:
    """The separator of a spreadsheet's CSV: what its first row has most of, or what its `sep=` line says."""
    first = next((line for line in text.split("\n", 50) if line.strip()), "").rstrip("\r")
    if first.startswith("sep=") and len(first) == 5:
        return first[4]
    return max(",;\t", key=first.count)


def _columns(
    header: tuple[int, list[str]], path: Path, reading: Reading, known: Collection[str], required: Collection[str]
) -> list[str] | None:
    """The names of the columns as `known` spells them; None when one is missing, unknown or there twice."""
    line, cells = header
    spelled = {name.lower(): name for name in known}
    columns: list[str] = []
    before = reading.mistakes.count
    for number, raw in enumerate(cells, 1):
        place = Place(str(path), line, number)
        name = spelled.get(raw.strip().lower())
        if name is None:
            reading.mistakes.add(place, f"unknown column '{raw.strip()}'{nearest(raw.strip(), known)}")
        elif name in columns:
            reading.mistakes.add(place, f"column '{name}' stands twice. Take one of them out")
        columns.append(name or raw)
    for name in required:
        if name not in columns and not get_close_matches(name, [c.strip().lower() for c in columns], 1, 0.6):
            reading.mistakes.add(Place(str(path), line, 1), f"column '{name}' is missing from the first line")
    return columns if reading.mistakes.count == before else None
