"""Promises of docs/semantics.md that no other test shows."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import s3dataset
from s3dataset import S3Checkpoint, S3Client, S3ClientConfig, S3MapDataset
from s3dataset.errors import ObjectChangedError, ObjectNotFoundError, PreconditionFailedError, S3Exception
from s3dataset.testing import Fault, LocalS3
from s3dataset.transforms import Bytes

BUCKET = "bucket"
MIB = 1 << 20


@pytest.fixture(scope="module")
def running():
    with LocalS3(BUCKET) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset_stats()
    yield running
    running.clear_faults()
    for key in running.keys(BUCKET):
        running.delete(BUCKET, key)


# -- Versions --------------------------------------------------------------------------------------------------------


def test_a_reader_reads_what_is_there_at_its_first_read(server):
    server.put(BUCKET, "k", b"old")
    reader = S3Client().get_object(BUCKET, "k")
    server.put(BUCKET, "k", b"newer")
    assert reader.read() == b"newer"


def test_what_was_fetched_stays_readable(server):
    server.put(BUCKET, "k", b"old")
    reader = S3Client().get_object(BUCKET, "k")
    assert reader.read() == b"old"
    server.put(BUCKET, "k", b"new")
    reader.seek(0)
    assert reader.read() == b"old"


# -- Retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "nbytes"), [("CompleteMultipartUpload", 12 * MIB), ("CopyObject", 10)])
def test_an_error_behind_status_200_that_stays_is_an_error(server, operation, nbytes):
    server.put(BUCKET, "source", b"x")
    server.add_fault(Fault.error_in_200(operation=operation, times=None))
    client = S3Client(s3client_config=S3ClientConfig(max_attempts=2))
    with pytest.raises(S3Exception, match="InternalError"):
        if operation == "CopyObject":
            client.copy_object(BUCKET, "source", BUCKET, "new")
        else:
            with client.put_object(BUCKET, "new") as writer:
                writer.write(bytes(nbytes))
    assert "new" not in server.keys(BUCKET)


# -- Listings --------------------------------------------------------------------------------------------------------


def test_keys_that_stay_are_listed_while_others_come_and_go():
    with LocalS3(BUCKET, "staying", latency_s=0.01) as server:
        server.add_synthetic("staying", "a/{}", size_bytes=1, count=20_000)
        stop = threading.Event()
        come = set()

        def come_and_go():
            number = 0
            while not stop.is_set():
                key = f"a/{number % 20_000:08d}+"
                server.put("staying", key, b"x")
                come.add(key)
                if number % 2:
                    server.delete("staying", key)
                number += 997

        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            listed = [entry.key for entry in s3dataset.Manifest.from_prefix("s3://staying/a/").objects]
        finally:
            stop.set()
            thread.join()
    assert come
    assert listed == sorted(set(listed))
    assert [key for key in listed if not key.endswith("+")] == [f"a/{number:08d}" for number in range(20_000)]
    assert {key for key in listed if key.endswith("+")} <= come


def test_a_dataset_keeps_its_listing_and_a_new_one_sees_what_came(server):
    server.put(BUCKET, "a/1", b"1")
    dataset = S3MapDataset.from_prefix(f"s3://{BUCKET}/a/", transform=Bytes())
    assert list(dataset) == [b"1"]
    server.put(BUCKET, "a/2", b"2")
    assert list(dataset) == [b"1"]
    assert list(S3MapDataset.from_prefix(f"s3://{BUCKET}/a/", transform=Bytes())) == [b"1", b"2"]


def test_a_client_keeps_no_listing(server):
    client = S3Client()
    for number in range(3):
        server.put(BUCKET, f"a/{number}", b"")
        assert sum(len(page.object_info) for page in client.list_objects(BUCKET, "a/")) == number + 1


# -- Writers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [10, 20 * MIB])
def test_an_object_appears_when_its_writer_is_closed(server, nbytes):
    server.put(BUCKET, "k", b"old")
    writer = S3Checkpoint().writer(f"s3://{BUCKET}/k")
    writer.write(bytes(nbytes))
    assert server.get(BUCKET, "k") == b"old"
    writer.close()
    assert server.get(BUCKET, "k") == bytes(nbytes)


@pytest.mark.parametrize("nbytes", [10, 20 * MIB])
def test_an_exception_leaves_what_was_there(server, nbytes):
    server.put(BUCKET, "k", b"old")
    with pytest.raises(RuntimeError, match="on purpose") as caught, S3Checkpoint().writer(f"s3://{BUCKET}/k") as writer:
        writer.write(bytes(nbytes))
        raise RuntimeError("on purpose")
    assert "was NOT saved" in str(caught.value.__notes__)
    assert server.get(BUCKET, "k") == b"old"
    assert server.uploads(BUCKET) == []


@pytest.mark.parametrize("nbytes", [10, 12 * MIB])
def test_of_two_writers_the_last_one_wins(server, nbytes):
    first, second = (S3Checkpoint().writer(f"s3://{BUCKET}/k") for _ in range(2))
    first.write(b"1" * nbytes)
    second.write(b"2" * nbytes)
    second.close()
    assert server.get(BUCKET, "k") == b"2" * nbytes
    first.close()
    assert server.get(BUCKET, "k") == b"1" * nbytes


@pytest.mark.parametrize("nbytes", [10, 12 * MIB])
def test_of_two_conditional_writers_one_gets_the_error(server, nbytes):
    first, second = (S3Checkpoint().writer(f"s3://{BUCKET}/k", if_none_match=True) for _ in range(2))
    first.write(b"1" * nbytes)
    second.write(b"2" * nbytes)  # both began while nothing was there
    first.close()
    with pytest.raises(PreconditionFailedError):
        second.close()
    assert server.get(BUCKET, "k") == b"1" * nbytes
    assert server.uploads(BUCKET) == []


@pytest.mark.parametrize(("operation", "nbytes"), [("PutObject", 1000), ("UploadPart", 12 * MIB)])
def test_a_byte_that_flips_on_its_way_up_is_sent_again(server, operation, nbytes):
    server.add_fault(Fault.corrupt(at=77, of="upload", operation=operation))
    with S3Checkpoint().writer(f"s3://{BUCKET}/k") as writer:
        writer.write(bytes(nbytes))
    assert server.get(BUCKET, "k") == bytes(nbytes)
    assert [record.status for record in server.requests(operation)].count(400) == 1


def test_a_deletion_in_a_bucket_with_versions_hides_the_object(running):
    running.create_bucket("versioned", versioned=True)
    client = S3Client()
    (info,) = client.put_many([("versioned", "k", b"bytes")])
    client.delete_object("versioned", "k")
    with pytest.raises(ObjectNotFoundError):
        client.head_object("versioned", "k")
    with client.get_object("versioned", "k", version_id=info.version_id) as reader:
        assert reader.read() == b"bytes"


# -- Deadlines, threads ----------------------------------------------------------------------------------------------


def test_the_deadlines_are_those_of_the_documents():
    from botocore.session import Session

    from s3dataset._config import resolved

    settings = resolved(S3ClientConfig(), Session())
    assert (settings.connect_timeout_s, settings.stall_timeout_s) == (3.0, 15.0)
    assert (settings.retry_max_elapsed_s, settings.save_max_elapsed_s) == (600.0, 1800.0)
    assert settings.max_attempts == 10


def test_threads_share_a_client(server):
    for number in range(40):
        server.put(BUCKET, f"a/{number}", str(number).encode())
    client = S3Client()

    def work(number):
        with client.put_object(BUCKET, f"b/{number}") as writer:
            writer.write(client.get_object(BUCKET, f"a/{number}").read())
        return bytes(client.get_range(BUCKET, f"b/{number}", 0, 2))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(40))) == [str(number).encode() for number in range(40)]
    with pytest.raises(ObjectChangedError):
        client.get_range(BUCKET, "a/1", 0, 1, etag='"another"')
