"""What boto3 says when an S3 refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError


@dataclass
class Refusal:
    """An error's status, code and further elements."""

    status: int = 0
    code: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def refused(status: int, code: str) -> Iterator[Refusal]:
    """The block is refused in this way."""
    refusal = Refusal()
    with pytest.raises(ClientError) as caught:
        yield refusal
    response = caught.value.response
    refusal.status = response["ResponseMetadata"]["HTTPStatusCode"]
    refusal.headers = response["ResponseMetadata"]["HTTPHeaders"]
    refusal.details = response["Error"]
    refusal.code = response["Error"]["Code"]
    assert (refusal.status, refusal.code) == (status, code), response
