"""Transforms: from the object that a dataset hands over to the sample that the training loop wants.

::

    S3MapDataset.from_prefix(uri, transform=Pair(Image(output="tensor"), LabelFromKey(classes=["cat", "dog"])))

    S3IterableDataset.from_prefix(uri, format="tar", transform=Pair(Field("jpg;png", Image()), Field("cls", int)))

A transform is any callable that takes an `S3Reader`, or of shards a `formats.Sample`, and returns what the loop wants.
Those here are picklable values that compare by their arguments, so they work under every start method of a DataLoader's
workers; decoders take a buffer of bytes as well as a reader. None of them keeps state, so threads may share one.
PyTorch, Pillow and NumPy are imported when a transform that needs them runs first.

Bytes that a decoder does not know raise `DecodeError`, whose message names the object's URI, its size, its first bytes
and what they look like; of a sample it names the shard, the sample's key and the field.
"""

from s3dataset.transforms._decoders import Bytes, Image, Json, Npy, Source, Text, Torch
from s3dataset.transforms._labels import LabelFromKey
from s3dataset.transforms._parts import Decode, Field, Fields, Pair

__all__ = [
    "Bytes",
    "Decode",
    "Field",
    "Fields",
    "Image",
    "Json",
    "LabelFromKey",
    "Npy",
    "Pair",
    "Source",
    "Text",
    "Torch",
]
