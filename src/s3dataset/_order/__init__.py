"""Order: which sample stands at which place of an epoch, and who reads it. Pure: no I/O, no torch.

    Permutation   row position -> sample index, seeded, in constant memory
    SampleOrder   row position -> sample of indexed shards; Shuffle is the user's word for it
    BatchPlan     row -> canonical streams -> global batches -> the batches of one rank, with the tail's policy
    reader_batches, reader_positions   the part of one rank's one worker
    Split         who takes part: ranks, workers, tail; frozen, the user's word for all of it

The sequence of global batches depends on (samples, batch size, streams, seed, epoch) only. Ranks and workers choose
from it, so it is the same for every world size and number of workers; the tail's policy is applied once, at the end of
the epoch.
"""

from s3dataset._order._batches import BatchPlan
from s3dataset._order._permutation import Permutation
from s3dataset._order._readers import reader_batches, reader_positions, reader_sample_count
from s3dataset._order._samples import Block, SampleOrder, Span
from s3dataset._order._shuffle import Shuffle
from s3dataset._order._split import Split, Tail

__all__ = [
    "BatchPlan",
    "Block",
    "Permutation",
    "SampleOrder",
    "Shuffle",
    "Span",
    "Split",
    "Tail",
    "reader_batches",
    "reader_positions",
    "reader_sample_count",
]
