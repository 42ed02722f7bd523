"""Makes shards: fetches, transforms, writes, verifies, and records what is finished."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self, cast

from s3dataset._io import S3Writer, open_reader
from s3dataset._manifest import WrittenShard, manifest_of_shards
from s3dataset._pack._fetch import Fetcher
from s3dataset._pack._names import unsafe_reason
from s3dataset._pack._options import PackSpec
from s3dataset._pack._plan import Row, ShardTask
from s3dataset._pack._samples import samples_of_objects, shaped, transformed
from s3dataset._pack._state import record_key
from s3dataset._pack._verify import Checksummed, verify_shard
from s3dataset.errors import ChecksumMismatchError, DecodeError
from s3dataset.formats import Sample, ShardWriter

__all__ = ["Finished", "ShardMaker", "Told"]

_TELL_EVERY_S: Final = 0.1
_FINISHING: Final = 2  # shards that are finished beside the one that is written

Told = Callable[[int], None]
"""Is told further bytes of the source that were read."""


class Finished(NamedTuple):
    """A task that is done.

    Attributes:
        number: Which.
        samples: Written.
        nbytes: Of its shards.
        shards: How many it made: none where no sample was left.
    """

    number: int
    samples: int
    nbytes: int
    shards: int


class ShardMaker:
    """Makes the shards of one task after the other.

    While a shard is finished (its last parts and its completion, the reading again, the record: some round trips, and
    with `verify` as long as the writing) the next one is written, and the objects of the one after that are fetched.

    Args:
        spec: What was asked for.
        more: Gives a further task if one is known already; it will be given to `make` next.
        tell: Told of progress.
    """

    def __init__(self, spec: PackSpec, more: Callable[[], ShardTask | None], tell: Told) -> None:
        self._spec = spec
        self._client = spec.ref.get()
        self._ahead: list[int] = []  # tasks whose rows are on their way
        self._tell = tell
        self._untold = 0
        self._told_at = time.monotonic()
        self._telling = threading.Lock()

        def rows() -> Sequence[Row] | None:
            task = more()
            if task is None:
                return None
            self._ahead.append(task.number)
            return self._rows(task)

        self._fetcher = Fetcher(self._client, rows, streams=spec.streams)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fetcher.__exit__(kind, value, trace)

    def _rows(self, task: ShardTask) -> list[Row]:
        if self._spec.source_format is not None:
            return []
        of = self._spec.names.of
        return [row for row in task.rows if of(row[1]) is not None]

    def make_all(
        self,
        tasks: Iterable[ShardTask],
        on_finished: Callable[[Finished], None],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes the shards of all tasks.

        Args:
            tasks: Asked for one by one, as late as possible.
            on_finished: Called when the shards of a task and their record are there, from whichever thread, one at a
                time.
            on_failure: Called when finishing failed, from another thread: who waits in `tasks` may end it.

        Raises:
            S3Exception: An object could not be read, made a sample of, or written. What was being finished then is
                finished first.
        """
        spec = self._spec
        pending: deque[Future[None]] = deque()

        def finish(task: ShardTask, parts: "Sequence[WrittenShard | _OpenShard]") -> None:
            try:
                finished = self._finish(task, parts)
                with self._telling:
                    on_finished(finished)
            except BaseException:
                on_failure()
                raise

        with ThreadPoolExecutor(_FINISHING, thread_name_prefix="s3dataset-pack-finish") as finishing:
            try:
                for task in tasks:
                    samples = transformed(self._source(task), spec.transform)
                    parts = _write_shards(spec, task.name, samples, cut=spec.cuts_as_it_writes)
                    try:
                        self._passed(0, now=True)
                        pending.append(finishing.submit(finish, task, parts))
                    except BaseException:
                        _abort(parts)
                        raise
                    while pending and (len(pending) > _FINISHING or pending[0].done()):
                        pending.popleft().result()
            except BaseException:
                wait(pending)  # the first error is the one to tell
                raise
            while pending:
                pending.popleft().result()

    def _finish(self, task: ShardTask, parts: "Sequence[WrittenShard | _OpenShard]") -> Finished:
        spec = self._spec
        left = deque(parts)
        written: list[WrittenShard] = []
        try:
            while left:
                part = left.popleft()
                written.append(part.finish() if isinstance(part, _OpenShard) else part)
        finally:
            _abort(left)
        record = manifest_of_shards(written, spec.format, spec.ref)
        record.save(f"s3://{spec.bucket}/{record_key(spec.folder, spec.fingerprint, task.number)}")
        return Finished(
            task.number, sum(len(shard.index) for shard in written), sum(s.size for s in written), len(written)
        )

    def _source(self, task: ShardTask) -> Iterator[Sample]:
        if self._spec.source_format is not None:
            yield from self._samples_of_shards(task)
            return
        rows = self._rows(task)
        if task.number in self._ahead:
            self._ahead.remove(task.number)
        else:
            self._fetcher.add(rows)
        yield from samples_of_objects(self._spec, task, self._fetcher.bodies(len(rows)), self._passed)

    def _samples_of_shards(self, task: ShardTask) -> Iterator[Sample]:
        source = self._spec.source_format
        if source is None:
            return
        for bucket, key, size, etag in task.rows:
            told = 0
            with open_reader(self._client, bucket, key, size=size, etag=etag) as reader:
                for sample in source.read(cast(BinaryIO, reader), url=reader.uri):
                    at = reader.tell()
                    self._passed(at - told)
                    told = at
                    yield sample
            self._passed((size or 0) - told)

    def _passed(self, nbytes: int, *, now: bool = False) -> None:
        self._untold += nbytes
        if now or time.monotonic() - self._told_at > _TELL_EVERY_S:
            self._told_at = time.monotonic()
            with self._telling:
                self._tell(self._untold)
            self._untold = 0


def _abort(parts: "Iterable[WrittenShard | _OpenShard]") -> None:
    for part in parts:
        if isinstance(part, _OpenShard):
            part.abort()


def write_shards(
    spec: PackSpec, name: str, samples: Iterable[Sample], *, cut: bool, parts: Callable[[int], str] | None = None
) -> list[WrittenShard]:
    """`_write_shards`, and all of them finished."""
    written = _write_shards(spec, name, samples, cut=cut, parts=parts)
    return [part.finish() if isinstance(part, _OpenShard) else part for part in written]


def _write_shards(
    spec: PackSpec, name: str, samples: Iterable[Sample], *, cut: bool, parts: Callable[[int], str] | None = None
) -> "list[WrittenShard | _OpenShard]":
    """Writes samples to a shard, or with `cut` to several of about `shard_size`; none where there are no samples.

    The last one is left to be finished.

    Args:
        spec: What was asked for.
        name: Of the shard, without the suffix; with `cut` its part's number follows.
        samples: What to write.
        cut: Begin another shard when one is full.
        parts: Names the shards of `cut`.

    Raises:
        S3Exception: It could not be written; nothing of the shard at hand is there then.
    """
    written: list[WrittenShard | _OpenShard] = []
    shard: _OpenShard | None = None
    name_of = parts or (lambda part: f"{name}-{part:03d}")
    try:
        for sample in samples:
            for one in shaped(sample, spec.format.name):
                if shard is None:
                    shard = _OpenShard(spec, name_of(len(written)) if cut else name)
                shard.write(one, sample)
                if cut and shard.nbytes >= spec.shard_size:
                    written.append(shard.finish())
                    shard = None
    except BaseException:
        if shard is not None:
            shard.abort()
        raise
    if shard is not None:
        written.append(shard)
    return written


class _OpenShard:
    """A shard that is uploaded while it is written."""

    def __init__(self, spec: PackSpec, name: str) -> None:
        self._spec = spec
        self._client = spec.ref.get()
        self._key = f"{spec.folder}{name}{spec.suffix}"
        self._writer = S3Writer(self._client, spec.bucket, self._key, storage_class=spec.storage_class)
        self._stream = Checksummed(self._writer) if spec.verify else None
        self._shard: ShardWriter = spec.format.writer(
            cast(BinaryIO, self._stream or self._writer), compression=spec.compression
        )

    @property
    def nbytes(self) -> int:
        return self._shard.nbytes

    def write(self, fields: dict[str, object], sample: Sample) -> None:
        try:
            key = str(fields.get("__key__", ""))
            if self._spec.format.name == "tar" and (reason := unsafe_reason(key)):
                raise ValueError(f"{key!r} is no name for a member of an archive: {reason}")
            self._shard.write(fields)
        except ValueError as error:
            uri = str(sample.get("__url__", ""))
            raise DecodeError(
                f"the sample {sample.get('__key__')!r} of {uri or 'the source'} cannot be written to "
                f"{self._writer.uri}: {error}",
                uri=uri,
            ) from error

    def finish(self) -> WrittenShard:
        index = self._shard.finish()
        self._writer.close()
        info = self._writer.result
        shard = WrittenShard(self._spec.bucket, self._key, info.size, info.etag, index)
        if self._stream is not None:
            try:
                read = self._spec.verify == "read"
                verify_shard(self._client, shard, self._spec.format, self._stream.running.value, read=read)
            except ChecksumMismatchError:
                self._client.delete_object(shard.bucket, shard.key)
                raise
        return shard

    def abort(self) -> None:
        self._writer.abort()
