"""pack: many small objects into shards."""

import io
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._manifest import Manifest, joined, manifest_of_shards, with_sizes
from s3dataset._pack._labels import Label, Labels, labels_of
from s3dataset._pack._names import Names
from s3dataset._pack._options import GROUPED, PackSpec, Transform, Verify
from s3dataset._pack._plan import Plan, ShardTask, number_of_shard, plan_of_objects, plan_of_shards, shard_name
from s3dataset._pack._samples import name_of_callable, transformed
from s3dataset._pack._shards import Finished, write_shards
from s3dataset._pack._state import Destination, Found, fingerprint_of
from s3dataset._pack._workers import choose_workers, run_here, run_on_ray, run_processes
from s3dataset._progress import Progress, showing
from s3dataset._uri import S3Uri
from s3dataset._warnings import warn_caller
from s3dataset.errors import ManifestMismatchError, ObjectNotFoundError, S3Exception
from s3dataset.formats import Compression, Format, Sample, named_format

if TYPE_CHECKING:
    from s3dataset.transforms import LabelFromKey

__all__ = ["PackSummary", "left_out_text", "pack", "pack_with_summary"]

_PLAN_VERSION: Final = 1
_LOOK_EVERY_S: Final = 10.0

_Shards: TypeAlias = tuple[Manifest, Sequence[int]]
"""Rows of a manifest."""


@dataclass(frozen=True, slots=True)
class PackSummary:
    """What a pack did.

    Attributes:
        manifest: The shards, indexed.
        index: Where that was saved.
        made: Shards that were written now.
        kept: Shards that were finished before.
        source_bytes: Of the objects read now.
        left_out: Objects that make no sample.
        first_left_out: URI of the first of them, or "".
    """

    manifest: Manifest
    index: str
    made: int
    kept: int
    source_bytes: int
    left_out: int
    first_left_out: str


def pack(
    source: "str | Manifest | Iterable[Sample]",
    dest: str,
    *,
    format: str | Format = "tar",  # noqa: A002 - as the datasets call it
    shard_size: int = 256 << 20,
    transform: Transform | None = None,
    label: "str | LabelFromKey | None" = None,
    compression: Compression | None = None,
    storage_class: str | None = None,
    workers: int | None = None,
    verify: Verify = True,
    progress: Progress | bool | None = None,
    pattern: str | None = None,
    source_format: str | Format | None = None,
    overwrite: bool = False,
    ray: bool = False,
    region: str | None = None,
    endpoint: str | None = None,
    s3client_config: S3ClientConfig | None = None,
) -> Manifest:
    """Packs many small objects into shards that stream fast and are read at random, from S3 to S3.

    What goes into which shard follows from the listing and the arguments alone: the same source always makes the same
    shards, "shard-000000.tar" and on, whoever makes them. So a pack that was stopped in whatever way is gone on with
    by calling it again: finished shards, told by records under `dest/.s3dataset/`, are kept. At the end the index is
    saved at `Manifest.index_location(dest, format)`, where datasets find it, and the records are removed. Nothing is
    written to disk.

    Memory of each process: the client's byte budget, the largest object, and the samples' places. Tar without transform
    and compression streams objects that are larger than half of the budget; elsewhere those larger than the budget are
    refused.

    In tar and tfrecord, objects that differ behind the first dot of their names are fields of one sample ("a/1.jpg" and
    "a/1.cls"); in the other formats each object is a sample. Objects larger than `shard_size` make a shard each.
    "Folders", hidden files, and what lies below a first folder "__like_this__" are left out, with a warning.

    Args:
        source: "s3://bucket/prefix", a manifest, or an iterable of samples. An iterable is written by this process and
            cannot be gone on with.
        dest: "s3://bucket/folder" to write to: an empty one, or that of an earlier pack.
        format: "tar", "tfrecord", "jsonl", "parquet", ..., or a format with its options.
        shard_size: Bytes of the source that go into a shard, before transform and compression, which leaves sizes to
            the listing; for `source_format` and iterables, of the shard. Default: 256 MiB, fetched in well under a
            second by a training process, and few enough for a bucket.
        transform: Makes of each sample another one, a list of several, or None to leave it out. Runs in every worker,
            so it must pickle; its name and arguments belong to the plan, its code does not.
        label: "folder" (of each object), a `LabelFromKey`, or a CSV file (path or URI) with the columns key and label.
            Is the field "cls" in tar, else "label".
        compression: "zst" or "gz", in frames that stay readable at random.
        storage_class: Of the shards.
        workers: Processes; 0: this one. Default: one a core, if the transform can be imported by others, and this one
            where up to 4 GiB are only to be moved.
        verify: True: compare the CRC64NVME of what was written with the one that the service tells of the stored shard,
            one request each; where it tells none, and with "read", fetch each shard again and compare its bytes and
            where its samples lie, which takes as long again as fetching the source. False: neither. The service
            compares each part with its checksum on arrival in any case, if it can.
        progress: Called with (bytes of the source done, all); None: a bar on terminals.
        pattern: Which objects of a prefix, as for `Manifest.from_prefix`.
        source_format: What the source's objects are shards of, to pack them anew.
        overwrite: Begin anew where another pack, or shards, are.
        ray: Make the shards on a Ray cluster instead; credentials are found by each machine.
        region: Of the source and destination; default: environment, profile, else the buckets tell.
        endpoint: URL of a service of one's own.
        s3client_config: Further settings.

    Returns:
        The shards, indexed. Shards without samples, all left out by the transform, are not there.

    Raises:
        ManifestMismatchError: The destination holds something else, or a pack with other options or of another source;
            the message tells the difference.
        DecodeError: An object cannot be made a sample of this format, is too large, has no label, or collides with
            another.
        ObjectChangedError: An object was replaced since it was listed.
        ChecksumMismatchError: A shard is not what was written.
        S3Exception: The transform failed, or something could not be read or written. Notes tell what is finished.
        ValueError: Arguments contradict each other.
        ImportError: A library is missing.

    Warns:
        UserWarning: Objects were left out.
    """
    summary = pack_with_summary(
        source,
        dest,
        format=format,
        shard_size=shard_size,
        transform=transform,
        label=label,
        compression=compression,
        storage_class=storage_class,
        workers=workers,
        verify=verify,
        progress=progress,
        pattern=pattern,
        source_format=source_format,
        overwrite=overwrite,
        ray=ray,
        region=region,
        endpoint=endpoint,
        s3client_config=s3client_config,
    )
    if summary.left_out:
        warn_caller(left_out_text(summary.left_out, summary.first_left_out))
    return summary.manifest


def left_out_text(count: int, first: str) -> str:
    """What to say of the objects that make no sample."""
    return (
        f"{count:,} object{'s were' if count != 1 else ' was'} left out, as {first}: hidden files and __meta__ folders "
        "make no samples"
    )


def pack_with_summary(
    source: "str | Manifest | Iterable[Sample]",
    dest: str,
    *,
    format: str | Format,  # noqa: A002
    shard_size: int,
    transform: Transform | None = None,
    label: "str | LabelFromKey | None" = None,
    compression: Compression | None = None,
    storage_class: str | None = None,
    workers: int | None = None,
    verify: Verify = True,
    progress: Progress | bool | None = None,
    pattern: str | None = None,
    source_format: str | Format | None = None,
    overwrite: bool = False,
    ray: bool = False,
    region: str | None = None,
    endpoint: str | None = None,
    s3client_config: S3ClientConfig | None = None,
    need_samples: bool = False,
) -> PackSummary:
    """`pack`, and what it did. With `need_samples`, a source that makes none is an error, and nothing is written."""
    if verify not in (True, False, "read"):
        raise ValueError(f'verify={verify!r} must be True, False or "read"')
    if shard_size < 1:
        raise ValueError(f"shard_size={shard_size} must be at least 1 byte")
    if pattern is not None and not isinstance(source, str):
        raise ValueError("pattern= chooses objects of a prefix: give one, or filter the manifest")
    if isinstance(source, str) and pattern is None and dest.startswith(source):
        raise ValueError(
            f"{dest} lies below {source}, so that the shards would be part of their own source the next time: choose "
            "another prefix, or give a pattern="
        )
    if label is not None and source_format is not None:
        raise ValueError("label= is for objects; samples of shards get theirs in transform=")
    ref = ClientRef(region, endpoint, s3client_config)
    uri = S3Uri.parse_prefix(dest)
    chosen = named_format(format)
    spec = PackSpec(
        ref=ref,
        bucket=uri.bucket,
        folder=uri.key if not uri.key or uri.key.endswith("/") else f"{uri.key}/",
        fingerprint="",
        format=chosen,
        shard_size=shard_size,
        source_format=named_format(source_format),
        transform=transform,
        compression=compression,
        storage_class=storage_class,
        verify=verify,
    )
    _check_compression(spec)
    if isinstance(source, str):
        source = Manifest.from_prefix(
            source, pattern=pattern, region=region, endpoint=endpoint, s3client_config=s3client_config
        )
    if not isinstance(source, Manifest):
        if label is not None or source_format is not None or ray:
            raise ValueError("label=, source_format= and ray= are for objects, and an iterable gives samples")
        told = _told(spec, f"an iterable of samples, once ({uuid.uuid4()})", None)
        spec = replace(spec, fingerprint=fingerprint_of(told))
        return _Pack(spec, told, progress).of_samples(source, overwrite=overwrite)
    if not (region or endpoint or s3client_config):
        spec = replace(spec, ref=source.ref)
    return _of_manifest(
        spec, source, label, progress, workers=workers, overwrite=overwrite, ray=ray, need_samples=need_samples
    )


def _of_manifest(
    spec: PackSpec,
    source: Manifest,
    label: "str | LabelFromKey | None",
    progress: Progress | bool | None,
    *,
    workers: int | None,
    overwrite: bool,
    ray: bool,
    need_samples: bool,
) -> PackSummary:
    source = with_sizes(source)
    names = Names(_folder_of(source), spec.format.name in GROUPED)
    spec = replace(spec, names=names)
    labels = labels_of(label, spec.ref.get(), names)
    if spec.source_format is not None:
        plan = plan_of_shards(source, spec.shard_size)
    else:
        tar = spec.format.name == "tar"
        check = None if labels is None else labels.of
        most_bytes, why = _most_bytes(spec)
        plan = plan_of_objects(source, names, spec.shard_size, tar=tar, check=check, most_bytes=most_bytes, why=why)
    if need_samples and not len(plan):
        why = f": {left_out_text(plan.left_out, plan.first_left_out)}" if plan.left_out else ""
        raise ObjectNotFoundError(f"there is nothing to pack, and nothing was written{why}")
    told = _told(spec, f"{source.objects_fingerprint} ({len(source):,} objects)", labels)
    spec = replace(spec, fingerprint=fingerprint_of(told))
    return _Pack(spec, told, progress).of_objects(
        _Tasks(source, plan, labels, names), workers=workers, overwrite=overwrite, ray=ray
    )


def _check_compression(spec: PackSpec) -> None:
    """Refuses before anything is read what the format would refuse at the first shard."""
    spec.format.writer(io.BytesIO(), compression=spec.compression)


def _most_bytes(spec: PackSpec) -> tuple[int | None, str]:
    """The largest object that can be packed, if there is a limit, and what to say of a larger one."""
    limits: list[tuple[int, str]] = []
    if not spec.streams:
        budget = spec.ref.get().memory_limit_bytes
        why = (
            f"would be held whole in memory, of which there are to be {budget:,} bytes: objects that are only to be "
            "moved into tar, without transform= and compression=, are streamed; else raise memory_limit_bytes in "
            "s3client_config="
        )
        limits.append((budget, why))
    readable = getattr(spec.format, "max_sample_bytes", None)
    if readable is not None and spec.transform is None and spec.format.name in GROUPED:
        why = (
            f"{spec.format.name} is read with samples of {readable:,} bytes at most: give format= a larger "
            "max_sample_bytes=, here and where it is read"
        )
        limits.append((readable, why))
    return min(limits) if limits else (None, "")


def _folder_of(source: Manifest) -> str:
    """The folder of the prefix that was listed, which keys of samples leave out; none where there are several."""
    uris = [S3Uri.parse_prefix(prefix) for prefix in source.prefixes]
    folders = {(uri.bucket, uri.key[: uri.key.rfind("/") + 1]) for uri in uris}
    return folders.pop()[1] if len(folders) == 1 else ""


def _told(spec: PackSpec, source: str, labels: Labels | None) -> dict[str, Any]:
    """What the plan is made of."""
    return {
        "plan": _PLAN_VERSION,
        "source": source,
        "names": f"behind {spec.names.folder!r}",
        "format": repr(spec.format),
        "source_format": repr(spec.source_format),
        "shard_size": spec.shard_size,
        "transform": None if spec.transform is None else name_of_callable(spec.transform),
        "label": None if labels is None else labels.identity,
        "compression": spec.compression,
        "storage_class": spec.storage_class,
    }


@dataclass(frozen=True)
class _Tasks:
    """The tasks of a plan, made when they are wanted."""

    source: Manifest
    plan: Plan
    labels: Labels | None
    names: Names

    def __len__(self) -> int:
        return len(self.plan)

    def task(self, number: int) -> ShardTask:
        rows = self.source.rows(self.plan.rows_of(number))
        labels: list[Label] | None = None
        if self.labels is not None:
            of = self.names.of
            labels = ["" if of(key) is None else self.labels.of(bucket, key) for bucket, key, _, _ in rows]
        return ShardTask(number, shard_name(number, len(self)), rows, labels)

    def nbytes(self, number: int) -> int:
        return sum(row[2] or 0 for row in self.source.rows(self.plan.rows_of(number)))


class _Pack:
    """One call."""

    def __init__(self, spec: PackSpec, told: dict[str, Any], progress: Progress | bool | None) -> None:
        self._spec = spec
        self._progress = progress
        self._destination = Destination(spec.ref, spec.bucket, spec.folder, spec.fingerprint, spec.format.name, told)

    def of_objects(self, tasks: _Tasks, *, workers: int | None, overwrite: bool, ray: bool) -> PackSummary:
        spec, destination = self._spec, self._destination
        found = destination.begin(overwrite=overwrite)
        known = _known(destination, len(tasks), found)
        left = [number for number in range(len(tasks)) if number not in known]
        copies = spec.transform is None and spec.compression is None and spec.source_format is None
        copied_bytes = sum(tasks.nbytes(number) for number in left) if copies else None
        count = 0 if ray else choose_workers(workers, len(left), spec.transform, copied_bytes=copied_bytes)
        done = _Done(tasks, known, destination)
        with showing(self._progress, "pack") as bar:
            done.show(bar)
            coming = (tasks.task(number) for number in left)
            try:
                if ray:
                    run_on_ray(spec, coming, done.on_bytes, done.on_finished)
                elif count:
                    run_processes(spec, coming, count, done.on_bytes, done.on_finished)
                else:
                    run_here(spec, coming, done.on_bytes, done.on_finished)
            except ManifestMismatchError:  # the place is another pack's now
                raise
            except BaseException as error:
                error.add_note(
                    f"{len(known) + done.tasks:,} of {len(tasks):,} shards are finished in {destination.uri}: the same "
                    f"call goes on from there{', without overwrite=True (--overwrite)' if overwrite else ''}"
                )
                raise
        kept = sum(len(rows) for _, rows in known.values())
        if left:
            records = destination.records()
            index = destination.look_again()
            if not records.keys() >= set(left):
                return self._of_another(index, tasks, done, kept)
            known |= {number: _all_of(records[number]) for number in left}
        manifest = self._whole(known)
        if left or found.index is None or found.index != manifest:
            destination.check(manifest)
            destination.finish(manifest, [number for number, (_, rows) in known.items() if not rows])
        plan = tasks.plan
        return PackSummary(
            manifest, destination.index_location, done.shards, kept, done.read, plan.left_out, plan.first_left_out
        )

    def _of_another(self, index: Manifest | None, tasks: _Tasks, done: "_Done", kept: int) -> PackSummary:
        """What another pack of the same has finished meanwhile, and so removed the records of.

        Raises:
            ManifestMismatchError: It has not.
        """
        destination = self._destination
        if index is None:
            raise ManifestMismatchError(
                f"records of finished shards are gone from {destination.uri}: the same pack was begun anew there, by "
                "overwrite=True (--overwrite), while this one ran. Run one only",
                uri=destination.uri,
            )
        destination.check(index)
        plan = tasks.plan
        return PackSummary(
            index, destination.index_location, done.shards, kept, done.read, plan.left_out, plan.first_left_out
        )

    def of_samples(self, samples: Iterable[Sample], *, overwrite: bool) -> PackSummary:
        spec, destination = self._spec, self._destination
        destination.begin(overwrite=overwrite)
        checked = transformed(_checked(samples), spec.transform)
        written = write_shards(spec, "", checked, cut=True, parts=lambda part: shard_name(part, 1))
        manifest = self._whole({0: _all_of(manifest_of_shards(written, spec.format, spec.ref))})
        destination.check(manifest)
        destination.finish(manifest, ())
        return PackSummary(manifest, destination.index_location, len(written), 0, 0, 0, "")

    def _whole(self, known: Mapping[int, _Shards]) -> Manifest:
        spec = self._spec
        parts = [known[number] for number in sorted(known) if known[number][1]]
        if not parts:
            return manifest_of_shards((), spec.format, spec.ref)
        return joined(parts, spec.ref, prefix=S3Uri(spec.bucket, spec.folder))


def _all_of(manifest: Manifest) -> _Shards:
    return manifest, range(len(manifest))


def _checked(samples: Iterable[Any]) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if not isinstance(sample, dict):
            raise S3Exception(f"item {number} of the source is a {type(sample).__name__}, and a sample is a dict")
        made = sample if isinstance(sample, Sample) else Sample(sample)
        made.setdefault("__key__", f"{number:08d}")
        made.setdefault("__url__", "")
        yield made


def _known(destination: Destination, tasks: int, found: Found) -> dict[int, _Shards]:
    """The finished tasks with their shards: all of these are there still, as they were written."""
    candidates: dict[int, _Shards] = {number: (destination.nothing(), ()) for number in found.empty if number < tasks}
    if found.index is not None:
        rows: dict[int, list[int]] = {}
        for row in range(len(found.index)):
            number = number_of_shard(found.index.key(row)[len(destination.folder) :])
            if number is not None:
                rows.setdefault(number, []).append(row)
        candidates |= {number: (found.index, some) for number, some in rows.items()}
    candidates |= {number: _all_of(record) for number, record in found.records.items()}
    return {
        number: (manifest, rows)
        for number, (manifest, rows) in candidates.items()
        if number < tasks and all(destination.is_there(*row[1:]) for row in manifest.rows(rows))
    }


class _Done:
    """Counts what is done, for whoever watches."""

    def __init__(self, tasks: _Tasks, known: Mapping[int, Any], destination: Destination) -> None:
        self._destination = destination
        self._looked = time.monotonic()
        self.tasks = 0
        self.shards = 0
        self.read = 0
        self._kept = sum(tasks.nbytes(number) for number in known)
        self._total = tasks.plan.nbytes
        self._bar: Progress | None = None

    def show(self, bar: Progress | None) -> None:
        self._bar = bar
        self.on_bytes(0)

    def on_bytes(self, nbytes: int) -> None:
        self.read += nbytes
        if self._bar is not None:
            self._bar(self._kept + self.read, self._total)

    def on_finished(self, one: Finished) -> None:
        self.tasks += 1
        self.shards += one.shards
        if time.monotonic() - self._looked > _LOOK_EVERY_S:  # what is written for nothing lies beside another's shards
            self._destination.look_again()
            self._looked = time.monotonic()
