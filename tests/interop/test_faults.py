"""Each fault of the local S3, as a client meets it on the wire."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from s3dataset.testing import Fault, LocalS3

from .conftest import ONE_ATTEMPT
from .errors import refused
from .wire import Wire

DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LocalS3]:
    with LocalS3("bucket", public=True, anonymous_writes=True, min_part_bytes=1, activate=False) as server:
        yield server


@pytest.fixture
def server(shared_server: LocalS3) -> Iterator[LocalS3]:
    shared_server.clear_faults()
    shared_server.reset_stats()
    for key in shared_server.keys("bucket"):
        shared_server.delete("bucket", key)
    shared_server.put("bucket", "k", DATA)
    yield shared_server
    shared_server.clear_faults()


@pytest.fixture
def wire(server: LocalS3) -> Iterator[Wire]:
    with Wire(server) as wire:
        yield wire


@pytest.fixture
def s3(server: LocalS3) -> Iterator[Any]:
    client = server.boto3_client(config=ONE_ATTEMPT)
    yield client
    client.close()


def get(wire: Wire, **headers: str) -> Any:
    return wire.request("GET", "/bucket/k", **headers)


class TestSelection:
    def test_by_operation_and_key(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.status(503, operation="Get*", key="k?/*", times=None))
        server.put("bucket", "k1/a/b", b"")
        assert get(wire).status == 200
        assert wire.request("HEAD", "/bucket/k1/a/b").status == 200
        assert wire.request("GET", "/bucket/k1/a/b").status == 503

    def test_by_number(self, server: LocalS3, wire: Wire) -> None:
        (number,) = server.add_fault(Fault.status(500, after=1, every=2, times=2))
        assert [get(wire).status for _ in range(7)] == [200, 500, 200, 500, 200, 200, 200]
        assert server.fault_counts() == {number: 2}
        assert server.stats()["faults"] == 2
        assert server.requests()[1].faults == ["status"]

    def test_by_chance(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.status(500, probability=0.5, seed=1, times=None))
        statuses = [get(wire).status for _ in range(100)]
        assert 30 < statuses.count(500) < 70

    def test_first_attempts_only(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.status(503, scope="request"))
        statuses = [get(wire, Range=f"bytes={start}-").status for start in (0, 0, 5, 5, 0)]
        assert statuses == [503, 206, 503, 206, 206]

    def test_rules_add_up_and_go(self, server: LocalS3, wire: Wire) -> None:
        first, _ = server.add_fault(Fault.delay(0.2, times=None), Fault.status(503, times=None))
        assert get(wire).status == 503
        assert server.requests()[0].duration_s >= 0.2
        server.clear_faults(first)
        assert get(wire).status == 503
        server.clear_faults()
        assert get(wire).status == 200

    def test_from_the_start(self) -> None:
        with (
            LocalS3("bucket", public=True, faults=[Fault.status(429, code="Slow")], activate=False) as server,
            Wire(server) as wire,
        ):
            answer = get(wire)
            assert (answer.status, b"<Code>Slow</Code>" in answer.body) == (429, True)


class TestAnswers:
    def test_statuses(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.status(503, retry_after_s=2, message="no & more"))
        answer = get(wire)
        assert answer.headers["retry-after"] == "2"
        assert b"<Code>SlowDown</Code><Message>no &amp; more</Message>" in answer.body
        server.add_fault(Fault.status(403, empty=True))
        assert get(wire).body == b""
        server.add_fault(Fault.status(500, body_bytes=3_000_000))
        assert len(get(wire).body) == 3_000_000
        server.add_fault(Fault.status(500, close=True))
        assert get(wire).headers["connection"] == "close"
        assert wire.ended()

    def test_a_refused_write_changes_nothing(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.status(503))
        assert wire.request("PUT", "/bucket/k", b"new").status == 503
        assert server.get("bucket", "k") == DATA

    def test_an_early_answer(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.early(403, at=1000))
        wire.send(wire.head("PUT", "/bucket/k", Content_Length="100000000") + bytes(2000))
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert wire.ended()
        assert server.requests()[0].bytes_in < 100_000

    @pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")])
    def test_wrong_regions(self, server: LocalS3, wire: Wire, status: Any, code: str) -> None:
        server.add_fault(Fault.wrong_region("eu-west-1", status=status))
        answer = get(wire)
        assert (answer.status, answer.headers["x-amz-bucket-region"]) == (status, "eu-west-1")
        assert code.encode() in answer.body

    def test_errors_in_200(self, server: LocalS3, s3: Any) -> None:
        server.add_fault(Fault.error_in_200(operation="CopyObject", after_s=0.2))
        # botocore makes a 500 of it.
        with refused(500, "InternalError"):
            s3.copy_object(Bucket="bucket", Key="c", CopySource={"Bucket": "bucket", "Key": "k"})
        assert server.keys("bucket") == ["k"]

    def test_slow_results(self, server: LocalS3, s3: Any) -> None:
        server.add_fault(Fault.slow_result(0.3, operation="CopyObject"))
        s3.copy_object(Bucket="bucket", Key="c", CopySource={"Bucket": "bucket", "Key": "k"})
        assert server.get("bucket", "c") == DATA
        assert server.requests("CopyObject")[0].duration_s >= 0.3

    def test_raw_answers(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.raw("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok"))
        assert get(wire).body == b"ok"
        assert wire.ended()

    def test_heads_in_single_bytes(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.split_head())
        wire.send(wire.head("GET", "/bucket/k"))
        assert wire.socket.recv(100) == b"H"
        wire._input = b"H"
        assert wire.answer().body == DATA

    def test_heads_without_end(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.endless_head())
        wire.send(wire.head("GET", "/bucket/k"))
        received = 0
        while received < 5_000_000:
            received += len(wire.socket.recv(65536))


class TestConnections:
    def test_reset_and_close(self, server: LocalS3) -> None:
        for fault, expected in ((Fault.reset(), ConnectionResetError), (Fault.close(), EOFError)):
            server.add_fault(fault)
            with Wire(server) as wire, pytest.raises(expected):
                get(wire)
        assert [record.status for record in server.requests()] == [0, 0]

    @pytest.mark.parametrize("at", [0, 1, 5000])
    def test_truncation(self, server: LocalS3, wire: Wire, at: int) -> None:
        server.add_fault(Fault.truncate(at=at))
        answer = get(wire)
        assert (answer.status, answer.short, answer.body) == (200, True, DATA[:at])

    def test_reset_within_a_body(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.reset(at=5000))
        with pytest.raises(ConnectionResetError):
            get(wire)
        assert wire._input == DATA[:5000]

    def test_a_cut_within_an_upload(self, server: LocalS3) -> None:
        for fault in (Fault.reset(at=100, operation="PutObject"), Fault.truncate(at=100, operation="PutObject")):
            server.add_fault(fault)
            with Wire(server) as wire:
                wire.send(wire.head("PUT", "/bucket/k", Content_Length="1000") + bytes(200))
                with pytest.raises((ConnectionResetError, EOFError)):
                    wire.answer()
        assert server.get("bucket", "k") == DATA

    def test_stalls(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.stall(at=100, duration_s=0.3))
        start = time.monotonic()
        assert get(wire).body == DATA
        assert time.monotonic() - start >= 0.3
        server.add_fault(Fault.stall(at=100))
        wire.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            get(wire)
        assert wire._input == DATA[:100]

    def test_close_after_an_answer(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.close_after())
        answer = get(wire)
        assert (answer.body, "connection" in answer.headers) == (DATA, False)
        assert wire.ended()

    def test_slow_bodies(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.slow(len(DATA) / 0.3))
        start = time.monotonic()
        assert get(wire).body == DATA
        assert time.monotonic() - start >= 0.25

    def test_outage(self) -> None:
        # A server of its own, because the others would not find theirs.
        with LocalS3("bucket", public=True, faults=[Fault.outage(60)], activate=False) as server, Wire(server) as idle:
            with Wire(server) as wire, pytest.raises(ConnectionResetError):
                get(wire)
            with pytest.raises(ConnectionResetError):
                idle.socket.recv(1)
            with pytest.raises(ConnectionRefusedError):
                Wire(server)
            # The control API stays.
            assert server.stats()["requests"] == 1


class TestBytes:
    def test_one_wrong_byte(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.corrupt(at=300, xor=1))
        body = get(wire).body
        assert [place for place in range(len(DATA)) if body[place] != DATA[place]] == [300]
        assert get(wire).body == DATA

    def test_chunked(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.chunked(times=None))
        answer = get(wire)
        assert (answer.body, "content-length" in answer.headers) == (DATA, False)
        assert get(wire, Range="bytes=5-9").body == DATA[5:10]

    @pytest.mark.parametrize("delta", [-1, 1])
    def test_wrong_lengths(self, server: LocalS3, wire: Wire, delta: int) -> None:
        server.add_fault(Fault.wrong_length(delta))
        answer = get(wire)
        assert answer.headers["content-length"] == str(len(DATA) + delta)
        assert answer.short == (delta > 0)


class TestStore:
    def test_replaced_between_two_ranges(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.replace(after=1))
        first, second, third = (get(wire, Range=f"bytes={start}-{start + 9}") for start in (0, 10, 20))
        assert first.headers["etag"] == second.headers["etag"] != third.headers["etag"]
        assert (second.body, third.headers["content-range"]) == (DATA[10:20], f"bytes 20-29/{len(DATA)}")
        assert get(wire, If_Match=second.headers["etag"]).status == 412
        assert server.get("bucket", "k") != DATA

    def test_replaced_before_the_answer_with_another_size(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.replace(before=True, size_bytes=3))
        assert len(get(wire).body) == 3

    def test_deleted(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.delete())
        assert get(wire).body == DATA
        assert get(wire).status == 404

    @pytest.mark.parametrize("ending", ["reset", "close", "stall"])
    def test_done_but_the_answer_is_lost(self, server: LocalS3, ending: Any) -> None:
        server.add_fault(Fault.lost_answer(ending=ending))
        with Wire(server) as wire:
            wire.socket.settimeout(1)
            with pytest.raises((OSError, EOFError)):
                wire.request("PUT", "/bucket/new", b"written")
        assert server.get("bucket", "new") == b"written"

    def test_done_but_said_to_have_failed(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.lost_status(500))
        assert wire.request("PUT", "/bucket/new", b"written").status == 500
        assert server.get("bucket", "new") == b"written"

    def test_conditions_ignored(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.ignore_conditions(times=2))
        assert get(wire, If_Match='"other"').status == 200
        assert wire.request("PUT", "/bucket/k", b"", If_None_Match="*").status == 200
        assert get(wire, If_Match='"other"').status == 412

    def test_checksums_refused(self, server: LocalS3, wire: Wire) -> None:
        server.add_fault(Fault.refuse_checksums())
        headers = {"x_amz_checksum_crc32": "AAAAAA=="}
        assert wire.request("PUT", "/bucket/k", b"", **headers).status == 501
        assert wire.request("PUT", "/bucket/k", b"", **headers).status == 200


class TestListings:
    @pytest.fixture(autouse=True)
    def keys(self, server: LocalS3) -> list[str]:
        keys = ["k", *(f"n{number:02}" for number in range(20))]
        for key in keys[1:]:
            server.put("bucket", key, b"")
        return keys

    def listed(self, s3: Any) -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", PaginationConfig={"PageSize": 7})
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def test_unordered(self, server: LocalS3, s3: Any, keys: list[str]) -> None:
        server.add_fault(Fault.listing("unordered", times=None))
        listed = self.listed(s3)
        assert listed != keys
        assert sorted(listed) == keys

    def test_a_key_twice(self, server: LocalS3, s3: Any, keys: list[str]) -> None:
        server.add_fault(Fault.listing("duplicate", after=1))
        listed = self.listed(s3)
        assert (sorted(set(listed)), len(listed)) == (keys, len(keys) + 1)

    def test_a_page_without_keys(self, server: LocalS3, s3: Any, keys: list[str]) -> None:
        server.add_fault(Fault.listing("empty", after=1))
        assert s3.list_objects_v2(Bucket="bucket", MaxKeys=7)["KeyCount"] == 7
        page = s3.list_objects_v2(Bucket="bucket")
        assert (page["KeyCount"], page["IsTruncated"]) == (0, True)
        following = s3.list_objects_v2(Bucket="bucket", ContinuationToken=page["NextContinuationToken"])
        assert [entry["Key"] for entry in following["Contents"]] == keys

    def test_without_end(self, server: LocalS3, s3: Any) -> None:
        server.add_fault(Fault.listing("endless", times=None))
        assert s3.list_objects_v2(Bucket="bucket")["IsTruncated"] is True
