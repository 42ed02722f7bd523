"""Whatever is written, in whatever pieces, is what the object holds."""

import random
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.io.fake_service import BUCKET, FakeClient, FakeService

from s3dataset._io import S3Writer

KIB = 1 << 10
MIB = 1 << 20
CONTENT = random.Random(0).randbytes(32 * MIB)

PIECES = st.lists(
    st.one_of(
        st.integers(0, 3000), st.integers(0, 300 * KIB), st.integers(0, 12 * MIB), st.integers(15 * MIB, 20 * MIB)
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(
    pieces=PIECES,
    seed=st.integers(0, 1000),
    part_size=st.sampled_from([5 * MIB, 8 * MIB, 9 * MIB + 1, 40 * MIB]),
    limit=st.sampled_from([1, 20 * MIB, 1 << 30]),
    known=st.booleans(),
)
def test_written_in_pieces_is_saved_whole(pieces, seed, part_size, limit, known):
    service = FakeService(seed)
    client = FakeClient(service, part_size=part_size, memory_limit_bytes=limit)
    expected = b""
    scratch = bytearray(20 * MIB)
    with (
        # Pieces are sent from where they are from 16 MiB on, not 64, to be quick.
        patch("s3dataset._io._writer._DIRECT_BYTES", 16 * MIB),
        S3Writer(client, BUCKET, "key", size=sum(pieces) if known else None) as writer,
    ):
        for i, nbytes in enumerate(pieces):
            piece = memoryview(scratch)[:nbytes]
            piece[:] = CONTENT[i * MIB : i * MIB + nbytes]
            assert writer.write(piece) == nbytes
            expected += piece
            # The fake service refuses memory that changes while a request is under way.
            piece[:1] = b"\xee"[:nbytes]
            assert writer.tell() == len(expected)
    assert service.objects["key"].data == expected
    assert not service.uploads
    assert all(request.nbytes <= part_size for request in service.requests)
    if len(expected) <= part_size and max(pieces, default=0) <= part_size:
        assert service.count("PutObject") == 1
    assert client.buffered_bytes == 0 or client.most_buffered_bytes <= max(limit, 4 * part_size)
