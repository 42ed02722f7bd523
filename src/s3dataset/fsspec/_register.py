"""Which class answers to s3:// in this process."""

import importlib.util
from typing import Any

from fsspec import register_implementation
from fsspec.registry import registry

from s3dataset.fsspec._filesystem import S3FileSystem

__all__ = ["register", "serves_s3"]

_PROTOCOLS = ("s3", "s3a")


def register(**storage_options: Any) -> None:
    """Makes s3:// mean this package's file system, for everything in this process that opens URLs through fsspec.

    Without it, that is s3fs's; "s3dataset://bucket/key" means this package's always.

    Args:
        **storage_options: What `S3FileSystem` is made with where nothing is said, by Lightning for instance:
            `register(region="us-west-2")`. They replace those of an earlier call. File systems that exist already keep
            theirs.

    Raises:
        InvalidConfigError: They cannot work.
        TypeError: One of them is unknown.
    """
    S3FileSystem(**{**storage_options, "skip_instance_cache": True})  # says what is wrong with them
    S3FileSystem.set_defaults(storage_options)
    for protocol in _PROTOCOLS:
        register_implementation(protocol, S3FileSystem, clobber=True)


def serves_s3() -> bool:
    """Whether there is a file system for s3:// in this process."""
    return "s3" in registry or importlib.util.find_spec("s3fs") is not None
