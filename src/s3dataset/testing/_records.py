"""Entries of the server's log."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request that the server has answered, or whose connection has ended.

    Attributes:
        number: Rises by one with every request that ends.
        time_s: When it came, in seconds since 1970.
        duration_s: From its head to the end of its answer.
        connection: Number of the connection that it came on.
        method: HTTP's method.
        operation: S3's name, such as `GetObject`.
        bucket: Empty for ListBuckets.
        key: Decoded; empty for operations on buckets.
        query: As it was sent.
        range: The Range header.
        status: 0 when no answer was sent.
        code: S3's error code.
        attempt: 1 for the first request of its kind (same operation, key, range and part), 2 for the next, and so on.
        bytes_in: Bytes of body received.
        bytes_out: Bytes of body sent.
        request_id: As the client was told.
        faults: Kinds of the faults that picked it.
        headers: Names in lower case; signatures and tokens are left out.
    """

    number: int
    time_s: float
    duration_s: float
    connection: int
    method: str
    operation: str
    bucket: str
    key: str
    query: str
    range: str | None
    status: int
    code: str | None
    attempt: int
    bytes_in: int
    bytes_out: int
    request_id: str
    faults: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
