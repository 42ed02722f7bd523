"""What holds for every format, behind every compression."""

import io
import pickle
import sys
from typing import Any

import pytest
from tests.shards import FORMATS, WRITABLE, parsed, read, recorded, same, sample, written

from s3dataset.errors import DecodeError, UnindexableError
from s3dataset.formats import (
    CSV,
    JSONL,
    Cursor,
    Format,
    Npy,
    Parquet,
    Sample,
    Tar,
    TFRecord,
    describe,
    from_description,
    named_format,
)

each = pytest.mark.parametrize(("name", "compression"), WRITABLE)


class Unseekable(io.RawIOBase):
    """As a pipe: reads little at once, and never seeks."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(memoryview(buffer)[:1000])


@each
@pytest.mark.parametrize("count", [0, 1, 57])
def test_what_is_written_is_found_read_and_parsed(name: str, compression: Any, count: int) -> None:
    form = FORMATS[name]
    data, index = written(name, count, compression)
    assert form.scan(io.BytesIO(data), size=len(data)) == index
    assert len(index) == count
    samples = read(form, data)
    assert len(samples) == count
    assert all(isinstance(one, Sample) and one.url == "s3://b/shard" for one in samples)
    assert len({one.key for one in samples}) == count
    assert all(same(parsed(form, data, index, number), one) for number, one in enumerate(samples))
    made = recorded(form, data)
    assert (list(made.ends), made.first, made.frames, made.head) == (
        list(index.ends),
        index.first,
        index.frames,
        index.head,
    )


@each
def test_fields_come_back(name: str, compression: Any) -> None:
    data, _ = written(name, 20, compression)
    for number, one in enumerate(read(FORMATS[name], data)):
        for field, value in sample(name, number).items():
            if name == "tar" and field != "__key__":
                encoded = {"jpg": value, "cls": str(number).encode(), "json": b'{"n": [%d]}' % number}[field]
                assert one[field] == encoded
            elif name == "csv":
                assert one[field] == str(value)
            elif field == "box":
                assert one[field].tolist() == value
            else:
                assert same(one[field], value)


@each
def test_a_cursor_goes_on_where_it_stands(name: str, compression: Any) -> None:
    form = FORMATS[name]
    data, index = written(name, 40, compression)
    whole = read(form, data)
    for stop in (0, 1, 17, 39, 40):
        cursor = Cursor()
        samples = form.read(io.BytesIO(data), url="s3://b/shard", cursor=cursor)
        for _ in range(stop):
            next(samples)
        assert cursor.number == stop
        if stop:
            assert cursor.offset == index.ends[stop - 1]
        for known in ({}, {"frames": index.frames, "head": index.head}):
            rest = read(form, data, number=cursor.number, offset=cursor.offset, **known)
            assert same(rest, whole[stop:])


@pytest.mark.parametrize(("name", "compression"), [pair for pair in WRITABLE if pair[0] != "parquet"])
def test_streams_that_do_not_seek(name: str, compression: Any) -> None:
    form = FORMATS[name]
    data, index = written(name, 30, compression)
    whole = read(form, data)
    stream: Any = Unseekable(data)
    assert same(list(form.read(stream, url="s3://b/shard")), whole)
    stream = Unseekable(data)
    cursor = Cursor(number=11, offset=index.ends[10])
    assert same(list(form.read(stream, url="s3://b/shard", cursor=cursor)), whole[11:])
    stream = Unseekable(data)
    assert form.scan(stream) == index


@each
def test_the_same_samples_make_the_same_bytes(name: str, compression: Any) -> None:
    assert written(name, 9, compression) == written(name, 9, compression)


@each
def test_an_error_finishes_nothing(name: str, compression: Any) -> None:
    out = io.BytesIO()
    with pytest.raises(KeyError), FORMATS[name].writer(out, compression=compression) as writer:
        writer.write(sample(name, 0))
        raise KeyError
    assert not out.getvalue()


@each
def test_a_shard_that_was_cut_short_is_never_complete(name: str, compression: Any) -> None:
    form = FORMATS[name]
    data, _ = written(name, 25, compression)
    for length in range(1, len(data) - 1100, max(1, len(data) // 50)):
        errors: list[DecodeError] = []
        samples = []
        try:
            samples = read(form, data[:length])
        except DecodeError as error:
            errors.append(error)
        for error in errors:
            assert error.uri == "s3://b/shard"
            assert "s3://b/shard" in str(error)
        if not errors:  # lines and members have no mark that would tell
            assert name in {"text", "jsonl", "csv", "tar", "tfrecord", "records"}
            assert len(samples) <= 25


def test_what_a_writer_refuses_leaves_the_shard_as_it_was() -> None:
    bad: dict[str, dict[str, Any]] = {
        "tar": {"__key__": "x", "jpg": object()},
        "tfrecord": {"a": object()},
        "records": {"record": "text"},
        "jsonl": {"a": object()},
        "text": {"text": "two\nlines"},
        "csv": {"name": b"bytes", "number": 1},
        "parquet": {"unknown": 1, "__key__": object()},
        "npy": {"npy": [1, 2]},
    }
    for name, one in bad.items():
        out = io.BytesIO()
        with FORMATS[name].writer(out) as writer:
            writer.write(sample(name, 0))
            before = writer.nbytes
            with pytest.raises(ValueError) as caught:
                writer.write(one)
            assert writer.nbytes == before
            writer.write(sample(name, 1))
            assert len(writer.finish()) == 2
            with pytest.raises(ValueError, match="finished"):
                writer.write(sample(name, 2))
        assert len(str(caught.value)) > 30
        assert len(read(FORMATS[name], out.getvalue())) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_values(name: str) -> None:
    form = FORMATS[name]
    assert isinstance(form, Format)
    assert pickle.loads(pickle.dumps(form)) == form
    assert eval(repr(form), {kind.__name__: kind for kind in map(type, FORMATS.values())}) == form
    assert hash(form) == hash(pickle.loads(pickle.dumps(form)))
    assert from_description(describe(form)).name == form.name
    assert describe(from_description(describe(form))) == describe(form)


def test_formats_by_name() -> None:
    for name in ("tar", "tfrecord", "jsonl", "text", "csv", "parquet", "npy"):
        form = named_format(name)
        assert form is not None
        assert form.name == name
        assert named_format(form) is form
    assert named_format(None) is None
    with pytest.raises(ValueError, match=r"'jsonl'.*There are 'tar', 'tfrecord'"):
        named_format("json")
    with pytest.raises(ValueError, match="no format"):
        named_format(3)  # type: ignore[arg-type]


def test_a_description_tells_what_makes_boundaries_and_nothing_else() -> None:
    assert describe(Tar(max_sample_bytes=5)) == describe(Tar())
    assert describe(TFRecord(scalars=False)) == describe(TFRecord(example=False))
    assert describe(CSV(delimiter=";")) != describe(CSV())
    assert describe(Parquet(columns=["a"])) != describe(Parquet())
    assert describe(Parquet(filters=[("a", ">", 1)])) != describe(Parquet())
    with pytest.raises(ValueError, match="'hdf5'"):
        from_description({"name": "hdf5"})


def test_importing_formats_loads_no_heavy_library() -> None:
    import subprocess

    heavy = ("torch", "numpy", "pyarrow", "zstandard")
    code = f"import sys, s3dataset.formats; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_files_of_another_format_are_named() -> None:
    tar, _ = written("tar", 3)
    parquet, _ = written("parquet", 3)
    for form in (Tar(), TFRecord(), Npy(), Parquet()):
        data = parquet if not isinstance(form, Parquet) else tar
        with pytest.raises(DecodeError, match=r"it is no .*that looks like"):
            read(form, data)
    for magic in (b"BZh91AY&SY", b"\xfd7zXZ\x00"):
        with pytest.raises(DecodeError, match="compressed with"):
            read(JSONL(), magic + bytes(100))


def test_plain_gzip_streams_and_has_no_index() -> None:
    import gzip
    from array import array

    data, _ = written("tar", 30)
    packed = gzip.compress(data)
    assert same(read(Tar(), packed), read(Tar(), data))
    with pytest.raises(UnindexableError, match="gzip"):
        Tar().scan(io.BytesIO(packed))
    cursor = Cursor(ends=array("Q"))
    assert len(list(Tar().read(io.BytesIO(packed), cursor=cursor))) == 30
    assert (cursor.ends, cursor.frames) == (None, None)
