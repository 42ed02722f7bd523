"""An S3 server on this machine, with faults on demand, for tests, demos and benchmarks.

- `LocalS3` starts the server in a process of its own and points this process at it.
- `Fault` says which requests go wrong, and how.
- The fixture `local_s3` comes with `pytest_plugins = ["s3dataset.testing.pytest_plugin"]`.
- `s3dataset.testing.conformance` holds a suite of S3's semantics that a test class may inherit.

The server is not for production: nothing in memory outlives it, and it knows no permissions beyond its keys. It
listens on loopback only.
"""

from s3dataset.testing._control import ServerError
from s3dataset.testing._faults import Fault
from s3dataset.testing._local_s3 import LocalS3
from s3dataset.testing._records import RequestRecord
from s3dataset.testing._synthetic import synthetic_bytes

__all__ = ["Fault", "LocalS3", "RequestRecord", "ServerError", "synthetic_bytes"]
