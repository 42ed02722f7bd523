"""How many canonical streams an epoch has, and which of them a reader goes through."""

from typing import Final

_ENOUGH: Final = 64


def default_streams(ranks: int, workers: int, *, held_bytes: int | None = None, budget: int | None = None) -> int:
    """Returns the number of canonical streams for a run that begins with so many readers.

    It is a multiple of ranks x workers, so that each stream has one reader, and stands in the state from then on.

    Args:
        ranks: World size.
        workers: Workers of each rank; 0 counts as 1.
        held_bytes: What a reader holds in memory for each of its streams (a block fetched whole, a shuffle's buffer).
            None: nothing, as samples are fetched one by one; there are then at least 64 streams.
        budget: Bytes that one reader may hold; each has one stream at least. Needed with held_bytes.

    Raises:
        ValueError: A number is out of range.
    """
    readers = ranks * max(1, workers)
    if ranks < 1 or workers < 0:
        raise ValueError(f"streams need ranks >= 1 and workers >= 0, got {ranks} and {workers}")
    of_each = -(-_ENOUGH // readers)
    if held_bytes is not None:
        if held_bytes < 1 or budget is None:
            raise ValueError(f"held_bytes must be at least 1 and come with budget, got {held_bytes} and {budget}")
        of_each = min(max(budget // held_bytes, 1), of_each)
    return readers * of_each


def reader_streams(streams: int, *, rank: int, world_size: int, worker: int = 0, num_workers: int = 1) -> range:
    """Returns the streams of one reader: s belongs to the worker and rank that also take global batch s.

    Each stream has one reader. Where ranks x workers does not divide `streams`, some readers have one more than others.

    Raises:
        ValueError: A number is out of range, or there are fewer streams than ranks, so that a rank would have nothing.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}")
    if not 0 <= worker < num_workers:
        raise ValueError(f"worker {worker} of {num_workers}")
    if world_size > streams:
        raise ValueError(
            f"{world_size} ranks cannot share {streams} streams of shards: a rank would have nothing to read. Resume "
            f"with at most {streams} ranks; a new run may have more streams, with Shuffle(streams=)"
        )
    return range(worker * world_size + rank, streams, world_size * num_workers)
