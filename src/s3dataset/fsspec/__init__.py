"""S3 as a file system of fsspec: pandas, pyarrow, Lightning's callbacks and many others read and write through it.

::

    register                s3:// in this process
    S3FileSystem            opens objects as files
    ├── Bytes               reads, writes, copies and removes, many at once: transfers
    │   └── Tree            what a path means, what is there: listing, options
    └── files               one object as a file

"s3dataset://bucket/key" is served without a word; `s3dataset.fsspec.register()` makes "s3://" mean the same.
"""

try:
    import fsspec as _fsspec  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "s3dataset.fsspec needs fsspec: pip install 's3dataset[fsspec]'", name="fsspec"
    ) from error

from s3dataset.fsspec._files import ReadFile, WriteFile
from s3dataset.fsspec._filesystem import S3FileSystem
from s3dataset.fsspec._register import register, serves_s3

__all__ = ["ReadFile", "S3FileSystem", "WriteFile", "register", "serves_s3"]
