"""What is said of objects when they are written, and what it takes to read them: encryption, owners, archives."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from s3dataset import S3Checkpoint, S3Client, S3ClientConfig, errors
from s3dataset.testing import LocalS3

BUCKET = "bucket"
MIB = 1 << 20
KEY = bytes(range(32))
KMS = "arn:aws:kms:us-east-1:123456789012:key/k"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, "mine-123456789012") as server:
        yield server


@pytest.fixture(scope="module")
def boto3(server: LocalS3) -> Iterator[Any]:
    client = server.boto3_client()
    yield client
    client.close()


def client_with(**config: Any) -> S3Client:
    return S3Client(s3client_config=S3ClientConfig(**config))


class TestWriting:
    @pytest.mark.parametrize("nbytes", [10, 12 * MIB], ids=["one request", "parts"])
    def test_a_writer_says_what_it_is_told(self, boto3: Any, nbytes: int) -> None:
        client = client_with(tags={"from": "configuration"}, storage_class="STANDARD_IA", kms_key_id=KMS)
        with client.put_object(
            BUCKET,
            f"told/{nbytes}",
            content_type="image/png",
            metadata={"Label": "cat"},
            tags={"team": "vision & more"},
            headers=[("cache-control", "no-store")],
        ) as writer:
            writer.write(bytes(nbytes))
        head = boto3.head_object(Bucket=BUCKET, Key=f"told/{nbytes}")
        assert (head["ContentType"], head["CacheControl"], head["StorageClass"]) == (
            "image/png",
            "no-store",
            "STANDARD_IA",
        )
        assert head["Metadata"]["label"] == "cat"
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KMS)
        tags = boto3.get_object_tagging(Bucket=BUCKET, Key=f"told/{nbytes}")["TagSet"]
        assert tags == [{"Key": "team", "Value": "vision & more"}]

    def test_what_a_call_says_of_encryption_is_all_that_is_said(self, boto3: Any) -> None:
        client = client_with(kms_key_id=KMS, bucket_key=True, kms_context={"a": "b"})
        with client.put_object(BUCKET, "plainly", sse="AES256") as writer:
            writer.write(b"x")
        head = boto3.head_object(Bucket=BUCKET, Key="plainly")
        assert head["ServerSideEncryption"] == "AES256"
        assert not {"SSEKMSKeyId", "BucketKeyEnabled"} & set(head)

    def test_many_at_once(self, boto3: Any) -> None:
        client = client_with(tags={"a": "b"})
        client.put_many(
            [
                (BUCKET, "many/0", b"x"),
                (BUCKET, "many/1", b"x", [("content-type", "own/type"), ("x-amz-meta-n", "1")]),
            ],
            content_type="common/type",
            metadata={"run": "7"},
            storage_class="ONEZONE_IA",
        )
        heads = [boto3.head_object(Bucket=BUCKET, Key=f"many/{i}") for i in range(2)]
        assert [head["ContentType"] for head in heads] == ["common/type", "own/type"]
        assert [head["Metadata"] for head in heads] == [{"run": "7"}, {"run": "7", "n": "1"}]
        assert {head["StorageClass"] for head in heads} == {"ONEZONE_IA"}
        assert boto3.get_object_tagging(Bucket=BUCKET, Key="many/0")["TagSet"] == [{"Key": "a", "Value": "b"}]

    def test_checkpoints_follow_the_configuration(self, boto3: Any) -> None:
        checkpoint = S3Checkpoint(s3client_config=S3ClientConfig(sse="aws:kms", tags={"job": "7"}))
        with checkpoint.writer(f"s3://{BUCKET}/model.pt") as writer:
            writer.write(b"x")
        assert boto3.head_object(Bucket=BUCKET, Key="model.pt")["ServerSideEncryption"] == "aws:kms"
        assert boto3.get_object_tagging(Bucket=BUCKET, Key="model.pt")["TagSet"] == [{"Key": "job", "Value": "7"}]

    def test_copies_keep_their_tags(self, server: LocalS3, boto3: Any) -> None:
        server.put(BUCKET, "tagged", b"x", x_amz_tagging="own=1")
        client_with(tags={"from": "configuration"}).copy_object(BUCKET, "tagged", BUCKET, "copied")
        assert boto3.get_object_tagging(Bucket=BUCKET, Key="copied")["TagSet"] == [{"Key": "own", "Value": "1"}]


class TestCustomerKey:
    """SSE-C: the key goes with what reads or writes objects, and with nothing else."""

    @pytest.mark.parametrize("nbytes", [10, 20 * MIB], ids=["one request", "parts"])
    def test_written_and_read_with_the_key_alone(self, server: LocalS3, nbytes: int) -> None:
        data = bytes(range(256)) * (nbytes // 256 + 1)
        client = client_with(sse_customer_key=KEY)
        with client.put_object(BUCKET, "secret/k") as writer:
            writer.write(data)
        with client.get_object(BUCKET, "secret/k") as reader:
            assert reader.read() == data
        assert client.head_object(BUCKET, "secret/k").size == len(data)
        client.copy_object(BUCKET, "secret/k", BUCKET, "secret/copy")
        assert bytes(client.get_range(BUCKET, "secret/copy", 1, 3)) == data[1:3]
        with pytest.raises(errors.S3Exception, match="Server Side Encryption"):
            client_with().get_range(BUCKET, "secret/k", 0, 1)
        with pytest.raises(errors.AccessDeniedError):
            client_with(sse_customer_key=bytes(32)).get_range(BUCKET, "secret/copy", 0, 1)

    def test_as_boto3_has_it(self, boto3: Any) -> None:
        keys = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
        client_with(sse_customer_key=base64.b64encode(KEY).decode()).put_many([(BUCKET, "both", b"ours")])
        assert boto3.get_object(Bucket=BUCKET, Key="both", **keys)["Body"].read() == b"ours"
        boto3.put_object(Bucket=BUCKET, Key="both", Body=b"theirs", **keys)
        assert bytes(client_with(sse_customer_key=KEY).get_range(BUCKET, "both", 0, 9)) == b"theirs"

    def test_where_it_goes(self, server: LocalS3) -> None:
        client = client_with(sse_customer_key=KEY)
        server.reset_stats()
        with client.put_object(BUCKET, "where/k") as writer:
            writer.write(bytes(12 * MIB))
        list(client.list_objects(BUCKET, "where/"))
        client.head_object(BUCKET, "where/k")
        client.delete_objects(BUCKET, ["where/k"])
        client.delete_object(BUCKET, "where/k")
        name = "x-amz-server-side-encryption-customer-key"
        with_it = {record.operation for record in server.requests() if name in record.headers}
        without = {record.operation for record in server.requests() if name not in record.headers}
        assert with_it == {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject"}
        assert without == {"ListObjectsV2", "DeleteObjects", "DeleteObject"}
        digest = base64.b64encode(hashlib.md5(KEY).digest()).decode()
        assert server.requests("UploadPart")[0].headers[f"{name}-md5"] == digest

    def test_never_over_an_open_wire(self) -> None:
        client = S3Client(endpoint="http://store.example", s3client_config=S3ClientConfig(sse_customer_key=KEY))
        with pytest.raises(errors.InvalidConfigError, match="unencrypted"):
            client.get_range(BUCKET, "k", 0, 1)


class TestReading:
    def test_archived_objects_say_what_to_do(self, server: LocalS3) -> None:
        server.put(BUCKET, "cold", b"x", x_amz_storage_class="DEEP_ARCHIVE")
        client = client_with()
        with pytest.raises(errors.ObjectArchivedError, match=r"archived.*DEEP_ARCHIVE.*restore") as caught:
            client.get_range(BUCKET, "cold", 0, 1)
        assert (caught.value.code, caught.value.status) == ("InvalidObjectState", 403)
        assert client.head_object(BUCKET, "cold").storage_class == "DEEP_ARCHIVE"

    def test_another_owner_than_expected(self, server: LocalS3) -> None:
        server.put(BUCKET, "k", b"x")
        assert bytes(client_with(expected_bucket_owner="123456789012").get_range(BUCKET, "k", 0, 1)) == b"x"
        with pytest.raises(errors.AccessDeniedError):
            client_with(expected_bucket_owner="210987654321").get_range(BUCKET, "k", 0, 1)

    def test_whoever_signs_pays(self, server: LocalS3) -> None:
        server.create_bucket("paid", requester_pays=True)
        server.put("paid", "k", b"x")
        assert bytes(client_with(requester_pays=True).get_range("paid", "k", 0, 1)) == b"x"
        with pytest.raises(errors.AccessDeniedError):
            client_with().get_range("paid", "k", 0, 1)

    def test_a_version_is_asked_for_by_every_request(self, server: LocalS3) -> None:
        server.create_bucket("versioned", versioned=True)
        client = client_with()
        (older,) = client.put_many([("versioned", "k", bytes(30 * MIB))])
        (newer,) = client.put_many([("versioned", "k", b"another")])
        assert older.version_id != newer.version_id
        server.reset_stats()
        version_id = older.version_id
        info = client.head_object("versioned", "k", version_id=version_id)
        assert (info.size, info.version_id) == (30 * MIB, version_id)
        assert len(client.get_range("versioned", "k", 0, 30 * MIB, version_id=version_id)) == 30 * MIB
        with client.get_object("versioned", "k", version_id=version_id) as reader:
            assert reader.read() == bytes(30 * MIB)
        asked = {(record.operation, record.query) for record in server.requests()}
        assert asked == {(operation, f"versionId={version_id}") for operation in ("HeadObject", "GetObject")}
        assert len(server.requests("GetObject")) > 4
        with pytest.raises(errors.ObjectNotFoundError, match="NoSuchVersion"):
            client.get_range("versioned", "k", 0, 1, version_id="a/b +")
        assert server.requests("GetObject")[-1].query == "versionId=a%2Fb%20%2B"
        assert bytes(client.get_range("versioned", "k", 0, 9)) == b"another"


class TestAccessPoints:
    ARN = "arn:aws:s3:us-east-1:123456789012:accesspoint/mine"

    @pytest.fixture
    def client(self, server: LocalS3) -> Iterator[S3Client]:
        client = S3Client("us-east-1", endpoint=f"http://localhost:{server.port}")
        yield client
        client.close()

    def test_an_arn_stands_for_the_bucket(self, server: LocalS3, client: S3Client) -> None:
        client.put_many([(self.ARN, "a/k", b"data")])
        assert server.get("mine-123456789012", "a/k") == b"data"
        ((_, body),) = client.get_many([f"s3://{self.ARN}/a/k"])
        assert (bytes(body), body.uri) == (b"data", f"s3://{self.ARN}/a/k")
        (page,) = client.list_objects(self.ARN, "a/")
        assert [info.key for info in page.object_info] == ["a/k"]
        client.copy_object(self.ARN, "a/k", self.ARN, "b/k")
        assert server.get("mine-123456789012", "b/k") == b"data"
        assert server.requests("CopyObject")[-1].headers["host"] == f"mine-123456789012.localhost:{server.port}"

    def test_what_is_missing_is_named_by_it(self, client: S3Client) -> None:
        with pytest.raises(errors.ObjectNotFoundError) as caught:
            client.get_range(self.ARN, "none", 0, 1)
        assert caught.value.uri == f"s3://{self.ARN}/none"
