"""NumPy files: rows of arrays."""

import io
from typing import Any

import numpy as np
import pytest
from tests.shards import parsed, read, recorded

from s3dataset.errors import DecodeError
from s3dataset.formats import Npy


def saved(array: Any, version: tuple[int, int] | None = None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version)
    return out.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(4, 3, 2),
        np.arange(5),
        np.zeros((0, 3)),
        np.zeros(7, bool),
        np.array(["a", "bc"]),
        np.array([(1, 2.0), (3, 4.0)], [("x", "i4"), ("ü", "f8")]),
        np.array(["2026-01-01"], "datetime64[D]"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_rows(array: Any) -> None:
    data = saved(array)
    samples = read(Npy(), data)
    assert len(samples) == len(array)
    index = Npy().scan(io.BytesIO(data))
    assert list(recorded(Npy(), data).ends) == list(index.ends)
    for number, sample in enumerate(samples):
        assert np.array_equal(sample["npy"], array[number])
        assert sample["npy"].dtype == array.dtype
        assert np.array_equal(parsed(Npy(), data, index, number)["npy"], array[number])
        assert sample["npy"].flags.writeable


def test_other_orders_of_bytes_and_versions() -> None:
    array = np.arange(6, dtype=">i4").reshape(3, 2)
    (first, *_) = read(Npy(), saved(array, (2, 0)))
    assert first["npy"].dtype == np.dtype("=i4")
    assert first["npy"].tolist() == [0, 1]


def test_what_we_write_is_read_by_numpy() -> None:
    out = io.BytesIO()
    rows = np.random.default_rng(0).random((50, 4, 2))
    with Npy().writer(out) as writer:
        for row in rows:
            writer.write({"npy": row})
    out.seek(0)
    assert np.array_equal(np.load(out), rows)
    with Npy().writer(io.BytesIO()) as writer:
        writer.write({"npy": [1, 2]})
        for bad in ([1, 2, 3], [1.5, 2.5], [[1, 2]], [None, None], "x", [[1], [1, 2]]):
            with pytest.raises(ValueError, match="array"):
                writer.write({"npy": bad})


def test_rows_are_those_at_the_time_of_writing() -> None:
    out = io.BytesIO()
    row = np.zeros(3)
    with Npy().writer(out) as writer:
        for number in range(3):
            row[:] = number
            writer.write({"npy": row})
    assert [one["npy"][0] for one in read(Npy(), out.getvalue())] == [0, 1, 2]


def test_arrays_that_are_refused() -> None:
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for data, what in (
        (saved(np.asfortranarray(np.ones((3, 2)))), "Fortran"),
        (objects.getvalue(), "pickle"),
        (saved(np.array(3)), "no dimensions"),
        (saved(np.ones((5, 0))), "no rows"),
        (saved(np.ones((3, 2)))[:-1], "cut short"),
        (saved(np.ones((3, 2))).replace(b"(3, 2)", b"(-3,2)"), "no rows"),
        (saved(np.ones((3, 2))).replace(b"(3, 2)", b"'abcd'"), "shape"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"-" * 60_000, "header cannot be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "header is to have"),
        (b"\x93NUMPY\x07\x00\xff\xff", "version 7.0"),
    ):
        with pytest.raises(DecodeError, match=what):
            read(Npy(), data)
        with pytest.raises(DecodeError, match=what):
            Npy().scan(io.BytesIO(data))
    with pytest.raises(DecodeError, match="limit is 7"):
        read(Npy(max_sample_bytes=7), saved(np.ones(3)))
    with pytest.raises(DecodeError, match="no row begins"):
        read(Npy(), saved(np.ones(3)), number=1, offset=129)
