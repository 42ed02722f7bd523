"""Where a tensor's elements lie in what torch.save writes."""

import io
import pickle

import pytest
import torch

from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.dcp._archive import HEAD_BYTES, contiguous_strides, expected, read_head

DTYPES = [
    torch.bfloat16, torch.bool, torch.complex64, torch.complex128, torch.float16, torch.float32, torch.float64,
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8,
    *(getattr(torch, name) for name in ("float8_e4m3fn", "uint16", "uint32", "uint64") if Skeleton.is_possible()),
]  # fmt: skip


def saved(obj):
    file = io.BytesIO()
    torch.save(obj, file)
    return file.getvalue()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(3,), (), (40, 50), (2,) * 10], ids=str)
def test_plain_tensors_are_found(dtype, size):
    tensor = torch.empty(size, dtype=dtype)
    data = saved(tensor)
    stored = read_head(data[:HEAD_BYTES])
    assert stored is not None
    assert (stored.dtype, stored.size, stored.strides, stored.offset) == (dtype, size, tensor.stride(), 0)
    assert data[stored.start : stored.start + stored.nbytes] == bytes(tensor.untyped_storage())
    assert stored.is_contiguous
    assert read_head(data[: stored.start]) == stored  # what is read of an item whose place is guessed


@pytest.mark.skipif(not Skeleton.is_possible(), reason="torch < 2.6")
@pytest.mark.parametrize("size", [(3,), (), (40, 50), (0,), (2,) * 10], ids=str)
def test_the_guess_is_what_torch_does(size):
    for dtype in DTYPES:
        found = expected(dtype, size)
        data = saved(torch.empty(size, dtype=dtype))
        if found is not None:
            assert found == (read_head(data[:HEAD_BYTES]), len(data))
    assert found is not None or 0 in size


def test_views_are_described():
    base = torch.arange(100).view(10, 10)
    stored = read_head(saved(base[2:5].t())[:HEAD_BYTES])
    assert (stored.offset, stored.size, stored.strides) == (20, (10, 3), (1, 10))
    assert not stored.is_contiguous
    assert read_head(saved(torch.zeros(5, 1).t())[:HEAD_BYTES]).is_contiguous


class Sub(torch.Tensor):
    pass


OTHERS = {
    "a dict": lambda: {"a": torch.zeros(3)},
    "a parameter": lambda: torch.nn.Parameter(torch.zeros(3)),
    "a subclass": lambda: torch.zeros(3).as_subclass(Sub),
    "sparse": lambda: torch.zeros(3, 3).to_sparse(),
    "conjugated": lambda: torch.zeros(3, dtype=torch.complex64).conj(),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    "no tensor": lambda: 5,
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
@pytest.mark.filterwarnings("ignore")
def test_other_objects_are_torchs_affair(make):
    assert read_head(saved(make())[:HEAD_BYTES]) is None


def test_what_is_no_archive_is_none():
    data = saved(torch.zeros(1000))
    for head in (b"", b"PK", bytes(HEAD_BYTES), data[:100], data[50:HEAD_BYTES], data.replace(b"little", b"big   ")):
        assert read_head(head[:HEAD_BYTES]) is None
    compressed = bytearray(data[:HEAD_BYTES])
    compressed[8] = 8
    assert read_head(compressed) is None


def test_sizes_that_do_not_fit_are_refused():
    """A file may claim anything; what it claims must lie in its storage."""
    tensor = torch.zeros(1000)
    data = bytearray(saved(tensor))
    at = data.index(b"M\xe8\x03\x85")  # the size, (1000,)
    data[at + 1 : at + 3] = (2000).to_bytes(2, "little")
    assert read_head(data[:HEAD_BYTES]) is None


def test_nothing_in_a_pickle_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("made").write_text, ("x",))

    data = saved(torch.zeros(3))
    pickled = pickle.dumps(Evil(), protocol=2)
    start = data.index(b"\x80\x02")
    assert read_head((data[:start] + pickled + data[start:])[:HEAD_BYTES]) is None
    assert not tmp_path.joinpath("made").exists()


@pytest.mark.parametrize("size", [(), (3,), (3, 4, 5), (3, 0, 5)])
def test_strides(size):
    assert contiguous_strides(size) == torch.empty(size).stride()
