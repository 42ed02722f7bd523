"""Listing a prefix: many pages at once where the service allows it, one after the other where it does not."""

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, cast

from s3dataset._client import Client, ListingGuard, ListPage, RequestQueue
from s3dataset._manifest._builder import Builder, is_ascending
from s3dataset._manifest._chunks import chunk_of_page, chunk_of_page_rows, chunks_of_rows
from s3dataset._manifest._columns import Columns
from s3dataset._manifest._nearest import nearest_prefixes
from s3dataset._manifest._pattern import Pattern, compile_pattern
from s3dataset._manifest._plan import ListingOrderError, ListingPlan, PageRequest, Piece
from s3dataset._manifest._steps import Page as _Page
from s3dataset._manifest._steps import Steps as _Steps
from s3dataset._uri import S3Uri, is_directory_bucket
from s3dataset._warnings import warn_caller
from s3dataset.errors import EmptyPrefixWarning, S3Exception

_MOST_PAGES_AT_ONCE: Final = 256
_LATEST_MTIME: Final = (1 << 32) - 1
_EXAMPLES: Final = 3
_REFUSALS: Final = (400, 501)  # of `start-after`, by stores that do not know it


class Progress(NamedTuple):
    """How far a listing is.

    Attributes:
        objects: Keys listed so far.
        requests: Requests sent so far.
    """

    objects: int
    requests: int


OWN_FOLDER: Final = b".s3dataset/"
"""Indexes are kept in folders of this name, beside the data that they are of, to which they do not belong."""


def is_own(rest: bytes) -> bool:
    """Whether what follows the prefix in a key lies in such a folder. Whoever lists the folder itself sees it."""
    return rest.startswith(OWN_FOLDER) or b"/" + OWN_FOLDER in rest


def list_columns(
    client: Client,
    uri: S3Uri,
    *,
    pattern: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    warn: bool = True,
) -> Columns:
    """Lists everything below a prefix.

    Args:
        client: Whose connections list.
        uri: Bucket and prefix.
        pattern: Which keys to take; see `Pattern`.
        progress: Called every so often, in this thread.
        warn: Whether to warn when there is nothing.

    Raises:
        InvalidConfigError: The pattern is none.
        S3Exception: Listing failed.
    """
    chosen = compile_pattern(pattern) if pattern is not None else None
    listing = _Listing(client, uri, chosen, progress)
    columns = listing.run()
    if warn and not len(columns):
        _warn_empty(client, uri, chosen, listing)
    return columns


def _warn_empty(client: Client, uri: S3Uri, pattern: Pattern | None, listing: "_Listing") -> None:
    if listing.objects and pattern is not None:
        examples = ", ".join(repr(example) for example in listing.examples)
        message = (
            f"None of the {listing.objects:,} objects below {uri} matches the pattern {pattern.text!r}. What follows "
            f"the prefix in the first keys: {examples}"
        )
    else:
        near = nearest_prefixes(client, uri)
        if near is None:
            where = f"the bucket {uri.bucket} is empty"
        else:
            where = f"in {near.parent} there are {', '.join(near.names)}"
        message = f"There is no object below {uri}: {where}"
        if pattern is None and "*" in uri.key:
            message += ". A prefix is taken as it is: pattern= chooses among what lies below it"
    warn_caller(message, EmptyPrefixWarning)


class _Listing:
    """One run over a prefix."""

    def __init__(
        self, client: Client, uri: S3Uri, pattern: Pattern | None, progress: Callable[[Progress], None] | None
    ) -> None:
        self._client = client
        self._uri = uri
        self._pattern = pattern
        self._progress = progress
        self._prefix = uri.key.encode()
        self._builder = self._new_builder()
        self.objects = 0  # before the pattern
        self.requests = 0
        self.examples: list[str] = []

    def _new_builder(self) -> Builder:
        source = {"uri": str(self._uri), "pattern": self._pattern.text if self._pattern else None, "complete": True}
        return Builder([source])

    def run(self) -> Columns:
        try:
            with self._client.queue() as queue:
                try:
                    if is_directory_bucket(self._uri.bucket):
                        raise ListingOrderError  # S3 Express lists in no order, and knows no start-after
                    self._parallel(queue)
                    return self._builder.finish()
                except ListingOrderError:
                    pass
            self._builder.close()
            self._builder = self._new_builder()
            self.objects = 0
            self.examples.clear()
            with self._client.queue() as queue:
                return self._serial(queue)
        finally:
            self._builder.close()

    # -- In parallel ------------------------------------------------------------------------------------------------

    def _parallel(self, queue: RequestQueue) -> None:
        """Goes in steps: what was asked for comes, then the plan says what to ask for next.

        So what is asked for does not depend on which answer came first. Where a page is surely to be followed by the
        next one, that is asked for as soon as it has come, and no connection waits for the slowest of a step.
        """
        most = min(self._client.max_connections, _MOST_PAGES_AT_ONCE)
        plan = ListingPlan(max_in_flight=most)
        steps = _Steps(queue, self._send, most)
        pages: list[tuple[_Page, Piece]] = []
        while not plan.done:
            steps.ask(plan.requests())
            # While the next pages are on their way there is time for what they need not wait for.
            for page, piece in pages:
                self._add(page.content, page.keys, page.ends, piece.start, piece.stop, piece.position)
            if self._progress is not None and pages:
                self._progress(Progress(self.objects, self.requests))
            pages = []
            for request, answer in steps.answers(self._read):
                if isinstance(answer, S3Exception):
                    self._take_failure(plan, request, answer)
                elif request.directory is not None:
                    self._take_names(plan, request, answer)
                else:
                    pieces = plan.page(request.number, answer.keys, token=answer.token)
                    pages.extend((answer, piece) for piece in pieces)
        for page, piece in pages:
            self._add(page.content, page.keys, page.ends, piece.start, piece.stop, piece.position)
        if self._progress is not None:
            self._progress(Progress(self.objects, self.requests))

    @staticmethod
    def _take_failure(plan: ListingPlan, request: PageRequest, failure: S3Exception) -> None:
        if request.directory is not None:
            # Names are a help only, and a policy may forbid delimiters.
            plan.directory(request.number, request.directory, None)
        elif request.start_after and request.token is None and failure.status in _REFUSALS:
            raise ListingOrderError from failure
        else:
            raise failure

    def _send(self, queue: RequestQueue, request: PageRequest) -> int:
        self.requests += 1
        bucket, prefix = self._uri.bucket, self._uri.key
        if request.directory is not None:
            return queue.list_page(
                bucket,
                prefix + request.directory.decode(),
                delimiter=request.delimiter,
                start_after=prefix + request.start_after.decode() if request.start_after else "",
            )
        if request.token is not None:
            return queue.list_page(bucket, prefix, token=request.token)
        return queue.list_page(
            bucket, prefix, start_after=prefix + request.start_after.decode() if request.start_after else ""
        )

    def _take_names(self, plan: ListingPlan, request: PageRequest, page: _Page) -> None:
        cut = len(self._prefix)
        names = sorted({*page.keys, *(name.encode()[cut:] for name in page.content.common_prefixes)})
        directory = request.directory or b""
        plan.directory(
            request.number,
            directory,
            [name for name in names if name.startswith(directory) and name != directory],
            is_truncated=page.content.is_truncated,
        )

    def _read(self, content: ListPage) -> _Page:
        """Looks at a page.

        Raises:
            ListingOrderError: Its keys do not ascend, or it does not say where to go on.
        """
        keys, ends = self._keys(content)
        token = content.next_token if content.is_truncated else None
        if not is_ascending(keys) or (keys and not content.key_blob.startswith(self._prefix)):
            raise ListingOrderError
        if content.is_truncated and token is None:
            raise ListingOrderError
        return _Page(content, keys, ends, token)

    def _keys(self, page: ListPage) -> tuple[list[bytes], "array[int]"]:
        """The keys without the prefix, and where each ends in the page's blob."""
        ends = array("I", page.key_ends)
        blob, cut = page.key_blob, len(self._prefix)
        starts = [0, *ends]
        return [blob[start + cut : end] for start, end in zip(starts, ends, strict=False)], ends

    def _add(
        self, page: ListPage, keys: Sequence[bytes], ends: "array[int]", start: int, stop: int, position: object
    ) -> None:
        """Keeps rows [start, stop) of a page, as far as the pattern chooses them."""
        pattern = self._pattern
        bucket = self._uri.bucket
        rows: Sequence[int] = range(start, stop)
        if OWN_FOLDER in page.key_blob:
            rows = [row for row in rows if not is_own(keys[row])]
        self.objects += len(rows)
        if pattern is not None:
            if len(self.examples) < _EXAMPLES:
                self.examples.extend(keys[row].decode() for row in rows[:_EXAMPLES])
                del self.examples[_EXAMPLES:]
            matches = pattern.matches
            rows = [row for row in rows if matches(keys[row].decode())]
        if len(rows) == stop - start:
            chunk = chunk_of_page(page, bucket, ends, start, stop, ascending=position is not None)
            self._builder.add(chunk, position)
        elif rows:
            self._builder.add(chunk_of_page_rows(page, bucket, ends, rows), position)

    # -- One page after the other --------------------------------------------------------------------------------------

    def _serial(self, queue: RequestQueue) -> Columns:
        prefix = self._uri.key
        asked = [(prefix, "")]
        if is_directory_bucket(self._uri.bucket) and prefix and not prefix.endswith("/"):
            # Whole directories are listed there: first this one's names, then all below those that fit.
            asked = [(prefix[: prefix.rfind("/") + 1], "/")]
        previous: list[bytes] = []
        ascending = True
        for directory, delimiter in asked:
            for page in self._pages(queue, directory, delimiter):
                if delimiter:
                    asked.extend((name, "") for name in page.common_prefixes if name.startswith(prefix))
                    self._add_rows(page, [row for row in range(len(page)) if page.key(row).startswith(prefix)])
                    ascending = False
                elif len(page):
                    keys, ends = self._keys(page)
                    ascending = ascending and (not previous or previous[-1] < keys[0]) and is_ascending(keys)
                    previous = keys
                    self._add(page, keys, ends, 0, len(keys), None)
                if self._progress is not None:
                    self._progress(Progress(self.objects, self.requests))
        columns = self._builder.finish()
        return columns if ascending else _in_order(columns, self._new_builder())

    def _pages(self, queue: RequestQueue, prefix: str, delimiter: str) -> Iterator[ListPage]:
        token: str | None = None
        guard = ListingGuard(self._uri)
        while True:
            self.requests += 1
            index = queue.list_page(self._uri.bucket, prefix, delimiter=delimiter, token=token)
            page = cast(ListPage, queue.take(index))
            guard.check(page)
            yield page
            if not page.is_truncated:
                return
            token = page.next_token

    def _add_rows(self, page: ListPage, rows: list[int]) -> None:
        """Keeps those of these rows that the pattern chooses."""
        ends, cut = array("I", page.key_ends), len(self._uri.key)
        if OWN_FOLDER in page.key_blob:
            rows = [row for row in rows if not is_own(page.key(row)[cut:].encode())]
        self.objects += len(rows)
        pattern = self._pattern
        if pattern is not None:
            self.examples.extend(page.key(row)[cut:] for row in rows[: _EXAMPLES - len(self.examples)])
            rows = [row for row in rows if pattern.matches(page.key(row)[cut:])]
        if rows:
            self._builder.add(chunk_of_page_rows(page, self._uri.bucket, ends, rows))


def _in_order(columns: Columns, builder: Builder) -> Columns:
    """The same rows by key, each key once: an order that is the service's whim would differ from rank to rank."""
    step = 4096
    try:

        def run(start: int) -> Iterator[tuple[bytes, int]]:
            rows = range(start, min(start + step, len(columns)))
            return iter(sorted((columns.key_bytes(row), row) for row in rows))

        def unique() -> Iterator[int]:
            last: bytes | None = None
            for key, row in heapq.merge(*(run(start) for start in range(0, len(columns), step))):
                if key != last:
                    yield row
                last = key

        for chunk in chunks_of_rows(columns, unique()):
            builder.add(chunk)
        return builder.finish()
    finally:
        builder.close()
