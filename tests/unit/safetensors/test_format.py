"""Headers that lie, each with the reason it is refused for."""

import json

import pytest

from s3dataset import DecodeError
from s3dataset.safetensors._format import MAX_HEADER_BYTES, build_header, header_bytes, parse_header

URI = "s3://bucket/model.safetensors"


def tensor(dtype="U8", shape=(3,), start=0, end=3):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def parse(content, data_bytes=3):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse_header(text, 8 + len(text) + data_bytes, URI)


def test_what_is_right():
    header = parse({"b": tensor(start=3, end=6), "a": tensor(), "__metadata__": {"format": "pt"}}, 6)
    assert list(header.entries) == ["a", "b"]
    assert header.metadata == {"format": "pt"}
    entry = header.entries["b"]
    assert (entry.start - header.data_start, entry.end - header.data_start, entry.nbytes) == (3, 6, 3)
    assert parse(b"{}", 0).entries == {}
    assert parse({"a": {**tensor(), "comment": [-1.5, None, {"x": {}}]}}).entries["a"].shape == (3,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "begins with b''"),
        (b"[]", "begins with"),
        (b' {"a": 1}', "begins with"),
        (b"{", "no JSON of this kind"),
        (b'{"a": 1}}', "no JSON of this kind"),
        (b'{"a": "\xff"}', "no JSON of this kind"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON of this kind"),
        (b'{"a": NaN}', "NaN is no number"),
        (json.dumps({"a": tensor()}).encode().replace(b"}}", b'},"a":{}}'), "'a' is there twice"),
        (b'{"a": {"dtype": "U8", "dtype": "U8"}}', "'dtype' is there twice"),
        ({"a": 3}, "of tensor 'a' it says '3'"),
        ({"a": {}}, "unknown type 'None'"),
        ({"a": tensor("U9")}, "unknown type 'U9'"),
        ({"a": {**tensor(), "dtype": ["U8"]}}, "unknown type"),
        ({"a": {**tensor(), "shape": 3}}, "shape '3'"),
        ({"a": tensor(shape=(-1, -3))}, "shape"),
        ({"a": tensor(shape=(3.0,))}, "shape"),
        ({"a": tensor(shape=(True, 3))}, "shape"),
        (json.dumps({"a": tensor(shape=(7, 0), end=0)}).encode().replace(b"7", b"-0"), "shape"),
        ({"a": {**tensor(), "data_offsets": [0, 3, 3]}}, "offsets"),
        ({"a": {**tensor(), "data_offsets": {"0": 1}}}, "offsets"),
        ({"a": tensor(start=-3, end=0)}, "offsets"),
        ({"a": tensor(start=3, end=0)}, "reach past"),
        ({"a": tensor(shape=(4,), end=4)}, "reach past the 3 bytes"),
        ({"a": tensor(shape=(2**60,), end=2**60)}, "reach past the 3 bytes"),
        ({"a": tensor(shape=(2**70,), end=3)}, "more than memory can hold"),
        ({"a": tensor(shape=(0, 2**40, 2**40), end=0)}, "more than memory can hold"),
        ({"a": tensor(shape=(2**32, 2**32), end=0)}, "more than memory can hold"),
        ({"a": tensor(shape=(2,))}, r"of U8 \[2\] has 3 bytes"),
        ({"a": tensor("F32")}, r"of F32 \[3\] has 3 bytes"),
        ({"a": tensor("F4", shape=(2, 3))}, "end within a byte"),
        ({"a": tensor(shape=(0,) * 65, end=0)}, "has 65 dimensions"),
        (b'{"a":[' + b"[]," * 1_000_000 + b"[]]}", "made of brackets"),
        ({"a": tensor(shape=(2,), start=1)}, "'a' leaves a hole behind the header"),
        ({"a": tensor(shape=(1,), end=1), "b": tensor(shape=(1,), start=2)}, "'b' leaves a hole behind tensor 'a'"),
        ({"a": tensor(shape=(2,), end=2), "b": tensor(shape=(2,), start=1)}, "'b' overlaps tensor 'a'"),
        ({"a": tensor(), "b": tensor()}, "'b' overlaps tensor 'a'"),
        ({"a": tensor(shape=(2,), end=2)}, "tensors end at byte"),
        ({}, "tensors end at byte"),
        ({"a": tensor(), "__metadata__": []}, "not texts by name"),
        ({"a": tensor(), "__metadata__": {"a": 1}}, "not texts by name"),
        ({"a": tensor(), "__metadata__": {"a": "\ud800"}}, "half a character"),
        ({"\ud800": tensor()}, "half a character"),
    ],
)
def test_what_is_refused(content, reason):
    with pytest.raises(DecodeError, match=reason) as caught:
        parse(content)
    assert caught.value.uri == URI
    assert str(caught.value).startswith(f"{URI} is no safetensors file, or a damaged one: ")
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("beginning", "size", "reason"),
    [
        (b"", 0, "it has 0 bytes"),
        (b"1234567", 7, "it has 7 bytes"),
        ((101).to_bytes(8, "little") + b"{", 108, "reach past the end of the 108 bytes"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), 1 << 40, "the format allows 100,000,000"),
        (b"\xff" * 8, 1 << 62, "the format allows 100,000,000"),
    ],
)
def test_lengths_that_are_refused(beginning, size, reason):
    with pytest.raises(DecodeError, match=reason):
        header_bytes(memoryview(beginning), size, URI)


def test_lengths_that_are_right():
    assert header_bytes(memoryview((100).to_bytes(8, "little")), 108, URI) == 108
    assert header_bytes(memoryview(MAX_HEADER_BYTES.to_bytes(8, "little")), 1 << 40, URI) == MAX_HEADER_BYTES + 8


def test_what_readers_could_not_read_is_not_written():
    with pytest.raises(ValueError, match="save fewer tensors"):
        build_header([], {"a": "x" * MAX_HEADER_BYTES})
