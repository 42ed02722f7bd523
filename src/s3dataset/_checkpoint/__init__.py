"""Checkpoints as single objects.

::

    S3Checkpoint    save, load, reader, writer
    ├── transfer    between an object and memory: parts, checksums
    ├── Skeleton    torch.save's file, with its storages where they are
    ├── Image       a file in memory, with its storages where they will be
    ├── Background  saves that go on while the program does
    └── progress, memory
"""

from s3dataset._checkpoint._single import S3Checkpoint

__all__ = ["S3Checkpoint"]
