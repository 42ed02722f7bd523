"""Checkpoints as single objects.

::

    S3Checkpoint        save, save_async, load, reader, writer
    ├── save            from memory into one object
    ├── load            and back
    │   ├── fetch       requests, and what waits for them
    │   ├── sharing     ranks that read one object between them
    │   └── selection   parts of what was saved
    ├── Background      saves that go on while the program does
    ├── Skeleton        torch.save's file, with its storages where they are
    ├── Image           a file in memory, with its storages where they will be
    ├── parts           any object and memory in pieces: parts, checksums
    └── memory          of torch's storages
"""

from s3dataset._checkpoint._background import AskedFuture
from s3dataset._checkpoint._single import S3Checkpoint

__all__ = ["AskedFuture", "S3Checkpoint"]
