"""Parquet, beside pyarrow."""

import datetime as dt
import io
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.shards import parsed, read, recorded, same

from s3dataset.errors import DecodeError
from s3dataset.formats import Cursor, Parquet, describe, from_description

TABLE = pa.table(
    {
        "a": range(1000),
        "vector": [[float(number)] * (number % 4) for number in range(1000)],
        "text": [f"text {number}" for number in range(1000)],
        "nested": [{"p": number, "q": [None, number]} for number in range(1000)],
        "bytes": [None if number % 3 else b"x" * number for number in range(1000)],
        "time": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 1000,
        "fixed": pa.array([[number, 1] for number in range(1000)], pa.list_(pa.int32(), 2)),
        "holes": [[1, None], None, [2, 3], []] * 250,
    }
)


def file_of(table: pa.Table, rows: int = 100, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=rows, **options)
    return out.getvalue()


DATA = file_of(TABLE)


def everywhere(form: Parquet, data: bytes) -> list[Any]:
    """What is read, found alike by every way."""
    samples = read(form, data)
    index = form.scan(io.BytesIO(data))
    made = recorded(form, data)
    assert (list(made.ends), made.frames, made.head) == (list(index.ends), index.frames, index.head)
    for number in {0, 1, 99, 100, len(samples) // 2, len(samples) - 1} & set(range(len(samples))):
        assert same(parsed(form, data, index, number), samples[number])
        for known in ({}, {"frames": index.frames, "head": index.head}):
            assert same(read(form, data, number=number, offset=number, **known), samples[number:])
    return samples


def values(one: Any) -> dict[str, Any]:
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in one.items()}
    return {name: value for name, value in plain.items() if not name.startswith("__")}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": False},
        {"version": "1.0"},
        {"data_page_size": 50},
    ],
)
def test_rows_are_those_of_pyarrow(options: dict[str, Any]) -> None:
    samples = everywhere(Parquet(), file_of(TABLE, **options))
    assert list(map(values, samples)) == TABLE.to_pylist()
    assert samples[7]["vector"].dtype == np.float64
    samples[7]["vector"][0] = 5  # may be written to
    assert samples[7]["fixed"].dtype == np.int32
    assert isinstance(samples[0]["holes"], list)


def test_columns() -> None:
    samples = everywhere(Parquet(columns=["text", "vector"]), DATA)
    assert list(map(values, samples)) == TABLE.select(["text", "vector"]).to_pylist()
    assert list(values(samples[0])) == ["text", "vector"]
    assert values(everywhere(Parquet(columns=["nested.p", "a"]), DATA)[9]) == {"nested": {"p": 9}, "a": 9}
    with pytest.raises(DecodeError, match=r"no column 'b'; it has 'a', "):
        read(Parquet(columns=["b"]), DATA)


class Counting(io.BytesIO):
    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def test_columns_not_wanted_are_not_fetched() -> None:
    wide = pa.table({"small": range(40), "big": [np.random.default_rng(n).bytes(200_000) for n in range(40)]})
    data = file_of(wide, 20)
    stream = Counting(data)
    assert len(list(Parquet(columns=["small"]).read(stream))) == 40
    assert stream.read_bytes < 100_000
    stream = Counting(data)
    assert len(list(Parquet(filters=[("small", ">=", 20)]).read(stream))) == 20
    assert stream.read_bytes < len(data) * 0.6
    stream = Counting(data)
    assert len(Parquet(filters=[("small", ">=", 5)]).scan(stream)) == 35
    assert stream.read_bytes < 200_000


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ([("a", ">", 550)], 449),
        ([("a", ">", 5000)], 0),
        ([[("a", "in", {3, 7})], [("text", "==", "text 999")]], 3),
        ([("a", ">=", 150), ("a", "<", 450), ("text", "!=", "text 200")], 299),
        (pc.field("a") > 990, 9),
        ((pc.field("a") < 3) | (pc.field("text") == "text 500"), 4),
        (pc.field("nested", "p") == 77, 1),
    ],
    ids=str,
)
def test_filters(filters: Any, count: int) -> None:
    for columns in (None, ["vector"]):
        form = Parquet(columns=columns, filters=filters)
        samples = everywhere(form, DATA)
        assert len(samples) == count
        expected = TABLE.filter(filters if isinstance(filters, pc.Expression) else pq.filters_to_expression(filters))
        assert list(map(values, samples)) == (expected if columns is None else expected.select(columns)).to_pylist()
        assert pickle.loads(pickle.dumps(form)) == form
        assert hash(pickle.loads(pickle.dumps(form))) == hash(form)
        if not isinstance(filters, pc.Expression):
            assert describe(from_description(describe(form))) == describe(form)
        else:
            assert describe(form) == describe(pickle.loads(pickle.dumps(form)))
            with pytest.raises(ValueError, match="give the format again"):
                from_description(describe(form))


def test_filters_that_cannot_be() -> None:
    for filters in ("a > 3", [], [("a", ">")], [[]]):
        with pytest.raises(ValueError, match="filters="):
            Parquet(filters=filters)
    with pytest.raises(DecodeError, match="cannot be used"):
        read(Parquet(filters=[("nothing", ">", 3)]), DATA)
    with pytest.raises(ValueError, match="columns="):
        Parquet(columns="a")
    with pytest.raises(ValueError, match="reading"):
        Parquet(filters=[("a", ">", 1)]).writer(io.BytesIO())


def test_what_we_write_is_read_by_pyarrow() -> None:
    out = io.BytesIO()
    rows = [{"__key__": f"k{n}", "x": n, "b": b"z" * n, "v": np.arange(3) + n, "s": None} for n in range(300)]
    with Parquet(row_group_bytes=9000).writer(out) as writer:
        for row in rows:
            writer.write({**row, "__url__": "left out"})
        index = writer.finish()
    table = pq.read_table(out)
    assert table.column_names == ["__key__", "x", "b", "v", "s"]
    assert table.to_pylist() == [{**row, "v": row["v"].tolist()} for row in rows]  # type: ignore[attr-defined]
    assert index.frames is not None
    assert len(index.frames.ends) > 3
    assert [one.key for one in everywhere(Parquet(), out.getvalue())] == [f"k{n}" for n in range(300)]


def test_rows_that_do_not_fit() -> None:
    out = io.BytesIO()
    with Parquet(row_group_bytes=1).writer(out) as writer:
        writer.write({"a": 1, "b": 1.5})
        for bad in ({"a": "text", "b": 1.5}, {"a": 1.5, "b": 1.5}, {"c": 1}, {}):
            with pytest.raises(ValueError, match="sample"):
                writer.write(bad)
        writer.write({"a": None, "b": 2})
    assert list(map(values, read(Parquet(), out.getvalue()))) == [{"a": 1, "b": 1.5}, {"a": None, "b": 2.0}]
    out = io.BytesIO()
    with Parquet().writer(out) as writer:  # the first row group settles the types
        writer.write({"a": None})
        writer.write({"a": 1})
        writer.write({"a": 1.5, "b": "x"})
        with pytest.raises(ValueError, match="does not fit"):
            writer.write({"a": "text"})
    assert [one["a"] for one in read(Parquet(), out.getvalue())] == [None, 1.0, 1.5]
    with pytest.raises(ValueError, match="pages itself"):
        Parquet().writer(io.BytesIO(), compression="zst")


def test_files_that_are_broken() -> None:
    with pytest.raises(DecodeError, match="cut short"):
        read(Parquet(), DATA[:-5])
    with pytest.raises(DecodeError, match="encrypted"):
        read(Parquet(), DATA[:-4] + b"PARE")
    hurt = bytearray(DATA)
    hurt[5000:20000] = bytes(15000)
    with pytest.raises(DecodeError, match="row group"):
        read(Parquet(), bytes(hurt))
    index = Parquet().scan(io.BytesIO(DATA))
    with pytest.raises(DecodeError, match="no row group"):
        Parquet().decode(memoryview(DATA)[4:50], head=index.head, start=4)
    assert read(Parquet(), DATA, number=1000, offset=1000) == []


def test_a_stream_that_does_not_seek() -> None:
    class Pipe(io.RawIOBase):
        pass

    with pytest.raises(DecodeError, match="cannot seek"):
        list(Parquet().read(Pipe(), cursor=Cursor()))  # type: ignore[arg-type]
