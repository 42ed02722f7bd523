"""Directory buckets (S3 Express One Zone) end to end: sessions, listings without order, what such buckets refuse."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import torch.utils.data

from s3dataset import Manifest, S3Client, S3ClientConfig, S3MapDataset, errors
from s3dataset.testing import Fault, LocalS3

BUCKET = "data--use1-az4--x-s3"
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, "plain") as server:
        yield server


@pytest.fixture
def client(server: LocalS3) -> Iterator[S3Client]:
    server.reset_stats()
    client = S3Client()
    yield client
    client.close()
    server.clear_faults()


def operations(server: LocalS3) -> Counter[str]:
    return Counter(record.operation for record in server.requests())


class TestSessions:
    def test_one_is_made_and_signs_what_follows(self, server: LocalS3, client: S3Client) -> None:
        keys = [f"a/{i}" for i in range(200)]
        client.put_many((BUCKET, key, key.encode()) for key in keys)
        found = {i: bytes(body) for i, body in client.get_many((BUCKET, key) for key in keys)}
        assert found == {i: key.encode() for i, key in enumerate(keys)}
        assert operations(server) == {"CreateSession": 1, "PutObject": 200, "GetObject": 200}
        for record in server.requests():
            headers = record.headers
            assert "/us-east-1/s3express/aws4_request" in headers["authorization"]
            assert ("x-amz-s3session-token" in headers) == (record.operation != "CreateSession")
            assert "x-amz-security-token" not in headers
        assert client.stats()["by_operation"]["CreateSession"] == 1

    def test_each_bucket_has_its_own(self, server: LocalS3, client: S3Client) -> None:
        other = "other--use1-az4--x-s3"
        server.create_bucket(other)
        for bucket in (BUCKET, other, "plain"):
            client.put_many([(bucket, "each", b"x")])
        assert operations(server)["CreateSession"] == 2

    def test_keys_of_a_role_make_one_too(self, server: LocalS3) -> None:
        with LocalS3(BUCKET, session_token="of/the+role==", activate=False) as guarded:
            config = S3ClientConfig(credentials=(guarded.access_key, guarded.secret_key, "of/the+role=="))
            client = S3Client("us-east-1", endpoint=guarded.endpoint, s3client_config=config)
            client.put_many([(BUCKET, "k", b"x")])
            client.copy_object(BUCKET, "k", BUCKET, "copy")
            sent = {record.operation: set(record.headers) for record in guarded.requests()}
            tokens = {"x-amz-security-token", "x-amz-s3session-token"}
            assert {operation: names & tokens for operation, names in sent.items()} == {
                "CreateSession": {"x-amz-security-token"},
                "PutObject": {"x-amz-s3session-token"},
                "CopyObject": {"x-amz-security-token"},
            }
            client.close()

    def test_under_a_name_of_its_own(self, server: LocalS3) -> None:
        endpoint = f"http://localhost:{server.port}"
        client = S3Client("us-east-1", endpoint=endpoint, s3client_config=S3ClientConfig())
        client.put_many([(BUCKET, "named", b"x")])
        host = server.requests("PutObject")[-1].headers["host"]
        assert host == f"{BUCKET}.localhost:{server.port}"
        client.close()

    def test_a_session_that_ends_is_replaced(self) -> None:
        with LocalS3(BUCKET, session_lifetime_s=2) as server:
            client = S3Client()
            client.put_many([(BUCKET, "k", b"x")])
            while operations(server)["CreateSession"] < 3:
                assert bytes(client.get_range(BUCKET, "k", 0, 1)) == b"x"
                time.sleep(0.02)
            client.close()

    def test_one_that_the_service_refuses_is_replaced(self, server: LocalS3, client: S3Client) -> None:
        client.put_many([(BUCKET, "k", b"x")])
        server.add_fault(Fault.status(400, code="ExpiredToken", operation="GetObject", times=1))
        assert bytes(client.get_range(BUCKET, "k", 0, 1)) == b"x"
        assert operations(server)["CreateSession"] == 2

    def test_threads_share_it(self, server: LocalS3, client: S3Client) -> None:
        server.put(BUCKET, "k", b"x")
        server.add_fault(Fault.delay(0.2, operation="CreateSession"))
        read: list[bytes] = []

        def reads() -> None:
            read.append(bytes(client.get_range(BUCKET, "k", 0, 1)))

        threads = [threading.Thread(target=reads) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read == [b"x"] * 16
        assert operations(server) == {"CreateSession": 1, "GetObject": 16}

    def test_one_that_cannot_be_made_says_why(self, server: LocalS3, client: S3Client) -> None:
        server.add_fault(Fault.status(403, code="AccessDenied", operation="CreateSession"))
        with pytest.raises(errors.AccessDeniedError, match=r"no session.*s3express:CreateSession") as caught:
            client.get_range(BUCKET, "k", 0, 1)
        assert (caught.value.operation, caught.value.uri) == ("GetObject", f"s3://{BUCKET}/k")
        with pytest.raises(errors.BucketNotFoundError):
            client.get_range("none--use1-az4--x-s3", "k", 0, 1)

    def test_one_that_cannot_be_had(self, server: LocalS3, client: S3Client) -> None:
        server.add_fault(Fault.status(500, code="InternalError", operation="CreateSession", times=None))
        impatient = S3Client(s3client_config=S3ClientConfig(max_attempts=2))
        with pytest.raises(errors.RetriesExhaustedError, match=r"kept failing.*no session"):
            impatient.get_range(BUCKET, "k", 0, 1)
        assert operations(server) == {"CreateSession": 2}
        impatient.close()

    def test_making_one_is_tried_again(self, server: LocalS3, client: S3Client) -> None:
        server.put(BUCKET, "k", b"x")
        server.add_fault(Fault.status(500, code="InternalError", operation="CreateSession", times=2))
        assert bytes(client.get_range(BUCKET, "k", 0, 1)) == b"x"
        assert operations(server)["CreateSession"] == 3

    def test_an_old_one_serves_while_it_cannot_be_replaced(self) -> None:
        with LocalS3(BUCKET, session_lifetime_s=8) as server:
            client = S3Client()
            client.put_many([(BUCKET, "k", b"x")])
            server.add_fault(Fault.status(503, code="ServiceUnavailable", operation="CreateSession"))
            while operations(server)["CreateSession"] < 2:  # in its last quarter
                assert bytes(client.get_range(BUCKET, "k", 0, 1)) == b"x"
                time.sleep(0.02)
            assert bytes(client.get_range(BUCKET, "k", 0, 1)) == b"x"
            assert operations(server)["CreateSession"] == 2  # the one that failed is not repeated at once
            client.close()

    def test_can_be_done_without(self, server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_S3_DISABLE_EXPRESS_SESSION_AUTH", "true")
        server.reset_stats()
        client = S3Client()
        client.put_many([(BUCKET, "k", b"x")])
        assert operations(server) == {"PutObject": 1}
        client.close()

    def test_none_of_them_is_public(self) -> None:
        client = S3Client(s3client_config=S3ClientConfig(unsigned=True))
        with pytest.raises(errors.InvalidConfigError, match=r"directory bucket.*unsigned"):
            client.get_range(BUCKET, "k", 0, 1)
        client.close()

    def test_how_objects_are_encrypted_is_said_when_it_is_made(self, server: LocalS3) -> None:
        server.reset_stats()
        client = S3Client(s3client_config=S3ClientConfig(kms_key_id="key", storage_class="EXPRESS_ONEZONE"))
        client.put_many([(BUCKET, "k", b"x")])
        for record in server.requests():
            headers = record.headers
            assert headers["x-amz-server-side-encryption"] == "aws:kms"
            assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key"
            assert ("x-amz-storage-class" in headers) == (record.operation == "PutObject")
        client.close()


class TestOperations:
    def test_all_of_them(self, server: LocalS3, client: S3Client) -> None:
        data = bytes(range(256)) * (12 * MIB // 256)
        with client.put_object(BUCKET, "large") as writer:
            writer.write(data)
        assert client.head_object(BUCKET, "large").size == len(data)
        with client.get_object(BUCKET, "large") as reader:
            assert reader.read() == data
        client.copy_object(BUCKET, "large", BUCKET, "dir/copy")
        client.copy_object(BUCKET, "large", "plain", "copy")
        client.copy_object("plain", "copy", BUCKET, "dir/back")
        assert server.get(BUCKET, "dir/back") == data
        assert client.delete_objects(BUCKET, ["dir/copy", "dir/back"]) == []
        client.delete_object(BUCKET, "large")
        assert server.keys(BUCKET, "dir/") == []
        assert server.uploads(BUCKET) == []

    def test_tags_stay_behind(self, server: LocalS3, client: S3Client) -> None:
        server.put("plain", "tagged", b"x", x_amz_tagging="a=b")
        client.copy_object("plain", "tagged", BUCKET, "copied")
        assert server.get(BUCKET, "copied") == b"x"
        with pytest.raises(errors.S3Exception, match="x-amz-tagging"):
            client.put_many([(BUCKET, "t", b"x")], tags={"a": "b"})
        assert len(server.requests("PutObject")) == 1  # whose checksum was not taken for the cause


@pytest.fixture(scope="module")
def tree(server: LocalS3) -> list[str]:
    bucket = "tree--use1-az4--x-s3"
    server.create_bucket(bucket)
    names = ["img/cat", "img/cats", "img/dog", "images", "im"]
    keys = [f"{name}/{i:04}" for name in names for i in range(250)] + ["img/cat.txt", "imx"]
    S3Client().put_many((bucket, key, b"") for key in keys)
    return sorted(keys)


class TestListing:
    BUCKET = "tree--use1-az4--x-s3"

    @pytest.mark.parametrize("prefix", ["", "img/", "img", "img/ca", "img/cat/", "im", "img/cat/00", "none", "none/x"])
    def test_a_prefix_may_end_anywhere(self, client: S3Client, tree: list[str], prefix: str) -> None:
        expected = [key for key in tree if key.startswith(prefix)]
        pages = list(client.list_objects(self.BUCKET, prefix))
        assert sorted(info.key for page in pages for info in page.object_info) == expected
        assert not any(page.common_prefixes for page in pages)
        assert pages
        if expected:
            manifest = Manifest.from_prefix(f"s3://{self.BUCKET}/{prefix}")
            assert [manifest.key(i) for i in range(len(manifest))] == expected

    def test_a_delimiter(self, client: S3Client, tree: list[str]) -> None:
        (page,) = client.list_objects(self.BUCKET, "img/ca", "/")
        assert sorted(page.common_prefixes) == ["img/cat/", "img/cats/"]
        assert [info.key for info in page.object_info] == ["img/cat.txt"]

    def test_only_directories_that_fit_are_looked_into(
        self, server: LocalS3, client: S3Client, tree: list[str]
    ) -> None:
        assert sum(len(page.object_info) for page in client.list_objects(self.BUCKET, "img/cat")) == 501
        asked = [record.query for record in server.requests("ListObjectsV2")]
        assert len(asked) == 3  # img/ with a delimiter, img/cat/, img/cats/

    def test_a_pattern(self, tree: list[str]) -> None:
        manifest = Manifest.from_prefix(f"s3://{self.BUCKET}/img/ca", pattern="t*/0001")
        assert len(manifest) == 2

    def test_workers(self, server: LocalS3, tree: list[str]) -> None:
        server.reset_stats()
        dataset = S3MapDataset.from_prefix(f"s3://{self.BUCKET}/im", transform=lambda reader: len(reader.read()))
        loader = torch.utils.data.DataLoader(dataset, batch_size=50, num_workers=2, multiprocessing_context="fork")
        assert sum(len(batch) for batch in loader) == len(tree)
        assert 2 <= operations(server)["CreateSession"] <= 3  # one a worker; this process may have one

    def test_a_dataset(self, tree: list[str]) -> None:
        dataset = S3MapDataset.from_prefix(f"s3://{self.BUCKET}/img/cat", transform=lambda reader: reader.key)
        assert len(dataset) == 501
        assert [dataset[i] for i in (0, 250, 500)] == ["img/cat.txt", "img/cat/0249", "img/cats/0249"]
