"""CSV as spreadsheets of the field write it."""

from __future__ import annotations

import pytest

from gateway.mapping.document import resolve_scalar
from gateway.mapping.table import read_table
from gateway.model import Place

ASKED = Place("gw.yaml", 7, 3)


def cell(column, text):
    return resolve_scalar(text) if column == "Unit" else text


@pytest.fixture
def table(write, reading, told):
    """`table(text)` gives (rows as dicts, mistakes)."""

    def read(text, known=("name", "host", "Unit"), required=("name",), apart=()):
        path = write("t.csv", text)
        rows = list(read_table(path, reading, known=known, required=required, asked=ASKED, apart=apart, cell=cell))
        return [{**aside, **data} for aside, data, _ in rows], told(reading)

    return read


def test_cells_are_typed_and_empty_ones_left_out(table):
    rows, mistakes = table("name,host,unit\na,10.0.0.1,5\nb,,\n")
    assert rows == [{"name": "a", "host": "10.0.0.1", "Unit": 5}, {"name": "b"}]
    assert not mistakes


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfname;host;unit\r\na;h;0,5\r\n",
        "name\thost\tunit\na\th\t0,5\n",
        "sep=;\nname;host;unit\na;h;0,5\n",
        "NAME; Host ;UNIT\n a ;h; 0,5 \n",
        '"name";"host";"unit"\n"a";"h";"0,5"\n',
        ";;\nname;host;unit\n;;;;\na;h;0,5;;;;\n# a comment;x\n\n",
    ],
)
def test_spreadsheets_of_the_field_are_understood(table, text):
    rows, mistakes = table(text)
    assert rows == [{"name": "a", "host": "h", "Unit": 0.5}]
    assert not mistakes


def test_a_comma_stays_a_comma_where_it_separates(table):
    rows, _ = table('name,host,unit\na,h,"0,5"\n')
    assert rows[0]["Unit"] == "0,5"


def test_a_percentage_has_a_decimal_comma_too(table):
    rows, _ = table("name;unit\na;0,5%\n")
    assert rows[0]["Unit"] == "0.5%"


def test_cells_know_their_place(write, reading):
    path = write("t.csv", '# list\nname,host\n"a\nb",h\nc,i\n')
    rows = list(read_table(path, reading, known=("name", "host"), required=(), asked=ASKED, apart=("name",), cell=cell))
    (_, first, at), (_, second, _) = rows
    assert (reading.places.unpack(at).line, reading.places.unpack(at).column) == (3, 1)
    assert (reading.places.value(first, "host").line, reading.places.value(first, "host").column) == (3, 2)
    assert reading.places.value(second, "host").line == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t.csv:1:1: the file is empty. Its first line must name the columns: name, host, Unit"),
        ("name,hots\na,b\n", "t.csv:1:2: unknown column 'hots'. Did you mean 'host'?"),
        ("name,,host\na,b,c\n", "t.csv:1:2: unknown column ''"),
        ("name,host,NAME\n", "t.csv:1:3: column 'name' stands twice"),
        ("host\nx\n", "t.csv:1:1: column 'name' is missing from the first line"),
        ("name,host\na,b,c\n", "t.csv:2:3: the row has 3 cells, the header 2. Put a cell with ',' in quotes"),
        ('name,host\na,b\nb,"c\n', "t.csv:3: CSV: unexpected end of data. Check the quotes from here on"),
        ('name,host\na,"b"c\n', "t.csv:2: CSV: "),
        (b"name,unit\na,\xb0C\n", "t.csv:2:3: the file is not UTF-8 (byte 0xb0)"),
    ],
)
def test_mistakes_say_line_and_cell(table, text, said):
    _, mistakes = table(text)
    assert len(mistakes) == 1
    assert mistakes[0].startswith(said)


def test_a_missing_file_is_told_where_it_was_asked_for(reading, told, tmp_path):
    assert not list(read_table(tmp_path / "no.csv", reading, known=(), required=(), asked=ASKED, cell=cell))
    assert told(reading) == ["gw.yaml:7:3: no.csv: no such file or directory. Check the path and its permissions"]


def test_rows_after_a_wrong_one_are_read(table):
    rows, mistakes = table("name\na\nb,c\nd\n")
    assert [row["name"] for row in rows] == ["a", "d"]
    assert len(mistakes) == 1
