"""Recognising torch.save's archives."""

import io
import zipfile

import pytest

from s3dataset._torch_archive import begins_torch_archive, directory_range, parse_directory

TAIL = 64 << 10


def archive(names, *, nbytes=5000, comment=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name in names:
            written.writestr(name, bytes(nbytes))
        written.comment = comment
    headers = {info.filename: info.header_offset for info in zipfile.ZipFile(buffer).infolist()}
    return buffer.getvalue(), headers


def parsed(data):
    found = directory_range(memoryview(data)[-TAIL:], len(data))
    assert found is not None
    start, end = found
    return parse_directory(data[start:end], start)


NAMES = ["model/data.pkl", "model/byteorder", "model/data/0", "model/data/1", "model/data/10", "model/version"]


@pytest.mark.parametrize("zip64", [False, True])
def test_storages_of_an_archive(zip64, monkeypatch):
    if zip64:
        # Offsets and sizes from here on go into the fields for large files, as those beyond 4 GiB do.
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 3000)
    data, headers = archive(NAMES)
    assert begins_torch_archive(memoryview(data)[:200])
    found = parsed(data)
    assert found.headers == {headers[name] for name in NAMES[2:5]}
    assert found.storages == ((headers["model/data/0"], headers["model/version"]),)
    assert (found.start, found.end) == found.storages[0]


def test_the_order_of_reading_is_by_number():
    assert parsed(archive(NAMES)[0]).reading is None
    names = ["m/data.pkl", "m/data/0", "m/data/1", "m/data/10", "m/data/2", "m/version"]
    data, headers = archive(names)
    starts = [start for start, _ in parsed(data).reading]
    assert starts == [headers[f"m/data/{n}"] for n in (0, 1, 2, 10)]
    assert max(parsed(data).reading) == (headers["m/data/2"], headers["m/version"])


def test_storages_that_lie_apart():
    data, headers = archive(["m/data.pkl", "m/data/0", "m/other", "m/data/1"])
    start, _ = directory_range(memoryview(data), len(data))
    assert parsed(data).storages == ((headers["m/data/0"], headers["m/other"]), (headers["m/data/1"], start))


@pytest.mark.parametrize("name", ["m/data.pkl", "m/version", "m/.data/version"])
def test_how_archives_begin(name):
    assert begins_torch_archive(memoryview(archive([name])[0]))


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"PK\x03\x04" + bytes(40), archive(["a.npy"])[0], bytes(1000)],
    ids=["nothing", "two bytes", "a head alone", "another archive", "zeros"],  # an archive holds the time it was made
)
def test_what_does_not_begin_one(data):
    assert not begins_torch_archive(memoryview(data))


def test_an_archive_without_storages():
    assert parsed(archive(["m/data.pkl", "m/version"])[0]) is None


def test_a_comment_behind_the_directory():
    assert parsed(archive(NAMES, comment=b"x" * 1000)[0]) is not None


def test_broken_directories():
    data, _ = archive(NAMES)
    start, end = directory_range(memoryview(data), len(data))
    assert parse_directory(b"broken" * 100, 0) is None
    for cut in range(start, end):
        found = parse_directory(data[start:cut], start)
        assert found is None or found.end <= start
    assert directory_range(memoryview(b"x" * 1000), 1000) is None
    assert directory_range(memoryview(data[end:]), 10) is None
    for cut in range(end, len(data)):
        directory_range(memoryview(data[:cut]), cut)
