"""Transforms of the samples of shards: fields by name, all of them by suffix, and errors that tell which it was."""

import io
import pickle
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from s3dataset.errors import DecodeError
from s3dataset.formats import Sample
from s3dataset.transforms import Decode, Field, Fields, Image, Json, LabelFromKey, Pair, Text


def png() -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", (5, 3), 77).save(out, "PNG")
    return out.getvalue()


def sample(**fields: Any) -> Sample:
    return Sample(__key__="train/cat/001", __url__="s3://b/shard-000.tar", **fields)


def encoded() -> Sample:
    array, archive, tensor = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.arange(3))
    np.savez(archive, a=np.ones(2))
    torch.save({"x": torch.ones(2)}, tensor)
    return sample(
        **{
            "png": png(),
            "seg.png": png(),
            "json": b'{"a": 1}',
            "txt": "grüß".encode(),
            "npy": array.getvalue(),
            "npz": archive.getvalue(),
            "pt": tensor.getvalue(),
            "cls": b" 3\n",
            "bin": b"bytes",
            "number": 5,
        }
    )


def test_decode_goes_by_suffix() -> None:
    given = encoded()
    decoded = Decode()(given)
    assert type(decoded) is Sample
    assert (decoded.key, decoded.url) == (given.key, given.url)
    assert decoded["png"].size == decoded["seg.png"].size == (5, 3)
    assert decoded["json"] == {"a": 1}
    assert decoded["txt"] == "grüß"
    assert decoded["npy"].tolist() == [0, 1, 2]
    assert decoded["npz"]["a"].tolist() == [1, 1]
    assert torch.equal(decoded["pt"]["x"], torch.ones(2))
    assert decoded["cls"] == 3
    assert decoded["bin"] == b"bytes"
    assert decoded["number"] == 5
    assert given == encoded()


def test_decode_as_told() -> None:
    decode = Decode(Image(output="numpy"), json=None, bin=len, **{"seg.png": Image(mode="L", output="numpy")})
    decoded = decode(encoded())
    assert decoded["png"].shape == (3, 5, 3)
    assert decoded["seg.png"].shape == (3, 5)
    assert decoded["json"] == b'{"a": 1}'
    assert decoded["bin"] == 5
    assert Decode(image=None)(encoded())["png"] == png()
    assert pickle.loads(pickle.dumps(Decode(json=None))) == Decode(json=None) != Decode()
    assert repr(Decode(json=None)) == "Decode(image=Image(mode='RGB', output='pil'), json=None)"


def test_fields_and_pairs() -> None:
    given = encoded()
    image, label = Pair(Field("jpg;png", Image()), Field("cls", int))(given)
    assert (image.size, label) == ((5, 3), 3)
    parts = Fields(
        png=Image(), cls=int, split="train", name=LabelFromKey(), words=Field("txt", Text()), bin=Field("bin")
    )
    made = parts(given)
    assert list(made) == ["png", "cls", "split", "name", "words", "bin"]
    assert made["png"].size == (5, 3)
    assert {name: made[name] for name in ("cls", "split", "name", "words", "bin")} == {
        "cls": 3,
        "split": "train",
        "name": "cat",
        "words": "grüß",
        "bin": b"bytes",
    }
    assert pickle.loads(pickle.dumps(parts)) == parts
    assert LabelFromKey(classes=["cat", "dog"])(given) == 0
    assert Pair(Decode(), LabelFromKey(level=0))(given)[1] == "train"


@pytest.mark.parametrize(
    ("transform", "what"),
    [
        (Field("jpg;png", Image()), "field 'png'"),
        (Decode(), "field 'png'"),
        (Fields(png=Image()), "field 'png'"),
        (Pair(Field("cls", int), Field("png")), "field 'cls'"),
        (Field("jpg;jpeg"), "no field 'jpg' or 'jpeg'; it has 'png', 'cls'"),
        (Fields(json=Json()), "no field 'json'"),
        (LabelFromKey(level=7), "finds no label"),
        (LabelFromKey(classes=["dog"]), "none of the 1 classes"),
    ],
    ids=repr,
)
def test_errors_name_shard_and_key(transform: Any, what: str) -> None:
    with pytest.raises(DecodeError, match=what) as caught:
        transform(sample(png=b"no image", cls=b"three"))
    assert "s3://b/shard-000.tar" in str(caught.value)
    assert "train/cat/001" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).uri == caught.value.uri


def test_faults_of_the_program_stay_what_they_are() -> None:
    def broken(value: bytes) -> None:
        raise ValueError("a fault of mine")

    for transform in (Field("cls", broken), Fields(cls=broken), Decode(cls=broken)):
        with pytest.raises(ValueError, match="a fault of mine") as caught:
            transform(sample(cls=b"3"))
        assert not isinstance(caught.value, DecodeError)
    for decoder in (Image(), Json(), Text()):
        with pytest.raises(TypeError, match=r'sample of a shard with the fields .*Field\("jpg", Image\(\)\)'):
            decoder(sample(cls=b"3"))  # type: ignore[arg-type]
    for whole in (Field("cls"), Decode()):
        with pytest.raises(TypeError, match="format="):
            whole(b"bytes")  # type: ignore[arg-type]
