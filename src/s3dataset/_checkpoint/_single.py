"""S3Checkpoint: one checkpoint, one object."""

import contextlib
import io
import os
from typing import Any, cast

import torch

from s3dataset._checkpoint._background import Background, SaveFuture
from s3dataset._checkpoint._image import UnusualArchiveError
from s3dataset._checkpoint._load import load_object
from s3dataset._checkpoint._save import save_skeleton, skeleton_of
from s3dataset._checkpoint._selection import Keys, parse_keys, select
from s3dataset._checkpoint._sharing import Sharing
from s3dataset._checkpoint._told import naming, reading_foreign
from s3dataset._client import ClientRef, ObjectInfo
from s3dataset._config import S3ClientConfig
from s3dataset._io import (
    CHECKPOINT_READER,
    S3Reader,
    S3ReaderConstructorProtocol,
    S3Writer,
    check_constructor,
    open_reader,
)
from s3dataset._progress import Progress, showing
from s3dataset._uri import S3Uri

__all__ = ["S3Checkpoint"]


class S3Checkpoint:
    """Saves checkpoints as single objects, and loads them. Picklable; safe between threads.

    `save` and `load` move the bytes straight from and to the tensors' memory, in parallel, and compare them; `writer`
    and `reader` are files for `torch.save` and `torch.load`.

    Example:
        >>> checkpoint = S3Checkpoint(region="us-west-2")
        >>> checkpoint.save(model.state_dict(), "s3://bucket/model.pt")
        >>> state = checkpoint.load("s3://bucket/model.pt")
        >>> with checkpoint.writer("s3://bucket/model.pt") as writer:
        ...     torch.save(model.state_dict(), writer)
        >>> with checkpoint.reader("s3://bucket/model.pt") as reader:
        ...     state = torch.load(reader)

    Args:
        region: Where the bucket is; default: from the environment, the profile, else the bucket itself tells.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        s3client_config: Everything else.
        reader_constructor: Read-ahead of the readers; the default is made for `torch.load`.

    Raises:
        InvalidConfigError: The endpoint is no URL. It is a ValueError too.
        TypeError: `s3client_config` is none.
    """

    def __init__(
        self,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> None:
        if not isinstance(s3client_config, S3ClientConfig | None):
            raise TypeError(f"s3client_config must be an S3ClientConfig, not {type(s3client_config).__name__}")
        check_constructor(reader_constructor)
        self._ref = ClientRef(region, endpoint, s3client_config)
        self._ref.get()  # checks the rest; reads and sends nothing
        self._reader_constructor = reader_constructor or CHECKPOINT_READER
        self._background = Background()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_background"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _background=Background())

    def _background_here(self) -> Background:
        """This process's: a forked child has none of its parent's threads, and the lock may have been held."""
        if self._background.pid != os.getpid():
            self._background = Background()
        return self._background

    @property
    def region(self) -> str | None:
        """The region given."""
        return self._ref.region

    @property
    def endpoint(self) -> str | None:
        """The endpoint given."""
        return self._ref.endpoint

    def __repr__(self) -> str:
        return f"{type(self).__name__}(region={self.region!r}, endpoint={self.endpoint!r})"

    def reader(self, s3_uri: str) -> S3Reader:
        """Opens a checkpoint for reading; works as a context manager and without one.

        Args:
            s3_uri: "s3://bucket/key".

        Raises:
            InvalidUriError: It is something else.
        """
        uri = S3Uri.parse(s3_uri, need_key=True)
        return open_reader(self._ref.get(), uri.bucket, uri.key, reader_constructor=self._reader_constructor)

    def writer(self, s3_uri: str, *, if_none_match: bool = False, if_match: str | None = None) -> S3Writer:
        """Opens a checkpoint for writing; it appears, whole, when the writer is closed without an error.

        Args:
            s3_uri: "s3://bucket/key".
            if_none_match: Write only if there is no such object.
            if_match: Write only if the object there has this ETag.

        Raises:
            InvalidUriError: `s3_uri` is something else.
            ValueError: The conditions exclude each other, or `part_size` is more than S3 takes.
        """
        uri = S3Uri.parse(s3_uri, need_key=True)
        return S3Writer(self._ref.get(), uri.bucket, uri.key, if_none_match=if_none_match, if_match=if_match)

    def save(
        self,
        obj: Any,
        s3_uri: str,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
        progress: Progress | bool | None = None,
    ) -> ObjectInfo:
        """Saves what `torch.save` can save, as the file that it would write, byte for byte.

        The tensors' memory is sent as it lies there, without a copy; tensors of a GPU are copied to this machine's
        memory one by one. Nothing may change them before this returns. The object appears whole or not at all. It waits
        for what `save_async` is still to save at the same place. (Before
        torch 2.6, and with tensors that torch cannot take apart, such as quantized ones: `torch.save` to a `writer`.)

        Args:
            obj: A state dict, a module, anything that pickles.
            s3_uri: "s3://bucket/key".
            if_none_match: Save only if there is no such object.
            if_match: Save only if the object there has this ETag.
            progress: Is called with (bytes done, all bytes) now and then. None: a bar on a terminal, where tqdm is
                installed, if it takes longer than two seconds; False: nothing.

        Returns:
            What was saved, with its ETag.

        Raises:
            InvalidUriError: `s3_uri` is something else.
            PreconditionFailedError: A condition does not hold.
            S3Exception: It was not saved; the object there is as it was.
        """
        uri = S3Uri.parse(s3_uri, need_key=True)
        background = self._background_here()
        background.wait_for_earlier(str(uri))
        background.raise_unseen()
        conditions: dict[str, Any] = {"if_none_match": if_none_match, "if_match": if_match}
        skeleton = skeleton_of(obj)
        if skeleton is None:
            with self.writer(s3_uri, **conditions) as writer:
                torch.save(obj, cast("Any", writer))
            return writer.result
        writer = S3Writer(self._ref.get(), uri.bucket, uri.key, size=skeleton.nbytes, **conditions)
        with showing(progress, f"saving {uri}") as tell:
            return save_skeleton(writer, skeleton, tell)

    def save_async(
        self,
        obj: Any,
        s3_uri: str,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
        progress: Progress | None = None,
    ) -> SaveFuture:
        """Copies everything and returns; a thread saves the copy, as `save` does, while the program goes on.

        When this returns, `obj` may change. Its tensors are copied into this machine's memory, which takes as much
        again as they do, and is kept for the next call. Saves are sent one after the other, in the order of the calls.
        While one is being sent and another waits, a further call waits for the first, so that no more than two copies
        are in memory. The end of the interpreter waits for all of them.

        Args:
            obj: As of `save`.
            s3_uri: As of `save`.
            if_none_match: As of `save`.
            if_match: As of `save`.
            progress: As of `save`, called in that thread.

        Returns:
            A future of what was saved. An error is raised by its `result()`; where nobody asks, by the next `save` or
            `save_async`, and it is logged in any case. `cancel()` takes back a save that has not begun.

        Raises:
            InvalidUriError: `s3_uri` is something else.
            ValueError: The conditions exclude each other.
            S3Exception: An earlier save failed, and nobody has asked for its result.
        """
        uri = S3Uri.parse(s3_uri, need_key=True)
        background = self._background_here()
        background.make_room()
        conditions: dict[str, Any] = {"if_none_match": if_none_match, "if_match": if_match}
        skeleton = skeleton_of(obj)
        if skeleton is None:
            file = io.BytesIO()
            torch.save(obj, file)
            writer = self.writer(s3_uri, **conditions)

            def save_file() -> ObjectInfo:
                with writer:
                    writer.write(file.getvalue())  # no copy
                return writer.result

            return background.submit(str(uri), save_file, writer.abort)
        writer = S3Writer(self._ref.get(), uri.bucket, uri.key, size=skeleton.nbytes, **conditions)
        copies = background.copies_of(skeleton.storages)
        skeleton.replace(copies)

        def save_copy() -> ObjectInfo:
            try:
                return save_skeleton(writer, skeleton, progress)
            finally:
                background.give_back(copies)

        return background.submit(str(uri), save_copy, writer.abort)

    def load(
        self,
        s3_uri: str,
        *,
        map_location: Any = None,
        weights_only: bool = True,
        keys: Keys | None = None,
        group: Any = None,
        progress: Progress | bool | None = None,
    ) -> Any:
        """Loads what `torch.save` or `save` has written.

        Every storage is fetched straight into its place, all of them at once, while the file is unpickled; the whole is
        compared with the checksum that the service has stored of it (uploads of s3dataset have one), parts with the
        checksums of the file. Files that torch.save writes no more (its old format, TorchScript, compressed or foreign
        archives) are read through a `reader`, as a whole and by every rank.

        Args:
            s3_uri: "s3://bucket/key".
            map_location: As torch.load's. "meta" fetches no storage.
            weights_only: As torch.load's: False runs whatever code the file names (twice with `keys`).
            keys: Load a part of a saved dict, and only the bytes that it needs: ["model", ("optimizer", "state")] gives
                {"model": ..., "optimizer": {"state": ...}}. A tuple is a path.
            group: A process group of torch.distributed, `torch.distributed.group.WORLD` for all ranks, whose ranks all
                call this with the same arguments (except `map_location`): each fetches its share, and they exchange
                what came (on the GPU where the backend is NCCL). If one fails, all do.
            progress: As of `save`.

        Returns:
            What was saved; with `keys` a dict.

        Raises:
            InvalidUriError: `s3_uri` is something else.
            KeyError: It has no such key.
            ObjectNotFoundError: There is none.
            ObjectChangedError: It was replaced meanwhile.
            ChecksumMismatchError: Other bytes came than are stored, several times.
            DecodeError: It is nothing that torch.save has written. It is a ValueError too.
            UnpicklingError: It names code that `weights_only` does not allow.
            S3Exception: It could not be read.
        """
        uri = S3Uri.parse(s3_uri, need_key=True)
        wanted = None if keys is None else parse_keys(keys)
        sharing = None if group is None else Sharing(group)
        arguments: dict[str, Any] = {"map_location": map_location, "weights_only": weights_only}
        with naming(uri, weights_only=weights_only):
            with contextlib.suppress(UnusualArchiveError), showing(progress, f"loading {uri}") as tell:
                return load_object(self._ref.get(), uri, keys=wanted, sharing=sharing, progress=tell, **arguments)
            # The memory of the attempt is free by now.
            with self.reader(s3_uri) as reader, reading_foreign(uri, reader.peek(9)[:9]):
                result = torch.load(cast("Any", reader), **arguments)
            return result if wanted is None else select(result, wanted, s3_uri)
