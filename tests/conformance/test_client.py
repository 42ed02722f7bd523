"""The client's operations against a server: what they give, in which order, and how they fail."""

import gc
import pickle
import weakref
from collections.abc import Iterator

import pytest

from s3dataset import errors
from s3dataset._client import Client, ClientRef, GetRequest, ObjectInfo, get_client
from s3dataset._config import S3ClientConfig
from s3dataset._uri import S3Uri
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, "elsewhere") as server:
        yield server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Keys of this test alone."""
    return f"{request.node.name}/"


@pytest.fixture(scope="module")
def client(server: LocalS3) -> Client:
    return Client()


def pattern(size: int, salt: int = 0) -> bytes:
    return bytes((i * 131 + i // 251 + salt) % 256 for i in range(min(size, 65521))) * (size // 65521 + 1)


def put(server: LocalS3, key: str, size: int, salt: int = 0) -> bytes:
    data = pattern(size, salt)[:size]
    server.put(BUCKET, key, data)
    return data


class TestGetMany:
    @pytest.mark.parametrize("ordered", [False, True])
    def test_gives_every_object_once(self, server: LocalS3, client: Client, prefix: str, ordered: bool) -> None:
        expected = [put(server, f"{prefix}{i}", 1000 + i, i) for i in range(300)]
        found = [
            (i, bytes(body))
            for i, body in client.get_many(((BUCKET, f"{prefix}{i}") for i in range(300)), ordered=ordered)
        ]
        if ordered:
            assert [i for i, _ in found] == list(range(300))
        assert dict(found) == dict(enumerate(expected))

    def test_takes_all_forms_of_requests(self, server: LocalS3, client: Client, prefix: str) -> None:
        data = put(server, f"{prefix}k", 100)
        etag = client.head_object(BUCKET, f"{prefix}k").etag
        requests = [
            f"s3://{BUCKET}/{prefix}k",
            S3Uri(BUCKET, f"{prefix}k"),
            (BUCKET, f"{prefix}k"),
            (BUCKET, f"{prefix}k", (10, 20)),
            (BUCKET, f"{prefix}k", None),
            GetRequest(BUCKET, f"{prefix}k", size=100, etag=etag),
            GetRequest(BUCKET, f"{prefix}k", (90, 200)),
        ]
        found = [bytes(body) for _, body in client.get_many(requests, ordered=True)]
        assert found == [data, data, data, data[10:20], data, data, data[90:]]

    def test_consumes_an_endless_iterable_as_there_is_room(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        pulled = 0

        def endless() -> Iterator[tuple[str, str]]:
            nonlocal pulled
            while True:
                pulled += 1
                yield BUCKET, f"{prefix}k"

        bodies = client.get_many(endless())
        for _ in range(5000):
            next(bodies)
        bodies.close()
        assert pulled <= 5000 + 4096

    def test_nothing_asked_nothing_given(self, client: Client) -> None:
        assert list(client.get_many([])) == []

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_failure_ends_it(self, server: LocalS3, client: Client, prefix: str, ordered: bool) -> None:
        put(server, f"{prefix}k", 10)
        with pytest.raises(errors.ObjectNotFoundError, match="Service error: The key does not exist"):
            list(client.get_many([(BUCKET, f"{prefix}k"), (BUCKET, f"{prefix}missing")] * 20, ordered=ordered))

    @pytest.mark.parametrize("ordered", [False, True])
    def test_failures_can_be_given_in_place(self, server: LocalS3, client: Client, prefix: str, ordered: bool) -> None:
        put(server, f"{prefix}k", 10)
        requests = [(BUCKET, f"{prefix}k"), (BUCKET, f"{prefix}missing")] * 20
        found = dict(client.get_many(requests, ordered=ordered, on_error="return"))
        assert len(found) == 40
        assert all(isinstance(found[i], errors.ObjectNotFoundError) == bool(i % 2) for i in found)

    def test_a_bad_request_among_good_ones(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        with pytest.raises(errors.InvalidUriError, match="nonsense"):
            list(client.get_many([f"s3://{BUCKET}/{prefix}k", "nonsense"]))

    def test_an_unknown_on_error(self, client: Client) -> None:
        with pytest.raises(ValueError, match="on_error"):
            client.get_many([], on_error="skip")  # type: ignore[call-overload]

    def test_large_objects_come_in_parallel_ranges(self, server: LocalS3, prefix: str) -> None:
        data = put(server, f"{prefix}k", 9 * MIB + 17)
        client = Client(s3client_config=S3ClientConfig(part_size=MIB))
        requests = [(BUCKET, f"{prefix}k"), GetRequest(BUCKET, f"{prefix}k", size=len(data))]
        for _, body in client.get_many(requests):
            assert bytes(body) == data
        assert client.stats()["requests"] > 10

    def test_empty_objects_are_empty(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 0)
        requests = [
            GetRequest(BUCKET, f"{prefix}k"),
            GetRequest(BUCKET, f"{prefix}k", size=0),
            (BUCKET, f"{prefix}k", (0, 5)),
        ]
        assert [len(body) for _, body in client.get_many(requests)] == [0, 0, 0]

    def test_bodies_tell_where_they_come_from(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 100)
        body = client.get_range(BUCKET, f"{prefix}k", 10, 30)
        assert (body.start, body.nbytes, body.object_size) == (10, 20, 100)
        assert body.etag == client.head_object(BUCKET, f"{prefix}k").etag
        assert (body.uri, body.size) == (f"s3://{BUCKET}/{prefix}k", 100)

    def test_an_etag_pins_the_version(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 100)
        with pytest.raises(errors.ObjectChangedError):
            client.get_range(BUCKET, f"{prefix}k", 0, 10, etag='"another"')

    def test_a_range_that_is_none(self, client: Client) -> None:
        for start, end in ((4, 2), (-1, 2)):
            with pytest.raises(ValueError, match="no range of bytes"):
                client.get_range(BUCKET, "k", start, end)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_objects_larger_than_the_byte_budget(self, server: LocalS3, prefix: str, ordered: bool) -> None:
        data = [put(server, f"{prefix}{i}", 700_000 + i, i) for i in range(30)]
        large = put(server, f"{prefix}large", 9 * MIB)
        client = Client(s3client_config=S3ClientConfig(memory_limit_bytes=MIB))
        requests = [(BUCKET, f"{prefix}{i}") for i in range(30)] + [(BUCKET, f"{prefix}large")]
        found = dict(client.get_many(requests, ordered=ordered))
        assert [bytes(found[i]) for i in range(30)] == data
        assert bytes(found[30]) == large

    def test_bodies_stay_as_they_are_while_others_are_fetched(
        self, server: LocalS3, client: Client, prefix: str
    ) -> None:
        data = [put(server, f"{prefix}{i}", 50_000, i) for i in range(40)]
        requests = [(BUCKET, f"{prefix}{i}") for i in range(40)]
        views = {i: memoryview(body) for i, body in client.get_many(requests)}
        for _, body in client.get_many(requests * 5):
            del body
        assert [views[i].tobytes() for i in range(40)] == data


class TestReadInto:
    def test_ranges_land_in_the_callers_memory(self, server: LocalS3, client: Client, prefix: str) -> None:
        data = put(server, f"{prefix}k", 1000)
        buffers = [bytearray(1000), bytearray(10), bytearray(5)]
        replies = client.read_into(
            [
                (BUCKET, f"{prefix}k", None, buffers[0]),
                (BUCKET, f"{prefix}k", (20, 30), buffers[1]),
                (BUCKET, f"{prefix}k", 995, memoryview(buffers[2])),
            ]
        )
        assert [bytes(b) for b in buffers] == [data, data[20:30], data[995:]]
        assert [reply.object_size for reply in replies] == [1000] * 3

    def test_a_buffer_of_another_length(self, client: Client) -> None:
        with pytest.raises(ValueError, match=r"\[0, 10\) has 10 bytes, its buffer 9"):
            client.read_into([(BUCKET, "k", (0, 10), bytearray(9))])

    def test_a_buffer_that_cannot_be_written(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        with pytest.raises((TypeError, BufferError)):
            client.read_into([(BUCKET, f"{prefix}k", None, bytes(10))])

    def test_an_object_that_is_shorter(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        with pytest.raises(errors.S3Exception, match=f"{prefix}k"):
            client.read_into([(BUCKET, f"{prefix}k", None, bytearray(20))])


class TestPutMany:
    def test_writes_and_tells_of_each(self, server: LocalS3, client: Client, prefix: str) -> None:
        data = [pattern(i, i) for i in range(600)]
        infos = client.put_many((BUCKET, f"{prefix}{i:03}", d) for i, d in enumerate(data))
        assert [(info.key, info.size) for info in infos] == [(f"{prefix}{i:03}", len(d)) for i, d in enumerate(data)]
        assert all(server.get(BUCKET, f"{prefix}{i:03}") == data[i] for i in (0, 1, 299, 599))
        assert infos[7].etag == client.head_object(BUCKET, f"{prefix}007").etag

    def test_takes_buffers_and_headers(self, server: LocalS3, client: Client, prefix: str) -> None:
        client.put_many(
            [
                (BUCKET, f"{prefix}a", bytearray(b"abc"), [("content-type", "image/png")]),
                (BUCKET, f"{prefix}b", memoryview(b"abc")[1:]),
            ]
        )
        assert (server.get(BUCKET, f"{prefix}a"), server.get(BUCKET, f"{prefix}b")) == (b"abc", b"bc")
        puts = [r for r in server.requests("PutObject") if r.key == f"{prefix}a"]
        assert puts[-1].headers["content-type"] == "image/png"
        assert "x-amz-checksum-crc64nvme" in puts[-1].headers

    def test_failures(self, client: Client) -> None:
        requests = [(BUCKET, "a", b"x"), ("no-such-bucket", "b", b"y")]
        with pytest.raises(errors.BucketNotFoundError, match="Service error: The bucket does not exist"):
            client.put_many(requests)
        written, failed = client.put_many(requests, on_error="return")
        assert isinstance(written, ObjectInfo)
        assert isinstance(failed, errors.BucketNotFoundError)

    def test_headers_of_the_configuration(self, server: LocalS3, prefix: str) -> None:
        config = S3ClientConfig(storage_class="STANDARD_IA", requester_pays=True, checksum=None)
        client = Client(s3client_config=config)
        client.put_many(
            [(BUCKET, f"{prefix}a", b"x"), (BUCKET, f"{prefix}b", b"x", [("x-amz-storage-class", "GLACIER")])]
        )
        sent = {r.key: r.headers for r in server.requests("PutObject") if r.key.startswith(prefix)}
        assert sent[f"{prefix}a"]["x-amz-storage-class"] == "STANDARD_IA"
        assert sent[f"{prefix}b"]["x-amz-storage-class"] == "GLACIER"
        assert sent[f"{prefix}a"]["x-amz-request-payer"] == "requester"
        assert not [name for name in sent[f"{prefix}a"] if name.startswith("x-amz-checksum")]


class TestListing:
    def test_pages_in_the_services_order(self, server: LocalS3, client: Client, prefix: str) -> None:
        keys = sorted((f"{prefix}{name}" for name in ("a", "b/", "b/1", "é", "Z", "鍵", "x y+z%")), key=str.encode)
        for key in keys:
            put(server, key, 3)
        pages = list(client.list_objects(BUCKET, prefix, max_keys=3))
        assert [len(page.object_info) for page in pages] == [3, 3, 1]
        infos = [info for page in pages for info in page.object_info]
        assert [info.key for info in infos] == keys
        assert {(info.size, info.storage_class) for info in infos} == {(3, "STANDARD")}
        head = client.head_object(BUCKET, keys[0])
        assert (infos[0].etag, infos[0].last_modified) == (head.etag, head.last_modified)

    def test_a_delimiter_gathers(self, server: LocalS3, client: Client, prefix: str) -> None:
        for name in ("a/1", "a/2", "b/1", "c"):
            put(server, f"{prefix}{name}", 1)
        (page,) = client.list_objects(BUCKET, prefix, "/")
        assert page.common_prefixes == [f"{prefix}a/", f"{prefix}b/"]
        assert [info.key for info in page.object_info] == [f"{prefix}c"]

    def test_nothing_there_is_one_empty_page(self, client: Client, prefix: str) -> None:
        assert [(p.object_info, p.common_prefixes) for p in client.list_objects(BUCKET, prefix)] == [([], [])]

    def test_a_missing_bucket(self, client: Client) -> None:
        with pytest.raises(errors.BucketNotFoundError, match="s3://no-such-bucket/"):
            next(client.list_objects("no-such-bucket"))

    def test_max_keys_below_one(self, client: Client) -> None:
        with pytest.raises(ValueError, match="max_keys"):
            client.list_objects(BUCKET, max_keys=0)


class TestSingleObjects:
    def test_head(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 12)
        info = client.head_object(BUCKET, f"{prefix}k")
        assert (info.key, info.size, info.restore_status) == (f"{prefix}k", 12, None)
        assert info.etag.startswith('"')
        assert info.last_modified > 1_600_000_000

    def test_head_of_a_missing_object(self, client: Client) -> None:
        with pytest.raises(errors.ObjectNotFoundError) as caught:
            client.head_object(BUCKET, "missing")
        assert str(caught.value).startswith(f"Service error: The key does not exist: s3://{BUCKET}/missing (HeadObject")
        assert (caught.value.status, caught.value.uri) == (404, f"s3://{BUCKET}/missing")
        assert caught.value.request_id

    def test_head_in_a_missing_bucket(self, client: Client) -> None:
        with pytest.raises(errors.BucketNotFoundError):
            client.head_object("no-such-bucket", "missing")

    def test_delete(self, server: LocalS3, client: Client, prefix: str) -> None:
        put(server, f"{prefix}k", 1)
        client.delete_object(BUCKET, f"{prefix}k")
        client.delete_object(BUCKET, f"{prefix}k")
        assert server.keys(BUCKET, prefix) == []

    def test_delete_many(self, server: LocalS3, client: Client, prefix: str) -> None:
        client.put_many((BUCKET, f"{prefix}{i} é&<", b"") for i in range(1100))
        assert client.delete_objects(BUCKET, (f"{prefix}{i} é&<" for i in range(1100))) == []
        assert server.keys(BUCKET, prefix) == []

    def test_delete_many_with_keys_that_xml_cannot_write(self, server: LocalS3, client: Client, prefix: str) -> None:
        special = [f"{prefix}{name}" for name in ("bell\a", "null\0", "\x1f", "\ufffe", "\uffff")]
        keys = [f"{prefix}{i} \t\r\n" for i in range(1001)] + special
        client.put_many((BUCKET, key, b"") for key in keys)
        server.reset_stats()
        assert client.delete_objects(BUCKET, iter(keys)) == []
        assert server.keys(BUCKET, prefix) == []
        operations = server.stats()["operations"]
        assert (operations["DeleteObjects"], operations["DeleteObject"]) == (2, len(special))

    def test_delete_many_names_those_that_were_not_deleted(self, server: LocalS3, client: Client, prefix: str) -> None:
        denied = f"{prefix}denied\a"
        for key in ("a", "b"):
            put(server, prefix + key, 1)
        server.add_fault(Fault.status(403, operation="DeleteObject", times=None))
        try:
            refused = client.delete_objects(BUCKET, [f"{prefix}a", "", denied, "\ud800", f"{prefix}b"])
        finally:
            server.clear_faults()
        assert server.keys(BUCKET, prefix) == []
        reasons = dict(refused)
        assert set(reasons) == {"", denied, "\ud800"}
        assert isinstance(reasons[denied], errors.AccessDeniedError)
        assert "Object key must be non-empty" in str(reasons[""])
        assert "cannot be UTF-8" in str(reasons["\ud800"])

    @pytest.mark.parametrize("name", ["plain", "a b+c%2F é鍵", "dots/../x//y"])
    def test_copy(self, server: LocalS3, client: Client, prefix: str, name: str) -> None:
        data = put(server, prefix + name, 1000)
        client.copy_object(BUCKET, prefix + name, "elsewhere", f"{name}-copy")
        assert server.get("elsewhere", f"{name}-copy") == data

    def test_copy_of_nothing(self, client: Client) -> None:
        with pytest.raises(errors.ObjectNotFoundError):
            client.copy_object(BUCKET, "missing", BUCKET, "copy")

    @pytest.mark.parametrize(
        "key", ["a b+c%2F~é/鍵//x", "/leading", "trailing/", "./..", "?#&=;:@!$'()*,[]\\|^`{}\"<>"]
    )
    def test_any_key(self, server: LocalS3, client: Client, prefix: str, key: str) -> None:
        client.put_many([(BUCKET, prefix + key, b"here")])
        assert bytes(client.get_range(BUCKET, prefix + key, 0, 10)) == b"here"
        assert prefix + key in server.keys(BUCKET, prefix)


class TestKeysThatAreNone:
    """A request without a key would be one about the bucket: a DELETE would delete it."""

    @pytest.mark.parametrize(
        "operation",
        [
            lambda c: c.delete_object(BUCKET, ""),
            lambda c: c.head_object(BUCKET, ""),
            lambda c: c.get_range(BUCKET, "", 0, 1),
            lambda c: list(c.get_many([(BUCKET, "")])),
            lambda c: list(c.get_many([S3Uri(BUCKET, "")])),
            lambda c: list(c.get_many([f"s3://{BUCKET}/"])),
            lambda c: c.read_into([(BUCKET, "", None, bytearray(1))]),
            lambda c: c.put_many([(BUCKET, "", b"x")]),
            lambda c: c.copy_object(BUCKET, "k", BUCKET, ""),
        ],
    )
    def test_are_refused(self, server: LocalS3, client: Client, operation) -> None:
        server.put(BUCKET, "k", b"")
        with pytest.raises(errors.InvalidUriError, match="Object key must be non-empty"):
            operation(client)

    def test_so_are_empty_buckets(self, client: Client) -> None:
        with pytest.raises(errors.InvalidUriError, match="Bucket name must be non-empty"):
            client.head_object("", "k")


class TestQueue:
    def test_waiting_can_be_bounded(self, client: Client, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        server.add_fault(Fault.delay(0.5, key=f"{prefix}k"))
        with client.queue() as queue:
            (index,) = queue.get([(BUCKET, f"{prefix}k", None, None, None, None)])
            with pytest.raises(TimeoutError):
                queue.take(index, 0.01)
            assert queue.next(1, 10, 0.01) == []
            assert (queue.unfinished, queue.untaken, queue.ready(index)) == (1, 0, False)
            assert len(queue.take(index)) == 10

    def test_cancelled_requests_have_results_too(self, client: Client, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        server.add_fault(Fault.stall(at=None, key=f"{prefix}k", times=None))
        with client.queue() as queue:
            indices = queue.get([(BUCKET, f"{prefix}k", None, None, None, None)] * 20)
            queue.cancel(indices)
            assert {type(result) for result in queue.take_many(indices)} == {errors.CancelledError}
        server.clear_faults()

    def test_an_index_is_taken_once(self, client: Client, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        with client.queue() as queue:
            (index,) = queue.get([(BUCKET, f"{prefix}k", None, None, None, None)])
            queue.take(index)
            with pytest.raises(IndexError):
                queue.take(index)


class TestEndpoints:
    def test_tls_with_an_authority_of_ones_own(self) -> None:
        with LocalS3(BUCKET, tls=True, activate=False) as server:
            server.put(BUCKET, "k", b"over TLS")
            keys = (server.access_key, server.secret_key)
            config = S3ClientConfig(ca_bundle=server.ca_bundle, credentials=keys)
            assert (
                bytes(Client(endpoint=server.endpoint, s3client_config=config).get_range(BUCKET, "k", 0, 99))
                == b"over TLS"
            )
            distrustful = S3ClientConfig(credentials=keys, max_attempts=1)
            with pytest.raises(errors.TransportError, match="ca_bundle"):
                Client(endpoint=server.endpoint, s3client_config=distrustful).head_object(BUCKET, "k")

    def test_virtual_hosts(self, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 10)
        config = S3ClientConfig(addressing_style="virtual")
        client = Client(endpoint=f"http://localhost:{server.port}", s3client_config=config)
        assert client.head_object(BUCKET, f"{prefix}k").size == 10
        hosts = [r.headers["host"] for r in server.requests("HeadObject") if r.key == f"{prefix}k"]
        assert hosts == [f"{BUCKET}.localhost:{server.port}"]

    def test_a_bundle_that_holds_nothing(self, server: LocalS3) -> None:
        with pytest.raises(errors.InvalidConfigError, match="ca_bundle holds no certificate"):
            Client(s3client_config=S3ClientConfig(ca_bundle=b"nonsense")).head_object(BUCKET, "k")


class TestLife:
    def test_the_registry_gives_one_client_for_the_same_settings(
        self, server: LocalS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = get_client("us-east-1", None, S3ClientConfig(part_size=MIB))
        assert get_client("us-east-1", None, S3ClientConfig(part_size=MIB)) is client
        assert get_client("us-east-1", None, None) is not client
        assert get_client("eu-west-1", None, S3ClientConfig(part_size=MIB)) is not client
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        assert get_client("us-east-1", None, S3ClientConfig(part_size=MIB)) is not client

    def test_clients_of_settings_that_nobody_uses_any_more_are_let_go(self, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 3)
        keys = (server.access_key, server.secret_key)
        held = get_client("us-east-1", None, S3ClientConfig(part_size=MIB))
        last: list[weakref.ref[Client]] = []
        for _ in range(100):
            client = get_client(None, None, S3ClientConfig(credentials=lambda: keys))
            client.head_object(BUCKET, f"{prefix}k")
            last.append(weakref.ref(client))
        del client
        gc.collect()
        kept = [client for ref in last if (client := ref())]
        assert 0 < len(kept) < 20
        assert kept[-1] is last[-1]()
        assert get_client("us-east-1", None, S3ClientConfig(part_size=MIB)) is held

    def test_a_reference_gives_the_client_and_pickles(self, server: LocalS3) -> None:
        ref = ClientRef("us-east-1", None, S3ClientConfig(part_size=MIB))
        assert ref.get() is ref.get()
        assert pickle.loads(pickle.dumps(ref)) == ref
        assert pickle.loads(pickle.dumps(ref)).get() is ref.get()

    def test_a_client_pickles_as_its_settings(self, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 3)
        client = Client("us-east-1", user_agent="mine/1.0", s3client_config=S3ClientConfig(part_size=MIB))
        other = pickle.loads(pickle.dumps(client))
        assert (other.region, other.user_agent, other.config) == (client.region, client.user_agent, client.config)
        assert other.head_object(BUCKET, f"{prefix}k").size == 3

    def test_credentials_given_survive_a_pickle_within_the_process(
        self, server: LocalS3, monkeypatch: pytest.MonkeyPatch, prefix: str
    ) -> None:
        put(server, f"{prefix}k", 3)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        config = S3ClientConfig(credentials=(server.access_key, server.secret_key))
        ref = ClientRef(None, None, config)
        assert pickle.loads(pickle.dumps(ref)).get() is ref.get()
        assert ref.get().head_object(BUCKET, f"{prefix}k").size == 3

    def test_a_closed_client_opens_again(self, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 3)
        client = Client()
        for _ in range(2):
            assert client.head_object(BUCKET, f"{prefix}k").size == 3
            client.close()
            client.close()

    def test_the_user_agent_names_us(self, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 3)
        Client(user_agent="mine/1.0").head_object(BUCKET, f"{prefix}k")
        agent = next(r.headers["user-agent"] for r in server.requests("HeadObject") if r.key == f"{prefix}k")
        assert agent.startswith("mine/1.0 s3dataset/")

    def test_statistics_count(self, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 1000)
        client = Client()
        before = client.stats()
        assert before["requests"] == before["bytes_in"] == 0
        list(client.get_many([(BUCKET, f"{prefix}k")] * 10))
        stats = client.stats()
        assert stats["requests"] == 10
        assert stats["bytes_in"] >= 10_000
        assert stats["by_operation"] == {"GetObject": 10}
        assert stats["lanes"] >= 1
        assert {name: type(value) for name, value in before.items()} == {name: type(stats[name]) for name in stats}

    def test_nothing_is_read_before_the_first_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
        client = Client()
        with pytest.raises(errors.InvalidConfigError, match="no-such-profile"):
            client.head_object(BUCKET, "k")

    def test_an_endpoint_that_is_no_url_is_refused_at_once(self) -> None:
        with pytest.raises(errors.InvalidConfigError, match="localhost:9000"):
            Client(endpoint="localhost:9000")

    def test_a_config_of_another_type(self) -> None:
        with pytest.raises(TypeError, match="S3ClientConfig"):
            Client(s3client_config={"part_size": 1})  # type: ignore[arg-type]


class TestWhoSigns:
    def test_no_credentials(self, server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(errors.NoCredentialsError, match=r"^Client error: No signing credentials found"):
            Client().head_object(BUCKET, "k")

    def test_a_wrong_secret(self, server: LocalS3) -> None:
        config = S3ClientConfig(credentials=(server.access_key, "wrong"))
        with pytest.raises((errors.AccessDeniedError, errors.CredentialsError), match="SignatureDoesNotMatch"):
            Client(s3client_config=config).get_range(BUCKET, "k", 0, 1)

    def test_unsigned_reads_of_public_buckets(self, server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        server.create_bucket("open", public=True)
        server.put("open", "k", b"all may read")
        client = Client(s3client_config=S3ClientConfig(unsigned=True))
        assert bytes(client.get_range("open", "k", 0, 100)) == b"all may read"
        with pytest.raises(errors.AccessDeniedError, match="k"):
            client.get_range(BUCKET, "k", 0, 1)

    def test_a_callable_is_asked_once(self, server: LocalS3, prefix: str) -> None:
        put(server, f"{prefix}k", 3)
        asked = []

        def keys() -> tuple[str, str]:
            asked.append(1)
            return server.access_key, server.secret_key

        client = Client(s3client_config=S3ClientConfig(credentials=keys))
        for _ in range(3):
            assert client.head_object(BUCKET, f"{prefix}k").size == 3
        assert len(asked) == 1
        client.close()
