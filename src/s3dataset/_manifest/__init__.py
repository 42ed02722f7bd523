"""What a dataset consists of.

::

    Manifest             immutable columns, mapped from one file
    ├── _listing         a prefix listed with many requests at once
    │   ├── _steps       the requests under way
    │   ├── _plan        which pages to ask for: gaps, _cuts, and a bound on requests. Pure
    │   ├── _model       where keys probably lie
    │   └── _tree        directories whose names are known
    ├── _indexed         what it knows of the samples of its shards
    ├── _index           making an index: what is known, and for the rest
    │   └── _scan        many shards at a time, in threads
    │       └── _shard_stream  how they come
    ├── _columns         the file's layout; reading rows in place
    │   ├── _etags       ETags in 18 bytes
    │   └── _samples     where samples lie
    ├── _builder         writing it with bounded memory, from _chunks of rows
    │   └── _sample_columns  and of samples
    ├── _files           mapping it, in memory or a file of its own, fetching it
    ├── _entries         its objects, one by one
    ├── _lookup          finding a key
    ├── _verify          what changed since
    ├── _nearest         what to say of an empty prefix
    ├── _split           dealing its objects to parts
    └── _pattern         globs on keys
    _written             manifests of shards that were just written
    _beside              the index beside the data: finding it
    _update              bringing it up to date
"""

from s3dataset._manifest._beside import FoundIndex, check_index, find_index
from s3dataset._manifest._entries import Change, ManifestEntry, ManifestObjects
from s3dataset._manifest._index import IndexProgress, index_location
from s3dataset._manifest._listing import Progress
from s3dataset._manifest._manifest import Manifest, list_prefix
from s3dataset._manifest._pattern import Pattern, check_pattern
from s3dataset._manifest._samples import SamplePlace
from s3dataset._manifest._update import Updated, update_index
from s3dataset._manifest._written import (
    WrittenShard,
    joined,
    manifest_of_bytes,
    manifest_of_objects,
    manifest_of_shards,
    with_sizes,
)

__all__ = [
    "Change",
    "FoundIndex",
    "IndexProgress",
    "Manifest",
    "ManifestEntry",
    "ManifestObjects",
    "Pattern",
    "Progress",
    "SamplePlace",
    "Updated",
    "WrittenShard",
    "check_index",
    "check_pattern",
    "find_index",
    "index_location",
    "joined",
    "list_prefix",
    "manifest_of_bytes",
    "manifest_of_objects",
    "manifest_of_shards",
    "update_index",
    "with_sizes",
]
