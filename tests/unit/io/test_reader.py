"""S3Reader: what it returns, raises and sends for."""

import io
import itertools
import pickle
import random
import threading
from types import SimpleNamespace

import pytest
from tests.unit.io.fake_service import BUCKET, FakeBody, FakeClient, FakeService

from s3dataset._io import (
    CHECKPOINT_READER,
    DCPOptimizedS3Reader,
    RangedS3Reader,
    S3Reader,
    S3ReaderConstructor,
    SequentialS3Reader,
    open_reader,
)
from s3dataset.errors import ObjectChangedError, ObjectNotFoundError, TransportError

KIB = 1 << 10
MIB = 1 << 20

LARGE = random.Random(0).randbytes(64 * MIB)


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def client(service):
    return FakeClient(service)


@pytest.fixture
def open_large(service, client):
    service.put("large", LARGE)

    def open_(*, known=True, **options):
        size = len(LARGE) if known else None
        return open_reader(client, BUCKET, "large", size=size, **options)

    return open_


def opened(client, data, *, known=False, **options):
    etag = client.service.put("key", data)
    return open_reader(
        client, BUCKET, "key", size=len(data) if known else None, etag=etag if known else None, **options
    )


class TestWhatIsSentFor:
    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("nbytes", [1, 100 * KIB, 2 * MIB])
    def test_reading_all_of_a_small_object_is_one_get(self, client, known, nbytes):
        reader = opened(client, LARGE[:nbytes], known=known)
        assert reader.read() == LARGE[:nbytes]
        assert [request.operation for request in client.service.requests] == ["GetObject"]

    def test_opening_sends_nothing(self, open_large, service):
        reader = open_large(known=False)
        repr(reader), reader.tell(), reader.seekable(), reader.seek(0)
        reader.close()
        assert not service.requests

    @pytest.mark.parametrize("known", [False, True])
    def test_reading_all_of_a_large_object_fetches_each_byte_once(self, open_large, service, known):
        assert open_large(known=known).read() == LARGE
        assert service.bytes_fetched == len(LARGE)
        assert service.count("GetObject") == len(service.requests) <= 2

    def test_an_empty_object_of_known_size_needs_no_request(self, client):
        assert opened(client, b"", known=True).read() == b""
        assert not client.service.requests

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("make", [S3ReaderConstructor.sequential, S3ReaderConstructor.dcp_optimized])
    def test_the_tail_of_a_large_object_is_fetched_alone(self, open_large, service, known, make):
        reader = open_large(known=known, reader_constructor=make())
        reader.seek(-10, io.SEEK_END)
        assert reader.read(10) == LARGE[-10:]
        reader.seek(-40 * KIB, io.SEEK_END)
        assert reader.read(10 * KIB) == LARGE[-40 * KIB : -30 * KIB]
        assert len(service.requests) == 1
        assert service.bytes_fetched <= 64 * KIB

    def test_sequential_reads_fetch_each_byte_once_in_ever_larger_ranges(self, open_large, service):
        reader = open_large(known=False)
        data = b"".join(iter(lambda: reader.read(64 * KIB), b""))
        assert data == LARGE
        assert service.bytes_fetched == len(LARGE)
        assert service.count("GetObject") < 60
        assert {request.pin for request in service.requests[1:]} == {service.objects["large"].etag}
        assert max(request.nbytes for request in service.requests) == 4 * MIB

    def test_several_ranges_are_under_way_at_once(self, open_large, client):
        reader = open_large()
        for _ in range(16 * 8):
            reader.read(64 * KIB)
        # What is under way lies behind the position, within the window.
        window = [chunk for chunk in reader._window._chunks if chunk.start >= reader.tell()]
        assert len(window) >= 4
        assert max(chunk.end for chunk in window) - reader.tell() <= 64 * MIB

    @pytest.mark.parametrize("nbytes", [64 * KIB, MIB, 10 * MIB])
    def test_who_stops_early_has_fetched_a_few_times_what_was_read(self, open_large, service, nbytes):
        reader = open_large()
        while reader.tell() < nbytes:
            reader.read(16 * KIB)
        reader.close()
        assert service.bytes_fetched <= 4 * nbytes + 256 * KIB

    def test_the_window_stays_within_half_of_the_budget(self, service):
        client = FakeClient(service, memory_limit_bytes=32 * MIB)
        service.put("large", LARGE)
        reader = open_reader(client, BUCKET, "large")
        while reader.read(256 * KIB):
            ahead = reader._window._chunks.bytes_from(reader.tell())
            assert ahead <= 16 * MIB + 4 * MIB
            assert reader._window._chunks.nbytes - ahead <= 8 * MIB + 4 * MIB

    def test_random_small_reads_fetch_little_more(self, open_large, service):
        reader = open_large()
        places = random.Random(1).sample(range(0, len(LARGE) - MIB, 256 * KIB), 100)
        for place in places:
            reader.seek(place)
            assert reader.read(1000) == LARGE[place : place + 1000]
        assert service.count("GetObject") == 100
        assert service.bytes_fetched <= 100 * 32 * KIB + 256 * KIB

    def test_a_large_readinto_fetches_exactly_what_it_fills(self, open_large, service):
        reader = open_large()
        reader.seek(5 * MIB)
        target = bytearray(20 * MIB)
        assert reader.readinto(target) == len(target)
        assert target == LARGE[5 * MIB : 25 * MIB]
        assert service.bytes_fetched == len(target) + 32 * KIB * (service.count("GetObject") > 1)

    def test_range_based_fetches_one_buffer_where_a_read_misses(self, open_large, service):
        reader = open_large(reader_constructor=S3ReaderConstructor.range_based(MIB))
        for place in (10 * MIB, 10 * MIB + 100, 11 * MIB - 50):
            reader.seek(place)
            reader.read(50)
        assert [(request.start, request.end) for request in service.requests] == [(10 * MIB, 11 * MIB)]

    def test_range_based_without_a_buffer_fetches_exactly_what_is_read(self, open_large, service):
        reader = open_large(reader_constructor=S3ReaderConstructor.range_based(0))
        for place, nbytes in ((10, 1), (5 * MIB, 100), (5 * MIB + 100, 200 * KIB)):
            reader.seek(place)
            assert reader.read(nbytes) == LARGE[place : place + nbytes]
        assert [(r.start, r.end) for r in service.requests] == [
            (10, 11),
            (5 * MIB, 5 * MIB + 100),
            (5 * MIB + 100, 5 * MIB + 100 + 200 * KIB),
        ]

    def test_expected_ranges_are_fetched_ahead_and_nothing_else(self, open_large, service, client):
        reader = open_large()
        reader.seek(MIB)
        reader.read(1)
        ranges = [(10 * MIB, 12 * MIB), (30 * MIB, 30 * MIB + 5), (40 * MIB, 50 * MIB)]
        reader.expect(ranges)
        for start, end in ranges:
            reader.seek(start)
            assert reader.read(end - start) == LARGE[start:end]
        assert service.bytes_fetched == 32 * KIB + sum(end - start for start, end in ranges)

    def test_the_ranges_of_a_plan_are_fetched_and_hardly_more(self, open_large, service):
        """Of torch.distributed.checkpoint; two items overlap, as when one is read for two tensors."""
        ranges = [(30 * MIB, 30 * MIB + 5), (10 * MIB, 12 * MIB), (11 * MIB, 12 * MIB)]
        items = [SimpleNamespace(storage_index=i) for i in range(3)]
        stored = {
            i: SimpleNamespace(relative_path="large", offset=start, length=end - start)
            for i, (start, end) in enumerate(ranges)
        }
        constructor = S3ReaderConstructor.dcp_optimized()
        constructor.set_item_ranges_by_file(items, stored, f"s3://{BUCKET}/")
        for maker in (constructor, pickle.loads(pickle.dumps(constructor))):
            before = service.bytes_fetched
            reader = open_large(reader_constructor=maker)
            for start, end in ((10 * MIB, 12 * MIB), (30 * MIB, 30 * MIB + 5)):
                reader.seek(start)
                assert reader.read(end - start) == LARGE[start:end]
            assert service.bytes_fetched - before <= 2 * MIB + 32 * KIB  # what a seek fetches at least

    def test_items_that_are_stored_nowhere(self):
        constructor = S3ReaderConstructor.dcp_optimized()
        constructor.set_item_ranges_by_file([], {}, "s3://bucket/")
        with pytest.raises(ValueError, match="storage_data"):
            constructor.set_item_ranges_by_file([SimpleNamespace(storage_index=1)], {}, "s3://bucket/")

    def test_readers_of_checkpoints_fetch_head_and_tail_together(self, open_large, service):
        reader = open_large(known=False, reader_constructor=CHECKPOINT_READER)
        reader.read(4)
        reader.seek(-100, io.SEEK_END)
        assert reader.read() == LARGE[-100:]
        assert sorted((r.start, r.nbytes) for r in service.requests) == [
            (0, 256 * KIB),
            (len(LARGE) - 64 * KIB, 64 * KIB),
        ]

    def test_what_is_under_way_elsewhere_is_cancelled_after_a_jump(self, open_large, client):
        reader = open_large()
        client.service.random.random = lambda: 0.9  # nothing ends by itself
        while reader.tell() < 2 * MIB:
            reader.read(64 * KIB)
        assert any(chunk.data is None for chunk in reader._window._chunks)
        reader.seek(60 * MIB)
        reader.read(10)
        assert all(chunk.start >= 60 * MIB for chunk in reader._window._chunks if chunk.data is None)

    def test_bytes_fetched_ahead_are_not_fetched_again(self, client):
        etag = client.service.put("key", LARGE[:MIB])
        body = FakeBody(LARGE[: 100 * KIB])
        body.start, body.object_size, body.etag = 0, MIB, etag
        reader = open_reader(client, BUCKET, "key", body=body)
        assert reader.size == MIB
        assert reader.etag == etag
        assert reader.read(100 * KIB) == LARGE[: 100 * KIB]
        assert not client.service.requests
        assert reader.read() == LARGE[100 * KIB : MIB]
        assert client.service.bytes_fetched == MIB - 100 * KIB

    def test_seeking_back_reads_what_is_there(self, client):
        reader = opened(client, LARGE[: 300 * KIB], known=True)
        reader.read(10)
        reader.seek(0)
        reader.read(300 * KIB)
        reader.seek(5)
        reader.read()
        assert len(client.service.requests) == 1


class TestChangedObjects:
    """Bytes of two versions are never mixed."""

    @pytest.mark.parametrize("same_size", [True, False])
    @pytest.mark.parametrize("known", [True, False])
    def test_between_two_reads(self, open_large, service, same_size, known):
        reader = open_large(known=known)
        reader.read(10)
        service.put("large", LARGE[::-1] if same_size else LARGE[:MIB])
        reader.seek(30 * MIB)
        with pytest.raises(ObjectChangedError):
            reader.read(10)

    @pytest.mark.parametrize("nbytes", [10 * KIB, 20 * MIB])
    def test_since_it_was_listed(self, open_large, service, nbytes):
        etag = service.objects["large"].etag
        reader = open_large(etag=etag)
        service.put("large", LARGE[::-1])
        with pytest.raises(ObjectChangedError):
            reader.readinto(bytearray(nbytes))

    def test_the_size_tells_where_no_etag_is_known(self, open_large, service):
        reader = open_large()
        service.put("large", LARGE[:MIB])
        with pytest.raises(ObjectChangedError, match="s3://bucket/large"):
            reader.read(10)

    def test_between_head_and_tail(self, open_large, service):
        service.before = lambda request: None if request.start else service.put("large", LARGE[::-1]) and None
        service.random.random = lambda: 0.9  # so that the tail comes last
        reader = open_large(known=False, reader_constructor=CHECKPOINT_READER)
        service.after = lambda request: service.put("large", LARGE) and None
        with pytest.raises(ObjectChangedError):
            reader.read(4)

    def test_while_ranges_are_under_way(self, open_large, service):
        service.random.random = lambda: 0.9
        reader = open_large()
        seen = bytearray()
        with pytest.raises(ObjectChangedError):
            for i in itertools.count():
                if i == 100:
                    service.put("large", LARGE[::-1])
                seen += reader.read(64 * KIB)
        assert seen == LARGE[: len(seen)]


class TestFailures:
    def test_a_missing_object(self, client):
        reader = open_reader(client, BUCKET, "missing")
        for use in (reader.read, lambda: reader.seek(0, io.SEEK_END), lambda: reader.size, reader.getbuffer):
            with pytest.raises(ObjectNotFoundError):
                use()

    @pytest.mark.parametrize("nbytes", [64 * KIB, 3 * MIB])
    def test_a_read_that_failed_can_be_repeated(self, open_large, service, nbytes):
        failures = itertools.cycle([None, TransportError("reset"), None, None])
        service.before = lambda request: next(failures)
        reader = open_large()
        data = bytearray()
        failed = 0
        while len(data) < len(LARGE):
            position = reader.tell()
            try:
                data += reader.read(nbytes)
            except TransportError:
                failed += 1
                assert reader.tell() == position
        assert data == LARGE
        assert failed

    def test_nobody_writes_to_the_callers_memory_after_an_error(self, open_large, service, client):
        service.before = lambda request: TransportError("reset") if request.start else None
        reader = open_large()
        target = bytearray(12 * MIB)
        reader.read(10)
        reader.seek(MIB)
        with pytest.raises(TransportError):
            reader.readinto(target)
        assert all(not queue.jobs for queue in client.queues)

    def test_nobody_writes_to_the_callers_memory_after_ctrl_c(self, open_large, service, client, monkeypatch):
        reader = open_large()
        reader.read(10)

        def interrupted(request):
            raise KeyboardInterrupt

        service.before = interrupted
        with pytest.raises(KeyboardInterrupt):
            reader.readinto(bytearray(12 * MIB))
        assert client.queues[0].closed
        service.before = lambda request: None
        assert reader.read(5) == LARGE[10:15]


class TestArguments:
    def test_seeks_that_cannot_be(self, client):
        reader = opened(client, b"0123456789")
        reader.seek(3)
        for arguments in ((-1,), (-4, io.SEEK_CUR), (-11, io.SEEK_END), (0, 3), (0, -1)):
            with pytest.raises(ValueError):
                reader.seek(*arguments)
        for arguments in (("1",), (1.5,), (None,), (0, "0"), (0, None)):
            with pytest.raises(TypeError):
                reader.seek(*arguments)
        assert reader.tell() == 3

    @pytest.mark.parametrize("size", ["1", 1.5, b"1"])
    def test_sizes_that_are_no_integers(self, client, size):
        reader = opened(client, b"0123456789")
        for method in (reader.read, reader.read1, reader.readline):
            with pytest.raises(TypeError):
                method(size)

    @pytest.mark.parametrize("target", [b"read-only", "text", None, memoryview(b"read-only")])
    def test_targets_that_cannot_be_written(self, client, target):
        reader = opened(client, b"0123456789")
        for method in (reader.readinto, reader.readinto1):
            with pytest.raises(TypeError, match="argument must be a writable bytes-like object"):
                method(target)

    def test_targets_of_other_shapes(self, client):
        np = pytest.importorskip("numpy")
        reader = opened(client, bytes(range(48)))
        target = np.zeros((2, 3), dtype="<u4")
        assert reader.readinto(target) == 24
        assert target.tobytes() == bytes(range(24))
        with pytest.raises(TypeError, match="contiguous"):
            reader.readinto(np.zeros((4, 4), dtype="u1")[:, ::2])

    @pytest.mark.parametrize("size", [-1, -100, None])
    def test_any_negative_size_reads_all(self, client, size):
        reader = opened(client, b"0123456789")
        reader.seek(2)
        assert reader.read(size) == b"23456789"
        assert reader.read(size) == b""

    def test_reads_of_nothing(self, client):
        reader = opened(client, b"0123456789")
        assert reader.read(0) == b""
        assert reader.readinto(bytearray()) == 0
        assert not client.service.requests

    @pytest.mark.parametrize("known", [True, False])
    def test_seeking_past_the_end_stays_at_the_end(self, client, known):
        reader = opened(client, b"0123456789", known=known)
        assert reader.seek(100) == reader.tell() == 10
        assert reader.read() == reader.read(5) == b""
        assert reader.seek(5, io.SEEK_END) == 10
        assert reader.seek(5, io.SEEK_CUR) == 10


class TestAsAFile:
    def test_is_a_binary_file(self, client):
        reader = opened(client, b"0123456789")
        assert isinstance(reader, io.BufferedIOBase)
        assert (reader.readable(), reader.seekable(), reader.writable(), reader.isatty()) == (True, True, False, False)
        for method in (reader.fileno, reader.detach, reader.truncate, lambda: reader.write(b"")):
            with pytest.raises(io.UnsupportedOperation):
                method()

    def test_closing(self, client):
        with opened(client, b"0123456789") as reader:
            assert reader.read(3) == b"012"
            view = reader.getbuffer()
        reader.close()
        assert reader.closed
        assert view == b"0123456789"
        for use in (reader.read, reader.tell, reader.readline, reader.getbuffer, lambda: reader.seek(0), reader.peek):
            with pytest.raises(ValueError, match="s3://bucket/key"):
                use()
        with pytest.raises(ValueError, match="closed"), reader:
            pass

    def test_repr_names_uri_and_size(self, client):
        reader = opened(client, b"x" * 1234, known=True)
        assert "s3://bucket/key" in repr(reader)
        assert "1,234 bytes" in repr(reader)
        assert "s3://bucket/key" in repr(opened(client, b"x"))

    def test_text(self, client):
        text = "first\nzweite Zeile: äöü\n\nlast" * 5000
        reader = opened(client, text.encode())
        assert list(io.TextIOWrapper(reader, encoding="utf-8", newline="")) == text.splitlines(keepends=True)

    def test_lines(self, client):
        data = b"".join(b"%d\n" % i for i in range(50_000)) + b"no newline"
        reader = opened(client, data)
        assert list(reader) == data.splitlines(keepends=True)
        reader.seek(0)
        assert reader.readlines(100) == io.BytesIO(data).readlines(100)

    def test_zip_and_tar_readers(self, client, tmp_path):
        import tarfile
        import zipfile

        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a", LARGE[:MIB])
            archive.writestr("b", b"b")
        with zipfile.ZipFile(opened(client, buffer.getvalue())) as archive:
            assert archive.read("b") == b"b"
            assert archive.read("a") == LARGE[:MIB]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("a")
            info.size = MIB
            archive.addfile(info, io.BytesIO(LARGE[:MIB]))
        with tarfile.open(fileobj=opened(client, buffer.getvalue())) as archive:
            assert archive.extractfile("a").read() == LARGE[:MIB]

    def test_getbuffer_is_the_readers_own_memory(self, client):
        reader = opened(client, b"0123456789")
        view = reader.getbuffer()
        assert view == b"0123456789"
        view[0:1] = b"X"
        assert reader.read() == b"X123456789"
        assert len(client.service.requests) == 1

    def test_threads_take_turns(self, open_large):
        reader = open_large(known=False)
        pieces = []

        def read():
            while data := reader.read(100 * KIB):
                pieces.append(data)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        starts = {LARGE[at : at + 32]: at for at in range(0, len(LARGE), 100 * KIB)}
        assert b"".join(sorted(pieces, key=lambda piece: starts[piece[:32]])) == LARGE


class TestConstructors:
    @pytest.mark.parametrize(
        ("constructor", "cls", "kind"),
        [
            (S3ReaderConstructor.default(), SequentialS3Reader, "sequential"),
            (None, SequentialS3Reader, "sequential"),
            (S3ReaderConstructor.sequential(), SequentialS3Reader, "sequential"),
            (S3ReaderConstructor.range_based(), RangedS3Reader, "range_based"),
            (S3ReaderConstructor.range_based(0), RangedS3Reader, "range_based"),
            (S3ReaderConstructor.dcp_optimized(), DCPOptimizedS3Reader, "dcp_optimized"),
            (S3ReaderConstructor.dcp_optimized(float("inf")), DCPOptimizedS3Reader, "dcp_optimized"),
        ],
    )
    def test_make_readers_of_their_class(self, client, constructor, cls, kind):
        reader = open_reader(client, BUCKET, "key", reader_constructor=constructor)
        assert type(reader) is cls
        assert isinstance(reader, S3Reader)
        assert S3ReaderConstructor.get_reader_type_string(constructor) == kind
        assert pickle.loads(pickle.dumps(constructor)) == constructor

    @pytest.mark.parametrize("size", [-1, -8 * MIB])
    def test_buffers_cannot_be_negative(self, size):
        with pytest.raises(ValueError, match="buffer_size"):
            S3ReaderConstructor.range_based(size)

    @pytest.mark.parametrize("gap", [-1, -0.5, float("nan")])
    def test_gaps_cannot_be_negative(self, gap):
        with pytest.raises(ValueError, match="max_gap_size"):
            S3ReaderConstructor.dcp_optimized(gap)

    def test_arguments_of_other_types(self):
        with pytest.raises(TypeError):
            S3ReaderConstructor.range_based("8")
        with pytest.raises(TypeError):
            S3ReaderConstructor.dcp_optimized("8")

    def test_a_constructor_of_ones_own(self, client):
        client.service.put("key", b"0123456789")
        seen = []

        def constructor(bucket, key, get_object_info, get_stream):
            seen.append((bucket, key, get_object_info().object_size, b"".join(get_stream(2, 5))))
            return S3ReaderConstructor.range_based(4)(bucket, key, get_object_info, get_stream)

        reader = open_reader(client, BUCKET, "key", reader_constructor=constructor)
        assert isinstance(reader, RangedS3Reader)
        assert reader.read() == b"0123456789"
        assert seen == [(BUCKET, "key", 10, b"234")]
        assert S3ReaderConstructor.get_reader_type_string(constructor) == "unknown"

    def test_a_constructor_that_makes_no_reader(self, client):
        with pytest.raises(TypeError, match="must return an S3Reader"):
            open_reader(client, BUCKET, "key", reader_constructor=lambda **arguments: io.BytesIO())


class TestForks:
    def test_a_child_fetches_anew_what_was_under_way(self, open_large, service, client):
        service.random.random = lambda: 0.9
        reader = open_large()
        while reader.tell() < 2 * MIB:
            reader.read(64 * KIB)
        reader._source._forks = -1  # as it is found in a child
        reader._lock.acquire()  # by a thread that the child does not have
        child = threading.Thread(target=lambda: seen.append(reader.read(8 * MIB)))
        seen = []
        child.start()
        child.join()
        assert seen == [LARGE[2 * MIB : 10 * MIB]]
        assert len(client.queues) == 2
        assert not client.queues[0].closed  # it belongs to the parent
        assert not reader._source.in_other_process
