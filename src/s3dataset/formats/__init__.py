"""Formats of shards: from a shard's bytes to samples, and back.

::

    _format     the protocol, Sample, ShardIndex, Cursor
"""

from s3dataset.formats._format import Compression, Cursor, Format, Frames, OnBad, Sample, ShardIndex, ShardWriter

__all__ = ["Compression", "Cursor", "Format", "Frames", "OnBad", "Sample", "ShardIndex", "ShardWriter"]
