"""Formats of shards: from a shard's bytes to samples, and back.

::

    _format         the protocol, Sample, ShardIndex, Cursor
    _names          a format by its name, and as what an index keeps of it
    ├── _tar        WebDataset's archives; _tar_headers
    ├── _tfrecord   records with checksums; _example reads tf.train.Example
    ├── _lines      JSONL, Text
    ├── _csv  _npy
    ├── _parquet    rows; _parquet_layout (row groups), _parquet_filters, _parquet_writer
    ├── _streamed   what those have in common whose content is bytes
    └── _compression  _gzip  _zstd  _content    from the object's bytes to content, in bounded memory
"""

from s3dataset.formats._csv import CSV
from s3dataset.formats._format import Compression, Cursor, Format, Frames, OnBad, Sample, ShardIndex, ShardWriter
from s3dataset.formats._lines import JSONL, Text
from s3dataset.formats._names import describe, format_of_key, from_description, named_format
from s3dataset.formats._npy import Npy
from s3dataset.formats._parquet import Parquet
from s3dataset.formats._tar import Tar
from s3dataset.formats._tfrecord import TFRecord

__all__ = [
    "CSV",
    "JSONL",
    "Compression",
    "Cursor",
    "Format",
    "Frames",
    "Npy",
    "OnBad",
    "Parquet",
    "Sample",
    "ShardIndex",
    "ShardWriter",
    "TFRecord",
    "Tar",
    "Text",
    "describe",
    "format_of_key",
    "from_description",
    "named_format",
]
