"""A manifest's file that was spoilt is refused, or read as another manifest; never a crash, and never without end."""

import contextlib
import functools
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.manifest.fake_service import BUCKET, FakeClient, FakeService
from tests.unit.manifest.test_samples import indexed

from s3dataset._manifest import Manifest, list_prefix
from s3dataset._manifest._columns import ITEM_BYTES, PREAMBLE, SAMPLE_ITEM_BYTES
from s3dataset.errors import DecodeError, InvalidUriError


@functools.cache
def content() -> bytes:
    """With every column that there is."""
    keys = [f"folder/{row}-é".encode() for row in range(30)]
    listed = list_prefix(FakeClient(FakeService(keys)), f"s3://{BUCKET}/")
    both = listed + Manifest.from_objects(["s3://another/key"])
    with tempfile.TemporaryDirectory() as folder:
        both.save(Path(folder) / "m")
        whole = (Path(folder) / "m").read_bytes()
    assert all(f'"{name}"'.encode() in whole for name in ITEM_BYTES)
    return whole


@functools.cache
def indexed_content() -> bytes:
    """With every column about samples."""
    manifest = indexed()
    with tempfile.TemporaryDirectory() as folder:
        manifest.save(Path(folder) / "m")
        whole = (Path(folder) / "m").read_bytes()
    assert all(f'"{name}"'.encode() in whole for name in SAMPLE_ITEM_BYTES)
    return whole


CONTENTS = st.sampled_from([content, indexed_content])


def use(manifest: Manifest) -> None:
    """Reads all that there is of it."""
    assert len(list(manifest.objects)) == len(manifest) <= len(content())
    manifest.rows(range(len(manifest)))
    with contextlib.suppress(KeyError):
        manifest.find(f"s3://{BUCKET}/folder/3-é")
    manifest.fingerprint  # noqa: B018
    assert repr(manifest)
    if manifest.format is not None:
        for row in range(len(manifest)):
            manifest.shard(row)
        manifest.places(range(min(manifest.num_samples, 1000)))
    manifest.filter(lambda entry: bool(entry.key))
    manifest.split({"x": 0.5, "y": 0.5}, seed=1)


def read(spoilt: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "m"
        place.write_bytes(spoilt)
        try:
            manifest = Manifest.load(place)
        except DecodeError:
            return
        # Rows are not looked at before they are read.
        with contextlib.suppress(DecodeError, InvalidUriError, ValueError, IndexError, OverflowError):
            use(manifest)


SPOTS = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))


@given(spots=st.lists(SPOTS, min_size=1, max_size=4), content=CONTENTS)
def test_bytes_that_changed(spots: list[tuple[float, int]], content: Callable[[], bytes]) -> None:
    spoilt = bytearray(content())
    for where, value in spots:
        spoilt[int(where * len(spoilt))] = value
    read(bytes(spoilt))


@given(data=st.data(), content=CONTENTS)
def test_bits_of_preamble_and_header_that_flipped(data: st.DataObject, content: Callable[[], bytes]) -> None:
    spoilt = bytearray(content())
    header = PREAMBLE.unpack_from(spoilt)[1]
    places = st.one_of(st.integers(0, PREAMBLE.size - 1), st.integers(header, len(spoilt) - 1))
    for at in data.draw(st.lists(places, min_size=1, max_size=3)):
        spoilt[at] ^= 1 << data.draw(st.integers(0, 7))
    read(bytes(spoilt))


@given(data=st.data(), content=CONTENTS)
def test_numbers_of_the_header_that_changed(data: st.DataObject, content: Callable[[], bytes]) -> None:
    whole = content()
    _, start, length = PREAMBLE.unpack_from(whole)
    header = whole[start : start + length]
    numbers = list(re.finditer(rb"\d+", header))
    chosen = data.draw(st.sampled_from(numbers))
    value = data.draw(
        st.one_of(st.integers(-100, 10_000), st.integers(-(2**64), 2**65), st.sampled_from(["1e3", '"1"']))
    )
    changed = header[: chosen.start()] + str(value).encode() + header[chosen.end() :]
    read(whole[:8] + struct.pack("<QQ", start, len(changed)) + whole[24:start] + changed + whole[start + length :])


@given(data=st.data(), content=CONTENTS)
def test_pieces_that_were_lost_or_are_there_twice(data: st.DataObject, content: Callable[[], bytes]) -> None:
    whole = content()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    read(data.draw(st.sampled_from([whole[:start] + whole[end:], whole[:end] + whole[start:], whole[start:end]])))


@given(junk=st.binary(max_size=200))
def test_anything_behind_the_mark_is_no_manifest(junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "m"
        place.write_bytes(content()[:8] + junk)
        with pytest.raises(DecodeError, match="is no manifest"):
            Manifest.load(place)
