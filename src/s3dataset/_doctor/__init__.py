"""Looks at everything that stands between a process and its bucket, one thing after the other.

::

    examine     all checks in order, each as soon as it is known
    ├── _machine    versions, processes, memory, files, folders. No network
    ├── _identity   who asks, which region and endpoint, and why these
    ├── _network    names, connections, TLS, clocks
    └── _place      what may be done in a place, one permission after the other; what the store can do
"""

from s3dataset._doctor._check import Check, Status
from s3dataset._doctor._examine import examine

__all__ = ["Check", "Status", "examine"]
