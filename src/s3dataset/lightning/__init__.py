"""Lightning's checkpoints in S3: `S3LightningCheckpoint`, for `lightning` and for `pytorch_lightning`.

`Trainer(plugins=[S3LightningCheckpoint(region)])` saves and loads through the engine whatever path begins with s3://.
`ModelCheckpoint` and its kin also look at directories, through fsspec: importing this module lets them do so by
`s3dataset.fsspec`, where s3fs is not installed, which they would ask for otherwise.
"""

import importlib
import importlib.util
import re
from typing import TYPE_CHECKING, Any, Final, cast

from s3dataset._checkpoint import S3Checkpoint
from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._uri import S3Uri
from s3dataset.fsspec import register, serves_s3

if TYPE_CHECKING:
    from s3dataset._client import ObjectInfo

    _CheckpointIO = Any  # the `CheckpointIO` of whichever package is installed, as which the class registers itself
else:
    _CheckpointIO = object

__all__ = ["S3LightningCheckpoint"]

# What a user imports -> the package of the interface that its trainers know.
_INTERFACES: Final = {
    "lightning": "lightning.fabric.plugins.io.checkpoint_io",
    "pytorch_lightning": "lightning_fabric.plugins.io.checkpoint_io",
    "lightning_fabric": "lightning_fabric.plugins.io.checkpoint_io",
}
_DECIDED_BY_TORCH: Final = (2, 6)
"""The version from which on Lightning leaves it to torch what `weights_only=None` means."""


class S3LightningCheckpoint(_CheckpointIO):  # type: ignore[misc] # so that type checkers take it for a plugin
    """Saves and loads Lightning's checkpoints in S3: a `CheckpointIO`, whichever of Lightning's packages asks.

    Checkpoints are the objects that `S3Checkpoint.save` makes: byte for byte torch.save's files, sent straight from the
    tensors' memory, and there whole or not at all. Picklable, and safe between threads, so that `AsyncCheckpointIO` may
    wrap it.

    Example:
        >>> checkpoint_io = S3LightningCheckpoint("us-west-2")
        >>> trainer = Trainer(
        ...     plugins=[checkpoint_io],
        ...     callbacks=[ModelCheckpoint(dirpath="s3://bucket/run-7", save_top_k=3, monitor="loss")],
        ... )
        >>> trainer.fit(model, ckpt_path=checkpoint_io.latest("s3://bucket/run-7"))

    Args:
        region: Where the bucket is; None: from the environment, the profile, else the bucket itself tells.
        s3client_config: Everything else.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.

    Raises:
        InvalidConfigError: The endpoint is no URL. It is a ValueError too.
        TypeError: `s3client_config` is none.
    """

    def __init__(
        self,
        region: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        endpoint: str | None = None,
    ) -> None:
        self.region = region
        self._checkpoint = S3Checkpoint(region, endpoint=endpoint, s3client_config=s3client_config)
        self._ref = ClientRef(region, endpoint, s3client_config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(region={self.region!r}, endpoint={self._ref.endpoint!r})"

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None) -> None:  # noqa: ARG002 - the interface's
        """Saves a trainer's state. Nothing may change its tensors before this returns.

        Args:
            checkpoint: What the trainer gathered.
            path: "s3://bucket/key".
            storage_options: Ignored; the settings are those of this object.

        Raises:
            TypeError: `path` is no str.
            InvalidUriError: It is something else than the URI of an object.
            S3Exception: It was not saved; an object of that name is as it was.
        """
        _check_type(path)
        self._checkpoint.save(checkpoint, path)

    def load_checkpoint(
        self, path: str, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads a trainer's state, straight into the tensors' memory.

        Args:
            path: "s3://bucket/key".
            map_location: As torch.load's, but that None means this machine's memory, as it does in Lightning: a trainer
                moves what it loads by itself, and its ranks would otherwise all load to the device of the one that
                saved.
            weights_only: As torch.load's: False runs whatever code the file names. None: False with Lightning before
                2.6, and as torch decides from then on, as these do themselves.

        Raises:
            TypeError: `path` is no str.
            ObjectNotFoundError: There is none. It is a FileNotFoundError too.
            S3Exception: It could not be read.
        """
        _check_type(path)
        if weights_only is None and _version() < _DECIDED_BY_TORCH:
            weights_only = False
        location = "cpu" if map_location is None else map_location
        loaded = self._checkpoint.load(path, map_location=location, weights_only=cast("bool", weights_only))
        return cast("dict[str, Any]", loaded)

    def remove_checkpoint(self, path: str) -> None:
        """Removes a checkpoint: the object, and whatever is below `path/`, where sharded ones have their files.

        One that is not there counts as removed.

        Raises:
            TypeError: `path` is no str.
            InvalidUriError: It names no object, but a whole bucket for instance.
            S3Exception: Not all of it was removed.
        """
        _check_type(path)
        uri = S3Uri.parse(path, need_key=True)
        client = self._ref.get()
        name = uri.key.rstrip("/")
        keys = [uri.key]
        for page in client.list_objects(uri.bucket, f"{name}/"):
            keys += [info.key for info in page.object_info]
        refused = client.delete_objects(uri.bucket, keys[1:]) if len(keys) > 1 else []
        if refused:
            raise refused[0][1]
        client.delete_object(uri.bucket, uri.key)

    def teardown(self) -> None:
        """Does nothing: a checkpoint is there when `save_checkpoint` returns."""

    def latest(self, dirpath: str, suffix: str = ".ckpt") -> str | None:
        """The newest checkpoint below a prefix -> its URI, or None where there is none yet: for `fit(ckpt_path=)`.

        Lightning's own `ckpt_path="last"` finds nothing in S3: it looks for the names that fsspec lists, which have no
        scheme, on the local disk. Of several written in the same second, the one whose name counts highest.

        Args:
            dirpath: `ModelCheckpoint`'s: "s3://bucket/prefix", with a slash at its end or without.
            suffix: Of what counts as a checkpoint.

        Raises:
            InvalidUriError: `dirpath` is no URI.
            S3Exception: The service did not list it.
        """
        _check_type(dirpath)
        uri = S3Uri.parse_prefix(dirpath)
        prefix = f"{uri.key.rstrip('/')}/" if uri.key else ""
        found: list[ObjectInfo] = []
        for page in self._ref.get().list_objects(uri.bucket, prefix):
            found += [info for info in page.object_info if info.key.endswith(suffix)]
        newest = max(found, key=lambda info: (info.last_modified, _numbered(info.key)), default=None)
        return None if newest is None else str(S3Uri(uri.bucket, newest.key))


def _numbered(key: str) -> list[tuple[bool, int, str]]:
    """A key that sorts with its numbers as numbers: "step=9" before "step=10"."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]+)", key)]


def _check_type(path: object) -> None:
    if not isinstance(path, str):
        raise TypeError(
            f"{type(path).__name__!r} is not a supported type for 'path'. Must be a string formatted as an S3 uri."
        )


def _serve(installed: list[str]) -> None:
    """Makes the class known to every interface there is."""
    for interface in dict.fromkeys(_INTERFACES[name] for name in installed):
        importlib.import_module(interface).CheckpointIO.register(S3LightningCheckpoint)
    if not serves_s3():
        register()


def _version() -> tuple[int, ...]:
    """Of the first of the packages."""
    version = str(importlib.import_module(_installed[0]).__version__)
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


_installed = [name for name in _INTERFACES if importlib.util.find_spec(name) is not None]
if not _installed:
    raise ModuleNotFoundError(
        "s3dataset.lightning needs Lightning: pip install 's3dataset[lightning]', or pytorch-lightning",
        name="lightning",
    )
_serve(_installed)
