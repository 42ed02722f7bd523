"""Datasets for PyTorch.

::

    S3MapDataset, S3IterableDataset     _map  _iterable over _resumable, over _base; their constructors
    StagedDataset, MixedDataset         _stages, _mixed, over _iterable; _mixed_sources  _mixed_taken
    DataLoader, BatchSampler            _loader  _batch_sampler  _look_ahead: batches that name their successors
    where a loop is                     _position  _taken  _epochs: runs, what a loop took, epochs; _gather: all ranks
    fetching objects                    _ahead: a window before a consumer; _batch_fetch  _work: whole batches
    fetching samples of shards          _positions_ahead  _extents  _extent_store  _epoch_order: with an index; _blocks
                                        _held: whole blocks, within the budget
                                        _unindexed  _shard_opener  _shard_rows: from their beginnings
    samples                             _samples  _shard_samples: transform, errors; _bad_samples; _collate;
                                        _sample_rng: what is random about one
    workers                             _fork_server: how they start; _worker_exit
    from a worker to the loop           _stack: tensors; _worker_pipe: the rest
    listing                             _origin  _listing: once for all processes; _agreement: the same on all ranks
    seen while training                 _counters: what it cost; _loop_watch: how long a loop waits; _trace: profilers
    _rank                               which rank this is
"""

from s3dataset._datasets import _collate
from s3dataset._datasets._batch_sampler import BatchSampler
from s3dataset._datasets._gather import gather_state
from s3dataset._datasets._iterable import S3IterableDataset
from s3dataset._datasets._loader import DataLoader
from s3dataset._datasets._map import S3MapDataset
from s3dataset._datasets._mixed import MixedDataset
from s3dataset._datasets._sample_rng import sample_rng
from s3dataset._datasets._stages import StagedDataset
from s3dataset._stats import Stats

__all__ = [
    "BatchSampler",
    "DataLoader",
    "MixedDataset",
    "S3IterableDataset",
    "S3MapDataset",
    "StagedDataset",
    "Stats",
    "gather_state",
    "sample_rng",
]

_collate.register()
