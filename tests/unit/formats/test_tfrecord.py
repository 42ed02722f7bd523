"""TFRecord, beside the package tfrecord, which reads and writes by protobuf."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.shards import read, recorded, same

from s3dataset.errors import DecodeError
from s3dataset.formats import TFRecord

tfrecord = pytest.importorskip("tfrecord")

FEATURES: list[dict[str, Any]] = [
    {"image": (b"abc", "byte"), "label": (7, "int"), "box": ([1.0, 2.5], "float"), "small": (-1, "int")},
    {"numbers": ([-1, 0, 127, 128, 2**40, -(2**63), 2**63 - 1] * 5, "int"), "texts": ([b"a", b""], "byte")},
    {"none": ([], "int"), "ü": ([0.0], "float")},
]


def by_tfrecord(path: Path, *, sequences: bool = False) -> bytes:
    writer = tfrecord.TFRecordWriter(str(path))
    for one in FEATURES:
        if sequences:
            writer.write(one, {"steps": ([[1, 2], [3]], "int"), "words": ([[b"a"], [b"b", b"c"]], "byte")})
        else:
            writer.write(one)
    writer.close()
    return path.read_bytes()


def test_what_tfrecord_writes_is_read(tmp_path: Path) -> None:
    data = by_tfrecord(tmp_path / "x")
    first, second, third = read(TFRecord(), data)
    box = np.array([1, 2.5], np.float32)
    assert same(
        dict(sorted(first.items())),
        {"__key__": "00000000", "__url__": "s3://b/shard", "box": box, "image": b"abc", "label": 7, "small": -1},
    )
    assert second["numbers"].dtype == np.int64
    assert second["numbers"].tolist() == FEATURES[1]["numbers"][0]
    assert second["texts"] == [b"a", b""]
    assert third["none"].tolist() == []
    assert third["ü"] == 0.0
    index = TFRecord().scan(io.BytesIO(data))
    assert index == recorded(TFRecord(), data)
    assert index.ends[-1] == len(data)


def test_lists_of_one(tmp_path: Path) -> None:
    first, *_ = read(TFRecord(scalars=False), by_tfrecord(tmp_path / "x"))
    assert first["label"].tolist() == [7]
    assert first["image"] == [b"abc"]


def test_sequences(tmp_path: Path) -> None:
    first, *_ = read(TFRecord(scalars=False), by_tfrecord(tmp_path / "x", sequences=True))
    assert [one.tolist() for one in first["steps"]] == [[1, 2], [3]]
    assert first["words"] == [[b"a"], [b"b", b"c"]]
    assert first["label"].tolist() == [7]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tfrecord leaves its file open
def test_what_we_write_is_read_by_tfrecord(tmp_path: Path) -> None:
    import gc

    path = tmp_path / "x"
    with path.open("wb") as file, TFRecord().writer(file) as writer:
        for number in range(20):
            writer.write({"i": number - 3, "x": [0.5, number], "b": b"b" * number, "s": "grüße", "a": np.arange(3) - 1})
    got = list(tfrecord.tfrecord_loader(str(path), None, None))
    gc.collect()
    assert [int(one["i"][0]) for one in got] == [number - 3 for number in range(20)]
    assert got[4]["x"].tolist() == [0.5, 4.0]
    assert got[4]["a"].tolist() == [-1, 0, 1]
    assert bytes(got[4]["b"]) == b"bbbb"


def unpacked(number: int) -> bytes:
    """An Example whose numbers are not packed, as protobuf's first version wrote them."""

    def field(tag: int, content: bytes) -> bytes:
        return bytes([tag << 3 | 2, len(content)]) + content

    ints = field(3, bytes([1 << 3, number]) + bytes([1 << 3, 5]))
    floats = field(2, bytes([1 << 3 | 5]) + struct.pack("<f", 1.5))
    entries = [field(1, field(1, name) + field(2, value)) for name, value in ((b"i", ints), (b"f", floats))]
    return field(1, b"".join(entries))


def test_numbers_that_are_not_packed() -> None:
    out = io.BytesIO()
    with TFRecord(example=False).writer(out) as writer:
        writer.write({"record": unpacked(7)})
    (one,) = read(TFRecord(), out.getvalue())
    assert one["i"].tolist() == [7, 5]
    assert one["f"] == 1.5


def test_damage() -> None:
    out = io.BytesIO()
    with TFRecord(example=False).writer(out) as writer:
        for number in range(4):
            writer.write({"record": b"no example %d" % number})
    data = bytearray(out.getvalue())
    data[12 + 3] ^= 1
    with pytest.raises(DecodeError, match=r"record 0, at byte 0, has the wrong checksum"):
        read(TFRecord(example=False), bytes(data))
    assert len(read(TFRecord(example=False, verify=False), bytes(data))) == 4
    bad: list[DecodeError] = []
    form = TFRecord(example=False)
    assert [one.key for one in form.read(io.BytesIO(bytes(data)), on_bad=bad.append)] == [
        "00000001",
        "00000002",
        "00000003",
    ]
    assert len(bad) == 1
    assert len(form.scan(io.BytesIO(bytes(data)))) == 4
    with pytest.raises(DecodeError, match=r"no tf\.train\.Example"):
        read(TFRecord(), out.getvalue())
    start = form.scan(io.BytesIO(out.getvalue())).ends[0]
    data[start] ^= 1
    with pytest.raises(DecodeError, match=f"wrong checksum at byte {start}"):
        list(form.read(io.BytesIO(bytes(data)), on_bad=bad.append))
    with pytest.raises(DecodeError, match="limit is 5"):
        read(TFRecord(example=False, max_sample_bytes=5), out.getvalue())


def test_fields_that_an_example_cannot_hold() -> None:
    for bad, what in (
        ({"a": {"b": 1}}, "'a' holds dict"),
        ({"a": [1, b"x"]}, "'a' holds bytes, int"),
        ({"a": 2**63}, "64 bits"),
        ({"a": 1e300}, "32 bits"),
        ({"a": None}, "NoneType"),
    ):
        with TFRecord().writer(io.BytesIO()) as writer, pytest.raises(ValueError, match=what):
            writer.write(bad)
