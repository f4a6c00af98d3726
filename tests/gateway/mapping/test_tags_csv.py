"""CSV tag lists in and out."""

from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.mapping.tags import Defaults, TagReader
from gateway.mapping.tags_csv import COLUMNS, read_tags, write_tags
from gateway.model import Deadband, Device, Place, Tag, WriteRules

ASKED = Place("gw.yaml", 7, 3)


@pytest.fixture
def tags_of(write, reading, fake, told):
    """`tags_of(text)` gives (tags of device d, mistakes)."""

    def read(text, device="d"):
        lists = read_tags(write("tags.csv", text), fake, reading, ASKED)
        reader = TagReader("fake", fake, reading)
        tags = [tag for entries in lists.of(device) for tag in reader.read(entries, Defaults())]
        return tags, told(reading)

    return read


def test_the_columns_are_the_contract():
    assert ",".join(COLUMNS) == (
        "device,tag,address,type,order,scale,offset,unit,deadband,max_silence,every,write,min,max,decimals"
    )


def test_a_full_row_is_a_tag(tags_of):
    (tag,), mistakes = tags_of(
        ",".join([*COLUMNS, "length", "swap", "sentinels", "encoding"])
        + '\nd,a/b,word:1,int16,CDAB,0.1,-5,m3/h,1%,5m,100ms,false,0,10,2,8,TRUE,"[1,2]",utf-8\n'
    )
    assert not mistakes
    assert tag == Tag(
        name="a/b",
        address="word:1",
        type="int16",
        order="CDAB",
        scale=0.1,
        offset=-5,
        unit="m3/h",
        deadband=Deadband(1, percent=True),
        max_silence_s=300,
        on="change",
        every_s=0.1,
        min=0,
        max=10,
        decimals=2,
        options={"length": 8, "encoding": "utf-8", "swap": True, "sentinels": [1, 2], "settle_s": 0.001},
    )
    assert (tag.place.line, tag.place.column) == (2, 1)


def test_a_list_from_a_german_spreadsheet_is_understood(tags_of):
    (tag,), mistakes = tags_of("\ufeffTag;Address;Scale;Deadband;Unit\r\nflow;word:1;0,001;0,5;m³/h\r\n;;;;\r\n")
    assert not mistakes
    assert (tag.scale, tag.deadband, tag.unit) == (0.001, Deadband(0.5), "m³/h")


def test_addresses_and_units_stay_text(tags_of):
    tags, mistakes = tags_of("tag,address,unit,type\na,00001,1,16\n")
    assert not mistakes
    assert (tags[0].address, tags[0].unit, tags[0].type) == ("00001", "1", "16")


def test_rows_are_for_their_device_or_for_all(tags_of):
    text = "device,tag,address\n,a,word:1\nd,b,word:2\ne,c,word:3\n"
    assert [tag.name for tag in tags_of(text, "d")[0]] == ["a", "b"]
    assert [tag.name for tag in tags_of(text, "e")[0]] == ["a", "c"]
    assert [tag.name for tag in tags_of(text, "f")[0]] == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tag,address\n,word:1\n", "tags.csv:2:1: the row has no tag. Write a name, or empty the row"),
        ("tag,address\na,\n", "tags.csv:2:1: tag 'a': 'address' is missing. Where the tag lives"),
        ("tag,address\na,word:1\na,word:2\n", "tags.csv:3:1: tag 'a' stands twice. Take one of the rows out"),
        ("tag,address,scale\na,word:1,ten\n", "tags.csv:2:3: tag 'a': scale: expected a number, got 'ten'"),
        ('tag,address,scale\na,word:1,"0,1"\n', "scale: expected a number, got '0,1'. Write 0.1"),
        ('tag,address,write\na,word:1,"{""mn"": 1}"\n', "tag 'a': unknown key 'mn'. Did you mean 'min'?"),
        ("tag,address,write\na,word:1,maybe\n", "tags.csv:2:3: tag 'a': write: expected true or false, got 'maybe'"),
        ("tag,address,every\na,word:1,5\n", "tags.csv:2:3: tag 'a': every: '5' is no duration"),
        ("tag,address,swap\na,word:1,2\n", "tags.csv:2:3: tag 'a': swap: expected true or false, got '2'"),
        ("tag,address,sentinels\na,word:1,[1;\n", "tags.csv:2:3: tag 'a': sentinels: expected a list, got '[1;'"),
        ("tag,adress\na,word:1\n", "tags.csv:1:2: unknown column 'adress'. Did you mean 'address'?"),
        ("tag,address\nflow rate,word:1\n", "tags.csv:2:1: tag 'flow rate': a name has letters"),
    ],
)
def test_mistakes_say_line_and_cell(tags_of, text, said):
    _, mistakes = tags_of(text)
    assert said in mistakes[0]


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}(/[A-Za-z0-9]{1,4})?", fullmatch=True).filter(
    lambda name: not {"status", "set", "reply"} & set(name.split("/"))
)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)
SECONDS = st.integers(10, 86_400_000).map(lambda ms: ms / 1000)


RULES = st.one_of(
    st.builds(WriteRules, min=st.none() | st.floats(-9, 0), max=st.none() | st.floats(0, 9), every_s=SECONDS),
    st.builds(
        WriteRules,
        values=st.lists(st.booleans() | st.integers(-5, 5) | st.sampled_from([2.5, "auto"]), max_size=3).map(tuple),
        expires_s=st.none() | SECONDS.filter(lambda s: s >= 0.1),
        read_back=st.booleans(),
    ),
)


@st.composite
def tags(draw):
    deadband = draw(st.none() | st.builds(Deadband, st.floats(1e-6, 1e6), st.booleans()))
    on = "change" if deadband else draw(st.sampled_from(["change", "always"]))
    every_s = draw(SECONDS)
    low = draw(st.none() | NUMBERS)
    return Tag(
        name=draw(NAMES),
        address=draw(st.sampled_from(["word:1", "00001", 'ns=2;s="a,b"', "x;y"])),
        type=draw(st.sampled_from(["", "int16"])),
        order=draw(st.sampled_from(["", "CDAB"])),
        scale=draw(NUMBERS.filter(bool)),
        offset=draw(NUMBERS),
        unit=(unit := draw(st.sampled_from(["", "°C", "m3/h", "%", "1", 'a"b']))),
        quantity=draw(st.sampled_from(["", *({"°C": ["temperature"], "%": ["battery", "humidity"]}.get(unit, []))])),
        deadband=deadband,
        on=on,
        max_silence_s=draw(st.none() | st.integers(1, 6).map(lambda n: round(every_s + n, 3)))
        if on == "change"
        else None,
        every_s=every_s,
        min=low,
        max=None if low is None else draw(st.none() | st.floats(0, 1e6).map(lambda n: low + n)),
        decimals=draw(st.none() | st.integers(0, 15)),
        write=draw(st.none() | RULES),
        options={
            "length": draw(st.none() | st.integers(1, 99)),
            "encoding": draw(st.sampled_from(["ascii", "utf-8"])),
            "swap": draw(st.booleans()),
            "sentinels": draw(st.lists(st.integers(-9, 9), max_size=3)),
            "settle_s": draw(st.sampled_from([0.001, 1.5, 60.0])),
        },
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listed=st.lists(tags(), min_size=1, max_size=5, unique_by=lambda tag: tag.name))
def test_what_is_written_reads_back_the_same(tags_of, fake, listed):
    out = io.StringIO()
    device = Device(name="d", driver="fake", url="tcp://h", tags=tuple(listed))
    assert write_tags([device], lambda _: fake, out) == len(listed)
    read, mistakes = tags_of(out.getvalue().encode())
    assert not mistakes
    assert read == listed


def test_what_is_as_by_default_stays_empty(fake):
    out = io.StringIO()
    device = Device(name="d", driver="fake", url="tcp://h", tags=(Tag(name="a", address="word:1"),))
    write_tags([device], lambda _: fake, out)
    assert out.getvalue().splitlines()[1] == "d,a,word:1,,,,,,,,1s,,,,,always,data,,,,,,"
