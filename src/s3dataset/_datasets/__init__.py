"""Datasets for PyTorch.

::

    S3MapDataset, S3IterableDataset     _map  _iterable, over _base: constructors, pickling, who reads what
    DataLoader, BatchSampler            _loader  _batch_sampler  _look_ahead: batches that name their successors
    fetching                            _ahead: a window before a consumer; _batch_fetch: whole batches, and those named
    samples                             _samples: reader, transform, errors; _collate: lists of readers
    listing                             _origin  _listing: once for all processes; _agreement: the same on all ranks
    _rank  _counters                    which rank this is; what it cost
"""

from s3dataset._datasets import _collate
from s3dataset._datasets._batch_sampler import BatchSampler
from s3dataset._datasets._iterable import S3IterableDataset
from s3dataset._datasets._loader import DataLoader
from s3dataset._datasets._map import S3MapDataset
from s3dataset._stats import Stats

__all__ = ["BatchSampler", "DataLoader", "S3IterableDataset", "S3MapDataset", "Stats"]

_collate.register()
