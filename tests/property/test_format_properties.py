"""Formats: any samples come back, a stop anywhere loses none, and no bytes do harm."""

import contextlib
import io
import json
import math
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shards import FORMATS, WRITABLE, parsed, read, recorded, same, written

from s3dataset.errors import DecodeError, UnindexableError
from s3dataset.formats import CSV, JSONL, Cursor, Format, Tar, Text, TFRecord

compressions = st.sampled_from([None, "gz", "zst"])
numbers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5).filter(
    lambda name: not name.startswith("__")
)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def round_trip(form: Format, samples: list[dict[str, Any]], compression: Any) -> list[Any]:
    out = io.BytesIO()
    with form.writer(out, compression=compression) as writer:
        for sample in samples:
            writer.write(sample)
        index = writer.finish()
    data = out.getvalue()
    assert form.scan(io.BytesIO(data)) == index == recorded(form, data)
    got = read(form, data)
    assert all(same(parsed(form, data, index, number), one) for number, one in enumerate(got))
    return [{name: value for name, value in one.items() if not name.startswith("__")} for one in got]


@given(st.lists(st.dictionaries(names, values, max_size=4)), compressions)
def test_jsonl(samples: list[dict[str, Any]], compression: Any) -> None:
    assert round_trip(JSONL(), samples, compression) == json.loads(json.dumps(samples))


@given(st.lists(texts), compressions)
def test_text(lines: list[str], compression: Any) -> None:
    lines = [line.replace("\n", " ").rstrip("\r").lstrip("\ufeff") for line in lines]
    assert round_trip(Text(), [{"text": line} for line in lines], compression) == [{"text": line} for line in lines]


@given(st.lists(names, min_size=1, max_size=3, unique=True), st.data(), st.sampled_from(",;\t|"), compressions)
def test_csv(columns: list[str], data: st.DataObject, delimiter: str, compression: Any) -> None:
    cells = st.text(st.sampled_from('a"\n\r,;\t|ü')) | texts
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, cells)), max_size=6))
    assert round_trip(CSV(delimiter=delimiter), rows, compression) == rows


@given(st.text(st.sampled_from('ab"\n,'), max_size=60))
def test_csv_as_the_csv_module_reads_it(text: str) -> None:
    import csv

    form = CSV(fieldnames=["a", "b"])
    expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    bad: list[DecodeError] = []
    got: list[list[str]] = []
    try:
        got = [[one["a"], one["b"]] for one in form.read(io.BytesIO(text.encode()), on_bad=bad.append)]
    finally:
        if not any("not closed" in str(error) for error in bad):
            assert got == [row for row in expected if len(row) == 2]
            assert len(bad) == len(expected) - len(got)


features = st.one_of(
    st.binary(max_size=20),
    numbers,
    st.floats(width=32, allow_nan=False),
    st.lists(st.binary(max_size=5), min_size=2, max_size=4),
    st.lists(numbers, min_size=2, max_size=40),
    st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=5),
)


@given(st.lists(st.dictionaries(names, features, max_size=4)), compressions)
def test_tfrecord(samples: list[dict[str, Any]], compression: Any) -> None:
    got = round_trip(TFRecord(), samples, compression)
    plain = [{k: v.tolist() if hasattr(v, "tolist") else v for k, v in one.items()} for one in got]
    assert plain == samples


@given(
    st.lists(st.dictionaries(st.text("abc.", min_size=1, max_size=4), st.binary(max_size=2000), min_size=1, max_size=3))
)
def test_tar(samples: list[dict[str, bytes]]) -> None:
    named = [{"__key__": f"s/{number}", **one} for number, one in enumerate(samples)]
    assert round_trip(Tar(), named, None) == samples


SHARDS = {pair: written(pair[0], 60, pair[1]) for pair in WRITABLE}


@given(st.sampled_from(WRITABLE), st.lists(st.integers(0, 60), max_size=4), st.booleans())
def test_stops_anywhere_lose_nothing(pair: tuple[str, Any], stops: list[int], indexed: bool) -> None:
    form = FORMATS[pair[0]]
    data, index = SHARDS[pair]
    whole = read(form, data)
    got: list[Any] = []
    number = offset = 0
    for stop in [*sorted(stops), 60]:
        cursor = Cursor(number=number, offset=offset, frames=index.frames if indexed else None)
        samples = form.read(io.BytesIO(data), url="s3://b/shard", cursor=cursor)
        got += [next(samples) for _ in range(stop - number)]
        number, offset = cursor.number, cursor.offset
    assert same(got, whole)


@given(st.sampled_from(WRITABLE), st.integers(0, 60))
def test_an_index_made_while_reading_survives_a_stop(pair: tuple[str, Any], stop: int) -> None:
    form = FORMATS[pair[0]]
    data, index = SHARDS[pair]
    cursor = Cursor(ends=array("Q"))
    samples = form.read(io.BytesIO(data), cursor=cursor)
    for _ in range(stop):
        next(samples)
    again = Cursor(cursor.number, cursor.offset, cursor.head, cursor.ends, cursor.frames, cursor.first)
    for _ in form.read(io.BytesIO(data), cursor=again):
        pass
    assert again.ends is not None
    assert (list(again.ends), again.frames, again.head) == (list(index.ends), index.frames, index.head)
    assert again.first == index.first


damages = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("set"), st.floats(0, 1), st.sampled_from([0, 0x7F, 0x80, 0xFF])),
        st.tuples(st.just("swap"), st.floats(0, 1), st.integers(1, 600)),
        st.tuples(st.just("double"), st.floats(0, 1), st.integers(1, 2000)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, damage: list[tuple[str, float, int]]) -> bytes:
    hurt = bytearray(data)
    for kind, place, value in damage:
        at = min(math.floor(place * len(hurt)), len(hurt) - 1)
        if kind == "cut" or at < 0:
            del hurt[max(at, 0) :]
        elif kind == "flip":
            hurt[at] ^= value
        elif kind == "set":
            hurt[at : at + 8] = bytes([value]) * min(8, len(hurt) - at)
        elif kind == "swap":
            hurt[at : at + value] = hurt[at : at + value][::-1]
        else:
            hurt[at:at] = hurt[at : at + value]
    return bytes(hurt)


@pytest.mark.parametrize("pair", WRITABLE, ids=str)
@given(damages)
def test_damage_raises_nothing_unexpected(pair: tuple[str, Any], damage: list[tuple[str, float, int]]) -> None:
    form = FORMATS[pair[0]]
    data, index = SHARDS[pair]
    hurt = damaged(data, damage)
    with contextlib.suppress(DecodeError):
        for _ in form.read(io.BytesIO(hurt), on_bad=lambda _: None):
            pass
    with contextlib.suppress(DecodeError, UnindexableError):
        assert len(form.scan(io.BytesIO(hurt))) < 10_000
    # An index of the shard as it was meets the one that was hurt.
    for number in (0, 30, 59):
        with contextlib.suppress(DecodeError):
            parsed(form, hurt, index, number)


@given(st.sampled_from(list(FORMATS)), st.binary(max_size=3000))
def test_any_bytes(name: str, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        for _ in FORMATS[name].read(io.BytesIO(data), on_bad=lambda _: None):
            pass
