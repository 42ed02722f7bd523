"""Other people's programs on the file system: pandas, pyarrow, caches of fsspec, coroutines."""

import asyncio
import subprocess
import sys

import fsspec
import fsspec.parquet
import pytest

from s3dataset.fsspec import S3FileSystem

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

import pyarrow as pa  # noqa: E402
import pyarrow.dataset  # noqa: E402
import pyarrow.parquet  # noqa: E402


@pytest.fixture
def options(s3):
    return {"endpoint_url": s3.endpoint, "key": s3.access_key, "secret": s3.secret_key}


@pytest.fixture
def table():
    numbers = list(range(20_000))
    return pa.table({"number": numbers, "text": [f"text {n}" for n in numbers], "half": [n / 2 for n in numbers]})


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_pandas_there_and_back(root, options, table, form):
    frame = table.to_pandas()
    url = f"s3dataset://{root}/frame.{form}"
    arguments = {"index": False} if form != "json" else {}
    getattr(frame, f"to_{form}")(url, storage_options=options, **arguments)
    back = getattr(pandas, f"read_{form}")(url, storage_options=options)
    pandas.testing.assert_frame_equal(back, frame, check_dtype=False)


def test_a_frame_that_fails_half_way_leaves_the_old_one(fs, root, options):
    url = f"s3dataset://{root}/frame.csv"
    pandas.DataFrame({"a": [1]}).to_csv(url, storage_options=options, index=False)

    class Unprintable:
        def __str__(self):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        pandas.DataFrame({"a": [2, Unprintable()]}).to_csv(url, storage_options=options, index=False, chunksize=1)
    assert fs.cat(f"{root}/frame.csv") == b"a\n1\n"


def test_pyarrow_there_and_back(fs, root, table):
    pyarrow.parquet.write_table(table, f"{root}/one.parquet", filesystem=fs)
    assert pyarrow.parquet.read_table(f"{root}/one.parquet", filesystem=fs) == table
    pyarrow.dataset.write_dataset(
        table, f"{root}/many", filesystem=fs, format="parquet", max_rows_per_file=5000, max_rows_per_group=5000
    )
    assert len(fs.find(f"{root}/many")) == 4
    data = pyarrow.dataset.dataset(f"{root}/many", filesystem=fs)
    assert data.to_table(filter=pyarrow.dataset.field("number") >= 15_000).num_rows == 5_000
    assert data.to_table().sort_by("number") == table


def test_a_table_that_fails_half_way_leaves_the_old_one(fs, root, table):
    path = f"{root}/one.parquet"
    pyarrow.parquet.write_table(table, path, filesystem=fs)
    before = fs.ukey(path)
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        pyarrow.parquet.ParquetWriter(path, table.schema, filesystem=fs) as writer,
    ):
        writer.write_table(table.slice(0, 10))
        raise RuntimeError("on purpose")
    assert fs.ukey(path) == before


def test_one_column_does_not_take_the_whole_file(fs, s3, root):
    rows = 1 << 18
    wide = pa.table({f"column{i}": pa.array(range(i, i + rows)) for i in range(16)})
    pyarrow.parquet.write_table(wide, f"{root}/wide.parquet", filesystem=fs, compression="none", use_dictionary=False)
    size = fs.size(f"{root}/wide.parquet")
    s3.reset_stats()
    column = pyarrow.parquet.read_table(f"{root}/wide.parquet", filesystem=fs, columns=["column7"])
    assert column["column7"][5].as_py() == 12
    needed = size / 16
    assert s3.stats()["bytes_out"] < 1.3 * needed


def test_the_end_waits_for_threads_that_are_closing(s3, root, options, fs):
    """As pyarrow's do, which would end the process by an abort."""
    fs.pipe_file(f"{root}/x", b"x")
    program = f"""
import atexit, threading
atexit.register(lambda: print(sum(not file.closed for file in files), "left"))  # runs last
from s3dataset.fsspec import S3FileSystem
fs = S3FileSystem(**{options})
files = [fs.open("{root}/x") for _ in range(2000)]
end = threading.Event()
def close():
    end.wait()
    for file in files:
        file.close()
threading.Thread(target=close, daemon=True).start()
end.set()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0 left\n", done.stderr


def test_parquet_ahead_of_fsspec(fs, root, table):
    pyarrow.parquet.write_table(table, f"{root}/one.parquet", filesystem=fs, row_group_size=5000)
    with fsspec.parquet.open_parquet_file(f"{root}/one.parquet", fs=fs, columns=["half"], engine="pyarrow") as file:
        assert pandas.read_parquet(file, columns=["half"])["half"].sum() == sum(n / 2 for n in range(20_000))


@pytest.mark.parametrize("cache", ["filecache", "simplecache"])
def test_caches_of_fsspec(fs, root, options, tmp_path, cache):
    fs.pipe_file(f"{root}/x", b"0123456789")
    chain = {"s3dataset": options, cache: {"cache_storage": str(tmp_path)}}
    with fsspec.open(f"{cache}::s3dataset://{root}/x", **chain) as file:
        assert file.read() == b"0123456789"


def test_the_one_that_does_not_work_says_so(fs, root, options):
    fs.pipe_file(f"{root}/x", b"0123456789")
    with pytest.raises(NotImplementedError, match="filecache"):  # noqa: SIM117
        with fsspec.open(f"blockcache::s3dataset://{root}/x", s3dataset=options):
            pass


def test_mappings(fs, root):
    mapping = fs.get_mapper(root)
    mapping["a/b"] = b"1"
    mapping.setitems({"c": b"2", "d": b"3"})
    assert dict(mapping) == {"a/b": b"1", "c": b"2", "d": b"3"}
    assert mapping.getitems(["c", "d"]) == {"c": b"2", "d": b"3"}
    assert mapping.getitems(["c", "missing"], on_error="omit") == {"c": b"2"}
    del mapping["c"]
    with pytest.raises(KeyError):
        mapping["c"]
    mapping.clear()
    assert not fs.exists(root)


def test_coroutines(fs, root):
    wrapper = pytest.importorskip("fsspec.implementations.asyn_wrapper")
    fs.pipe({f"{root}/a": b"1", f"{root}/b": b"2"})

    async def read():
        wrapped = wrapper.AsyncFileSystemWrapper(fs, asynchronous=True)
        return await asyncio.gather(wrapped._cat_file(f"{root}/a"), wrapped._cat_file(f"{root}/b"))

    assert asyncio.run(read()) == [b"1", b"2"]


def test_several_files_by_one_url(root, options):
    files = fsspec.open_files(f"s3dataset://{root}/part-*.txt", "w", num=3, **options)
    for file in files:
        with file as handle:
            handle.write(file.path.rpartition("/")[2])
    read = fsspec.open_files(f"s3dataset://{root}/part-*.txt", "r", **options)
    contents = []
    for file in read:
        with file as handle:
            contents.append(handle.read())
    assert contents == ["part-0.txt", "part-1.txt", "part-2.txt"]
    assert isinstance(read[0].fs, S3FileSystem)
