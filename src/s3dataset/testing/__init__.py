"""An S3 server on this machine, with faults on demand, for tests, demos and benchmarks.

- `LocalS3` starts the server in a process of its own and points this process at it.
- `Fault` says which requests go wrong, and how; `Variant`, what a store does otherwise than S3.
- The fixture `local_s3` comes with `pytest_plugins = ["s3dataset.testing.pytest_plugin"]`.
- `s3dataset.testing.conformance` holds a suite of S3's semantics that a test class may inherit.

The server is not for production: nothing in memory outlives it, and it knows no permissions beyond its keys. It
listens on loopback only.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from s3dataset.testing._control import ServerError
    from s3dataset.testing._faults import Fault
    from s3dataset.testing._local_s3 import LocalS3
    from s3dataset.testing._records import RequestRecord
    from s3dataset.testing._synthetic import synthetic_bytes
    from s3dataset.testing._variants import Variant

__all__ = ["Fault", "LocalS3", "RequestRecord", "ServerError", "Variant", "synthetic_bytes"]

# Late, because the server's process imports this package too and starts in half the time without them.
_HOMES: Final = {
    "Fault": "_faults",
    "LocalS3": "_local_s3",
    "RequestRecord": "_records",
    "ServerError": "_control",
    "Variant": "_variants",
    "synthetic_bytes": "_synthetic",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
