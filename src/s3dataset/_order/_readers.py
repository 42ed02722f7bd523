"""Which of a rank's batches each of its workers makes."""

from collections.abc import Iterator, Sequence

from s3dataset._order._batches import BatchPlan


def reader_batches(
    plan: BatchPlan, *, rank: int, worker: int = 0, num_workers: int = 1, first: int = 0
) -> Iterator[Sequence[int]]:
    """Yields the places of the batches that one worker makes.

    They are every `num_workers`-th step of its rank, beginning with step `worker`. Over all workers of all ranks these
    are the rank's batches, each once. A DataLoader that takes batches from its workers in turn gets them in the rank's
    own order.

    Args:
        plan: The epoch.
        rank: The reader's rank within the plan.
        worker: The reader's number among the rank's workers.
        num_workers: How many workers share the rank's part.
        first: The step of the rank at which the epoch begins, after a resume; step `first` is worker 0's.

    Raises:
        ValueError: worker is not in range(num_workers).
    """
    if not 0 <= worker < num_workers:
        raise ValueError(f"worker {worker} of {num_workers}")
    return (plan.rank_batch(rank, k) for k in range(first + worker, plan.steps(rank), num_workers))


def reader_positions(
    plan: BatchPlan, *, rank: int, worker: int = 0, num_workers: int = 1, first: int = 0, chunk: int = 1024
) -> Iterator[Sequence[int]]:
    """Yields the same places, in order, in pieces of about `chunk`.

    A progression of places is given as a range, which costs nothing to make.

    Raises:
        ValueError: worker is not in range(num_workers).
    """
    if plan.batch_size == 1 and plan.streams == 1 and plan.steps_per_epoch is None:
        return _even_positions(plan, rank, worker, num_workers, first, chunk)
    return _joined(reader_batches(plan, rank=rank, worker=worker, num_workers=num_workers, first=first), chunk)


def _even_positions(
    plan: BatchPlan, rank: int, worker: int, num_workers: int, first: int, chunk: int
) -> Iterator[Sequence[int]]:
    """Batches of one sample from one stream: the places are an arithmetic progression, and perhaps one of the tail."""
    if not 0 <= worker < num_workers:
        raise ValueError(f"worker {worker} of {num_workers}")
    stride = num_workers * plan.world_size
    mine = range(
        plan.first + (first + worker) * plan.world_size + rank, plan.first + plan.full_steps * plan.world_size, stride
    )
    for start in range(0, len(mine), chunk):
        yield mine[start : start + chunk]
    for k in range(plan.full_steps, plan.steps(rank)):
        if k >= first and (k - first) % num_workers == worker:
            yield plan.rank_batch(rank, k)


def _joined(batches: Iterator[Sequence[int]], chunk: int) -> Iterator[Sequence[int]]:
    joined: list[int] = []
    for batch in batches:
        joined += batch
        if len(joined) >= chunk:
            yield joined
            joined = []
    if joined:
        yield joined


def reader_sample_count(plan: BatchPlan, *, rank: int, worker: int = 0, num_workers: int = 1) -> int:
    """Returns how many samples one worker makes in an epoch."""
    steps = plan.steps(rank)
    mine = len(range(worker, steps, num_workers))
    if not mine:
        return 0
    last = steps - 1
    short = plan.batch_size - len(plan.rank_batch(rank, last)) if last % num_workers == worker else 0
    return mine * plan.batch_size - short
