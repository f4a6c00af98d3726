"""Payloads of format 1 are read as ever; golden stores show that what was written comes back (test_golden)."""

import pytest

from gateway.journal.frame import CODEC_JSON_ZLIB, Head
from gateway.model import GOOD, Definition, bad
from gateway.spool.payload import decode
from gateway.spool.record import Gap, Regime

HEAD = Head(codec=CODEC_JSON_ZLIB, first_seq=1, clock=2, store=0xABCDEF, start=3)
GROUP = Definition("pump", ("a", "b"), ("float32", "float32"), ("", ""), (None, None))


def read(document, head=HEAD):
    return decode(head, document, lambda key: GROUP if key == bytes(8) else None)


def test_batches_and_gaps_are_read():
    document = b"""{"groups":["0000000000000000"],"records":[
        [0,7,0,99,[1.5,null]],
        [1,7,0,99,[{"f":"7ff8000000000123"},{"i":"-ff"}],["good","bad:stale"],[0,1],[5,6],1],
        [3,7,-1,[3,4,0,99,2,"memory"]]]}"""
    dense, sparse, gap = read(document)
    assert (dense.seq, dense.batch.values, dense.batch.quality) == (1, [1.5, None], GOOD)
    assert (sparse.seq, sparse.batch.values[1], sparse.batch.quality) == (2, -255, [GOOD, bad("stale")])
    assert (sparse.batch.index, sparse.batch.times) == ([0, 1], [5, 6])
    assert (gap.seq, gap.gap) == (4, Gap(3, 4, 0, 99, 2, "memory"))
    assert [record.regime for record in (dense, sparse, gap)] == [None] * 3


def test_a_batch_of_a_time_without_a_clock_says_so():
    head = Head(codec=CODEC_JSON_ZLIB, monotonic=10, wall=50)
    (record,) = read(b'{"groups":["0000000000000000"],"records":[[0,1,0,99,[1,2]]]}', head)
    assert record.regime == Regime(bytes(16), 40, is_plausible=False)


def test_a_record_whose_definition_is_lost_is_a_gap():
    (record,) = read(b'{"groups":["ff00000000000000"],"records":[[0,1,0,99,[1,2]]]}')
    assert record.gap == Gap(1, 1, 99, 99, 1, "damaged")


def test_a_kind_of_a_later_version_is_skipped():
    (found,) = read(b'{"groups":[],"records":[[0,1,-7,{"what":"ever"}],[1,1,-1,[1,2,3,4,2,"memory"]]]}')
    assert found.gap == Gap(1, 2, 3, 4, 2, "memory")


@pytest.mark.parametrize(
    "document",
    [
        b"[]",
        b"{}",
        b'{"groups":[],"records":[[]]}',
        b'{"groups":[],"records":[[0,0,0,0,[]]]}',
        b'{"groups":["zz"],"records":[]}',
        b'{"groups":["0000000000000000"],"records":[[0,0,0,0,[],"good",null,null]]}',
        b'{"groups":["0000000000000000"],"records":[[0,0,0,0,[{"x":1}],"good",null,null,1]]}',
        b'{"groups":[],"records":[["a",0,0]]}',
        b'{"groups":[],"records":[[0,0,-1,[1]]]}',
        b'{"groups":["0000000000000000"],"records":[[0,0,0,0,[' + b"[" * 900 + b"]" * 900 + b'],"good",null,null,1]]}',
    ],
)
def test_a_payload_of_another_shape_is_refused(document):
    with pytest.raises(ValueError, match="cannot be read"):
        read(document)
