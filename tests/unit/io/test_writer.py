"""S3Writer: what is sent, and that nothing is half-published."""

import copy
import gc
import io
import itertools
import logging
import pickle
import random
import threading

import pytest
from tests.unit.io.fake_service import BUCKET, FakeClient, FakeService

from s3dataset._io import S3Writer
from s3dataset._io._part_sizes import MAX_PARTS, PartSizes
from s3dataset.errors import (
    AccessDeniedError,
    ConflictError,
    PreconditionFailedError,
    RetriesExhaustedError,
    S3Exception,
    TransportError,
)

KIB = 1 << 10
MIB = 1 << 20

DATA = random.Random(0).randbytes(80 * MIB)


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def client(service):
    return FakeClient(service, part_size=5 * MIB)


def writer_of(client, **options):
    return S3Writer(client, BUCKET, "key", **options)


def operations(service):
    return [request.operation for request in service.requests]


def written(service):
    return service.objects["key"].data


class TestWhatIsSent:
    @pytest.mark.parametrize("nbytes", [0, 2, 64 * KIB, 64 * KIB + 1, MIB, 5 * MIB])
    def test_what_fits_into_a_part_is_a_single_put(self, client, service, nbytes):
        with writer_of(client) as writer:
            for at in range(0, nbytes, 300 * KIB):
                writer.write(DATA[at : min(at + 300 * KIB, nbytes)])
        assert written(service) == DATA[:nbytes]
        assert operations(service) == ["PutObject"]

    def test_more_goes_in_parts(self, client, service):
        with writer_of(client) as writer:
            assert writer.write(DATA[: 23 * MIB]) == 23 * MIB
        assert written(service) == DATA[: 23 * MIB]
        assert operations(service)[0] == "CreateMultipartUpload"
        assert operations(service)[-1] == "CompleteMultipartUpload"
        parts = sorted((r.part_number, r.nbytes) for r in service.requests if r.operation == "UploadPart")
        assert parts == [(1, 5 * MIB), (2, 5 * MIB), (3, 5 * MIB), (4, 5 * MIB), (5, 3 * MIB)]

    def test_large_pieces_are_sent_from_where_they_are(self, client, service):
        with writer_of(client) as writer:
            writer.write(b"head")
            writer.write(DATA[: 70 * MIB])
            writer.write(b"tail")
        assert written(service) == b"head" + DATA[: 70 * MIB] + b"tail"
        assert client.most_buffered_bytes <= 3 * 5 * MIB

    @pytest.mark.parametrize("large", [False, True])
    def test_memory_may_be_overwritten_after_write(self, client, service, large):
        # The service looks at what it was given only when a request ends, and refuses what changed meanwhile.
        source = bytearray(66 * MIB if large else 700 * KIB)
        expected = io.BytesIO()
        with writer_of(client) as writer:
            for i in range(2 if large else 60):
                source[:] = DATA[i * MIB // 2 : i * MIB // 2 + len(source)]
                expected.write(source)
                writer.write(memoryview(source))
                source[:] = bytes(len(source))
        assert written(service) == expected.getvalue()

    def test_buffers_stay_within_half_of_the_budget(self, service):
        client = FakeClient(service, part_size=5 * MIB, memory_limit_bytes=40 * MIB)
        service.random.random = lambda: 0.9  # parts end when somebody waits for them
        with writer_of(client) as writer:
            for at in range(0, len(DATA), MIB):
                writer.write(DATA[at : at + MIB])
        assert written(service) == DATA
        assert client.most_buffered_bytes <= 25 * MIB

    def test_a_budget_without_room_stops_nobody(self, service):
        client = FakeClient(service, part_size=5 * MIB, memory_limit_bytes=1)
        with writer_of(client) as writer:
            for at in range(0, len(DATA), MIB):
                writer.write(DATA[at : at + MIB])
        assert written(service) == DATA

    def test_parts_larger_than_a_buffer(self, service):
        client = FakeClient(service, part_size=40 * MIB)
        with writer_of(client) as writer:
            for at in range(0, len(DATA), 3 * MIB):
                writer.write(DATA[at : at + 3 * MIB])
        assert written(service) == DATA
        assert sorted(r.nbytes for r in service.requests if r.operation == "UploadPart") == [40 * MIB, 40 * MIB]
        with writer_of(client) as writer:
            writer.write(b"small")
        assert client.most_buffered_bytes <= 4 * 40 * MIB

    def test_headers_and_conditions(self, client, service):
        for nbytes in (10, 11 * MIB):
            with writer_of(
                client, headers=[("content-type", "text/plain")], storage_class="STANDARD_IA", if_none_match=True
            ) as writer:
                writer.write(DATA[:nbytes])
            headers = dict(service.objects.pop("key").headers)
            assert headers["content-type"] == "text/plain"
            assert headers["x-amz-storage-class"] == "STANDARD_IA"

    def test_result_tells_of_the_saved_object(self, client, service):
        with writer_of(client) as writer:
            writer.write(b"12345")
            with pytest.raises(ValueError, match="not saved yet"):
                writer.result  # noqa: B018
        assert writer.etag == writer.result.etag == service.objects["key"].etag
        assert writer.result.size == 5
        assert writer.result.key == "key"

    def test_other_buffers(self, client, service):
        np = pytest.importorskip("numpy")
        matrix = np.arange(12, dtype="<f8").reshape(3, 4)
        with writer_of(client) as writer:
            assert writer.write(matrix) == 96
            assert writer.write(matrix[:, ::2]) == 48
            assert writer.write(bytearray(b"abc")) == 3
            with pytest.raises(TypeError):
                writer.write("text")
            assert writer.tell() == 147
        assert written(service) == matrix.tobytes() + matrix[:, ::2].tobytes() + b"abc"


class TestNothingIsHalfPublished:
    @pytest.fixture(params=[10, 12 * MIB, 70 * MIB], ids=["put", "parts", "direct"])
    def data(self, request):
        return DATA[: request.param]

    @pytest.fixture(autouse=True)
    def object_before(self, service):
        service.put("key", b"before")
        yield
        assert written(service) == b"before"
        assert not service.uploads

    def test_after_an_exception(self, client, data, caplog):
        with pytest.raises(ZeroDivisionError) as caught, writer_of(client) as writer:
            writer.write(data)
            1 / 0  # noqa: B018
        assert writer.closed
        assert "s3://bucket/key was NOT saved" in caught.value.__notes__[0]
        assert "s3://bucket/key was NOT saved" in caplog.text
        writer.close()

    def test_after_being_forgotten(self, client, data, caplog):
        writer = writer_of(client)
        writer.write(data)
        with pytest.warns(ResourceWarning, match="s3://bucket/key was NOT saved"):
            del writer
            gc.collect()
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "s3://bucket/key was NOT saved" in caplog.text

    def test_after_abort(self, client, data):
        writer = writer_of(client)
        writer.write(data)
        writer.abort()
        writer.abort()
        writer.close()
        with pytest.raises(ValueError, match="was not saved"):
            writer.result  # noqa: B018

    @pytest.mark.parametrize(
        "operation", ["PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload"]
    )
    def test_after_a_failed_request(self, client, service, data, operation, caplog):
        failed = []

        def fail(request):
            if request.operation == operation and request.part_number in (0, 2):
                failed.append(request)
                return AccessDeniedError("denied", status=403)
            return None

        service.before = fail
        writer = writer_of(client)
        if (operation == "PutObject") != (len(data) == 10):
            writer.abort()
            return
        with pytest.raises(AccessDeniedError):
            writer.write(data)
            writer.close()
        assert failed
        assert "was NOT saved" in caplog.text
        with pytest.raises((S3Exception, ValueError)):
            writer.write(b"more")
        writer.close()
        assert writer.closed

    def test_a_swallowed_error_surfaces_in_close(self, client, service):
        service.before = lambda r: TransportError("reset") if r.operation == "UploadPart" else None
        writer = writer_of(client)
        with pytest.raises(TransportError):
            while True:
                writer.write(DATA[:MIB])
        with pytest.raises(S3Exception, match="NOT saved, because an earlier write failed: reset") as caught:
            writer.close()
        assert isinstance(caught.value.__cause__, TransportError)
        writer.close()

    def test_after_ctrl_c(self, client, service, data):
        def interrupt(request):
            raise KeyboardInterrupt

        service.before = interrupt
        with pytest.raises(KeyboardInterrupt), writer_of(client) as writer:
            writer.write(data)
            writer.close()
        service.uploads.clear()

    @pytest.mark.parametrize("reason", [KeyboardInterrupt(), AccessDeniedError("no", status=403)])
    def test_torch_does_not_hide_the_reason(self, client, service, reason):
        def refuse(request):
            raise reason

        service.before = refuse
        with pytest.raises(type(reason)) as caught, writer_of(client) as writer:
            try:
                writer.write(DATA)
            finally:  # as torch.save's own block, which ends its archive whatever happened
                raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")
        assert caught.value is reason
        assert writer.closed
        service.uploads.clear()

    @pytest.mark.parametrize("text", ["[enforce fail at inline_container.cc:671] . unexpected pos", "its own"])
    def test_other_errors_of_the_block_go_on(self, client, service, text):
        with pytest.raises(RuntimeError, match=r"unexpected pos|its own"), writer_of(client):
            raise RuntimeError(text)
        service.before = lambda request: TransportError("reset")
        with pytest.raises(RuntimeError, match=r"^its own"), writer_of(client) as writer:
            try:
                writer.write(DATA)
            except TransportError:
                raise RuntimeError("its own") from None

    def test_in_a_child_of_a_fork(self, client):
        writer = writer_of(client)
        writer.write(b"data")
        writer._pid = -1
        with pytest.raises(S3Exception, match="the process that opened it"):
            writer.write(b"data")
        writer.close()
        assert writer.closed

    def test_conditions_that_do_not_hold(self, client, data):
        for condition in ({"if_none_match": True}, {"if_match": "other"}):
            with pytest.raises(PreconditionFailedError), writer_of(client, **condition) as writer:
                writer.write(data)

    def test_an_upload_that_cannot_be_aborted_is_named(self, client, service, data, caplog):
        service.before = lambda r: AccessDeniedError("denied") if r.operation == "AbortMultipartUpload" else None
        writer = writer_of(client)
        writer.write(data)
        writer.abort()
        if service.uploads:
            assert f"{next(iter(service.uploads))} of s3://bucket/key may remain" in caplog.text
        service.uploads.clear()


class TestLostAnswers:
    """The last request was carried out, but its answer was lost; sent again, it meets its own result."""

    @pytest.mark.parametrize(
        ("nbytes", "operation", "error"),
        [
            (10, "PutObject", PreconditionFailedError("it exists", status=412, code="PreconditionFailed")),
            (10, "PutObject", RetriesExhaustedError("reset", attempts=10)),
            (12 * MIB, "CompleteMultipartUpload", S3Exception("no upload", status=404, code="NoSuchUpload")),
            (12 * MIB, "CompleteMultipartUpload", PreconditionFailedError("it exists", status=412)),
            (12 * MIB, "CompleteMultipartUpload", RetriesExhaustedError("500s", status=500)),
        ],
    )
    def test_what_was_saved_is_reported_saved(self, client, service, nbytes, operation, error):
        service.after = lambda request: error if request.operation == operation else None
        with writer_of(client, if_none_match=True) as writer:
            writer.write(DATA[:nbytes])
        assert written(service) == DATA[:nbytes]
        assert writer.etag == service.objects["key"].etag
        assert service.count("HeadObject") == 1

    @pytest.mark.parametrize("nbytes", [10, 12 * MIB])
    def test_somebody_elses_object_is_not_taken_for_ones_own(self, client, service, nbytes):
        with pytest.raises(PreconditionFailedError), writer_of(client, if_none_match=True) as writer:
            service.put("key", DATA[:nbytes])
            writer.write(DATA[:nbytes])
        assert service.count("HeadObject") == 1
        assert not service.uploads

    def test_what_the_first_attempt_was_told_is_not_doubted(self, client, service):
        service.before = lambda request: PreconditionFailedError("it exists", status=412, attempts=1)
        with pytest.raises(PreconditionFailedError), writer_of(client, if_none_match=True) as writer:
            writer.write(b"data")
        assert service.count("HeadObject") == 0

    def test_a_head_that_fails_is_told(self, client, service):
        service.before = lambda request: (
            PreconditionFailedError("it exists", status=412)
            if request.operation == "PutObject"
            else RetriesExhaustedError("500s", status=500)
        )
        with pytest.raises(PreconditionFailedError) as caught, writer_of(client, if_none_match=True) as writer:
            writer.write(b"data")
        assert "could not be found out: 500s" in caught.value.__notes__[0]

    def test_a_conflict_that_lasts_is_an_error(self, client, service):
        service.before = lambda request: ConflictError("busy", status=409)
        with pytest.raises(ConflictError), writer_of(client, if_none_match=True) as writer:
            writer.write(b"data")


class TestAsAFile:
    def test_is_a_binary_file(self, client):
        with writer_of(client) as writer:
            assert isinstance(writer, io.BufferedIOBase)
            assert (writer.readable(), writer.writable(), writer.seekable()) == (False, True, False)
            writer.flush()
            for method in (writer.fileno, writer.read, writer.detach, lambda: writer.seek(0)):
                with pytest.raises(io.UnsupportedOperation):
                    method()
        assert not writer.writable()
        writer.flush()

    def test_closing(self, client, service):
        writer = writer_of(client)
        writer.write(b"data")
        threads = [threading.Thread(target=writer.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()
        assert operations(service) == ["PutObject"]
        with pytest.raises(ValueError, match="s3://bucket/key"):
            writer.write(b"more")
        with pytest.raises(ValueError, match="closed"), writer:
            pass
        assert writer.tell() == 4

    def test_repr_names_uri_and_state(self, client):
        writer = writer_of(client)
        assert "s3://bucket/key" in repr(writer)
        assert "open" in repr(writer)
        writer.close()
        assert "(0 bytes, saved)" in repr(writer)

    def test_has_no_way_back_and_says_what_to_do(self, client):
        with writer_of(client) as writer:
            for method in (lambda: writer.seek(0), writer.truncate):
                with pytest.raises(io.UnsupportedOperation, match=r"s3://bucket/key is written .*io\.BytesIO"):
                    method()

    def test_takes_no_text(self, client, service):
        with writer_of(client) as writer:
            with pytest.raises(TypeError, match=r"s3://bucket/key takes bytes, not str.*io\.TextIOWrapper"):
                writer.write("text")
            writer.write(b"bytes")
        assert written(service) == b"bytes"

    @pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_does_not_pickle(self, client, duplicate):
        with writer_of(client) as writer, pytest.raises(TypeError, match="writer of s3://bucket/key cannot be pickled"):
            duplicate(writer)

    def test_opening_sends_nothing(self, client):
        writer = writer_of(client)
        assert not client.queues
        writer.abort()
        assert not client.queues

    def test_text(self, client, service):
        with writer_of(client) as writer, io.TextIOWrapper(writer, encoding="utf-8") as text:
            text.writelines(["äöü\n", "line\n"])
        assert written(service) == "äöü\nline\n".encode()

    def test_threads_take_turns(self, client, service):
        pieces = [bytes([i]) * MIB for i in range(16)]
        with writer_of(client) as writer:
            threads = [threading.Thread(target=writer.write, args=(piece,)) for piece in pieces]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        data = written(service)
        assert sorted(data[at : at + MIB] for at in range(0, len(data), MIB)) == pieces


class TestPartSizes:
    def test_more_than_s3_takes(self, service):
        with pytest.raises(ValueError, match="part_size"):
            S3Writer(FakeClient(service, part_size=(5 << 30) + 1), BUCKET, "key")

    def test_less_than_s3_takes_is_raised_with_a_warning_when_parts_are_used(self, service):
        client = FakeClient(service, part_size=756)
        with writer_of(client) as writer:
            writer.write(DATA[:MIB])
        with pytest.warns(UserWarning, match="756 bytes"), writer_of(client) as writer:
            writer.write(DATA[: 12 * MIB])
        assert max(r.nbytes for r in service.requests if r.operation == "UploadPart") == 5 * MIB

    def test_both_conditions_at_once(self, client):
        with pytest.raises(ValueError, match="exclude each other"):
            writer_of(client, if_none_match=True, if_match="x")

    @pytest.mark.parametrize("part_bytes", [5 * MIB, 8 * MIB, 100 * MIB, 5 << 30])
    def test_five_terabytes_fit_without_a_known_size(self, part_bytes):
        sizes = PartSizes(part_bytes)
        parts = [sizes.of(number) for number in range(1, MAX_PARTS + 1)]
        assert len(set(parts[:1000])) == 1
        assert all(a <= b <= 2 * a for a, b in itertools.pairwise(parts))
        assert max(parts) <= max(1 << 30, part_bytes)
        assert sum(parts) >= 5 * 10**12

    @pytest.mark.parametrize("total", [0, 1, 80 * 2**30, 50 * 10**12])
    def test_parts_are_alike_when_the_size_is_known(self, total):
        sizes = PartSizes(8 * MIB, total)
        assert sizes.of(1) == sizes.of(MAX_PARTS) <= 5 << 30
        assert sizes.of(1) * MAX_PARTS >= total

    def test_what_no_parts_can_hold(self):
        with pytest.raises(ValueError, match="does not fit"):
            PartSizes(8 * MIB, 60 * 10**12)

    def test_a_known_size_makes_parts_alike(self, client, service):
        with writer_of(client, size=12 * MIB) as writer:
            writer.write(DATA[: 12 * MIB])
        assert written(service) == DATA[: 12 * MIB]
