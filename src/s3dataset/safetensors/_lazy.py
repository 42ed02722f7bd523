"""safe_open: tensors and slices of them, each when it is asked for."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import torch

from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset.safetensors._boxes import BoxRead, read_boxes
from s3dataset.safetensors._dtypes import dtype_of, shape_of
from s3dataset.safetensors._files import StoredFile, device_of, read_files, read_tensors
from s3dataset.safetensors._format import Entry
from s3dataset.safetensors._slices import box_of
from s3dataset.safetensors._weights import Weights, open_weights

__all__ = ["TensorSlice", "safe_open"]

_FRAMEWORKS = ("pt", "torch", "pytorch")


class safe_open:  # noqa: N801 - the name that programs know from the safetensors library
    """Opens a file of safetensors, or a model in shards, and reads what is asked for, as the library's function does.

    Opening reads headers alone. Each read is pinned to the version that was opened; parts of an object have no checksum
    to be compared with, but `get_tensors` without names is compared. Safe between threads. Nothing stays open: `with`
    is a habit that is kept.

    Example:
        >>> with safe_open("s3://bucket/model.safetensors") as file:
        ...     rows = file.get_slice("embedding")[1000:2000]

    Args:
        uri: As of `load_file`.
        framework: "pt"; there is no other.
        device: Where the tensors are to be.
        region: As of `load_file`.
        endpoint: As of `load_file`.
        s3client_config: As of `load_file`.

    Raises:
        DecodeError, ObjectNotFoundError, S3Exception: As `load_file`.
        ValueError: The framework is another one.
    """

    def __init__(
        self,
        uri: str,
        framework: str = "pt",
        device: torch.device | str | int = "cpu",
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        if framework not in _FRAMEWORKS:
            raise ValueError(f"{uri} is opened for PyTorch: framework must be 'pt', not {framework!r}")
        self._ref = ClientRef(region, endpoint, s3client_config)
        self._device = device_of(device)
        self._weights: Weights | None = open_weights(self._ref.get(), uri, checksums=False)
        self._uri = uri

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets the file. A second call does nothing."""
        self._weights = None

    def __repr__(self) -> str:
        state = "closed" if self._weights is None else f"{len(self._weights.home):,} tensors"
        return f"<{type(self).__name__} {self._uri} ({state})>"

    def _open(self) -> Weights:
        if self._weights is None:
            raise ValueError(f"{self._uri} is closed")
        return self._weights

    def _entry(self, name: str) -> tuple[StoredFile, Entry]:
        weights = self._open()
        file = weights.home.get(name)
        if file is None:
            near = [other for other in weights.home if name in other or other in name][:3]
            hint = f": is it one of {', '.join(map(repr, near))}?" if near else ""
            raise KeyError(f"{self._uri} has no tensor {name!r}{hint}")
        return file, file.header.entries[name]

    def keys(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._open().home)

    def offset_keys(self) -> list[str]:
        """The names in the order of the data, file by file."""
        weights = self._open()
        return [name for file in weights.files for name in file.header.entries if weights.home[name] is file]

    def metadata(self) -> dict[str, str] | None:
        """What the writer said of the file (of the first shard), None when nothing."""
        return self._open().metadata

    def get_tensor(self, name: str) -> torch.Tensor:
        """Reads one tensor.

        Raises:
            KeyError: There is none of this name.
            ObjectChangedError: The file was replaced since it was opened.
            S3Exception: It could not be read.
        """
        return read_tensors(self._ref.get(), [self._entry(name)], self._device)[0]

    def get_tensors(self, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
        """Reads many tensors at once: far quicker than one after the other.

        Args:
            names: Which; None: all of them.

        Raises:
            KeyError, ObjectChangedError, S3Exception: As `get_tensor`.
        """
        if names is None:
            weights = self._open()
            found = read_files(
                self._ref.get(), weights.files, self._device, wanted=lambda file, name: weights.home[name] is file
            )
            return {name: tensor for tensors in found for name, tensor in tensors.items()}
        chosen = list(dict.fromkeys(names))
        tensors = read_tensors(self._ref.get(), [self._entry(name) for name in chosen], self._device)
        return dict(zip(chosen, tensors, strict=True))

    def get_slice(self, name: str) -> "TensorSlice":
        """A tensor that is read when it is indexed, and only the part that is asked for.

        Raises:
            KeyError: There is none of this name.
        """
        return TensorSlice(self._ref, *self._entry(name), self._device)


class TensorSlice:
    """A stored tensor; indexing it as a tensor reads that part.

    Slices of the first dimension are one range of bytes. Others are as many ranges as there are gaps of more than 256
    KiB; smaller gaps are read and dropped. Where lists, tensors or masks pick, the whole dimension is read.
    """

    def __init__(self, ref: ClientRef, file: StoredFile, entry: Entry, device: torch.device) -> None:
        self._ref = ref
        self._file = file
        self._entry = entry
        self._device = device

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self._entry.name!r} of {self._file.uri}: {self._entry.dtype} {self.get_shape()}>"
        )

    def get_shape(self) -> list[int]:
        """The shape, as the file has it."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """The type, as the file has it: "F32"."""
        return self._entry.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        dtype, shape = dtype_of(self._entry, str(self._file.uri)), shape_of(self._entry)
        box, within = box_of(shape, index)
        found = torch.empty([stop - start for start, stop in box], dtype=dtype)
        if self._device.type != "meta":
            read_boxes(self._ref.get(), [BoxRead(self._file, self._entry, box, found)])
        part = found[within]
        if part.numel() < found.numel():
            part = part.clone()  # else what is not wanted would stay as long as it
        return part.to(self._device)
