"""What the file system says is there."""

import datetime as dt

import fsspec
import pytest

from s3dataset import AccessDeniedError, BucketNotFoundError, InvalidUriError, ObjectNotFoundError, S3Exception
from s3dataset.fsspec import S3FileSystem
from s3dataset.testing import Fault

TREE = {
    "a.txt": b"hello",
    "b.txt": b"world",
    "zero": b"",
    "sub/c": b"c",
    "sub/deep/d": b"dd",
    "subway": b"s",
    "empty/": b"",
}


@pytest.fixture
def tree(s3, root):
    for name, data in TREE.items():
        s3.put(*f"{root}/{name}".split("/", 1), data)
    s3.reset_stats()
    return root


def below(root, names):
    return [f"{root}/{name}" if name else root for name in names]


def test_listing_a_directory(fs, tree):
    names = ["a.txt", "b.txt", "empty", "sub", "subway", "zero"]
    for path in (tree, f"{tree}/", f"s3://{tree}", f"s3a://{tree}/", f"s3dataset://{tree}", f"/{tree}"):
        assert fs.ls(path) == below(tree, names)
    entries = fs.ls(tree, detail=True)
    assert [entry["name"] for entry in entries] == below(tree, names)
    assert [entry["type"] for entry in entries] == ["file", "file", "directory", "directory", "file", "file"]
    assert fs.ls(f"{tree}/a.txt") == [f"{tree}/a.txt"]
    assert fs.ls(f"{tree}/empty") == []
    assert fs.listdir(tree) == entries


@pytest.mark.parametrize("name", ["a.txt", "zero", "sub", "empty", "sub/deep"])
def test_info_says_what_a_listing_says(fs, tree, name):
    path = f"{tree}/{name}"
    info = fs.info(path)
    listed = [entry for entry in fs.ls(path.rpartition("/")[0], detail=True) if entry["name"] == path]
    assert listed == [info]
    assert fs.info(f"s3://{path}/") == info
    assert fs.exists(path)
    assert fs.isdir(path) is (name not in TREE)
    assert fs.isfile(path) is (name in TREE)


def test_info_of_a_file(fs, tree):
    info = fs.info(f"{tree}/a.txt")
    assert info["size"] == info["Size"] == fs.size(f"{tree}/a.txt") == 5
    assert info["StorageClass"] == "STANDARD"
    assert info["ETag"].startswith('"')
    age = dt.datetime.now(dt.UTC) - info["LastModified"]
    assert abs(age) < dt.timedelta(minutes=5)
    assert info["mtime"] == info["LastModified"].timestamp()
    assert fs.modified(f"{tree}/a.txt") == fs.created(f"{tree}/a.txt") == info["LastModified"]
    with pytest.raises(IsADirectoryError):
        fs.modified(f"{tree}/sub")


def test_a_file_takes_one_request(fs, s3, tree):
    fs.info(f"{tree}/a.txt")
    assert s3.stats()["operations"] == {"HeadObject": 1}
    fs.info(f"{tree}/sub")
    assert s3.stats()["operations"]["ListObjectsV2"] == 1


def test_what_is_not_there(fs, root):
    for path in (f"{root}/missing", root):
        assert not fs.exists(path)
        assert not fs.isdir(path)
        assert not fs.isfile(path)
        assert fs.find(path) == []
        assert fs.glob(f"{path}*") == []
        for call in (fs.info, fs.ls, fs.size, fs.modified, fs.checksum):
            with pytest.raises(ObjectNotFoundError, match="does not exist"):
                call(path)
    assert not fs.exists("no-such-bucket")
    assert not fs.exists("no-such-bucket/key")
    for call in (fs.info, fs.ls, fs.find):
        with pytest.raises(BucketNotFoundError, match="no-such-bucket"):
            call("no-such-bucket")
    assert fs.exists("other")  # empty
    assert fs.ls("other") == []
    assert fs.exists("")


def test_that_nobody_tells_is_no_no(fs, s3, tree):
    s3.add_fault(Fault.status(403, operation="HeadObject", times=None))
    for call in (fs.exists, fs.isfile, fs.isdir, fs.info):
        with pytest.raises(AccessDeniedError):
            call(f"{tree}/a.txt")


def test_paths_that_name_nothing_in_s3(fs):
    with pytest.raises(InvalidUriError, match="must be non-empty"):
        fs.cat_file("bucket")
    with pytest.raises(InvalidUriError, match="must be non-empty"):
        fs.open("bucket", "wb")
    for call in (fs.ls, fs.find):
        with pytest.raises(NotImplementedError, match="aws s3 ls"):
            call("")
    with pytest.raises(NotImplementedError, match="pattern for buckets"):
        fs.glob("buck*/a")


def test_finding(fs, tree):
    assert fs.find(tree) == below(tree, ["a.txt", "b.txt", "sub/c", "sub/deep/d", "subway", "zero"])
    names = ["", "a.txt", "b.txt", "empty", "sub", "sub/c", "sub/deep", "sub/deep/d", "subway", "zero"]
    assert fs.find(tree, withdirs=True) == below(tree, names)
    assert fs.find(tree, maxdepth=1) == below(tree, ["a.txt", "b.txt", "subway", "zero"])
    assert fs.find(tree, maxdepth=2) == below(tree, ["a.txt", "b.txt", "sub/c", "subway", "zero"])
    assert fs.find(tree, maxdepth=9, withdirs=True) == below(tree, names)
    assert fs.find(f"{tree}/sub") == below(tree, ["sub/c", "sub/deep/d"])
    assert fs.find(f"{tree}/a.txt") == [f"{tree}/a.txt"]
    assert fs.find(tree, prefix="sub") == below(tree, ["sub/c", "sub/deep/d", "subway"])
    assert fs.find(tree, prefix="sub", maxdepth=1, withdirs=True) == below(tree, ["sub", "subway"])
    detailed = fs.find(tree, detail=True)
    assert detailed[f"{tree}/sub/c"] == fs.info(f"{tree}/sub/c")
    with pytest.raises(ValueError, match="maxdepth"):
        fs.find(tree, maxdepth=0)


def test_a_tree_takes_a_listing_however_deep(fs, s3, tree):
    fs.find(tree, withdirs=True)
    fs.du(tree)
    assert s3.stats()["operations"] == {"ListObjectsV2": 2}


def test_many_pages_and_directories(fs, s3, root):
    bucket, key = root.split("/")
    for directory in range(40):
        s3.add_synthetic(bucket, f"{key}/{directory:02}/{{}}", size_bytes=10, count=60)
    everything = fs.find(root)
    assert len(everything) == 40 * 60
    assert fs.find(root, maxdepth=2) == everything
    assert len(fs.ls(root)) == 40
    s3.add_fault(Fault.status(500, operation="ListObjectsV2", every=7, times=5))
    assert fs.find(root, maxdepth=2) == everything


def test_globbing(fs, s3, tree):
    assert fs.glob(f"{tree}/*.txt") == below(tree, ["a.txt", "b.txt"])
    assert fs.glob(f"s3://{tree}/s*") == below(tree, ["sub", "subway"])
    assert fs.glob(f"{tree}/s*/*") == below(tree, ["sub/c", "sub/deep"])
    assert fs.glob(f"{tree}/**/d") == below(tree, ["sub/deep/d"])
    assert fs.glob(f"{tree}/[ab].txt") == below(tree, ["a.txt", "b.txt"])
    assert fs.glob(f"{tree}/?.txt", detail=True)[f"{tree}/a.txt"]["size"] == 5
    assert fs.glob(f"{tree}/*/") == below(tree, ["empty", "sub"])
    assert fs.glob(f"{tree}/a.txt") == [f"{tree}/a.txt"]
    s3.reset_stats()
    fs.glob(f"{tree}/a*")
    assert [record.query for record in s3.requests("ListObjectsV2") if "a" in record.query.rpartition("prefix=")[2]]


def test_walking(fs, tree):
    walked = list(fs.walk(tree))
    assert walked == [
        (tree, ["empty", "sub"], ["a.txt", "b.txt", "subway", "zero"]),
        (f"{tree}/empty", [], []),
        (f"{tree}/sub", ["deep"], ["c"]),
        (f"{tree}/sub/deep", [], ["d"]),
    ]
    assert list(fs.walk(f"{tree}/missing")) == []
    with pytest.raises(FileNotFoundError):
        list(fs.walk(f"{tree}/missing", on_error="raise"))


def test_sizes(fs, tree):
    assert fs.du(tree) == sum(map(len, TREE.values()))
    assert fs.du(tree, total=False)[f"{tree}/sub/deep/d"] == 2
    assert fs.sizes([f"{tree}/a.txt", f"{tree}/sub/c"]) == [5, 1]


def test_keys_that_are_no_paths(fs, s3, root):
    bucket, key = root.split("/")
    names = ["a//b", "a b+c%20d", "ünïcode/ß", "x?versionId=1", "dots/../dots"]
    for name in names:
        s3.put(bucket, f"{key}/{name}", name.encode())
    assert sorted(fs.find(root)) == sorted(f"{root}/{name}" for name in names)
    for name in names:
        assert fs.cat_file(f"{root}/{name}") == name.encode()
        assert fs.info(f"s3://{root}/{name}")["size"] == len(name.encode())
    assert len(fs.find(root, maxdepth=5)) == len(names)
    assert len(list(fs.walk(root))) >= 3  # and ends


def test_a_file_and_a_directory_of_one_name(fs, s3, root):
    bucket, key = root.split("/")
    s3.put(bucket, f"{key}/x", b"file")
    s3.put(bucket, f"{key}/x/y", b"below")
    assert fs.isfile(f"{root}/x")
    assert fs.find(root) == below(root, ["x", "x/y"])
    assert fs.find(f"{root}/x") == below(root, ["x/y"])
    fs.rm(f"{root}/x", recursive=True)
    assert fs.find(root) == []


def test_checksums_follow_the_content(fs, root):
    path = f"{root}/x"
    fs.pipe_file(path, b"one")
    first = fs.checksum(path), fs.ukey(path)
    assert (fs.checksum(path), fs.ukey(path)) == first
    fs.pipe_file(path, b"two")
    assert fs.checksum(path) != first[0]
    assert fs.ukey(path) != first[1]


def test_directories_are_made_by_what_is_in_them(fs, s3, root):
    fs.mkdir(f"{root}/new")
    fs.makedirs(f"{root}/new/deeper", exist_ok=True)
    assert s3.stats()["requests"] == 0
    assert not fs.exists(f"{root}/new")
    with pytest.raises(FileExistsError):
        fs.mkdir("bucket")
    with pytest.raises(FileExistsError):
        fs.makedirs("bucket")
    fs.makedirs("bucket", exist_ok=True)
    with pytest.raises(NotImplementedError, match="aws s3"):
        fs.mkdir("no-such-bucket")
    with pytest.raises(NotImplementedError, match="aws s3"):
        fs.rmdir("bucket")


def test_removing_directories(fs, s3, tree):
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(f"{tree}/sub")
    with pytest.raises(FileNotFoundError):
        fs.rmdir(f"{tree}/missing")
    fs.rmdir(f"{tree}/empty")
    assert not fs.exists(f"{tree}/empty")


# -- What is kept ----------------------------------------------------------------------------------------------------


@pytest.fixture
def keeping(s3):
    return S3FileSystem(
        endpoint_url=s3.endpoint, key=s3.access_key, secret=s3.secret_key, region=s3.region, use_listings_cache=True
    )


def test_by_default_nothing_is_kept(fs, s3, tree):
    fs.ls(tree)
    s3.put(*f"{tree}/later".split("/", 1), b"x")
    assert f"{tree}/later" in fs.ls(tree)
    assert fs.exists(f"{tree}/later")


def test_listings_are_kept_when_that_is_asked_for(keeping, s3, tree):
    listed = keeping.ls(tree, detail=True)
    s3.reset_stats()
    assert keeping.ls(tree, detail=True) == listed
    assert keeping.info(f"{tree}/a.txt")["size"] == 5
    assert s3.stats()["requests"] == 0
    assert keeping.info(f"{tree}/a.txt", refresh=True)["size"] == 5
    s3.put(*f"{tree}/later".split("/", 1), b"x")
    assert f"{tree}/later" not in keeping.ls(tree)
    assert keeping.exists(f"{tree}/later")  # what a listing does not name is asked for
    assert f"{tree}/later" in keeping.ls(tree, refresh=True)
    keeping.invalidate_cache()
    assert f"{tree}/later" in keeping.ls(tree)


@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("change", ["write", "pipe", "remove", "copy", "move", "put"])
def test_what_is_written_here_is_seen_here(keeping, fs, tree, tmp_path, change, by):
    writer = keeping if by == "itself" else fs
    keeping.ls(tree)
    keeping.ls(f"{tree}/sub")
    path = f"{tree}/sub/new"
    if change == "write":
        with writer.open(path, "wb") as file:
            file.write(b"x")
    elif change == "pipe":
        writer.pipe({path: b"x"})
    elif change == "remove":
        writer.rm(f"{tree}/sub", recursive=True)
        assert not keeping.exists(f"{tree}/sub")
        assert f"{tree}/sub" not in keeping.ls(tree)
        return
    elif change == "copy":
        writer.copy(f"{tree}/a.txt", path)
    elif change == "move":
        writer.mv(f"{tree}/a.txt", path)
        assert f"{tree}/a.txt" not in keeping.ls(tree)
    else:
        (tmp_path / "x").write_bytes(b"x")
        writer.put_file(str(tmp_path / "x"), path)
    assert path in keeping.ls(f"{tree}/sub")


# -- Which class answers ---------------------------------------------------------------------------------------------


def test_the_protocol_of_its_own(s3, tree):
    options = {"endpoint_url": s3.endpoint, "key": s3.access_key, "secret": s3.secret_key}
    fs, path = fsspec.core.url_to_fs(f"s3dataset://{tree}/a.txt", **options)
    assert isinstance(fs, S3FileSystem)
    assert fs.cat_file(path) == b"hello"
    assert fsspec.get_filesystem_class("s3dataset") is S3FileSystem
    with fsspec.open(f"s3dataset://{tree}/a.txt", **options) as file:
        assert file.read() == b"hello"


def test_errors_carry_what_s3_said(fs, root):
    with pytest.raises(S3Exception) as error:
        fs.cat_file(f"{root}/missing")
    assert error.value.uri == f"s3://{root}/missing"
    assert error.value.code == "NoSuchKey"
