"""Files over the client.

::

    S3Reader        position, lines, lock, fork, pickle
    └── Window      what is there and under way; what to send for next
        ├── ChunkMap, ReaderPolicy, ArchiveWatch, StorageOrder    pure: bookkeeping, sizes, what torch.load reads
        └── Source  one version of one object, over a RequestQueue
    S3Writer        buffers, lock, fork; when nothing must be published
    └── Upload      a PUT or parts; lost answers
        └── PartSizes                               pure
    S3Client        Client with get_object and put_object
"""

from s3dataset._io._choice import DEFAULT_BUFFER_BYTES, S3ReaderConstructor
from s3dataset._io._constructor import (
    CHECKPOINT_READER,
    GetStreamCallable,
    ReaderConstructor,
    S3ReaderConstructorProtocol,
    check_constructor,
    open_reader,
)
from s3dataset._io._dcp_constructor import (
    DEFAULT_MAX_GAP_BYTES,
    DCPOptimizedConstructor,
    DCPS3ReaderConstructorProtocol,
    ItemRange,
)
from s3dataset._io._drop_in import S3Client
from s3dataset._io._policy import ReaderPolicy
from s3dataset._io._reader import DCPOptimizedS3Reader, RangedS3Reader, S3Reader, SequentialS3Reader
from s3dataset._io._writer import S3Writer

__all__ = [
    "CHECKPOINT_READER",
    "DEFAULT_BUFFER_BYTES",
    "DEFAULT_MAX_GAP_BYTES",
    "DCPOptimizedConstructor",
    "DCPOptimizedS3Reader",
    "DCPS3ReaderConstructorProtocol",
    "GetStreamCallable",
    "ItemRange",
    "RangedS3Reader",
    "ReaderConstructor",
    "ReaderPolicy",
    "S3Client",
    "S3Reader",
    "S3ReaderConstructor",
    "S3ReaderConstructorProtocol",
    "S3Writer",
    "SequentialS3Reader",
    "check_constructor",
    "open_reader",
]
