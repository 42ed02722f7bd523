"""What a dataset consists of.

::

    Manifest             immutable columns, mapped from one file
    ├── _listing         a prefix listed with many requests at once
    │   ├── _steps       the requests under way
    │   ├── _plan        which pages to ask for: gaps, _cuts, and a bound on requests. Pure
    │   ├── _model       where keys probably lie
    │   └── _tree        directories whose names are known
    ├── _columns         the file's layout; reading rows in place
    │   └── _etags       ETags in 18 bytes
    ├── _builder         writing it with bounded memory, from _chunks of rows
    ├── _files           mapping it, in memory or a file of its own, fetching it
    ├── _entries         its objects, one by one
    ├── _lookup          finding a key
    ├── _verify          what changed since
    ├── _nearest         what to say of an empty prefix
    └── _pattern         globs on keys
"""

from s3dataset._manifest._entries import Change, ManifestEntry, ManifestObjects
from s3dataset._manifest._listing import Progress
from s3dataset._manifest._manifest import Manifest, list_prefix
from s3dataset._manifest._nearest import EmptyPrefixWarning
from s3dataset._manifest._pattern import Pattern, check_pattern
from s3dataset._manifest._samples import SamplePlace

__all__ = [
    "Change",
    "EmptyPrefixWarning",
    "Manifest",
    "ManifestEntry",
    "ManifestObjects",
    "Pattern",
    "Progress",
    "SamplePlace",
    "check_pattern",
    "list_prefix",
]
