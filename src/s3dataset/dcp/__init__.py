"""PyTorch's distributed checkpoints (torch.distributed.checkpoint) straight to and from S3.

::

    S3StorageWriter     what torch calls in a save
    ├── files           a rank's items, dealt out over objects; each sent from the tensors' memory
    └── publishing      old or new, whole, at every moment; what is of no use any more is removed
    S3StorageReader     what torch calls in a load
    ├── archive         where in torch.save's bytes a tensor lies
    ├── ranges          pure: which bytes are wanted, which gaps are read along
    └── transfer        these bytes, all at once, to where they stay
    S3FileSystem        torch's FileSystemBase
    S3PrefixStrategyBase and those made of it: names of the objects of a rank
    S3HuggingFaceStorageWriter, S3HuggingFaceStorageReader      the same in files of safetensors
    consolidate_safetensors_files                               whole tensors of parts, in little memory

::

    import torch.distributed.checkpoint as DCP
    from s3dataset.dcp import S3StorageReader, S3StorageWriter

    DCP.save(state, storage_writer=S3StorageWriter("us-west-2", "s3://bucket/run-7/step-1000"))
    DCP.load(state, storage_reader=S3StorageReader("us-west-2", "s3://bucket/run-7/step-1000"))
"""

from s3dataset.dcp._file_system import S3FileSystem
from s3dataset.dcp._hf import S3HuggingFaceStorageReader, S3HuggingFaceStorageWriter
from s3dataset.dcp._hf_consolidate import consolidate_safetensors_files, consolidate_safetensors_files_on_every_rank
from s3dataset.dcp._prefixes import (
    BinaryPrefixStrategy,
    DefaultPrefixStrategy,
    HexPrefixStrategy,
    NumericPrefixStrategy,
    RoundRobinPrefixStrategy,
    S3PrefixStrategyBase,
)
from s3dataset.dcp._reader import S3StorageReader
from s3dataset.dcp._writer import S3StorageWriter

__all__ = [
    "BinaryPrefixStrategy",
    "DefaultPrefixStrategy",
    "HexPrefixStrategy",
    "NumericPrefixStrategy",
    "RoundRobinPrefixStrategy",
    "S3FileSystem",
    "S3HuggingFaceStorageReader",
    "S3HuggingFaceStorageWriter",
    "S3PrefixStrategyBase",
    "S3StorageReader",
    "S3StorageWriter",
    "consolidate_safetensors_files",
    "consolidate_safetensors_files_on_every_rank",
]
