"""What `s3dataset.S3Client` promises of any S3, as tests that a class of yours inherits.

Run it against the store that you use:

```python
import pytest
from s3dataset import S3Client, S3ClientConfig
from s3dataset.testing.conformance import ClientConformance

class TestMyStore(ClientConformance):
    lacks = frozenset({"conditional_writes"})

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls):
        return "a-bucket-for-tests"          # must exist

    @classmethod
    def client_with(cls, **config):
        return S3Client("us-east-1", endpoint="https://store.example", s3client_config=S3ClientConfig(**config))
```

Every test writes below a prefix of its own and removes what it has written. Needs pytest; with
`pytest_plugins = ["s3dataset.testing.pytest_plugin"]` its failures show their values.
"""

from s3dataset.testing.conformance._client import ClientConformance
from s3dataset.testing.conformance._keys import ODD_KEYS

__all__ = ["ODD_KEYS", "ClientConformance"]
