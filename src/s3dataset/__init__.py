"""s3dataset: the fastest way between Amazon S3 and a PyTorch job.

::

    s3dataset                  the public names, loaded at first use: no torch, no botocore before
    ├── errors                 exception tree; imports nothing
    ├── _uri  _secrets         S3Uri, the only URI parser; credentials as values
    ├── _progress              bars on a terminal
    ├── _torch_archive         what lies where in a file of torch.save
    ├── _object_headers        what is said of an object when it is written
    ├── _config  _limits       S3ClientConfig, the only reader of S3's environment variables; shares of the machine
    ├── _client                stateless operations over the engine; credentials, endpoints, life of a process
    ├── _io                    S3Reader, S3Writer, S3Client
    ├── transforms  formats    bytes to samples; shards to samples and back
    ├── _manifest              what a dataset consists of
    ├── _order  _page          who reads what, when; the mapped page that the processes of a dataset share
    ├── _datasets              S3MapDataset, S3IterableDataset, DataLoader, BatchSampler (torch)
    ├── _pack                  objects to shards
    ├── _checkpoint            S3Checkpoint (torch)
    ├── _commits               which checkpoints there are: commit records, pins, retention
    ├── safetensors            tensors in files of safetensors (torch)
    ├── dcp                    distributed checkpoints (torch)
    ├── fsspec                 S3 as a file system of fsspec
    ├── lightning              S3LightningCheckpoint (torch, Lightning)
    ├── _manager               CheckpointManager (torch)
    ├── testing  monitoring    LocalS3; metrics and request log
    └── _native                the data plane in Rust: sockets, TLS, signing, retry, memory

Each imports only those above it, and `_native` below all. What stands here is the public API together with the modules
`errors`, `transforms`, `formats`, `safetensors`, `dcp`, `fsspec`, `lightning`, `monitoring` and `testing`; everything
else starts with an underscore.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from s3dataset._checkpoint import S3Checkpoint
    from s3dataset._client import Body, ObjectInfo
    from s3dataset._config import S3ClientConfig
    from s3dataset._datasets import (
        BatchSampler,
        DataLoader,
        MixedDataset,
        S3IterableDataset,
        S3MapDataset,
        StagedDataset,
        gather_state,
        sample_rng,
    )
    from s3dataset._io import S3Client, S3Reader, S3ReaderConstructor, S3Writer
    from s3dataset._manager import CheckpointInfo, CheckpointManager, Restored
    from s3dataset._manifest import Manifest
    from s3dataset._order import Shuffle, Split, merge_states, resume_state
    from s3dataset._pack import pack
    from s3dataset._stats import Stats
    from s3dataset.errors import (
        AccessDeniedError,
        BucketNotFoundError,
        CancelledError,
        ChecksumMismatchError,
        ConflictError,
        ConnectTimeoutError,
        CredentialsError,
        DecodeError,
        FirstByteTimeoutError,
        InternalError,
        InvalidConfigError,
        InvalidUriError,
        ManifestMismatchError,
        NoCredentialsError,
        ObjectArchivedError,
        ObjectChangedError,
        ObjectNotFoundError,
        PreconditionFailedError,
        RegionError,
        RetriesExhaustedError,
        S3DatasetException,
        S3Exception,
        StallTimeoutError,
        ThrottledError,
        TransportError,
        UnindexableError,
        UnindexedError,
    )

__all__ = [
    "AccessDeniedError",
    "BatchSampler",
    "Body",
    "BucketNotFoundError",
    "CancelledError",
    "CheckpointInfo",
    "CheckpointManager",
    "ChecksumMismatchError",
    "ConflictError",
    "ConnectTimeoutError",
    "CredentialsError",
    "DataLoader",
    "DecodeError",
    "FirstByteTimeoutError",
    "InternalError",
    "InvalidConfigError",
    "InvalidUriError",
    "Manifest",
    "ManifestMismatchError",
    "MixedDataset",
    "NoCredentialsError",
    "ObjectArchivedError",
    "ObjectChangedError",
    "ObjectInfo",
    "ObjectNotFoundError",
    "PreconditionFailedError",
    "RegionError",
    "Restored",
    "RetriesExhaustedError",
    "S3Checkpoint",
    "S3Client",
    "S3ClientConfig",
    "S3DatasetException",
    "S3Exception",
    "S3IterableDataset",
    "S3MapDataset",
    "S3Reader",
    "S3ReaderConstructor",
    "S3Writer",
    "Shuffle",
    "Split",
    "StagedDataset",
    "StallTimeoutError",
    "Stats",
    "ThrottledError",
    "TransportError",
    "UnindexableError",
    "UnindexedError",
    "__version__",
    "gather_state",
    "merge_states",
    "pack",
    "resume_state",
    "sample_rng",
]

__version__ = "1.1.0.dev0"

_HOMES: Final = {
    "BatchSampler": "_datasets",
    "Body": "_client",
    "CheckpointInfo": "_manager",
    "CheckpointManager": "_manager",
    "DataLoader": "_datasets",
    "Manifest": "_manifest",
    "MixedDataset": "_datasets",
    "ObjectInfo": "_client",
    "Restored": "_manager",
    "S3Checkpoint": "_checkpoint",
    "S3Client": "_io",
    "S3ClientConfig": "_config",
    "S3IterableDataset": "_datasets",
    "S3MapDataset": "_datasets",
    "S3Reader": "_io",
    "S3ReaderConstructor": "_io",
    "S3Writer": "_io",
    "Shuffle": "_order",
    "Split": "_order",
    "StagedDataset": "_datasets",
    "gather_state": "_datasets",
    "merge_states": "_order",
    "pack": "_pack",
    "resume_state": "_order",
    "sample_rng": "_datasets",
    "Stats": "_stats",
}
_MODULES: Final = frozenset(
    {
        "_s3client",
        "_s3dataset_common",
        "_user_agent",
        "_version",
        "dcp",
        "errors",
        "fsspec",
        "lightning",
        "monitoring",
        "s3checkpoint",
        "s3iterable_dataset",
        "s3map_dataset",
        "s3reader",
        "s3writer",
        "safetensors",
        "testing",
        "transforms",
    }
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
