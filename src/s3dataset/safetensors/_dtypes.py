"""Types of elements: torch's and the format's."""

from typing import Final

import torch

from s3dataset.safetensors._format import Entry

__all__ = ["code_of", "dtype_of", "raw_dtype", "shape_in_file", "shape_of"]

_NAMES: Final = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn_x2",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_DTYPES: Final[dict[str, torch.dtype]] = {
    code: getattr(torch, name) for code, name in _NAMES.items() if hasattr(torch, name)
}
_CODES: Final = {dtype: code for code, dtype in _DTYPES.items()}
_RAW: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def dtype_of(entry: Entry, uri: str) -> torch.dtype:
    """The type as torch has it.

    Raises:
        TypeError: This torch has none.
    """
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        name = _NAMES.get(entry.dtype)
        hint = f"a torch that has torch.{name} can" if name else "no torch can so far"
        raise TypeError(f"{uri}: torch {torch.__version__} cannot hold tensor {entry.name!r} of {entry.dtype}: {hint}")
    return dtype


def code_of(name: str, dtype: torch.dtype) -> str:
    """The format's name of a type.

    Raises:
        ValueError: It has none.
    """
    code = _CODES.get(dtype)
    if code is None:
        raise ValueError(f"tensor {name!r} is of {dtype}, which safetensors does not have: save it as another type")
    return code


def shape_of(entry: Entry) -> tuple[int, ...]:
    """As torch counts: two numbers of F4 are one element."""
    if entry.dtype == "F4" and entry.shape:
        return (*entry.shape[:-1], entry.shape[-1] // 2)
    return entry.shape


def shape_in_file(name: str, code: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The other way round.

    Raises:
        ValueError: It would end within a byte.
    """
    if code != "F4":
        return shape
    if not shape:
        raise ValueError(f"tensor {name!r} of F4 has no dimension, and two numbers: give it one")
    return (*shape[:-1], shape[-1] * 2)


def raw_dtype(itemsize: int) -> torch.dtype:
    """A type of this size that every operation knows, to move elements by."""
    return _RAW[itemsize]
