"""Transforms: what they make of good bytes, and what they say about bad ones."""

import io
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from s3dataset.errors import DecodeError, S3Exception
from s3dataset.transforms import Bytes, Fields, Image, Json, LabelFromKey, Npy, Pair, Text, Torch


class Reader(io.BytesIO):
    """As much of an S3Reader as a transform needs."""

    bucket = "pets"

    def __init__(self, contents: bytes, key: str = "images/cat/1.png") -> None:
        super().__init__(contents)
        self.key = key


def png(mode: str = "RGB", size: tuple[int, int] = (5, 3)) -> bytes:
    out = io.BytesIO()
    PIL.Image.new(mode, size, 77).save(out, "PNG")
    return out.getvalue()


def saved(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def torch_saved(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


@pytest.mark.parametrize("wrap", [Reader, bytes, bytearray, memoryview])
def test_readers_and_buffers_decode_alike(wrap: Any) -> None:
    assert Bytes()(wrap(b"\x00\x01")) == b"\x00\x01"
    assert Text()(wrap("grüß".encode())) == "grüß"
    assert Text("utf-16")(wrap("grüß".encode("utf-16"))) == "grüß"
    assert Json()(wrap(b'{"a": [1, 2]}')) == {"a": [1, 2]}
    assert np.array_equal(Npy()(wrap(saved(np.arange(6).reshape(2, 3)))), np.arange(6).reshape(2, 3))
    assert torch.equal(Torch()(wrap(torch_saved({"x": torch.ones(3)})))["x"], torch.ones(3))
    assert Image()(wrap(png())).size == (5, 3)


def test_npz_gives_arrays_by_name() -> None:
    out = io.BytesIO()
    np.savez(out, a=np.ones(2), b=np.zeros(3))
    arrays = Npy()(out.getvalue())
    assert isinstance(arrays, dict)
    assert {name: array.shape for name, array in arrays.items()} == {"a": (2,), "b": (3,)}


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 4)])
def test_image_outputs_have_the_documented_shapes(mode: str, channels: int) -> None:
    contents = png("RGB")
    image = Image(mode)(contents)
    assert isinstance(image, PIL.Image.Image)
    assert image.mode == mode
    tensor = Image(mode, output="tensor")(contents)
    assert tensor.dtype == torch.uint8
    assert tensor.shape == (channels, 3, 5)
    assert tensor.is_contiguous()
    array = Image(mode, output="numpy")(contents)
    assert array.shape == ((3, 5) if channels == 1 else (3, 5, channels))
    assert np.array_equal(array.reshape(3, 5, channels).transpose(2, 0, 1), tensor.numpy())
    array[:] = 0  # writable, as in-place augmentation needs it


def test_image_without_mode_stays_as_stored() -> None:
    assert Image(None)(png("L")).mode == "L"


@pytest.mark.parametrize(
    ("transform", "contents", "says"),
    [
        (Image(), b"{}", "JSON"),
        (Image(), b"<html>", "HTML"),
        (Image(), b"", "empty object"),
        (Image(), png()[:40], "PNG"),
        (Image(), b"\x00\x00\x00\x01Bud1", "no format that Pillow knows"),
        (Json(), png(), "PNG"),
        (Json(), b"{", "JSON"),
        (Npy(), b"nothing", r"numpy.save writes a .npy file"),
        (Npy(), saved(np.arange(9))[:90], "a NumPy .npy file"),
        (Npy(), b"PK\x03\x04 no archive", "a ZIP archive"),
        (Text(), b"\xff\xd8\xff\xe0", "JPEG"),
        (Torch(), b"\x1f\x8b12345", "gzip"),
    ],
)
def test_bytes_that_do_not_decode_name_uri_size_and_first_bytes(transform: Any, contents: bytes, says: str) -> None:
    with pytest.raises(DecodeError, match=says) as caught:
        transform(Reader(contents, "images/cat/bad"))
    message = str(caught.value)
    assert "s3://pets/images/cat/bad" in message
    assert message.endswith("Leave such objects out with pattern= or Manifest.filter")
    assert f"{len(contents)} bytes that begin with {contents[:16]!r}" in message
    assert caught.value.uri == "s3://pets/images/cat/bad"
    assert isinstance(caught.value, S3Exception)
    assert isinstance(caught.value, ValueError)
    assert str(type(caught.value)(message)) == message  # as a DataLoader rebuilds it


def test_pickles_run_no_code_unless_asked_to() -> None:
    with pytest.raises(DecodeError, match="allow_pickle"):
        Npy()(saved(np.array([{"a": 1}], dtype=object)))
    assert Npy(allow_pickle=True)(saved(np.array([{"a": 1}], dtype=object)))[0] == {"a": 1}  # type: ignore[index]
    with pytest.raises(pickle.UnpicklingError):
        Torch()(torch_saved(Reader))


def test_label_from_key() -> None:
    reader = Reader(b"", "images/cat/1.png")
    assert LabelFromKey()(reader) == "cat"
    assert LabelFromKey(0)(reader) == "images"
    assert LabelFromKey(-1)(reader) == "1.png"
    assert LabelFromKey(classes=["dog", "cat"])(reader) == 1
    assert LabelFromKey(classes={"cat": 7})(reader) == 7
    with pytest.raises(DecodeError, match=r"'cat' in s3://pets/images/cat/1.png.*2 classes; close to 'cats'"):
        LabelFromKey(classes=["cats", "dog"])(reader)
    with pytest.raises(DecodeError, match=r"s3://pets/images/cat/1.png: the key has 3 part"):
        LabelFromKey(5)(reader)
    with pytest.raises(ValueError, match="'a' more than once"):
        LabelFromKey(classes=["a", "b", "a"])


def test_pair_and_fields_give_each_part_the_whole_object() -> None:
    reader = Reader(b'{"a": 1}', "meta/x/1.json")
    assert Pair(lambda r: r.read(), Json())(reader) == (b'{"a": 1}', {"a": 1})
    assert Pair(lambda r: r.read(3), lambda r: r.read())(reader) == (b'{"a', b'{"a": 1}')
    reader.seek(0)
    fields = Fields(raw=lambda r: r.read(), parsed=Json(), label=LabelFromKey(), source="train")
    made = fields(reader)
    assert made == {"raw": b'{"a": 1}', "parsed": {"a": 1}, "label": "x", "source": "train"}
    assert list(made) == ["raw", "parsed", "label", "source"]


@pytest.mark.parametrize(
    "transform",
    [
        Bytes(),
        Text("latin-1"),
        Json(),
        Npy(allow_pickle=True),
        Torch(weights_only=False),
        Image("L", output="numpy"),
        LabelFromKey(-3, classes=["a", "b"]),
        Pair(Image(), LabelFromKey()),
        Fields(image=Image(), label=LabelFromKey(classes=["a"]), part=3),
    ],
    ids=repr,
)
def test_transforms_pickle_and_compare_by_value(transform: Any) -> None:
    copy = pickle.loads(pickle.dumps(transform))
    assert copy == transform
    assert repr(copy) == repr(transform)


def test_unknown_output_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'pil', 'tensor' or 'numpy', not 'jpeg'"):
        Image(output="jpeg")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["rgb", "BGR", 3])
def test_unknown_mode_is_refused_at_once(mode: Any) -> None:
    with pytest.raises(ValueError, match=r"mode of Pillow, such as 'RGB' or 'L', or None, not "):
        Image(mode=mode)


def test_importing_transforms_loads_no_heavy_library() -> None:
    program = "import sys, s3dataset.transforms; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_json_of_other_encodings() -> None:
    assert Json()(json.dumps({"ü": 1}).encode("utf-16")) == {"ü": 1}
