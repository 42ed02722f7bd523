"""What programs written for s3torchconnector rely on, beyond the names: against a server, through the public API."""

import gzip
import io
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import s3dataset
from s3dataset import S3Checkpoint, S3Client, S3ClientConfig, S3MapDataset, S3Reader, S3ReaderConstructor
from s3dataset._s3dataset_common import parse_s3_uri
from s3dataset._user_agent import UserAgent
from s3dataset.errors import ObjectNotFoundError
from s3dataset.s3reader import GetStreamCallable, RangedS3Reader, S3ReaderConstructorProtocol, SequentialS3Reader
from s3dataset.testing import LocalS3

BUCKET = "bucket"
DATA = bytes(range(256)) * 40

POLICIES = {
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(),
    "unbuffered": S3ReaderConstructor.range_based(0),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, "elsewhere") as server:
        server.put(BUCKET, "data", DATA)
        server.put(BUCKET, "empty", b"")
        yield server


@pytest.fixture(scope="module")
def client(server: LocalS3) -> S3Client:
    return S3Client("us-east-1")


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Any:
    return POLICIES[request.param]


class TestReaderConstructors:
    def test_a_constructor_is_called_with_the_names_of_the_protocol(self, client: S3Client) -> None:
        seen: dict[str, object] = {}

        def constructor(*, bucket: str, key: str, get_object_info: Any, get_stream: GetStreamCallable) -> S3Reader:
            seen.update(bucket=bucket, key=key, size=get_object_info().size, part=b"".join(get_stream(2, 5)))
            return S3ReaderConstructor.range_based(1024)(
                bucket=bucket, key=key, get_object_info=get_object_info, get_stream=get_stream
            )

        reader = client.get_object(BUCKET, "data", reader_constructor=constructor)
        assert isinstance(reader, RangedS3Reader)
        assert reader.read() == DATA
        assert seen == {"bucket": BUCKET, "key": "data", "size": len(DATA), "part": DATA[2:5]}

    def test_a_dataset_takes_one_too(self, server: LocalS3) -> None:
        def constructor(**arguments: Any) -> S3Reader:
            return S3ReaderConstructor.sequential()(**arguments)

        dataset = S3MapDataset.from_objects(
            f"s3://{BUCKET}/data", region="us-east-1", transform=S3Reader.read, reader_constructor=constructor
        )
        assert dataset[0] == DATA

    def test_they_are_known_by_their_protocol(self, policy: Any) -> None:
        assert isinstance(policy, S3ReaderConstructorProtocol)
        assert not isinstance("sequential", S3ReaderConstructorProtocol)

    def test_a_buffer_serves_the_reads_that_lie_in_it(self, server: LocalS3, client: S3Client) -> None:
        ranges = self._ranges(server, client, S3ReaderConstructor.range_based(1000), [(100, 20), (150, 900), (500, 10)])
        assert ranges == [(100, 1100)]

    def test_reads_beyond_the_buffer_are_fetched_from_its_end(self, server: LocalS3, client: S3Client) -> None:
        ranges = self._ranges(server, client, S3ReaderConstructor.range_based(100), [(100, 10), (150, 350)])
        assert ranges[0] == (100, 200)
        assert ranges[1:]
        assert all(start >= 200 for start, _ in ranges[1:])

    def test_without_a_buffer_exactly_what_is_read_is_fetched(self, server: LocalS3, client: S3Client) -> None:
        ranges = self._ranges(server, client, S3ReaderConstructor.range_based(0), [(100, 10), (5000, 77)])
        assert ranges == [(100, 110), (5000, 5077)]

    @staticmethod
    def _ranges(
        server: LocalS3, client: S3Client, constructor: Any, reads: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        info = client.head_object(BUCKET, "data")  # as datasets have it, from their listing
        before = max(record.number for record in server.requests())
        with client.get_object(BUCKET, "data", object_info=info, reader_constructor=constructor) as reader:
            for start, size in reads:
                reader.seek(start)
                assert reader.read(size) == DATA[start : start + size]
        found = []
        for record in server.requests("GetObject", after=before):
            first, last = (record.range or "").removeprefix("bytes=").split("-")
            found.append((int(first), int(last) + 1))
        return found


class TestPositions:
    @pytest.mark.parametrize("key", ["data", "empty"])
    @pytest.mark.parametrize("whence", [0, 1, 2])
    @pytest.mark.parametrize("offset", [sys.maxsize, 2**63, 2**64 - 1, 10**30])
    def test_seeking_far_behind_the_end_stops_there(
        self, client: S3Client, policy: Any, key: str, whence: int, offset: int
    ) -> None:
        size = len(DATA) if key == "data" else 0
        with client.get_object(BUCKET, key, reader_constructor=policy) as reader:
            assert reader.seek(offset, whence) == size
            assert reader.tell() == size
            assert reader.read(10) == b""
            assert reader.seek(0) == 0
            assert reader.read(3) == DATA[: min(3, size)]

    @pytest.mark.parametrize(("offset", "whence"), [(-1, 0), (-1, 1), (-(10**30), 2), (-len(DATA) - 1, 2)])
    def test_there_is_nothing_before_the_beginning(
        self, client: S3Client, policy: Any, offset: int, whence: int
    ) -> None:
        with client.get_object(BUCKET, "data", reader_constructor=policy) as reader:
            with pytest.raises(ValueError, match="negative seek value -"):
                reader.seek(offset, whence)
            assert reader.tell() == 0

    @pytest.mark.parametrize("size", [-1, -2, -sys.maxsize, None])
    def test_negative_sizes_read_all(self, client: S3Client, policy: Any, size: int | None) -> None:
        with client.get_object(BUCKET, "data", reader_constructor=policy) as reader:
            assert reader.read(size) == DATA

    @pytest.mark.parametrize("size", [len(DATA) + 1, sys.maxsize])
    def test_reading_more_than_there_is(self, client: S3Client, policy: Any, size: int) -> None:
        with client.get_object(BUCKET, "data", reader_constructor=policy) as reader:
            assert reader.read(size) == DATA


def _tar(buffer: io.BytesIO) -> None:
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("member")
        info.size = len(DATA)
        archive.addfile(info, io.BytesIO(DATA))


def _zip(buffer: io.BytesIO) -> None:
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", DATA)


def _read_tar(reader: S3Reader) -> bytes:
    with tarfile.open(fileobj=reader, mode="r:*") as archive:
        member = archive.extractfile("member")
        return b"" if member is None else member.read()


def _read_zip(reader: S3Reader) -> bytes:
    with zipfile.ZipFile(reader) as archive:
        return archive.read("member")


def _image(buffer: io.BytesIO) -> None:
    Image.frombytes("L", (256, 40), DATA).save(buffer, "png")


class TestReadersAreFiles:
    """Libraries that read files read these, whatever way of going through a file they have."""

    @pytest.mark.parametrize(
        ("write", "read"),
        [
            pytest.param(_tar, _read_tar, id="tarfile"),
            pytest.param(_zip, _read_zip, id="zipfile"),
            pytest.param(lambda b: b.write(gzip.compress(DATA)), lambda r: gzip.GzipFile(fileobj=r).read(), id="gzip"),
            pytest.param(lambda b: pickle.dump(DATA, b), pickle.load, id="pickle"),
            pytest.param(lambda b: np.save(b, np.frombuffer(DATA, "u1")), lambda r: np.load(r).tobytes(), id="numpy"),
            pytest.param(_image, lambda r: Image.open(r).tobytes(), id="PIL"),
        ],
    )
    def test_libraries(
        self,
        server: LocalS3,
        client: S3Client,
        policy: Any,
        write: Callable[[io.BytesIO], object],
        read: Callable[[S3Reader], bytes],
    ) -> None:
        buffer = io.BytesIO()
        write(buffer)
        server.put(BUCKET, "file", buffer.getvalue())
        assert read(client.get_object(BUCKET, "file", reader_constructor=policy)) == DATA

    def test_lines_of_text(self, server: LocalS3, client: S3Client, policy: Any) -> None:
        lines = [f"line {i} äöü\n" for i in range(3000)]
        server.put(BUCKET, "text", "".join(lines).encode())
        reader = client.get_object(BUCKET, "text", reader_constructor=policy)
        assert list(io.TextIOWrapper(reader, "utf-8")) == lines

    def test_arguments_by_name(self, client: S3Client, policy: Any) -> None:
        with client.put_object(BUCKET, "named") as writer:
            assert writer.write(data=DATA) == len(DATA)
        target = bytearray(100)
        with client.get_object(BUCKET, "named", reader_constructor=policy) as reader:
            assert reader.read(size=7) == DATA[:7]
            assert reader.readinto(buf=target) == 100
            assert target == DATA[7:107]

    def test_an_unread_object_joins_to_its_bytes(self, client: S3Client, policy: Any) -> None:
        assert b"".join(client.get_object(BUCKET, "data", reader_constructor=policy)) == DATA


class TestCopies:
    def test_what_is_missing_is_the_source(self, client: S3Client) -> None:
        with pytest.raises(s3dataset.ObjectNotFoundError, match=r"^Service error: The object was not found") as caught:
            client.copy_object(BUCKET, "no such source", "elsewhere", "copy")
        assert caught.value.uri == f"s3://{BUCKET}/no such source"
        assert "s3://elsewhere/copy" in str(caught.value)
        assert (caught.value.operation, caught.value.status, caught.value.code) == ("CopyObject", 404, "NoSuchKey")

    @pytest.mark.parametrize(("source", "destination"), [("no-such-bucket", BUCKET), (BUCKET, "no-such-bucket")])
    def test_a_missing_bucket(self, client: S3Client, source: str, destination: str) -> None:
        with pytest.raises(s3dataset.BucketNotFoundError, match="The bucket does not exist") as caught:
            client.copy_object(source, "data", destination, "copy")
        said = "\n".join([str(caught.value), *caught.value.__notes__])
        assert f"s3://{source}/data" in said
        assert f"s3://{destination}/copy" in said


class TestNames:
    @pytest.mark.parametrize(("bucket", "key"), [("", "key"), (BUCKET, "")])
    def test_empty_names_are_refused_in_the_call(self, bucket: str, key: str) -> None:
        client = S3Client("us-east-1")
        with pytest.raises(ValueError, match="must be non-empty"):
            client.get_object(bucket, key)
        with pytest.raises(ValueError, match="must be non-empty"):
            client.put_object(bucket, key)

    @pytest.mark.parametrize(
        ("uri", "parts"),
        [
            ("s3://b/k", ("b", "k")),
            ("s3://b/k/l/", ("b", "k/l/")),
            ("s3://b//k", ("b", "/k")),
            ("s3://b/", ("b", "")),
            ("s3://b", ("b", "")),
        ],
    )
    def test_uris_are_taken_apart(self, uri: str, parts: tuple[str, str]) -> None:
        assert parse_s3_uri(uri) == parts

    @pytest.mark.parametrize(
        ("uri", "says"),
        [
            ("", "Only s3:// URIs are supported"),
            ("S3://b/k", "Only s3:// URIs are supported"),
            ("/tmp/k", "Only s3:// URIs are supported"),
            ("s3://", "Bucket name must be non-empty"),
            ("s3:///k", "Bucket name must be non-empty"),
        ],
    )
    def test_what_is_no_uri_is_named(self, uri: str, says: str) -> None:
        with pytest.raises(ValueError, match=f"^{says}") as caught:
            parse_s3_uri(uri)
        assert repr(uri) in str(caught.value)


class TestUserAgent:
    def test_comments_stand_behind_the_library(self, server: LocalS3) -> None:
        client = S3Client("us-east-1", user_agent=UserAgent(["trainer/2.0", "", "run 7"]))
        client.head_object(BUCKET, "data")
        sent = server.requests("HeadObject")[-1].headers["user-agent"]
        assert sent == client.user_agent_prefix == f"{UserAgent.get_default_prefix()} (trainer/2.0; run 7)"
        assert sent.startswith("s3dataset/")

    def test_without_comments(self, server: LocalS3) -> None:
        client = S3Client("us-east-1")
        client.head_object(BUCKET, "data")
        assert server.requests("HeadObject")[-1].headers["user-agent"] == client.user_agent_prefix
        assert UserAgent().prefix == UserAgent([]).prefix == UserAgent([""]).prefix == client.user_agent_prefix

    def test_it_crosses_to_other_processes(self) -> None:
        client = S3Client("us-east-1", user_agent=UserAgent(["trainer/2.0"]))
        assert pickle.loads(pickle.dumps(client)).user_agent_prefix == client.user_agent_prefix

    @pytest.mark.parametrize("comments", ["trainer/2.0", 7])
    def test_comments_are_a_list(self, comments: Any) -> None:
        with pytest.raises(ValueError, match="comments"):
            UserAgent(comments)


class TestOrderOfArguments:
    """Old programs give these by position."""

    def test_configuration(self) -> None:
        config = S3ClientConfig(5.0, 16 << 20, False, True, 3, "name", True)
        assert (config.throughput_target_gbps, config.part_size, config.unsigned) == (5.0, 16 << 20, False)
        assert (config.force_path_style, config.max_attempts, config.profile) == (True, 3, "name")
        assert config.requester_pays

    def test_checkpoint(self) -> None:
        checkpoint = S3Checkpoint("eu-west-1", "https://s3.example.org", S3ClientConfig(max_attempts=2))
        assert (checkpoint.region, checkpoint.endpoint) == ("eu-west-1", "https://s3.example.org")

    def test_storage_class(self, server: LocalS3, client: S3Client) -> None:
        with client.put_object(BUCKET, "cold", "STANDARD_IA") as writer:
            assert writer.write(b"x") == 1
        assert client.head_object(BUCKET, "cold").storage_class == "STANDARD_IA"

    def test_listing(self, server: LocalS3, client: S3Client) -> None:
        for key in ["list/a/1", "list/a/2", "list/b/1", "list/c"]:
            server.put(BUCKET, key, b"x")
        pages = list(client.list_objects(BUCKET, "list/", "/", 1))
        assert len(pages) == 3
        assert [info.key for page in pages for info in page.object_info] == ["list/c"]
        assert [name for page in pages for name in page.common_prefixes] == ["list/a/", "list/b/"]


class TestPrefetch:
    def test_it_brings_what_is_read_first(self, server: LocalS3, client: S3Client) -> None:
        for info in (None, client.head_object(BUCKET, "data")):
            reader = client.get_object(BUCKET, "data", object_info=info)
            assert isinstance(reader, SequentialS3Reader)
            before = len(server.requests("GetObject"))
            reader.prefetch()
            reader.prefetch()
            assert reader.tell() == 0
            assert reader.read() == DATA
            assert len(server.requests("GetObject")) == before + 1

    def test_nothing_there(self, client: S3Client) -> None:
        empty, missing = (client.get_object(BUCKET, key) for key in ("empty", "missing"))
        assert isinstance(empty, SequentialS3Reader)
        assert isinstance(missing, SequentialS3Reader)
        empty.prefetch()
        assert empty.read() == b""
        with pytest.raises(ObjectNotFoundError):
            missing.prefetch()
        empty.close()
        with pytest.raises(ValueError, match="closed"):
            empty.prefetch()


class TestLife:
    def test_a_block_closes_idle_connections_and_the_client_goes_on(self, server: LocalS3) -> None:
        server.put(BUCKET, "life", b"here")
        with S3Client() as client:
            assert client.get_object(BUCKET, "life").read() == b"here"
            assert client.stats()["requests"] == 1
        assert client.stats()["requests"] == 0
        with pytest.raises(KeyError, match="of the block"), client as same:
            assert same is client
            assert same.get_object(BUCKET, "life").read() == b"here"
            raise KeyError("of the block")
