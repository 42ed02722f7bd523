"""PutObject: many at once."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, overload

from s3dataset._client._core import ClientCore
from s3dataset._client._object_info import ObjectInfo, info_of_reply
from s3dataset._native import Reply
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from typing_extensions import Buffer as ReadableBuffer

    from s3dataset._client._queue import Headers

__all__ = ["PutOperations", "PutRequest"]

PutRequest: TypeAlias = "tuple[str, str, ReadableBuffer] | tuple[str, str, ReadableBuffer, Headers]"
"""(bucket, key, data) or (bucket, key, data, further headers)."""

_WINDOW: Final = 256
"""Data of so many requests is held at once: enough for all connections, and bounded for iterables that make it."""


class PutOperations(ClientCore):
    """Writing whole objects."""

    @overload
    def put_many(self, requests: Iterable[PutRequest], *, on_error: Literal["raise"] = ...) -> list[ObjectInfo]: ...
    @overload
    def put_many(
        self, requests: Iterable[PutRequest], *, on_error: Literal["return"]
    ) -> list[ObjectInfo | S3Exception]: ...
    def put_many(
        self, requests: Iterable[PutRequest], *, on_error: Literal["raise", "return"] = "raise"
    ) -> list[ObjectInfo] | list[ObjectInfo | S3Exception]:
        """Writes objects, one request each and many at once; each is there whole or not at all.

        The requests are consumed as there is room; data of up to 256 is held. Objects above 5 GiB need an `S3Writer`.

        Args:
            requests: (bucket, key, data) or (bucket, key, data, [(header, value), ...]). Data is anything with a
                buffer, and must not change until this returns.
            on_error: "raise" ends with the first failure and cancels what is unfinished (what was written stays);
                "return" gives exceptions in place of results and goes on.

        Returns:
            For each request, in order, the object written.

        Raises:
            S3Exception: A request failed, and `on_error` is "raise".
        """
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", not {on_error!r}')
        source = iter(requests)
        written: list[tuple[str, int]] = []
        results: dict[int, ObjectInfo | S3Exception] = {}
        with self.queue() as queue:
            while True:
                room = _WINDOW - (len(written) - len(results))
                chunk = [
                    (request[0], request[1], request[2], request[3] if len(request) > 3 else ())
                    for request in islice(source, room)
                ]
                if chunk:
                    written += [(key, memoryview(data).nbytes) for _, key, data, _ in chunk]
                    queue.put(chunk)
                del chunk
                if len(results) == len(written):
                    break
                for index, result in queue.next():
                    if isinstance(result, S3Exception):
                        if on_error == "raise":
                            raise result
                        results[index] = result
                    else:
                        key, size = written[index]
                        results[index] = info_of_reply(key, cast(Reply, result), size)
        return [results[index] for index in range(len(written))]
