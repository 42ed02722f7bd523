"""What lies beside the shards while they are made: whose they are, and which are finished.

::

    FOLDER/.s3dataset/pack.json                     the plan's fingerprint and options, and whether all is done
    FOLDER/.s3dataset/pack/FINGERPRINT/0000.manifest  a finished task's shards and samples; goes at the end
    FOLDER/.s3dataset/FORMAT-index.manifest         the index, where datasets find it
"""

import ast
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from s3dataset._client import Client, ClientRef
from s3dataset._manifest import Manifest, index_location, list_prefix, manifest_of_bytes, manifest_of_shards
from s3dataset._pack._plan import number_of_shard
from s3dataset._uri import S3Uri
from s3dataset.errors import DecodeError, ManifestMismatchError, ObjectNotFoundError, S3Exception
from s3dataset.formats import named_format

__all__ = ["Destination", "Found", "fingerprint_of", "record_key"]

_VERSION: Final = 1
_SHOWN: Final = 60
_DIGEST: Final = re.compile(r"\b[0-9a-f]{32,}\b")


def fingerprint_of(told: Mapping[str, Any]) -> str:
    """32 hexadecimal digits, equal for equal plans."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _own_folder(folder: str) -> str:
    return f"{folder}.s3dataset/"


def record_key(folder: str, fingerprint: str, number: int) -> str:
    """Where the record of a finished task lies."""
    return f"{_own_folder(folder)}pack/{fingerprint}/{number:06d}.manifest"


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of this pack.

    Attributes:
        records: Of finished tasks, by number.
        empty: Tasks that are known to make no shard.
        index: Of the pack, if that was finished.
    """

    records: dict[int, Manifest]
    empty: set[int]
    index: Manifest | None


@dataclass
class Destination:
    """The folder that is packed to.

    Args:
        ref: Its client.
        bucket: Its bucket.
        folder: "" or ends in a slash.
        fingerprint: Of the plan.
        format_name: Of the shards.
        told: What the plan is made of, for people who changed something.
    """

    ref: ClientRef
    bucket: str
    folder: str
    fingerprint: str
    format_name: str
    told: dict[str, Any]
    _present: dict[str, tuple[int | None, str | None]] = field(default_factory=dict)
    _earlier: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.folder}"

    @property
    def _client(self) -> Client:
        return self.ref.get()

    @property
    def _state_uri(self) -> str:
        return f"s3://{self.bucket}/{_own_folder(self.folder)}pack.json"

    @property
    def index_location(self) -> str:
        return index_location(S3Uri(self.bucket, self.folder), self.format_name)

    # -- Beginning, or going on ---------------------------------------------------------------------------------------

    def begin(self, *, overwrite: bool) -> Found:
        """Looks at what is there, and says that this pack is under way.

        Raises:
            ManifestMismatchError: Something else is there.
        """
        state = self._load_state()
        self._present = dict(self._listed())
        shards = [key for key in self._present if self._is_shard(key)]
        if state is not None and not overwrite:
            if (version := state.get("version", 1)) != _VERSION:
                raise ManifestMismatchError(
                    f"{self._state_uri} was written by a newer release of s3dataset (version {version}, and this one "
                    f"reads {_VERSION}): go on with that one, or give overwrite=True (--overwrite) to begin anew",
                    uri=self.uri,
                )
            if state.get("fingerprint") != self.fingerprint:
                raise ManifestMismatchError(self._other_plan(state), uri=self.uri)
            complete = bool(state.get("complete"))
            if not complete:  # what a pack before this one left too, if it was to replace that, and was stopped
                self._earlier = shards
            return Found(
                self.records(), set(state.get("empty", ())), self._load(self.index_location) if complete else None
            )
        if self._present and not overwrite:
            example = next(iter(self._present))
            raise ManifestMismatchError(
                f"{self.uri} holds {len(self._present):,} object{'s' * (len(self._present) != 1)} already, as "
                f"s3://{self.bucket}/{example}, and no pack was begun there. Datasets would read them as shards: pack "
                "to an empty prefix, or give overwrite=True (--overwrite), which replaces shards of the same names",
                uri=self.uri,
            )
        self._earlier = shards
        # First goes what would tell of shards as if they were those of this plan.
        self._delete(key for key in self._own_keys() if key.endswith("-index.manifest") or self._is_record(key))
        self._save_state(complete=False)
        return Found({}, set(), None)

    def records(self) -> dict[int, Manifest]:
        """What is recorded of finished tasks, by number.

        Raises:
            S3Exception: It could not be read.
        """
        folder = f"{_own_folder(self.folder)}pack/{self.fingerprint}/"
        keys = sorted(key for key in self._own_keys() if key.startswith(folder))
        found: dict[int, Manifest] = {}
        for at, body in self._client.get_many([(self.bucket, key) for key in keys], on_error="return"):
            if isinstance(body, ObjectNotFoundError):
                continue  # whoever packs the same has finished, and removes them
            if isinstance(body, S3Exception):
                raise body
            number = int(keys[at].rpartition("/")[2].partition(".")[0])
            found[number] = manifest_of_bytes(bytes(body), f"s3://{self.bucket}/{keys[at]}", self.ref)
        return found

    def look_again(self) -> Manifest | None:
        """-> the index, if somebody else has finished this very pack meanwhile.

        Raises:
            ManifestMismatchError: Somebody else has begun another one here.
        """
        state = self._load_state()
        if state is None or state.get("fingerprint") != self.fingerprint:
            what = "gone" if state is None else f"of another pack ({self._changed(state, 'here')})"
            raise ManifestMismatchError(
                f"{self.uri} was given to another pack while this one ran: {self._state_uri} is {what}. Shards of "
                "both may lie there: when the other one has ended, run the one that you want again, with "
                "overwrite=True (--overwrite), which leaves those of one pack only",
                uri=self.uri,
            )
        return self._load(self.index_location) if state.get("complete") else None

    def _is_shard(self, key: str) -> bool:
        return number_of_shard(key[len(self.folder) :]) is not None

    def _is_record(self, key: str) -> bool:
        return key.startswith(f"{_own_folder(self.folder)}pack/")

    def nothing(self) -> Manifest:
        """A manifest of no shards."""
        return manifest_of_shards((), named_format(self.format_name), self.ref)

    def is_there(self, key: str, size: int | None, etag: str | None) -> bool:
        """Whether the listing has this object in this version."""
        return self._present.get(key) == (size, etag)

    def _other_plan(self, state: Mapping[str, Any]) -> str:
        done = "finished" if state.get("complete") else "begun"
        return (
            f"{self.uri} holds a pack that was {done} with other options or another source ({self._changed(state)}). "
            "Use those again to go on with it, pack to another prefix, or give overwrite=True (--overwrite) to make "
            "all shards anew"
        )

    def _changed(self, state: Mapping[str, Any], where: str = "now") -> str:
        theirs = state.get("options", {})
        changed = [
            f"{name}: {_difference(theirs.get(name), value, where)}"
            for name, value in self.told.items()
            if theirs.get(name) != value
        ]
        return "; ".join(changed) or "it was made by another release"

    # -- The end ------------------------------------------------------------------------------------------------------

    def finish(self, manifest: Manifest, empty: Iterable[int]) -> None:
        """Saves the index, then removes what was needed on the way.

        Args:
            manifest: All shards.
            empty: Tasks that made none.

        Raises:
            S3Exception: Something could not be written or removed.
        """
        manifest.save(self.index_location)
        keep = {manifest.key(row) for row in range(len(manifest))}
        self._delete(key for key in self._earlier if key not in keep)
        self._save_state(complete=True, empty=sorted(empty))
        self._delete(key for key in self._own_keys() if self._is_record(key))
        self._abort_uploads()

    def check(self, manifest: Manifest) -> None:
        """Whether the shards are there still, as they were written, and no others beside them.

        Raises:
            ManifestMismatchError: One is not, or is another, or one has come that is none of them.
        """
        self._present = dict(self._listed())
        for bucket, key, size, etag in manifest.rows(range(len(manifest))):
            if not self.is_there(key, size, etag):
                raise ManifestMismatchError(
                    f"s3://{bucket}/{key} is not the shard any more that was written: something else writes to "
                    f"{self.uri} at the same time. Pack from one place only, to a prefix of its own; the same command "
                    "makes again what is missing",
                    uri=f"s3://{bucket}/{key}",
                )
        known = {manifest.key(row) for row in range(len(manifest))} | set(self._earlier)
        strange = sorted(key for key in self._present if key not in known and self._is_shard(key))
        if strange:
            raise ManifestMismatchError(
                f"s3://{self.bucket}/{strange[0]}{f' and {len(strange) - 1:,} others' * (len(strange) > 1)} came while "
                f"this pack ran, and {'are' if len(strange) > 1 else 'is'} none of its shards: something else writes "
                f"to {self.uri} at the same time. Pack from one place only, to a prefix of its own; the same command, "
                "when nothing else runs, removes them",
                uri=f"s3://{self.bucket}/{strange[0]}",
            )

    def _abort_uploads(self) -> None:
        try:
            for upload in list(self._client.list_uploads(self.bucket, self.folder)):
                if self._is_shard(upload.key):
                    self._client.abort_upload(self.bucket, upload.key, upload.upload_id)
        except S3Exception:
            pass  # who may write shards need not be allowed to list uploads; lifecycle rules end those

    # -- The service --------------------------------------------------------------------------------------------------

    def _listed(self) -> Iterator[tuple[str, tuple[int | None, str | None]]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty prefix is what is wanted
            listed = list_prefix(self._client, S3Uri(self.bucket, self.folder))
        for _, key, size, etag in listed.rows(range(len(listed))):
            yield key, (size, etag)

    def _own_keys(self) -> list[str]:
        return [
            info.key
            for page in self._client.list_objects(self.bucket, _own_folder(self.folder))
            for info in page.object_info
        ]

    def _delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        if wanted:
            for _, error in self._client.delete_objects(self.bucket, wanted):
                raise error

    def _load(self, location: str) -> Manifest | None:
        ref = self.ref
        try:
            return Manifest.load(location, region=ref.region, endpoint=ref.endpoint, s3client_config=ref.config)
        except (ObjectNotFoundError, DecodeError):
            return None

    def _load_state(self) -> dict[str, Any] | None:
        uri = S3Uri.parse(self._state_uri, need_key=True)
        try:
            state: dict[str, Any] = json.loads(bytes(self._client.fetch(uri.bucket, uri.key)))
        except ObjectNotFoundError:
            return None
        except ValueError as error:
            raise DecodeError(f"{self._state_uri} is not what a pack writes there: {error}", uri=str(uri)) from error
        return state

    def _save_state(self, *, complete: bool, empty: Sequence[int] = ()) -> None:
        uri = S3Uri.parse(self._state_uri, need_key=True)
        state = {
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "options": self.told,
            "complete": complete,
            "empty": list(empty),
        }
        data = json.dumps(state, indent=1).encode()
        self._client.put_many([(uri.bucket, uri.key, data)], content_type="application/json")


def _difference(theirs: Any, ours: Any, where: str) -> str:
    """What differs between two values; between objects of one class, which arguments."""
    before, after = _arguments(theirs), _arguments(ours)
    if before is None or after is None or before[0] != after[0]:
        return f"{_short(theirs)}, and {where} {_short(ours)}"
    (name, one), (_, other) = before, after
    changed = [field for field in {**one, **other} if one.get(field) != other.get(field)]
    return ", ".join(f"{name}({field}={one.get(field)}), and {where} {field}={other.get(field)}" for field in changed)


def _short(value: Any) -> str:
    if (call := _arguments(value)) is not None:
        return call[0]
    text = _DIGEST.sub(lambda found: f"{found[0][:8]}...", str(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _arguments(value: Any) -> tuple[str, dict[str, str]] | None:
    """Class and arguments of an object by its repr, as "Tar(max_sample_bytes=1)"; None for all else."""
    try:
        call = ast.parse(str(value), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        return None
    return call.func.id, {one.arg or "**": ast.unparse(one.value) for one in call.keywords}
