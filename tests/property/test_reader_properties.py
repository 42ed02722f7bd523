"""A reader behaves as io.BytesIO does, whatever is asked of it, in whatever order answers come."""

import io
import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.io.fake_service import BUCKET, FakeClient, FakeService

from s3dataset._io import CHECKPOINT_READER, S3ReaderConstructor, open_reader

KIB = 1 << 10
MIB = 1 << 20

SIZES = st.one_of(
    st.sampled_from([0, 1, 2, 255, 4 * KIB, 32 * KIB, 64 * KIB, 256 * KIB, 512 * KIB + 1, MIB, 3 * MIB + 7]),
    st.integers(0, 6 * MIB),
)
POLICIES = [
    CHECKPOINT_READER,
    S3ReaderConstructor.sequential(),
    S3ReaderConstructor.dcp_optimized(),
    S3ReaderConstructor.range_based(),
    S3ReaderConstructor.range_based(0),
    S3ReaderConstructor.range_based(10 * KIB),
]


def content(size: int) -> bytes:
    # Lines of growing length, and no two places alike.
    piece = b"".join(b"%d%s\n" % (i, b"." * (i % 97)) for i in range(2000))
    return (piece * (size // len(piece) + 1))[:size]


CONTENT = content(7 * MIB)


class ReaderMachine(RuleBasedStateMachine):
    @initialize(
        size=SIZES,
        known=st.booleans(),
        pinned=st.booleans(),
        etags=st.booleans(),
        policy=st.sampled_from(POLICIES),
        seed=st.integers(0, 1000),
        part_size=st.sampled_from([756, 64 * KIB, MIB, 8 * MIB]),
        limit=st.sampled_from([256 * KIB, 16 * MIB, 1 << 30]),
        tells=st.booleans(),
    )
    def open(self, size, known, pinned, etags, policy, seed, part_size, limit, tells):
        self.data = CONTENT[:size]
        self.service = FakeService(seed, etags=etags, tells_size_past_end=tells)
        etag = self.service.put("key", self.data)
        self.client = FakeClient(self.service, part_size=part_size, memory_limit_bytes=limit)
        self.policy = policy
        self.reader = open_reader(
            self.client,
            BUCKET,
            "key",
            reader_constructor=policy,
            size=size if known else None,
            etag=etag.strip('"') if pinned and known else None,
        )
        self.model = io.BytesIO(self.data)

    def _clamped(self, position):
        return min(position, len(self.data))

    @rule(size=st.one_of(st.integers(-3, 3000), st.integers(0, 3 * MIB), st.none()))
    def read(self, size):
        assert self.reader.read(size) == self.model.read(size)

    @rule(size=st.integers(1, 70 * KIB), times=st.integers(1, 40))
    def read_in_sequence(self, size, times):
        for _ in range(times):
            assert self.reader.read(size) == self.model.read(size)

    @rule(size=st.one_of(st.integers(0, 3000), st.integers(0, 4 * MIB)))
    def readinto(self, size):
        ours, theirs = bytearray(size), bytearray(size)
        assert self.reader.readinto(ours) == self.model.readinto(theirs)
        assert ours == theirs

    @rule(size=st.integers(0, 100 * KIB))
    def read1(self, size):
        data = self.reader.read1(size)
        assert data == self.model.read(len(data))
        assert data or not size or self.model.tell() == len(self.data)

    @rule(size=st.integers(0, 100 * KIB))
    def readinto1(self, size):
        target = bytearray(size)
        nbytes = self.reader.readinto1(target)
        assert target[:nbytes] == self.model.read(nbytes)

    @rule(size=st.integers(0, 10))
    def peek(self, size):
        data = self.reader.peek(size)
        position = self.model.tell()
        assert data == self.data[position : position + len(data)]
        assert data or position == len(self.data)

    @rule(size=st.integers(-1, 120))
    def readline(self, size):
        assert self.reader.readline(size) == self.model.readline(size)

    @rule(count=st.integers(1, 2000))
    def iterate(self, count):
        for _ in range(count):
            assert next(self.reader, None) == next(self.model, None)

    @rule(offset=st.one_of(st.integers(-10, 3000), st.integers(0, 7 * MIB)))
    def seek_from_start(self, offset):
        if offset < 0:
            with pytest.raises(ValueError, match="negative"):
                self.reader.seek(offset)
            return
        expected = self._clamped(offset)
        assert self.reader.seek(offset) == expected
        self.model.seek(expected)

    @rule(offset=st.one_of(st.integers(-100, 100), st.integers(-3 * MIB, 3 * MIB)))
    def seek_from_here(self, offset):
        target = self.model.tell() + offset
        if target < 0:
            with pytest.raises(ValueError, match="negative"):
                self.reader.seek(offset, io.SEEK_CUR)
            return
        expected = self._clamped(target)
        assert self.reader.seek(offset, io.SEEK_CUR) == expected
        self.model.seek(expected)

    @rule(offset=st.one_of(st.integers(-70 * KIB, 10), st.integers(-6 * MIB, 0)))
    def seek_from_end(self, offset):
        target = len(self.data) + offset
        if target < 0:
            with pytest.raises(ValueError, match="negative"):
                self.reader.seek(offset, io.SEEK_END)
            return
        expected = self._clamped(target)
        assert self.reader.seek(offset, io.SEEK_END) == expected
        self.model.seek(expected)

    @rule()
    def getbuffer(self):
        assert self.reader.getbuffer() == self.data

    @rule(ranges=st.lists(st.tuples(st.integers(0, 3 * MIB), st.integers(0, 2 * MIB)), max_size=5))
    def expect(self, ranges):
        self.reader.expect([(start, start + nbytes) for start, nbytes in ranges if start + nbytes <= len(self.data)])

    @rule()
    def ask_for_facts(self):
        assert self.reader.size == len(self.data)
        assert self.reader.etag.strip('"') == self.service.objects["key"].etag.strip('"')

    @rule()
    def send_to_another_process(self):
        client, self.reader._source._client = self.reader._source._client, None
        try:
            function, (cls, state) = _reduced(self.reader)
        finally:
            self.reader._source._client = client
        state = pickle.loads(pickle.dumps(state))
        state["client"] = client
        self.reader.close()
        self.reader = function(cls, state)

    @invariant()
    def same_position(self):
        if hasattr(self, "reader"):
            assert self.reader.tell() == self.model.tell()

    @invariant()
    def bounded(self):
        if hasattr(self, "reader"):
            chunks = list(self.reader._window._chunks)
            if len(chunks) > 1:
                assert sum(chunk.nbytes for chunk in chunks) < 200_000_000 + 2 * self.policy.policy.keep_bytes

    def teardown(self):
        if hasattr(self, "reader"):
            self.reader.close()
            with pytest.raises(ValueError, match="closed"):
                self.reader.read(1)
            assert all(queue.closed for queue in self.client.queues)


def _reduced(reader):
    reader._source._client = _Nobody()
    return reader.__reduce__()


class _Nobody:
    ref = None


TestReader = ReaderMachine.TestCase
TestReader.settings = settings(max_examples=150, stateful_step_count=25)
