"""Bytes objects that are filled after they are made."""

import pytest

from s3dataset._io._new_bytes import new_bytes


@pytest.mark.parametrize("nbytes", [2, 100, 4096, 1 << 20, (16 << 20) + 5])
def test_what_is_written_is_what_the_bytes_hold(nbytes):
    data, view = new_bytes(nbytes)
    assert len(data) == len(view) == nbytes
    content = bytes(range(256)) * (nbytes // 256 + 1)
    view[:] = content[:nbytes]
    del view
    assert data == content[:nbytes]
    assert hash(data) == hash(content[:nbytes])


@pytest.mark.parametrize("nbytes", [-1, 0, 1])
def test_bytes_that_the_interpreter_shares_are_refused(nbytes):
    with pytest.raises(ValueError, match="shared"):
        new_bytes(nbytes)
