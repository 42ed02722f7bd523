"""Samples and shards of every format, for the tests of formats."""

import io
from array import array
from typing import Any

import numpy as np

from s3dataset.formats import CSV, JSONL, Cursor, Format, Npy, Parquet, Sample, ShardIndex, Tar, Text, TFRecord

FORMATS: dict[str, Format] = {
    "tar": Tar(),
    "tfrecord": TFRecord(),
    "records": TFRecord(example=False),
    "jsonl": JSONL(),
    "text": Text(),
    "csv": CSV(),
    "parquet": Parquet(row_group_bytes=2000),
    "npy": Npy(),
}

WRITABLE = [(name, compression) for name in FORMATS for compression in (None, "gz", "zst")]
WRITABLE = [pair for pair in WRITABLE if pair[0] != "parquet" or pair[1] is None]


def sample(name: str, number: int) -> dict[str, Any]:
    """A sample that the format can hold, of a size that varies."""
    text = f"grüße {number} " * (number * 7 % 23)
    if name == "tar":
        return {"__key__": f"a/{number:05d}", "jpg": text.encode() * 9, "cls": number, "json": {"n": [number]}}
    if name == "tfrecord":
        return {"__key__": f"k{number}", "image": text.encode(), "label": number - 5, "box": [0.5, float(number), 2.0]}
    if name == "records":
        return {"record": text.encode() * 5}
    if name == "jsonl":
        return {"text": text, "number": number, "nested": {"a": [None, 1.5]}}
    if name == "text":
        return {"text": text}
    if name == "csv":
        return {"name": f'"{text}",\n', "number": number}
    if name == "parquet":
        return {"__key__": f"k{number}", "text": text, "vector": np.arange(number % 5, dtype=np.float32)}
    return {"npy": np.full((3, 4), number, np.int32)}


def written(name: str, count: int, compression: Any = None) -> tuple[bytes, ShardIndex]:
    out = io.BytesIO()
    with FORMATS[name].writer(out, compression=compression) as writer:
        for number in range(count):
            writer.write(sample(name, number))
        index = writer.finish()
    return out.getvalue(), index


def read(form: Format, data: bytes, **cursor: Any) -> list[Sample]:
    return list(form.read(io.BytesIO(data), url="s3://b/shard", cursor=Cursor(**cursor)))


def recorded(form: Format, data: bytes) -> ShardIndex:
    """The index that reading makes on its way."""
    cursor = Cursor(ends=array("Q"))
    for _ in form.read(io.BytesIO(data), cursor=cursor):
        pass
    assert cursor.ends is not None
    return ShardIndex(cursor.ends, cursor.first, cursor.frames, cursor.head)


def parsed(form: Format, data: bytes, index: ShardIndex, number: int) -> Sample:
    """A sample at random, fetched as a dataset does: by the frames that hold it, and nothing else of the object."""
    ends = index.ends
    start, stop = ends[number - 1] if number else index.first, ends[number]
    if isinstance(form, Parquet):
        start = stop - 1
    content: Any = memoryview(data)[start:stop]
    begin = start
    if index.frames is not None:
        frames = index.frames
        first = next(i for i, end in enumerate(frames.ends) if end > start)
        last = next(i for i, end in enumerate(frames.ends) if end >= stop)
        piece = memoryview(data)[frames.starts[first] : frames.stops[last]]
        content = form.decode(piece, head=index.head, start=frames.starts[first])
        begin = frames.ends[first - 1] if first else 0
    return form.parse(content, start - begin, stop - begin, head=index.head, url="s3://b/shard", number=number)


def same(a: Any, b: Any) -> bool:
    """Equality that looks into arrays."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
