"""PutObject: many at once."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, overload

from s3dataset._client._core import ClientCore
from s3dataset._client._lost_answers import Nonce
from s3dataset._client._object_info import ObjectInfo, info_of_reply
from s3dataset._native import Reply
from s3dataset._object_headers import Encryption, Headers, object_headers
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from typing_extensions import Buffer as ReadableBuffer

__all__ = ["PutOperations", "PutRequest"]

PutRequest: TypeAlias = "tuple[str, str, ReadableBuffer] | tuple[str, str, ReadableBuffer, Headers]"
"""(bucket, key, data) or (bucket, key, data, further headers)."""

_CONDITIONS: Final = frozenset({"if-none-match", "if-match"})
_WINDOW: Final = 256
"""Data of so many requests is held at once: enough for all connections, and bounded for iterables that make it."""


class PutOperations(ClientCore):
    """Writing whole objects."""

    @overload
    def put_many(
        self,
        requests: Iterable[PutRequest],
        *,
        storage_class: str | None = ...,
        content_type: str | None = ...,
        metadata: Mapping[str, str] | None = ...,
        tags: Mapping[str, str] | str | None = ...,
        sse: Encryption | None = ...,
        kms_key_id: str | None = ...,
        on_error: Literal["raise"] = ...,
    ) -> list[ObjectInfo]: ...
    @overload
    def put_many(
        self,
        requests: Iterable[PutRequest],
        *,
        storage_class: str | None = ...,
        content_type: str | None = ...,
        metadata: Mapping[str, str] | None = ...,
        tags: Mapping[str, str] | str | None = ...,
        sse: Encryption | None = ...,
        kms_key_id: str | None = ...,
        on_error: Literal["return"],
    ) -> list[ObjectInfo | S3Exception]: ...
    def put_many(
        self,
        requests: Iterable[PutRequest],
        *,
        storage_class: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | str | None = None,
        sse: Encryption | None = None,
        kms_key_id: str | None = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[ObjectInfo] | list[ObjectInfo | S3Exception]:
        """Writes objects, one request each and many at once; each is there whole or not at all.

        The requests are consumed as there is room; data of up to 256 is held. Objects above 5 GiB need an `S3Writer`.

        Conditional writes (if-none-match, if-match) get a nonce in the object's metadata, which tells whether it was
        written when an answer was lost.

        Args:
            requests: (bucket, key, data) or (bucket, key, data, [(header, value), ...]). Data is anything with a
                buffer, and must not change until this returns. The headers go before what follows.
            storage_class: Of all these objects, as the others here; default: as the configuration says, else as the
                bucket has it.
            content_type: Media type.
            metadata: Of the user's, names without "x-amz-meta-".
            tags: At most 10.
            sse: "AES256", "aws:kms" or "aws:kms:dsse".
            kms_key_id: Id or ARN of the KMS key.
            on_error: "raise" ends with the first failure and cancels what is unfinished (what was written stays);
                "return" gives exceptions in place of results and goes on.

        Returns:
            For each request, in order, the object written.

        Raises:
            S3Exception: A request failed, and `on_error` is "raise".
            InvalidConfigError: Something of it cannot be said in a header, or contradicts something else.
        """
        common = object_headers(
            storage_class=storage_class,
            content_type=content_type,
            metadata=metadata,
            tags=tags,
            sse=sse,
            kms_key_id=kms_key_id,
        )
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", not {on_error!r}')
        source = iter(requests)
        written: list[tuple[str, int]] = []
        conditional: dict[int, tuple[str, Nonce]] = {}
        results: dict[int, ObjectInfo | S3Exception] = {}
        with self.queue() as queue, self.queue() as asking:
            while True:
                room = _WINDOW - (len(written) - len(results))
                chunk = [
                    (request[0], request[1], request[2], _joined(request[3] if len(request) > 3 else (), common))
                    for request in islice(source, room)
                ]
                if chunk:
                    for place, (bucket, key, data, headers) in enumerate(chunk):
                        if headers and any(name in _CONDITIONS for name, _ in headers):
                            nonce = Nonce()
                            conditional[len(written)] = bucket, nonce
                            chunk[place] = bucket, key, data, (*headers, nonce.header)
                        written.append((key, memoryview(data).nbytes))
                    queue.put(chunk)
                del chunk
                if len(results) == len(written):
                    break
                for index, result in queue.next():
                    key, size = written[index]
                    bucket, made_by = conditional.pop(index, ("", None))
                    try:
                        if not isinstance(result, S3Exception):
                            reply = cast(Reply, result)
                        elif made_by is None:
                            raise result
                        else:
                            reply = made_by.saved_after_all(asking, bucket, key, result)
                        results[index] = info_of_reply(key, reply, size)
                    except S3Exception as error:
                        if on_error == "raise":
                            raise
                        results[index] = error
        return [results[index] for index in range(len(written))]


def _joined(own: Headers, common: list[tuple[str, str]]) -> Headers:
    if not (own and common):
        return own or common
    given = {name for name, _ in own}
    return [*own, *(header for header in common if header[0] not in given)]
