"""safetensors headers, judged beside the library; which bytes an index needs, beside torch."""

import json
import math

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from s3dataset import DecodeError
from s3dataset.safetensors._format import BITS, build_header, header_bytes, parse_header
from s3dataset.safetensors._slices import blocks_of, box_of

# -- Reading ---------------------------------------------------------------------------------------------------------


def read(file):
    """As `open_files` does -> (header, its tensors' data), or DecodeError."""
    end = header_bytes(memoryview(file), len(file), "s3://b/k")
    header = parse_header(file[8:end], len(file), "s3://b/k")
    return header, {name: file[entry.start : entry.end] for name, entry in header.entries.items()}


def framed(text, data):
    return len(text).to_bytes(8, "little") + text + data


names = st.text(max_size=6) | st.sampled_from(["a", "b", "__metadata__"])
dtypes = st.sampled_from([*BITS, "F128", "f32", ""])
numbers = st.integers(0, 5) | st.sampled_from([-1, 2**31, 2**62, 2**63, 2**64, 10**30])
odd = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=3) | st.lists(st.integers(), max_size=3)


@st.composite
def headers(draw):
    """Valid ones, most of them spoilt in one place or several."""
    content = {}
    at = 0
    for name in draw(st.lists(names.filter(lambda name: name != "__metadata__"), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(list(BITS)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        nbytes = math.prod(shape) * BITS[dtype] // 8
        content[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    if draw(st.booleans()):
        content["__metadata__"] = draw(
            st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
        )
    for _ in range(draw(st.integers(0, 2))):
        if not content:
            break
        victim = draw(st.sampled_from(sorted(content)))
        fields = content[victim]
        spoil = draw(st.sampled_from(["dtype", "shape", "data_offsets", "whole", "missing", "more"]))
        if not isinstance(fields, dict) or "shape" not in fields or spoil == "whole":
            content[victim] = draw(odd | st.dictionaries(st.text(max_size=3), odd, max_size=2))
        elif spoil == "dtype":
            fields["dtype"] = draw(dtypes | odd)
        elif spoil == "missing":
            fields.pop(draw(st.sampled_from(sorted(fields))))
        elif spoil == "more":
            fields[draw(st.text(max_size=4))] = draw(odd)
        elif isinstance(fields.get(spoil), list) and fields[spoil]:
            fields[spoil][draw(st.integers(0, len(fields[spoil]) - 1))] = draw(numbers | odd)
        else:
            fields[spoil] = draw(st.lists(numbers, max_size=3) | odd)
    text = json.dumps(content, ensure_ascii=draw(st.booleans()), allow_nan=True).encode("utf-8", "replace")
    data = bytes(range(at % 256)) + bytes(at - at % 256)
    return framed(text + b" " * draw(st.integers(0, 3)), data + bytes(draw(st.sampled_from([0, 0, 0, 1]))))


def judged(file):
    """What the library finds in a file; None where it refuses."""
    try:
        return {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in safetensors.deserialize(file)}
    except safetensors.SafetensorError:
        return None


def ours(file):
    """-> (what is found, "") or (None, why not)."""
    try:
        header, data = read(file)
    except DecodeError as error:
        return None, str(error)
    return {name: (entry.dtype, list(entry.shape), data[name]) for name, entry in header.entries.items()}, ""


@given(headers())
def test_headers_are_judged_as_the_library_judges_them(file):
    expected = judged(file)
    found, reason = ours(file)
    if found is not None or expected is None:
        assert found == expected
    else:  # of what the library takes, this is refused here
        assert any(text in reason for text in ("end within a byte", "more than memory", "begins with")), reason
    assert found is not None or "s3://b/k" in reason


@given(st.binary(max_size=60), st.integers(0, 200) | st.sampled_from([10**8 + 1, 2**63, 2**64 - 1]))
def test_no_bytes_are_more_than_an_error(text, length):
    for file in (text, framed(text, b""), length.to_bytes(8, "little") + text):
        assert judged(file) is not None or ours(file)[0] is None


@given(st.data())
def test_a_byte_that_flipped(data):
    state = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3, dtype=torch.bfloat16)}
    file = bytearray(safetensors.torch.save(state, {"format": "pt"}))
    end = 8 + int.from_bytes(file[:8], "little")
    for _ in range(data.draw(st.integers(1, 2))):
        file[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    expected = judged(bytes(file))
    found, reason = ours(bytes(file))
    if found is not None or expected is None:
        assert found == expected
    else:  # names that are there twice are the library's to choose from
        assert "twice" in reason or "begins with" in reason, reason


# -- Writing ---------------------------------------------------------------------------------------------------------

TYPES = [
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.bfloat16,
    torch.float32,
    torch.complex64,
    torch.int64,
    torch.float8_e5m2,
]


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 3), max_size=3)),
        max_size=8,
    ),
    st.none()
    | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.text(st.characters(exclude_categories=["Cs"])),
        max_size=1,
    ),
)
def test_headers_are_the_library_s(specs, metadata):
    from s3dataset.safetensors._dtypes import code_of

    if not specs and metadata == {}:
        return  # the library's own file is broken then
    state = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in specs.items()}
    file = safetensors.torch.save(state, metadata)
    header, order = build_header(
        [(name, code_of(name, t.dtype), tuple(t.shape), t.numel() * t.element_size()) for name, t in state.items()],
        metadata,
    )
    assert file[: len(header)] == header
    parsed, _ = read(file)
    assert list(parsed.entries) != [] or not state
    assert sorted(order) == sorted(state)
    assert parsed.metadata == metadata


# -- Slices ----------------------------------------------------------------------------------------------------------

parts = (
    st.integers(-5, 5)
    | st.slices(5)
    | st.builds(slice, st.none() | st.integers(-6, 6), st.none() | st.integers(-6, 6), st.none() | st.integers(1, 3))
    | st.sampled_from([..., None, True])
    | st.lists(st.integers(-3, 2), min_size=1, max_size=3)
)


@given(st.lists(st.integers(0, 5), max_size=4), st.lists(parts, max_size=4), st.sampled_from([1, 3, 40, 10**9]))
def test_an_index_of_a_box_is_an_index_of_the_whole(shape, index, bridged):
    from s3dataset.safetensors import _slices

    tensor = torch.arange(math.prod(shape), dtype=torch.int32).reshape(shape)
    index = tuple(index)
    assume(index.count(...) < 2)  # torch has a meaning for it, and nobody else
    try:
        expected = tensor[index]
    except (IndexError, ValueError):
        expected = None
    if expected is None:
        with pytest.raises((IndexError, ValueError)):
            box, within = box_of(shape, index)
            torch.empty([stop - start for start, stop in box])[within]
        return
    box, within = box_of(shape, index)
    found = torch.full([stop - start for start, stop in box], -1, dtype=torch.int32)
    raw = tensor.reshape(-1).view(torch.uint8)
    strides = [math.prod(shape[at + 1 :]) for at in range(len(shape))]
    saved = _slices._BRIDGED, _slices._SPAN
    _slices._BRIDGED, _slices._SPAN = bridged, 100
    try:
        for any_length in (True, False):
            found.fill_(-1)
            for block in blocks_of(shape, box, 4, any_length=any_length):
                assert block.nbytes <= 100 or (any_length and block.dense) or block.nbytes == 4
                source = raw[block.start : block.start + block.nbytes].clone().view(torch.int32)
                assert len(source) * 4 == block.nbytes
                target = found[block.where]
                if block.dense:
                    assert target.numel() == len(source)
                target.copy_(source.as_strided(target.shape, strides))
            assert torch.equal(found[within], expected)
    finally:
        _slices._BRIDGED, _slices._SPAN = saved
