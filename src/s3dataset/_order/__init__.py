"""Order: which sample stands at which place of an epoch, and who reads it. Pure: no I/O, no torch.

    Permutation   row position -> sample index, seeded, in constant memory
    SampleOrder   row position -> sample of indexed shards; Shuffle is the user's word for it
    BatchPlan     row -> canonical streams -> global batches -> the batches of one rank, with the tail's policy
    reader_batches, reader_positions   the part of one rank's one worker
    Split         who takes part: ranks, workers, tail; frozen, the user's word for all of it
    EpochState    how far an epoch is; Row: what is left of it when the batch size changed
    ShardStream   shards without an index: a stream of them, in blocks; ShardsState: how far all streams are
    merge_states, resume_state         what single readers know -> one elastic state
    MixPlan       slot of a mixture -> source
    BadSamples, replacement            what is broken, and what stands in for it

The sequence of global batches depends on (samples, batch size, streams, seed, epoch) only. Ranks and workers choose
from it, so it is the same for every world size and number of workers; the tail's policy is applied once, at the end of
the epoch.
"""

from s3dataset._order._bad import BadSample, BadSamples, replacement
from s3dataset._order._batches import BatchPlan
from s3dataset._order._fields import state_kind
from s3dataset._order._merge import merge_states, resume_state
from s3dataset._order._mix import MixPlan
from s3dataset._order._numbers import whole_number
from s3dataset._order._permutation import Permutation
from s3dataset._order._readers import reader_batches, reader_positions, reader_sample_count
from s3dataset._order._row import Row
from s3dataset._order._samples import Block, SampleOrder, Span
from s3dataset._order._seeds import sample_seed
from s3dataset._order._shards import ReadSample, ShardPosition, ShardStream, StreamState, deal_shards, next_stream
from s3dataset._order._shards_state import ShardsState
from s3dataset._order._shuffle import Shuffle
from s3dataset._order._split import Split, Tail
from s3dataset._order._state import EpochState, Reader
from s3dataset._order._streams import default_streams, reader_streams

__all__ = [
    "BadSample",
    "BadSamples",
    "BatchPlan",
    "Block",
    "EpochState",
    "MixPlan",
    "Permutation",
    "ReadSample",
    "Reader",
    "Row",
    "SampleOrder",
    "ShardPosition",
    "ShardStream",
    "ShardsState",
    "Shuffle",
    "Span",
    "Split",
    "StreamState",
    "Tail",
    "deal_shards",
    "default_streams",
    "merge_states",
    "next_stream",
    "reader_batches",
    "reader_positions",
    "reader_sample_count",
    "reader_streams",
    "replacement",
    "resume_state",
    "sample_seed",
    "state_kind",
    "whole_number",
]
