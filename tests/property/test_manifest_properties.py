"""Manifests hold what they were given, however they are made, kept and derived."""

import pickle
import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from s3dataset._manifest import Manifest, Pattern
from s3dataset._manifest._etags import pack_etags

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
URIS = st.lists(st.tuples(st.sampled_from(["a", "b", "c-1"]), KEYS).map(lambda t: f"s3://{t[0]}/{t[1]}"), max_size=60)


@given(uris=URIS, salt=st.integers(0, 3))
def test_rows_survive_saving_pickling_and_deriving(uris: list[str], salt: int) -> None:
    manifest = Manifest.from_objects(uris)
    assert [entry.uri for entry in manifest.objects] == uris
    with tempfile.TemporaryDirectory() as folder:
        manifest.save(Path(folder) / "m")
        assert [entry.uri for entry in Manifest.load(Path(folder) / "m").objects] == uris
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    chosen = [uri for uri in uris if len(uri) % 2 == 0]
    assert manifest.filter(lambda entry: len(entry.uri) % 2 == 0) == Manifest.from_objects(chosen)
    parts = manifest.split({"x": 0.5, "y": 0.5}, seed=salt)
    assert sorted(entry.uri for part in parts.values() for entry in part.objects) == sorted(uris)
    assert manifest + parts["x"] == Manifest.from_objects([*uris, *(entry.uri for entry in parts["x"].objects)])
    for uri in uris:
        assert manifest.find(uri) == uris.index(uri)


ETAGS = st.one_of(
    st.integers(0, 2**128 - 1).map("{:032x}".format),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 20_000)).map(lambda t: f"{t[0]:032x}-{t[1]}"),
    st.from_regex(re.compile(r"[0-9a-fA-F]{31,33}(-0?[0-9]{1,6})?"), fullmatch=True),
    st.text(st.characters(codec="ascii", exclude_characters='"'), max_size=40),
)


@given(etags=st.lists(ETAGS, max_size=20))
def test_etags_come_back_as_they_were(etags: list[str]) -> None:
    from s3dataset._manifest._builder import Builder, Chunk

    blob = "".join(etags).encode()
    ends = [len("".join(etags[: row + 1])) for row in range(len(etags))]
    digests, parts, texts = pack_etags(blob, ends)
    builder = Builder()
    first = len(etags) // 2
    keys = [b"%04d" % row for row in range(len(etags))]
    # In two chunks, so that texts of the second are moved.
    for begin, end in ((0, first), (first, len(etags))):
        part = etags[begin:end]
        packed = pack_etags("".join(part).encode(), [len("".join(part[: row + 1])) for row in range(len(part))])
        builder.add(
            Chunk(
                "b",
                b"".join(keys[begin:end]),
                [4 * (row + 1) for row in range(end - begin)],
                digests=packed[0],
                parts=packed[1].tobytes(),
                texts=packed[2],
            )
        )
    columns = builder.finish()
    assert [columns.etag(row) for row in range(len(etags))] == [f'"{etag}"' if etag else None for etag in etags]
    assert len(digests) == 16 * len(etags) == 8 * len(parts.tobytes())
    assert len(texts) <= len(blob)


@given(low=st.integers(0, 1200), high=st.integers(0, 1200), width=st.integers(0, 5))
def test_ranges_stand_for_their_numbers(low: int, high: int, width: int) -> None:
    first, last = f"{low:0{width}d}", f"{high:0{width}d}"
    pattern = Pattern(f"{{{first}..{last}}}")
    padded = any(len(text) > 1 and text[0] == "0" for text in (first, last))
    longest = max(len(first), len(last)) if padded else 0
    members = {f"{number:0{longest}d}" for number in range(min(low, high), max(low, high) + 1)}
    for number in range(1300):
        for text in {str(number), f"{number:03d}", f"{number:05d}"}:
            assert pattern.matches(text) == (text in members)


@given(text=st.text(max_size=12))
def test_plain_text_matches_itself_when_escaped(text: str) -> None:
    escaped = "".join(f"\\{character}" for character in text)
    if text:
        assert Pattern(escaped).matches(text if "/" in text else f"folder/{text}")
