"""Decoders: from bytes to values."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from s3dataset.errors import DecodeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

__all__ = ["Bytes", "Image", "Json", "Npy", "Readable", "Source", "Text", "Torch", "is_bytes"]


class Readable(Protocol):
    """What a transform needs of an `S3Reader`."""

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...
    def getbuffer(self) -> memoryview: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


Source: TypeAlias = Readable | bytes | bytearray | memoryview
"""What a transform takes: a reader, or the bytes themselves, as those of a field of a shard's sample."""

_FIRST_BYTES: Final = 16

# What Pillow's decoders raise for files that are broken.
_IMAGE_ERRORS: Final = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)

_NUMPY_BEGINNINGS: Final = (b"\x93NUMPY", b"PK")
_TORCH_BEGINNINGS: Final = (b"P", b"\x80")

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a RIFF file (WebP, WAV)"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x93NUMPY", "a NumPy .npy file"),
    (b"PK\x03\x04", "a ZIP archive (.npz, torch.save)"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"PAR1", "a Parquet file"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"%PDF", "a PDF"),
    (b"<?xml", "XML"),
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)


def is_bytes(source: Any) -> bool:
    return isinstance(source, bytes | bytearray | memoryview)


def _contents(source: Source) -> memoryview:
    """All bytes of the source, not copied."""
    if isinstance(source, bytes | bytearray | memoryview):
        return memoryview(source)
    if isinstance(source, Mapping):
        names = ", ".join(repr(name) for name in source if not str(name).startswith("__"))
        raise TypeError(
            f"a decoder takes bytes, and this is a sample of a shard with the fields {names}: name the field, as in "
            'Field("jpg", Image()), or decode all of them with Decode()'
        )
    return source.getbuffer()


def _uri(source: Source) -> str:
    if isinstance(source, bytes | bytearray | memoryview):
        return ""
    return f"s3://{source.bucket}/{source.key}"


def _undecodable(source: Source, contents: memoryview, transform: object, reason: object) -> DecodeError:
    """The error that tells which object it was and what its bytes look like instead."""
    first = bytes(contents[:_FIRST_BYTES])
    looks_like = next((f"; that looks like {name}" for magic, name in _SIGNATURES if first.startswith(magic)), "")
    if not first:
        looks_like = "; an empty object, perhaps the marker of a folder"
    uri = _uri(source)
    return DecodeError(
        f"{transform!r} cannot decode {uri or 'the bytes given'}: {len(contents)} bytes that begin with {first!r}"
        f"{looks_like} ({reason}). Leave such objects out with pattern= or Manifest.filter",
        uri=uri,
    )


@dataclass(frozen=True, slots=True)
class Bytes:
    """The object's bytes, as `bytes`."""

    def __call__(self, source: Source) -> bytes:
        """Returns all bytes of the source."""
        return bytes(_contents(source))


@dataclass(frozen=True, slots=True)
class Text:
    """The object as text.

    Attributes:
        encoding: Any codec of Python's; "utf-8-sig" also takes files with a byte order mark.
        errors: "strict" raises for bytes that are not in the encoding; "replace" and the other handlers of Python's do
            not.
    """

    encoding: str = "utf-8"
    errors: str = "strict"

    def __call__(self, source: Source) -> str:
        """Returns the text.

        Raises:
            DecodeError: The bytes are not in the encoding.
        """
        contents = _contents(source)
        try:
            return str(contents, self.encoding, self.errors)
        except UnicodeDecodeError as error:
            raise _undecodable(source, contents, self, error) from error


@dataclass(frozen=True, slots=True)
class Json:
    """The object parsed as one JSON document, in UTF-8, UTF-16 or UTF-32."""

    def __call__(self, source: Source) -> Any:
        """Returns what the document holds.

        Raises:
            DecodeError: The bytes are no JSON.
        """
        contents = _contents(source)
        try:
            return json.loads(bytes(contents))
        except ValueError as error:
            raise _undecodable(source, contents, self, error) from error


@dataclass(frozen=True, slots=True)
class Npy:
    """A NumPy array of a .npy file, or a dict of arrays of an .npz file.

    Attributes:
        allow_pickle: Load arrays of Python objects too. Off, since a pickle can run any code.
    """

    allow_pickle: bool = False

    def __call__(self, source: Source) -> "npt.NDArray[Any] | dict[str, npt.NDArray[Any]]":
        """Returns the array, or the arrays by name.

        Raises:
            DecodeError: The bytes are neither.
        """
        import numpy as np  # noqa: PLC0415 - as torch and Pillow below, so that importing transforms is light

        contents = _contents(source)
        if not self.allow_pickle and not bytes(contents[:6]).startswith(_NUMPY_BEGINNINGS):
            # NumPy takes whatever else comes for a pickle, and advises to load it as one.
            raise _undecodable(source, contents, self, "numpy.save writes a .npy file, numpy.savez a ZIP archive")
        try:
            loaded = np.load(io.BytesIO(contents), allow_pickle=self.allow_pickle)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _undecodable(source, contents, self, error) from error


@dataclass(frozen=True, slots=True)
class Torch:
    """What `torch.save` wrote.

    Attributes:
        weights_only: As of `torch.load`: tensors and plain containers only. On, since a pickle can run any code.
        map_location: As of `torch.load`; "cpu", since workers of a DataLoader must not touch the accelerator.
    """

    weights_only: bool = True
    map_location: str | None = "cpu"

    def __call__(self, source: Source) -> Any:
        """Returns the object that was saved.

        Raises:
            DecodeError: The bytes are no such file.
            pickle.UnpicklingError: The file holds what `weights_only` does not admit.
        """
        import torch  # noqa: PLC0415

        contents = _contents(source)
        if bytes(contents[:1]) not in _TORCH_BEGINNINGS:  # torch's own errors for these speak of pickle's opcodes
            raise _undecodable(source, contents, self, "torch.save writes a ZIP archive or a pickle")
        try:
            return torch.load(io.BytesIO(contents), map_location=self.map_location, weights_only=self.weights_only)
        except (RuntimeError, EOFError, ValueError) as error:
            raise _undecodable(source, contents, self, error) from error


@dataclass(frozen=True, slots=True)
class Image:
    """An image in any format that Pillow reads. Needs Pillow (`pip install 's3dataset[images]'`).

    Attributes:
        mode: Pillow's mode to convert to: "RGB", "L", "RGBA"...; None: as the file has it.
        output: "pil": a `PIL.Image.Image`, fully decoded; "tensor": a torch uint8 tensor of shape (channels, height,
            width); "numpy": a uint8 array of shape (height, width, channels), without the last where the mode has one
            channel.
    """

    mode: str | None = "RGB"
    output: Literal["pil", "tensor", "numpy"] = "pil"

    def __post_init__(self) -> None:
        """Checks the arguments.

        Raises:
            ValueError: `output` is none of the three, or `mode` none of Pillow's.
        """
        if self.output not in {"pil", "tensor", "numpy"}:
            raise ValueError(f"Image(output=) must be 'pil', 'tensor' or 'numpy', not {self.output!r}")
        if self.mode not in {None, "RGB", "L", "RGBA"} and not _is_mode(self.mode):
            raise ValueError(f"Image(mode=) must be a mode of Pillow, such as 'RGB' or 'L', or None, not {self.mode!r}")

    def __call__(self, source: Source) -> Any:
        """Returns the image.

        Raises:
            DecodeError: The bytes are no image that Pillow knows, or a broken one.
        """
        try:
            import PIL.Image  # noqa: PLC0415
        except ImportError as error:
            error.add_note("transforms.Image needs Pillow: pip install 's3dataset[images]'")
            raise
        contents = _contents(source)
        try:
            image: PIL.Image.Image = PIL.Image.open(io.BytesIO(contents))
            if self.mode is not None and image.mode != self.mode:
                image = image.convert(self.mode)
            else:
                image.load()
        except PIL.UnidentifiedImageError as error:
            raise _undecodable(source, contents, self, "no format that Pillow knows") from error
        except (*_IMAGE_ERRORS, PIL.Image.DecompressionBombError) as error:
            raise _undecodable(source, contents, self, error) from error
        if self.output == "pil":
            return image
        return _image_tensor(image) if self.output == "tensor" else _image_array(image)


def _is_mode(mode: Any) -> bool:
    """Whether Pillow has it; it would take another for a broken image."""
    try:
        from PIL import ImageMode  # noqa: PLC0415
    except ImportError:
        return True
    try:
        ImageMode.getmode(mode)
    except KeyError:
        return False
    return True


def _image_array(image: Any) -> "npt.NDArray[np.uint8]":
    import numpy as np  # noqa: PLC0415

    return np.array(image)


def _image_tensor(image: Any) -> "torch.Tensor":
    import torch  # noqa: PLC0415

    try:
        import numpy as np  # noqa: PLC0415

        array = _image_array(image)
        # NumPy turns the axes: PyTorch would share the work among threads, which wait for each other on busy cores.
        return torch.from_numpy(array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1)))
    except (ImportError, RuntimeError):  # NumPy is optional for torch, and so it is here
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = flat.reshape(image.height, image.width, -1)
        return pixels.permute(2, 0, 1).contiguous()
