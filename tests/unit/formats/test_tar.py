"""tar: other people's archives, grouping, and archives made to harm."""

import gc
import io
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shards import parsed, read, recorded, same

from s3dataset.errors import DecodeError
from s3dataset.formats import Tar

wds = pytest.importorskip("webdataset")


def archive(members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def by_webdataset(data: bytes) -> list[dict[str, Any]]:
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    files = ({**one, "__url__": "s3://b/shard"} for one in tar_file_iterator(io.BytesIO(data)))
    return list(group_by_keys(files))


def at_random(data: bytes) -> list[Any]:
    index = Tar().scan(io.BytesIO(data))
    assert list(index.ends) == list(recorded(Tar(), data).ends)
    return [parsed(Tar(), data, index, number) for number in range(len(index))]


LONG = "folder/" * 40 + "grüße-" * 30

NAMES = [
    "a.jpg",
    "a.cls",
    "a.b.jpg",
    "dir.x/a.jpg",
    "dir.x/a.cls",
    "dir/b.JPG",
    "dir/b.seg.PNG",
    "./c.txt",
    "../../etc/passwd.txt",
    "/etc/shadow.txt",
    "README",
    "d.jpg",
    "folder/README",
    "d.cls",
    "__meta__",
    "__meta__/x.json",
    "__x__.json",
    ".hidden.txt",
    "p/.hidden.txt",
    "p.q/.hidden.txt",
    "a//.x",
    "e.",
    f"{LONG}.jpg",
    f"{LONG}.cls",
    "ü.jpg",
]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_samples_are_those_of_webdataset(form: int) -> None:
    data = archive([(name, name.encode() * number) for number, name in enumerate(NAMES)], form)
    samples = read(Tar(), data)
    assert samples == by_webdataset(data)
    assert at_random(data) == samples


def test_ustar_names_in_two_parts() -> None:
    data = archive(
        [("d" * 90 + "/" + "n" * 80 + ".jpg", b"x"), ("d" * 90 + "/" + "n" * 80 + ".cls", b"1")], tarfile.USTAR_FORMAT
    )
    (sample,) = read(Tar(), data)
    assert sample == {"__key__": "d" * 90 + "/" + "n" * 80, "__url__": "s3://b/shard", "jpg": b"x", "cls": b"1"}


@given(st.lists(st.tuples(st.text("ab./_J", min_size=1, max_size=8), st.binary(max_size=700)), max_size=12))
def test_any_names_are_grouped_as_webdataset_groups_them(members: list[tuple[str, bytes]]) -> None:
    # Files that end with a slash are folders to tarfile; a field twice is an error to both.
    members = [(name, data) for name, data in members if not name.endswith("/") and name.strip("/")]
    data = archive(members)
    try:
        expected = by_webdataset(data)
    except ValueError:
        with pytest.raises(DecodeError, match="twice"):
            read(Tar(), data)
        return
    # A sample of fields without a name in front has nothing to be called by.
    assert read(Tar(), data) == expected
    assert at_random(data) == expected


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with wds.TarWriter(str(path)) as writer:
        for number in range(50):
            writer.write({"__key__": f"k/{number:04d}", "txt": f"t{number}", "bin": bytes(number * 100), "cls": number})
    samples = read(Tar(), path.read_bytes())
    assert samples == by_webdataset(path.read_bytes())
    assert len(samples) == 50


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_what_we_write_is_read_by_webdataset_and_tarfile(tmp_path: Path) -> None:
    out = io.BytesIO()
    with Tar().writer(out) as writer:
        for number in range(50):
            writer.write(
                {"__key__": f"{LONG if number % 7 == 3 else 'k'}/{number:04d}", "txt": f"t{number}", "cls": number}
            )
    data = out.getvalue()
    assert by_webdataset(data) == read(Tar(), data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert {(one.mtime, one.uid, one.gid, one.mode, one.isreg()) for one in members} == {(0, 0, 0, 0o644, True)}
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    dataset = wds.WebDataset(str(path), shardshuffle=False, empty_check=False).decode()
    assert [one["cls"] for one in dataset] == list(range(50))
    del dataset
    gc.collect()


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_gnu_tar(tmp_path: Path, form: str) -> None:
    (tmp_path / "d").mkdir()
    for number in range(9):
        (tmp_path / "d" / f"{number}.jpg").write_bytes(b"j" * number * 300)
        (tmp_path / "d" / f"{number}.txt").write_bytes(b"t" * number)
    (tmp_path / "d" / "9.link").symlink_to("1.jpg")
    (tmp_path / "d" / "9.hard").hardlink_to(tmp_path / "d" / "1.jpg")
    subprocess.run(["tar", f"--format={form}", "--sort=name", "-cf", "x.tar", "d"], cwd=tmp_path, check=True)
    data = (tmp_path / "x.tar").read_bytes()
    samples = read(Tar(), data)
    assert samples == by_webdataset(data)
    assert len(samples) == 9
    assert at_random(data) == samples


def test_a_field_twice_is_a_broken_sample_only() -> None:
    data = archive([("a.jpg", b"1"), ("b.jpg", b"2"), ("b.JPG", b"3"), ("c.jpg", b"4")])
    with pytest.raises(DecodeError, match=r"'b' has its field 'jpg' twice"):
        read(Tar(), data)
    bad: list[DecodeError] = []
    samples = list(Tar().read(io.BytesIO(data), on_bad=bad.append))
    assert [one.key for one in samples] == ["a", "c"]
    assert len(bad) == 1
    assert len(Tar().scan(io.BytesIO(data))) == 3


def test_pax_gives_sizes_and_paths() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("x")
        info.size = 0
        info.pax_headers = {"path": "other/name.jpg", "comment": "one = two", "size": "700"}
        tar.addfile(info)
        out.write(b"j" * 700 + bytes(324))
        tar.offset += 1024
    samples = read(Tar(), out.getvalue())
    assert samples == by_webdataset(out.getvalue())
    assert samples[0]["jpg"] == b"j" * 700


def test_large_numbers_of_gnu() -> None:
    data = bytearray(archive([("a.jpg", b"12345"), ("b.jpg", b"1")], tarfile.GNU_FORMAT))
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    assert read(Tar(), resummed(data)) == by_webdataset(resummed(data))
    assert read(Tar(), resummed(data))[0]["jpg"] == b"12345"


def resummed(data: bytearray) -> bytes:
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"-0000000007\0", b"\x80" + b"\x7f" + bytes(10), b"77777777777\0", b"zzzzzzzzzzz\0"]
)
def test_sizes_that_cannot_be_are_refused(size: bytes) -> None:
    data = bytearray(archive([("a.jpg", b"12345")]))
    data[124:136] = size
    for use in (lambda data: read(Tar(), data), lambda data: Tar().scan(io.BytesIO(data))):
        with pytest.raises(DecodeError, match=r"negative|limit|no size|ends at byte"):
            use(resummed(data))


def test_sparse_members_are_broken_samples(tmp_path: Path) -> None:
    path = tmp_path / "s.jpg"
    with path.open("wb") as file:
        for number in range(12):
            file.seek(number * 1_000_000)
            file.write(b"x" * 5000)
    (tmp_path / "t.jpg").write_bytes(b"t")
    for form in ("gnu", "pax"):
        command = ["tar", "--sparse", f"--format={form}", "-cf", "x.tar", "s.jpg", "t.jpg"]
        subprocess.run(command, cwd=tmp_path, check=True)
        data = (tmp_path / "x.tar").read_bytes()
        bad: list[DecodeError] = []
        assert [one.key for one in Tar().read(io.BytesIO(data), on_bad=bad.append)] == ["t"]
        assert "sparse" in str(bad[0])
        assert "'s'" in str(bad[0])


def test_checksums_of_headers_are_compared() -> None:
    data = bytearray(archive([("a.jpg", b"1"), ("b.jpg", b"2")]))
    data[1024 + 3] ^= 1
    with pytest.raises(DecodeError, match="no tar header at byte 1024"):
        read(Tar(), bytes(data))
    # As old programs summed, bytes as signed.
    signed = bytearray(archive([("ü.jpg", b"1")], tarfile.GNU_FORMAT))
    signed[148:156] = b" " * 8
    signed[148:156] = b"%06o\0 " % sum(struct.unpack("512b", signed[:512]))
    assert len(read(Tar(), bytes(signed))) == 1


def test_where_an_archive_may_end() -> None:
    data = archive([("a.jpg", b"1"), ("b.jpg", b"2")])
    assert len(read(Tar(), data[:2048])) == 2  # no end at all
    assert len(read(Tar(), data[:2560])) == 2  # half of it
    assert len(read(Tar(), data + data)) == 2  # another one behind, as tarfile stops there
    for length, what in (
        (1800, "inside of the member 'b.jpg'"),
        (1100, "inside of a header"),
        (1537, "member 'b.jpg'"),
    ):
        with pytest.raises(DecodeError, match=what):
            read(Tar(), data[:length])
    with pytest.raises(DecodeError, match="it is empty"):
        read(Tar(), b"")
    assert read(Tar(), bytes(10240)) == []


def test_global_headers_for_all_members_are_refused_where_they_matter() -> None:
    for records, refused in (({"comment": "x"}, False), ({"path": "x.jpg"}, True)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", pax_headers=records) as tar:
            tar.addfile(tarfile.TarInfo("a.jpg"))
        if refused:
            with pytest.raises(DecodeError, match="global"):
                read(Tar(), out.getvalue())
        else:
            assert len(read(Tar(), out.getvalue())) == 1


def test_samples_larger_than_the_limit() -> None:
    data = archive([("a.jpg", bytes(600)), ("a.png", bytes(600)), ("b.jpg", b"")])
    assert len(read(Tar(max_sample_bytes=1200), data)) == 2
    for limit in (1199, 599):
        with pytest.raises(DecodeError, match=f"limit is {limit}"):
            read(Tar(max_sample_bytes=limit), data)


class Counting(io.BytesIO):
    read_bytes = 0
    seeks = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.seeks += 1
        return super().seek(offset, whence)


def test_a_scan_hops_over_large_members_and_reads_over_small_ones() -> None:
    large = archive(
        [(f"{number}.{suffix}", bytes(size)) for number in range(6) for suffix, size in (("cls", 1), ("bin", 9 << 20))]
    )
    stream = Counting(large)
    index = Tar().scan(stream, size=len(large))
    assert stream.read_bytes < len(large) // 20
    assert index == recorded(Tar(), large)
    small = archive([(f"{number}.bin", bytes(100 << 10)) for number in range(60)])
    stream = Counting(small)
    Tar().scan(stream)
    assert (stream.read_bytes, stream.seeks) == (len(small), 0)
    with pytest.raises(DecodeError, match="ends at byte"):
        Tar().scan(Counting(large[: 30 << 20]))


def test_fields_that_tar_cannot_hold() -> None:
    good = {"__key__": "k"}
    for bad, what in (
        ({"jpg": b""}, 'needs "__key__"'),
        ({"__key__": "k"}, "no fields"),
        ({"__key__": "a.b", "jpg": b""}, "would not be read back"),
        ({"__key__": "k", "JPG": b""}, "lower case"),
        ({"__key__": "__k__", "/x": b""}, "would not be read back"),
        ({"__key__": "k", "jpg": 3}, "'jpg' is a int"),
    ):
        with Tar().writer(io.BytesIO()) as writer, pytest.raises(ValueError, match=what):
            writer.write(bad)
    with Tar().writer(io.BytesIO()) as writer:
        writer.write(
            {**good, "cls": 3.5, "json": [1], "x.json": {"a": 1}, "txt": "ü", "bin": memoryview(b"12"), "__url__": "u"}
        )
        with pytest.raises(ValueError, match="two samples in a row"):
            writer.write({**good, "cls": 4})


def test_members_in_between_belong_to_the_sample_before() -> None:
    data = archive([("README", b"first"), ("a.jpg", b"1"), ("README", bytes(600)), ("b.jpg", b"2"), ("LICENSE", b"")])
    index = Tar().scan(io.BytesIO(data))
    assert index.first == 1024
    assert list(index.ends) == [1024 * 2 + 512 + 1024, 1024 * 3 + 512 + 1024 + 512]
    assert same(at_random(data), read(Tar(), data))
