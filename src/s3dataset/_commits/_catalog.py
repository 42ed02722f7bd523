"""Catalog: the commit records and files below one URI, as the store has them. Without torch, and without ranks."""

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from s3dataset._client import CHECKSUM_MODE, Client, ClientRef, ObjectInfo, UnfinishedUpload, stored_checksum
from s3dataset._commits._conditions import put_if
from s3dataset._commits._names import Attempt, Layout
from s3dataset._commits._record import CommitRecord, StoredObject
from s3dataset._uri import is_directory_bucket
from s3dataset.errors import ObjectNotFoundError, PreconditionFailedError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Reply

__all__ = ["Catalog", "Committed", "Entry"]

_LOGGER: Final = logging.getLogger("s3dataset")

_NOT_IMPLEMENTED: Final = 501
_HEADS_AT_ONCE: Final = 512


class Entry(NamedTuple):
    """A commit record in a listing."""

    step: int
    key: str
    etag: str


class Committed(NamedTuple):
    """A commit record that was read, with its ETag and its bytes."""

    record: CommitRecord
    etag: str
    data: bytes


class Catalog:
    """Reads and writes what `Layout` names. Picklable; safe between threads."""

    def __init__(self, layout: Layout, ref: ClientRef) -> None:
        self.layout = layout
        self._ref = ref

    @property
    def client(self) -> Client:
        return self._ref.get()

    @property
    def bucket(self) -> str:
        return self.layout.bucket

    # -- Commit records ----------------------------------------------------------------------------------------------

    def entries(self, *, all_pages: bool = True) -> list[Entry]:
        """The commit records, newest first.

        Args:
            all_pages: False: those of the first page, which are the newest ones. Directory buckets list in no order,
                and always all.
        """
        layout = self.layout
        found = []
        for page in self.client.list_objects(self.bucket, layout.commits):
            for info in page.object_info:
                step = layout.step_of_commit(info.key)
                if step is not None:
                    found.append(Entry(step, info.key, info.etag))
            if found and not all_pages and not is_directory_bucket(self.bucket):
                break
        return sorted(found, reverse=True)

    def find(self, step: int) -> str | None:
        """ETag of a step's commit record, None where there is none."""
        try:
            return self.client.head_object(self.bucket, self.layout.commit(step)).etag
        except ObjectNotFoundError:
            return None

    def read(self, step: int) -> Committed:
        """Reads a step's commit record.

        Raises:
            ObjectNotFoundError: The step is not committed.
            DecodeError: It is damaged.
            S3Exception: A newer version wrote it, or it could not be read.
        """
        found = self.read_many([step])[step]
        if isinstance(found, S3Exception):
            raise found
        return found

    def read_many(self, steps: Iterable[int]) -> dict[int, Committed | S3Exception]:
        """Reads commit records, many at once. Those that are gone or damaged are exceptions.

        Raises:
            S3Exception: The service could not be asked.
        """
        layout = self.layout
        wanted = list(steps)
        requests = ((self.bucket, layout.commit(step)) for step in wanted)
        results: dict[int, Committed | S3Exception] = {}
        for index, body in self.client.get_many(requests, on_error="return"):
            step = wanted[index]
            if isinstance(body, S3Exception):
                if not isinstance(body, ObjectNotFoundError):
                    raise body
                results[step] = body
                continue
            data = bytes(memoryview(body))
            try:
                record = CommitRecord.from_json(data, layout.uri(layout.commit(step)))
            except S3Exception as error:
                results[step] = error
            else:
                results[step] = Committed(record, body.etag, data)
        return results

    def commit(self, record: CommitRecord, *, replaces: str | None) -> str:
        """Writes a commit record, which makes its files a checkpoint -> its ETag.

        Args:
            record: What to write.
            replaces: ETag of the record of that step, None where there is none.

        Raises:
            PreconditionFailedError: The step was committed by somebody else meanwhile. Nothing was written.
            S3Exception: It was not written, or nobody knows.
        """
        key = self.layout.commit(record.step)
        try:
            return put_if(self.client, self.bucket, key, record.to_json(), replaces=replaces).etag
        except PreconditionFailedError as error:
            raise PreconditionFailedError(
                f"step {record.step} of {self.layout} was committed by somebody else meanwhile; this checkpoint was "
                "not saved. Two jobs that save to one URI need a URI each",
                operation=error.operation,
                uri=error.uri,
                status=error.status,
                code=error.code,
                request_id=error.request_id,
                attempts=error.attempts,
            ) from error

    def put_back(self, committed: Committed) -> None:
        """Writes a commit record again that was deleted, unless another one is there by now."""
        key = self.layout.commit(committed.record.step)
        with contextlib.suppress(PreconditionFailedError):
            put_if(self.client, self.bucket, key, committed.data, replaces=None)

    # -- Files -------------------------------------------------------------------------------------------------------

    def list_files(self, attempt: Attempt) -> Iterator[ObjectInfo]:
        """The objects of an attempt, with their whole keys."""
        for page in self.client.list_objects(self.bucket, self.layout.files(attempt)):
            yield from page.object_info

    def stored(self, attempt: Attempt) -> tuple[StoredObject, ...]:
        """What the service has of an attempt, by name, with the checksums that it has stored."""
        prefix = self.layout.files(attempt)
        infos = sorted(self.list_files(attempt), key=lambda info: info.key)
        checksums = self._checksums([info.key for info in infos])
        return tuple(
            StoredObject(info.key.removeprefix(prefix), info.size, info.etag, checksum)
            for info, checksum in zip(infos, checksums, strict=True)
        )

    def _checksums(self, keys: list[str]) -> list[tuple[str, str] | None]:
        found: list[tuple[str, str] | None] = []
        source = iter(keys)
        with self.client.queue() as queue:
            while chunk := list(islice(source, _HEADS_AT_ONCE)):
                asked = [queue.head(self.bucket, key, [CHECKSUM_MODE]) for key in chunk]
                try:
                    replies = [cast("Reply", queue.take(index)) for index in asked]
                except ObjectNotFoundError:
                    raise
                except S3Exception as error:
                    if not 400 <= error.status < 500 and error.status != _NOT_IMPLEMENTED:
                        raise
                    _LOGGER.debug("%s tells no checksums: %s", self.layout, error)  # some stores know no such header
                    return [None] * len(keys)
                found += [stored_checksum(dict(reply.headers())) for reply in replies]
        return found

    def attempts(self) -> list[Attempt]:
        """Every attempt that has files."""
        pages = self.client.list_objects(self.bucket, self.layout.data, "/")
        found = (self.layout.attempt_of(prefix) for page in pages for prefix in page.common_prefixes)
        return [attempt for attempt in found if attempt is not None]

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects.

        Raises:
            S3Exception: Not all of them could be deleted.
        """
        refused = self.client.delete_objects(self.bucket, keys)
        if refused:
            error = refused[0][1]
            if len(refused) > 1:
                error.add_note(f"{len(refused) - 1:,} other objects below {self.layout} were not deleted either")
            raise error

    def delete_files(self, attempt: Attempt) -> None:
        """Deletes the objects of an attempt.

        Raises:
            S3Exception: Not all of them could be deleted.
        """
        self.delete([info.key for info in self.list_files(attempt)])

    def uploads(self) -> list[UnfinishedUpload]:
        """Multipart uploads under way below data/; none where this may not, or cannot, list them."""
        try:
            return list(self.client.list_uploads(self.bucket, self.layout.data))
        except S3Exception as error:
            if not 400 <= error.status < 500 and error.status != _NOT_IMPLEMENTED:
                raise
            _LOGGER.debug("unfinished uploads below %s are not looked for: %s", self.layout, error)
            return []

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Aborts an unfinished upload."""
        self.client.abort_upload(self.bucket, key, upload_id)

    # -- Time --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Epoch seconds by the service's clock, by which the ages of objects are told."""
        try:
            with self.client.queue() as queue:
                reply = cast("Reply", queue.take(queue.head(self.bucket, "")))
        except S3Exception:
            return time.time()
        date = next((value for name, value in reply.headers() if name.lower() == "date"), None)
        return parsedate_to_datetime(date).timestamp() if date else time.time()
