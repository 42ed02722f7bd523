"""The objects that are read: plain files below a folder, which nginx and the local S3 both serve as `bench/<key>`."""

import os
import random
import shutil
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BUCKET = "bench"
SMALL_BYTES = 100 * KIB
SMALL_COUNT = 2000
LARGE_KEY = "large.bin"
LARGE_BYTES = GIB
CHECKPOINT_KEY = "checkpoint.pt"
CHECKPOINT_TENSORS, TENSOR_FLOATS = 100, 2_621_440  # of 10 MiB each: 1 GiB
NEEDED_BYTES = SMALL_COUNT * SMALL_BYTES + LARGE_BYTES + CHECKPOINT_TENSORS * TENSOR_FLOATS * 4


def small_key(number: int) -> str:
    return f"small/{number % SMALL_COUNT:05d}.bin"


def choose_folder() -> Path:
    """A folder in memory where there is room, so that no disk is measured; else in the temporary folder."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 2 * NEEDED_BYTES:
        return memory / "s3dataset-bench"
    return Path(os.environ.get("TMPDIR", "/tmp")) / "s3dataset-bench"


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress; the same for the same seed."""
    return random.Random(seed).randbytes(size)


def create(folder: Path) -> None:
    """Writes what is not there yet; a file has its name only when it is complete."""
    base = folder / BUCKET
    (base / "small").mkdir(parents=True, exist_ok=True)
    for number in range(SMALL_COUNT):
        write(base / small_key(number), lambda number=number: noise(number, SMALL_BYTES), SMALL_BYTES)
    block = noise(-1, MIB)
    write(base / LARGE_KEY, lambda: b"".join(part + block[len(part) :] for part in counters()), LARGE_BYTES)
    if not (base / CHECKPOINT_KEY).exists():
        import torch

        torch.save(state_dict(), base / "partial.pt")
        (base / "partial.pt").replace(base / CHECKPOINT_KEY)


def counters() -> list[bytes]:
    """What each mebibyte of the large object begins with, so that swapped parts are noticed."""
    return [number.to_bytes(8, "big") for number in range(LARGE_BYTES // MIB)]


def write(path: Path, content, size: int) -> None:
    if not path.exists() or path.stat().st_size != size:
        partial = path.with_suffix(".partial")
        partial.write_bytes(content())
        partial.replace(path)


def state_dict() -> dict:
    """A model's worth of tensors, each of another value."""
    import torch

    return {f"layers.{i:03d}.weight": torch.full((TENSOR_FLOATS,), float(i)) for i in range(CHECKPOINT_TENSORS)}


def is_state_dict(state: dict) -> bool:
    """Whether this is what `state_dict` made: first, last and middle of each tensor are looked at."""
    return len(state) == CHECKPOINT_TENSORS and all(
        tensor.numel() == TENSOR_FLOATS
        and {float(tensor[at]) for at in (0, TENSOR_FLOATS // 2, -1)} == {float(name[7:10])}
        for name, tensor in state.items()
    )
