"""Reading, writing, copying and removing through the file system."""

import gc
import gzip
import io
import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import fsspec
import fsspec.callbacks
import pytest

from s3dataset import ConflictError, ObjectChangedError, ObjectNotFoundError, S3ClientConfig, S3Exception, S3Reader
from s3dataset._secrets import CredentialSource
from s3dataset.fsspec import S3FileSystem
from s3dataset.testing import Fault, LocalS3

MIB = 1 << 20


def options_of(s3):
    return {"endpoint_url": s3.endpoint, "key": s3.access_key, "secret": s3.secret_key, "region": s3.region}


@pytest.fixture
def small_parts(s3):
    """Whose parts are as small as they can be, so that few megabytes make several."""
    return S3FileSystem(**options_of(s3), s3client_config=S3ClientConfig(part_size=5 * MIB, max_attempts=2))


# -- Into memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, 0, 1, 9, 10, 11, 100, -1, -10, -11, -100])
@pytest.mark.parametrize("end", [None, 0, 1, 5, 10, 11, -1, -5, -10, -11])
def test_slices_are_those_of_bytes(fs, root, start, end):
    data = b"0123456789"
    fs.pipe_file(f"{root}/x", data)
    assert fs.cat_file(f"{root}/x", start, end) == data[start:end]
    assert fs.cat_ranges([f"{root}/x"], [start], [end]) == [data[start:end]]
    fs.pipe_file(f"{root}/empty", b"")
    assert fs.cat_file(f"{root}/empty", start, end) == b""
    assert fs.cat_ranges([f"{root}/empty"], [start], [end]) == [b""]


def test_many_objects_come_at_once(fs, s3, root):
    data = {f"{root}/{i:03}": bytes([i]) * 1000 for i in range(200)}
    fs.pipe(data)
    s3.set_traffic(latency_s=0.02)
    s3.reset_stats()
    try:
        assert fs.cat(list(data)) == data
        assert s3.stats()["max_in_flight"] > 20
        assert s3.stats()["operations"] == {"GetObject": 200}
        assert fs.cat(f"{root}/*") == data
        assert fs.cat(root, recursive=True) == data
        starts = [None, 5, -5] * 20
        paths = [f"{root}/{i:03}" for i in range(60)]
        found = fs.cat_ranges(paths, starts, 900)
        assert found == [data[path][start:900] for path, start in zip(paths, starts, strict=True)]
    finally:
        s3.set_traffic(latency_s=0)


def test_one_path_gives_bytes_and_several_a_dictionary(fs, root):
    fs.pipe({f"{root}/a": b"1", f"{root}/b": b"2"})
    assert fs.cat(f"s3://{root}/a") == b"1"
    assert fs.cat([f"{root}/a"]) == {f"{root}/a": b"1"}
    assert fs.cat(f"{root}/[a]") == {f"{root}/a": b"1"}
    assert fs.cat([f"s3://{root}/a", f"{root}/b"], start=1) == {f"{root}/a": b"", f"{root}/b": b""}
    assert fs.head(f"{root}/a", 1) == fs.tail(f"{root}/a", 1) == b"1"
    assert fs.tail(f"{root}/a", 0) == b""


def test_what_is_missing_among_many(fs, root):
    fs.pipe_file(f"{root}/a", b"1")
    paths = [f"{root}/a", f"{root}/missing"]
    with pytest.raises(ObjectNotFoundError, match="missing"):
        fs.cat(paths)
    assert fs.cat(paths, on_error="omit") == {f"{root}/a": b"1"}
    returned = fs.cat(paths, on_error="return")
    assert isinstance(returned[f"{root}/missing"], FileNotFoundError)
    with pytest.raises(ValueError, match="on_error"):
        fs.cat(paths, on_error="skip")
    assert fs.cat_ranges(paths, 0, 1)[0] == b"1"
    for end in (1, -1):
        assert isinstance(fs.cat_ranges(paths, 0, end)[1], FileNotFoundError)
        with pytest.raises(FileNotFoundError):
            fs.cat_ranges(paths, 0, end, on_error="raise")
    with pytest.raises(FileNotFoundError):
        fs.cat(f"{root}/none*")
    with pytest.raises(ValueError, match="2 paths, 1 starts"):
        fs.cat_ranges(paths, [0], [1])


def test_ranges_of_one_object_are_of_one_version(fs, s3, root):
    fs.pipe_file(f"{root}/x", bytes(1000))
    s3.add_fault(Fault.replace(operation="GetObject", key="*/x", after=1))
    found = fs.cat_ranges([f"{root}/x"] * 40, [10 * i for i in range(40)], [10 * i + 10 for i in range(40)])
    assert any(isinstance(result, ObjectChangedError) for result in found)


# -- Files to read ---------------------------------------------------------------------------------------------------


def test_a_file_to_read_is_a_reader(fs, s3, root):
    fs.pipe_file(f"{root}/x", b"one\ntwo\nthree")
    with fs.open(f"s3://{root}/x") as file:
        assert isinstance(file, S3Reader)
        assert (file.size, file.mode, file.path, file.fs) == (13, "rb", f"{root}/x", fs)
        assert file.full_name == f"s3://{root}/x"
        assert file.details == file.info() == fs.info(f"{root}/x")
        assert file.readline() == b"one\n"
        assert file.loc == file.tell() == 4
        assert list(file) == [b"two\n", b"three"]
        assert file.seek(-5, os.SEEK_END) == 8
        assert file.read() == b"three"
    with fs.open(f"{root}/x", "r", encoding="ascii", newline="") as file:
        assert file.readlines() == ["one\n", "two\n", "three"]
    assert fs.read_text(f"{root}/x") == "one\ntwo\nthree"
    assert fs.read_block(f"{root}/x", 0, 5, b"\n") == b"one\ntwo\n"


def test_what_is_missing_is_said_when_it_is_opened(fs, root):
    with pytest.raises(FileNotFoundError, match="missing"):
        fs.open(f"{root}/missing")
    fs.pipe_file(f"{root}/directory/x", b"1")
    with pytest.raises(IsADirectoryError):
        fs.open(f"{root}/directory")
    with pytest.raises(ValueError, match="r\\+b"):
        fs.open(f"{root}/directory/x", "r+b")
    with pytest.raises(ValueError, match="cache_type"):
        fs.open(f"{root}/directory/x", cache_type="readbehind")


@pytest.mark.parametrize("cache_type", ["readahead", "none", "bytes", "all", "mmap", "blockcache"])
def test_every_kind_of_cache_reads_the_same(fs, s3, root, cache_type):
    data = os.urandom(300_000)
    fs.pipe_file(f"{root}/x", data)
    s3.reset_stats()
    with fs.open(f"{root}/x", cache_type=cache_type, block_size=1000) as file:
        assert file.seek(200_000) == 200_000
        assert file.read(10) == data[200_000:200_010]
        if cache_type == "none":
            assert s3.stats()["bytes_out"] == 10
        assert file.read() == data[200_010:]


def test_parts_that_are_there_are_not_fetched(fs, s3, root):
    data = os.urandom(300_000)
    fs.pipe_file(f"{root}/x", data)
    known = {(1000, 2000): data[1000:2000]}
    with fs.open(f"{root}/x", cache_type="parts", cache_options={"data": known}) as file:
        s3.reset_stats()
        file.seek(1500)
        assert file.read(100) == data[1500:1600]
        assert s3.stats()["requests"] == 0
        assert file.read(1000) == data[1600:2600]


def test_a_replaced_object_is_an_error(fs, root):
    fs.pipe_file(f"{root}/x", bytes(10 * MIB))
    with fs.open(f"{root}/x") as file:
        file.read(10)
        fs.pipe_file(f"{root}/x", bytes(9 * MIB))
        with pytest.raises(ObjectChangedError):
            while file.read(MIB):
                pass


def test_a_file_pickles_with_its_position(fs, root):
    fs.pipe_file(f"{root}/x", b"0123456789")
    with fs.open(f"{root}/x") as file:
        file.read(3)
        with pickle.loads(pickle.dumps(file)) as other:
            assert other.read() == b"3456789"
            assert other.path == file.path


# -- Files to write --------------------------------------------------------------------------------------------------


def test_writing(fs, root):
    with fs.open(f"{root}/x", "wb") as file:
        assert file.write(b"abc") == 3
        assert file.tell() == 3
        assert not fs.exists(f"{root}/x")
        assert (file.writable(), file.readable(), file.seekable()) == (True, False, False)
        with pytest.raises(ValueError, match="is being written"):
            file.info()
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(file)
    assert fs.cat(f"{root}/x") == b"abc"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"d")
    file.close()
    with fs.open(f"{root}/x", "w", encoding="utf-16-le", newline="\r\n") as file:
        file.write("é\n")
    assert fs.cat(f"{root}/x") == "é\r\n".encode("utf-16-le")
    fs.write_text(f"{root}/x", "text")
    assert fs.cat(f"{root}/x") == b"text"


@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize("compression", [None, "gzip", "xz"])
def test_text_and_compression(fs, root, mode, compression):
    text = "hello" * 1000
    with fs.open(f"{root}/x", mode, compression=compression) as file:
        file.write(text if mode == "w" else text.encode())
    with fs.open(f"{root}/x", "r", compression=compression) as file:
        assert file.read() == text
    if compression == "gzip":
        assert gzip.decompress(fs.cat(f"{root}/x")) == text.encode()
    with fs.open(f"{root}/x.gz", mode, compression="infer") as file:
        file.write(text if mode == "w" else text.encode())
    assert gzip.decompress(fs.cat(f"{root}/x.gz")) == text.encode()


class OnPurposeError(Exception):
    pass


@pytest.mark.parametrize("nbytes", [10, 12 * MIB], ids=["small", "in parts"])
@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("way", ["the file's own", "fsspec.open", "in a transaction"])
def test_an_exception_publishes_nothing(small_parts, s3, root, way, mode, compression, nbytes):
    fs = small_parts
    fs.pipe_file(f"{root}/x", b"old")
    data = "a" * nbytes if mode == "w" else os.urandom(nbytes)

    def write(opened):
        with opened as file:
            file.write(data)
            raise OnPurposeError

    with pytest.raises(OnPurposeError):
        if way == "the file's own":
            write(fs.open(f"{root}/x", mode, compression=compression))
        elif way == "fsspec.open":
            config = {"s3client_config": S3ClientConfig(part_size=5 * MIB)}
            write(fsspec.open(f"s3dataset://{root}/x", mode, compression=compression, **options_of(s3), **config))
        else:
            with fs.transaction:
                write(fs.open(f"{root}/x", mode, compression=compression))
    gc.collect()
    assert fs.cat(f"{root}/x") == b"old"
    assert s3.uploads("bucket") == []


def test_an_exception_handled_around_it_does_not_count(fs, s3, root):
    try:
        raise OnPurposeError
    except OnPurposeError:
        with fsspec.open(f"s3dataset://{root}/report", "w", **options_of(s3)) as file:
            file.write("what happened")
        file = fs.open(f"{root}/second", "wb")
        file.write(b"and more")
        file.close()
    assert fs.cat(f"{root}/report") == b"what happened"
    assert fs.cat(f"{root}/second") == b"and more"


@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_forgetting_to_close_publishes_nothing(fs, root, mode, compression):
    file = fs.open(f"{root}/x", mode, compression=compression)
    file.write("part" if mode == "w" else b"part")
    del file
    gc.collect()
    assert not fs.exists(f"{root}/x")


def test_a_failed_write_leaves_what_was_there(small_parts, s3, root):
    fs = small_parts
    fs.pipe_file(f"{root}/x", b"old")
    s3.add_fault(*(Fault.status(403, operation=operation, times=None) for operation in ("PutObject", "UploadPart")))
    for nbytes in (10, 12 * MIB):
        with pytest.raises(PermissionError), fs.open(f"{root}/x", "wb") as file:
            file.write(bytes(nbytes))
        with pytest.raises(PermissionError):
            fs.pipe_file(f"{root}/x", bytes(nbytes))
    s3.clear_faults()
    assert fs.cat(f"{root}/x") == b"old"
    assert s3.uploads("bucket") == []


def test_exclusive_writes(fs, s3, root):
    path = f"{root}/x"
    with fs.open(path, "xb") as file:
        file.write(b"first")
    for mode in ("xb", "x", "xt"):
        with pytest.raises(FileExistsError, match="stays as it was"):
            fs.open(path, mode)
    with pytest.raises(FileExistsError, match="stays as it was"):
        fs.pipe_file(path, b"second", mode="create")
    with pytest.raises(ValueError, match="mode"):
        fs.pipe_file(path, b"second", mode="new")
    fs.rm_file(path)
    with pytest.raises(FileExistsError), fs.open(path, "xb") as file:
        fs.pipe_file(path, b"somebody else's")
        file.write(b"mine")
    assert fs.cat(path) == b"somebody else's"


def test_appending(fs, root):
    path = f"{root}/log"
    with fs.open(path, "ab") as file:
        file.write(b"one ")
    with fs.open(path, "a") as file:
        file.write("two")
    assert fs.cat(path) == b"one two"
    with pytest.raises(S3Exception) as error, fs.open(path, "ab") as file:
        fs.pipe_file(path, b"somebody else's")
        file.write(b"three")
    assert isinstance(error.value, ConflictError) or error.value.status == 412
    assert fs.cat(path) == b"somebody else's"


def test_touching(fs, root):
    fs.touch(f"{root}/x")
    assert fs.cat(f"{root}/x") == b""
    fs.pipe_file(f"{root}/x", b"1")
    with pytest.raises(NotImplementedError):
        fs.touch(f"{root}/x", truncate=False)
    fs.touch(f"{root}/new", truncate=False)
    fs.touch(f"{root}/x")
    assert fs.size(f"{root}/x") == fs.size(f"{root}/new") == 0


def test_large_values_go_in_parts_from_where_they_are(small_parts, s3, root):
    data = os.urandom(12 * MIB + 1)
    small_parts.pipe({f"{root}/large": bytearray(data), f"{root}/small": memoryview(data)[:10]})
    operations = s3.stats()["operations"]
    assert operations["UploadPart"] == 3
    assert operations["PutObject"] == 1
    assert small_parts.cat(f"{root}/large") == data
    with pytest.raises(TypeError, match="not str"):
        small_parts.pipe_file(f"{root}/text", "text")
    with pytest.raises(ValueError, match="dict"):
        small_parts.pipe([f"{root}/x"], b"")


def test_what_is_said_of_objects(s3, root):
    additional = {"ServerSideEncryption": "AES256", "CacheControl": "no-cache"}
    fs = S3FileSystem(**options_of(s3), s3_additional_kwargs=additional)
    with fs.open(f"{root}/a", "wb", ContentType="text/plain", Metadata={"run": "7"}, acl="private") as file:
        file.write(b"x")
    fs.pipe_file(f"{root}/b", b"x", CacheControl="max-age=1", StorageClass="STANDARD_IA", chunksize=1)
    boto3 = s3.boto3_client()
    head = boto3.head_object(Bucket="bucket", Key=f"{root}/a".partition("/")[2])
    assert (head["ContentType"], head["CacheControl"], head["Metadata"]) == ("text/plain", "no-cache", {"run": "7"})
    head = boto3.head_object(Bucket="bucket", Key=f"{root}/b".partition("/")[2])
    assert (head["CacheControl"], head["StorageClass"]) == ("max-age=1", "STANDARD_IA")
    assert fs.info(f"{root}/b")["StorageClass"] == "STANDARD_IA"
    boto3.close()
    with pytest.raises(TypeError, match="Colour"):
        fs.open(f"{root}/c", "wb", Colour="red")


# -- Transactions ----------------------------------------------------------------------------------------------------


def test_a_transaction_publishes_at_its_end(small_parts, s3, root, tmp_path):
    fs = small_parts
    (tmp_path / "file").write_bytes(b"five")
    large = os.urandom(12 * MIB)
    with fs.transaction:
        with fs.open(f"{root}/one", "wb") as file:
            file.write(b"one")
        with fs.open(f"{root}/two", "w") as file:
            file.write("two")
        fs.pipe_file(f"{root}/three", b"three")
        with fs.open(f"{root}/four", "wb") as file:
            file.write(large)
        fs.put_file(str(tmp_path / "file"), f"{root}/five")
        assert fs.find(root) == []
    assert fs.cat(root, recursive=True) == {
        f"{root}/five": b"five",
        f"{root}/four": large,
        f"{root}/one": b"one",
        f"{root}/three": b"three",
        f"{root}/two": b"two",
    }
    fs.pipe_file(f"{root}/after", b"at once")
    assert fs.exists(f"{root}/after")


def test_a_failed_transaction_publishes_nothing(small_parts, s3, root):
    fs = small_parts
    with pytest.raises(OnPurposeError), fs.transaction:
        with fs.open(f"{root}/one", "wb") as file:
            file.write(bytes(12 * MIB))
        fs.pipe_file(f"{root}/two", b"two")
        raise OnPurposeError
    assert fs.find(root) == []
    assert s3.uploads("bucket") == []
    fs.start_transaction()
    fs.pipe_file(f"{root}/three", b"three")
    assert fs.find(root) == []
    fs.end_transaction()
    assert fs.find(root) == [f"{root}/three"]


# -- Local files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path):
    directory = tmp_path / "source"
    (directory / "deep").mkdir(parents=True)
    for i in range(40):
        (directory / f"{i}.txt").write_bytes(bytes([i]) * i)
    (directory / "deep" / "large.bin").write_bytes(os.urandom(12 * MIB + 5))
    return directory


def files_below(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in Path(directory).rglob("*") if p.is_file()}


def test_there_and_back(small_parts, s3, root, local, tmp_path):
    fs = small_parts
    s3.set_traffic(latency_s=0.005)
    fs.put(str(local), root, recursive=True)
    fs.get(root, str(tmp_path / "back"), recursive=True)
    s3.set_traffic(latency_s=0)
    assert files_below(tmp_path / "back") == files_below(local)
    assert s3.stats()["max_in_flight"] > 10
    boto3 = s3.boto3_client()
    key = f"{root}/1.txt".partition("/")[2]
    assert boto3.head_object(Bucket="bucket", Key=key)["ContentType"] == "text/plain"
    boto3.close()
    fs.get(f"{root}/*.txt", str(tmp_path / "texts") + "/")
    assert len(files_below(tmp_path / "texts")) == 40


def test_a_glob_asks_for_no_object_twice(fs, s3, root, tmp_path):
    fs.pipe({f"{root}/{i}.txt": b"x" for i in range(20)})
    s3.reset_stats()
    fs.get(f"{root}/*.txt", str(tmp_path) + "/")
    operations = s3.stats()["operations"]
    assert operations["GetObject"] == 20
    assert "HeadObject" not in operations


def test_callbacks_are_told_of_files_and_bytes(fs, root, local, tmp_path):
    class Seen(fsspec.callbacks.Callback):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.children = {}

        def branched(self, path_1, path_2, **kwargs):
            child = Seen()
            self.children[path_1] = child
            return child

    up = Seen()
    fs.put(str(local), root, recursive=True, callback=up)
    files = files_below(local)
    assert up.size >= len(files)
    assert up.value == len(files)
    assert sum(child.value for child in up.children.values()) == sum(map(len, files.values()))
    down = Seen()
    fs.get(root, str(tmp_path / "back"), recursive=True, callback=down)
    assert down.value == len(files)
    assert all(child.size == child.value for child in down.children.values())
    one = Seen()
    fs.get_file(f"{root}/9.txt", str(tmp_path / "nine"), callback=one)
    assert (one.size, one.value) == (9, 9)


def test_a_failed_download_leaves_the_file_as_it_was(fs, s3, root, tmp_path):
    fs = S3FileSystem(**options_of(s3), s3client_config=S3ClientConfig(max_attempts=1))
    fs.pipe_file(f"{root}/x", os.urandom(12 * MIB))
    target = tmp_path / "x"
    target.write_bytes(b"old")
    s3.add_fault(Fault.status(403, operation="GetObject", after=1, times=None))
    with pytest.raises(PermissionError):
        fs.get_file(f"{root}/x", str(target))
    assert files_below(tmp_path) == {"x": b"old"}
    s3.clear_faults()
    with pytest.raises(FileNotFoundError, match=f"s3://{root}/missing"):
        fs.get_file(f"{root}/missing", str(target))
    for call in (fs.info, fs.ls, fs.open):
        with pytest.raises(FileNotFoundError, match=f"The key does not exist: s3://{root}/missing"):
            call(f"{root}/missing")
    assert files_below(tmp_path) == {"x": b"old"}


def test_files_that_are_open(fs, root):
    fs.pipe_file(f"{root}/x", b"abc")
    file = io.BytesIO()
    fs.get_file(f"{root}/x", file)
    assert file.getvalue() == b"abc"


# -- Within S3 -------------------------------------------------------------------------------------------------------


def test_copies_and_moves_go_side_by_side(fs, s3, root):
    data = {f"{root}/from/{i:03}": str(i).encode() for i in range(60)}
    fs.pipe(data)
    s3.set_traffic(latency_s=0.02)
    s3.reset_stats()
    fs.copy(f"{root}/from", f"{root}/to", recursive=True)
    s3.set_traffic(latency_s=0)
    assert s3.stats()["operations"]["CopyObject"] == 60
    assert s3.stats()["max_in_flight"] > 5
    assert list(fs.cat(f"{root}/to", recursive=True).values()) == list(data.values())
    s3.reset_stats()
    fs.mv(f"{root}/to", f"{root}/moved", recursive=True)
    assert s3.stats()["operations"]["DeleteObjects"] == 1
    assert not fs.exists(f"{root}/to")
    assert len(fs.find(f"{root}/moved")) == 60
    fs.copy(f"{root}/from/000", "other/elsewhere")
    assert fs.cat("other/elsewhere") == b"0"
    fs.rm("other", recursive=True)
    assert fs.ls("other") == []
    with pytest.raises(FileNotFoundError):
        fs.copy(f"{root}/missing", f"{root}/x")
    fs.copy([f"{root}/missing", f"{root}/from/000"], [f"{root}/a", f"{root}/b"], on_error="ignore")
    assert fs.exists(f"{root}/b")


def test_a_move_whose_copy_fails_removes_nothing(fs, s3, root):
    fs.pipe({f"{root}/a/{i}": b"x" for i in range(3)})
    s3.add_fault(Fault.status(403, operation="CopyObject", key="*/b/1", times=None))
    with pytest.raises(PermissionError):
        fs.mv(f"{root}/a", f"{root}/b", recursive=True)
    assert len(fs.find(f"{root}/a")) == 3


def test_removing(fs, s3, root):
    fs.pipe({f"{root}/{i:04}": b"" for i in range(1001)})
    s3.reset_stats()
    fs.rm(root, recursive=True)
    assert s3.stats()["operations"]["DeleteObjects"] == 2
    assert fs.find(root) == []
    fs.rm(f"{root}/missing")
    with pytest.raises(FileNotFoundError):
        fs.rm(f"{root}/missing", recursive=True)
    with pytest.raises(NotImplementedError, match="aws s3"):
        fs.rm("other")


def test_what_could_not_be_removed_is_an_error(fs, s3, root):
    fs.pipe({f"{root}/{i}": b"" for i in range(3)})
    s3.add_fault(Fault.failed_deletes(keys="*/1", code="AccessDenied", times=None))
    with pytest.raises(PermissionError, match="not deleted") as error:
        fs.rm(root, recursive=True)
    assert "1 of" in str(error.value.__notes__)
    assert fs.find(root) == [f"{root}/1"]


# -- Options, processes ----------------------------------------------------------------------------------------------


def test_a_file_system_pickles_and_is_one_for_a_thread(fs, s3, root):
    fs.pipe_file(f"{root}/x", b"1")
    assert S3FileSystem(**options_of(s3)) is fs
    other = pickle.loads(pickle.dumps(fs))
    assert other == fs
    assert hash(other) == hash(fs)
    assert other.cat(f"{root}/x") == b"1"
    found = []

    def read():
        found.append(fs.cat(f"{root}/x"))
        found.append(S3FileSystem(**options_of(s3)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(b"1") == 4
    assert all(item.client is fs.client for item in found if item != b"1")


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
def test_it_lives_through_a_fork(fs, root):
    fs.pipe_file(f"{root}/x", b"1")
    with fs.open(f"{root}/x") as file:
        file.read(0)
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=lambda: queue.put((fs.cat(f"{root}/x"), file.read(), fs.ls(root))))
        process.start()
        assert queue.get() == (b"1", b"1", [f"{root}/x"])
        process.join(10)
        assert process.exitcode == 0
        assert file.read() == b"1"


def test_secrets_that_differ_make_different_file_systems(s3):
    def made(secret):
        config = S3ClientConfig(credentials=(s3.access_key, secret))
        return S3FileSystem(endpoint_url=s3.endpoint, region=s3.region, s3client_config=config)

    right, wrong = made(s3.secret_key), made("wrong")
    assert right != wrong
    right.ls("bucket")
    with pytest.raises(S3Exception, match="SignatureDoesNotMatch"):
        wrong.ls("bucket")


def test_options_as_s3fs_has_them(s3, root, monkeypatch):
    def config(**options):
        return S3FileSystem(**options, skip_instance_cache=True)._ref

    ref = config(
        client_kwargs={"endpoint_url": "http://one:1", "region_name": "eu-north-1", "aws_access_key_id": "a"}
        | {"aws_secret_access_key": "b", "verify": "/ca.pem"},
        config_kwargs={"s3": {"addressing_style": "path"}, "connect_timeout": 7, "read_timeout": 8}
        | {"retries": {"max_attempts": 2}, "max_pool_connections": 9, "tcp_keepalive": True},
        requester_pays=True,
        default_block_size=5,
        max_concurrency=3,
    )
    assert (ref.region, ref.endpoint) == ("eu-north-1", "http://one:1")
    settings = ref.config
    assert settings.credentials == CredentialSource(("a", "b"))
    assert (settings.ca_bundle, settings.addressing_style, settings.requester_pays) == ("/ca.pem", "path", True)
    assert (settings.connect_timeout_s, settings.first_byte_timeout_s, settings.stall_timeout_s) == (7, 8, 8)
    assert (settings.max_attempts, settings.max_connections) == (3, 9)
    assert config(anon=True).config.unsigned
    assert config(username="a", password="b", token="c").config.credentials == CredentialSource(("a", "b", "c"))
    assert config(profile="other").config.profile == "other"
    assert config(s3_additional_kwargs={"RequestPayer": "requester"}).config.requester_pays
    assert config(endpoint="http://two:2").endpoint == "http://two:2"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"key": "a"}, ValueError, "secret key"),
        ({"endpoint_url": "host"}, ValueError, "host"),
        ({"client_kwargs": {"verify": False}}, ValueError, "verify"),
        ({"client_kwargs": {"colour": 1}}, ValueError, "colour"),
        ({"config_kwargs": {"colour": 1}}, ValueError, "colour"),
        ({"use_ssl": False}, ValueError, "endpoint"),
        ({"anon": True, "key": "a", "secret": "b"}, ValueError, "unsigned"),
        ({"asynchronous": True}, NotImplementedError, "AsyncFileSystemWrapper"),
        ({"version_aware": True}, NotImplementedError, "version_id"),
        ({"colour": "red"}, TypeError, "colour"),
        ({"s3_additional_kwargs": {"Colour": "red"}}, TypeError, "Colour"),
    ],
)
def test_options_that_cannot_work_are_said_at_once(options, error, says):
    with pytest.raises(error, match=says):
        S3FileSystem(**options)


def test_versions(s3, fs):
    s3.create_bucket("versions", versioned=True)
    fs.pipe_file("versions/x", b"old")
    old = fs.info("versions/x")["VersionId"]
    fs.pipe_file("versions/x", b"newer")
    assert fs.cat_file("versions/x") == b"newer"
    assert fs.cat_file("versions/x", version_id=old) == b"old"
    assert fs.cat_file("versions/x", 1, version_id=old) == b"ld"
    assert fs.info("versions/x", version_id=old)["size"] == 3
    with fs.open("versions/x", version_id=old) as file:
        assert file.read() == b"old"


def test_registering_makes_s3_mean_this(s3, root, monkeypatch):
    import subprocess
    import sys

    program = f"""
import fsspec, s3dataset.fsspec
s3dataset.fsspec.register(endpoint_url={s3.endpoint!r}, key={s3.access_key!r}, secret={s3.secret_key!r})
with fsspec.open("s3://{root}/x", "w") as file:
    file.write("by fsspec")
fs, path = fsspec.core.url_to_fs("s3a://{root}/x")
print(type(fs).__name__, fs.cat(path).decode(), s3dataset.fsspec.serves_s3())
import pickle
s3dataset.fsspec.S3FileSystem.set_defaults({{}})
print(pickle.loads(pickle.dumps(fs)).cat(path).decode())
try:
    s3dataset.fsspec.register(colour="red")
except TypeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[:2] == ["S3FileSystem by fsspec True", "by fsspec"], done.stderr
    assert "colour" in done.stdout


def test_the_local_s3s_environment_is_enough():
    with LocalS3("another"):
        fs = S3FileSystem(skip_instance_cache=True)
        fs.pipe_file("another/x", b"1")
        assert fs.cat("s3://another/x") == b"1"
