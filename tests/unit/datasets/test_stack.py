"""Tensors stacked by writing them: what torch.stack gives, in memory that processes share."""

import errno
import os
import sys
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from s3dataset._datasets import _stack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone writes to shared memory")

DTYPES = [torch.uint8, torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64]


@pytest.fixture(autouse=True)
def stacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker; no test may tell others how to stack."""
    monkeypatch.setitem(default_collate_fn_map, torch.Tensor, default_collate_fn_map[torch.Tensor])
    _stack.stack_by_writing.cache_clear()
    _stack.stack_by_writing()
    _stack.stack_by_writing.cache_clear()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each call so many bytes."""
    calls: list[int] = []
    pwritev = os.pwritev

    def write(descriptor: int, pieces: list[Any], offset: int) -> int:
        calls.append(pwritev(descriptor, pieces, offset))
        return calls[-1]

    monkeypatch.setattr(os, "pwritev", write)
    return calls


def tensors(count: int, *shape: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randint(0, 100, (count, *shape), generator=generator)
    return [tensor.clone() for tensor in numbers.to(dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 3, 600])
def test_the_stack_is_the_same_and_shared(count: int, dtype: torch.dtype, written: list[int]) -> None:
    batch = tensors(count, 3, 80, 80, dtype=dtype)
    stacked = default_collate(batch)
    assert sum(written) == count * batch[0].nbytes
    assert stacked.is_shared()
    assert stacked.is_contiguous()
    assert stacked.dtype == dtype
    assert torch.equal(stacked, torch.stack(batch))
    stacked[0] = 1  # it is a tensor like any other
    assert bool((stacked[0] == 1).all())


def test_within_dicts_and_tuples(written: list[int]) -> None:
    batch = [{"image": image, "label": (number, "x")} for number, image in enumerate(tensors(4, 10_000))]
    collated = default_collate(batch)
    assert torch.equal(collated["image"], torch.stack([sample["image"] for sample in batch]))
    assert collated["label"][0].tolist() == [0, 1, 2, 3]
    assert sum(written) == 4 * 40_000


@pytest.mark.parametrize("most", [1, 4099, 100_000])
def test_writes_that_end_early_go_on(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev = os.pwritev

    def a_little(descriptor: int, pieces: list[Any], offset: int) -> int:
        left, some = most, []
        for piece in pieces:
            some.append(piece[:left])
            left -= len(some[-1])
            if not left:
                break
        return pwritev(descriptor, some, offset)

    monkeypatch.setattr(os, "pwritev", a_little)
    batch = tensors(5, 17_000, dtype=torch.uint8)
    assert torch.equal(default_collate(batch), torch.stack(batch))


class Marked(torch.Tensor):
    pass


def test_what_is_not_plain_memory_of_one_shape_is_stacked_by_torch(written: list[int]) -> None:
    square = tensors(2, 100, 100)
    odd: list[list[torch.Tensor]] = [
        tensors(2, 10),
        [tensor.t() for tensor in square],
        [square[0], square[1].t()],
        [tensor[::2] for tensor in square],
        [tensor.as_subclass(Marked) for tensor in square],
        [(tensor + 1j * tensor).conj() for tensor in square],
        [(tensor + 1j * tensor).conj().imag for tensor in square],
        [tensor.clone().requires_grad_() for tensor in square],
        [square[0], square[1].double()],
    ]
    odd.append([torch._efficientzerotensor(10_000)] * 2)
    for batch in odd:
        assert torch.equal(default_collate(batch), torch.stack(batch))
    assert written == []


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_cannot_be_stacked_says_what_it_says_without_workers(written: list[int]) -> None:
    square = tensors(1, 100, 100)[0]
    for odd in (square.to_sparse(), torch.nested.nested_tensor([square, square])):
        with pytest.raises(RuntimeError, match="not currently supported by the default collate_fn"):
            default_collate([odd, odd])
    assert written == []


def test_whoever_has_said_how_tensors_are_collated_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    def padded(batch: list[torch.Tensor], *, collate_fn_map: Any = None) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)

    monkeypatch.setitem(default_collate_fn_map, torch.Tensor, padded)
    _stack.stack_by_writing()
    assert default_collate([*tensors(1, 10_000), *tensors(1, 10_001)]).shape == (2, 10_001)


def test_without_numpy(written: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: torch.Tensor) -> Any:
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr(torch.Tensor, "numpy", missing)
    batch = tensors(2, 10_000)
    assert torch.equal(default_collate(batch), torch.stack(batch))
    assert sum(written) == 80_000


def test_tensors_of_several_shapes_are_refused_as_ever(written: list[int]) -> None:
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        default_collate([*tensors(1, 10_000), *tensors(1, 10_001)])
    assert written == []


def test_another_strategy_of_sharing_is_torchs_affair(written: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_sharing_strategy", lambda: "file_system")
    batch = tensors(2, 10_000)
    assert torch.equal(default_collate(batch), torch.stack(batch))
    assert written == []


def test_full_shared_memory_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OSError, match="No space left") as raised:
        default_collate(tensors(2, 10_000))
    assert "--shm-size" in raised.value.__notes__[0]


def test_memory_that_takes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with pytest.raises(OSError, match="takes no bytes"):
        default_collate(tensors(2, 10_000))
