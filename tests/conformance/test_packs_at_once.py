"""Packs of one folder: at the same time, and one that replaces another."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.conformance.pack_world import DEST, SMALL, SOURCE, expected, filled, shards, streamed

from s3dataset import pack
from s3dataset.errors import ManifestMismatchError
from s3dataset.testing import LocalS3


@pytest.fixture
def server() -> Iterator[LocalS3]:
    yield from filled()


@pytest.mark.usefixtures("server")
class TestSeveralAtOnce:
    """The other one runs, from its beginning to its end, when the first reports bytes."""

    @staticmethod
    def meanwhile(do: Any, when: Any = lambda: True) -> Any:
        todo = [do]

        def tell(done: int, _total: int) -> None:
            if done and todo and when():
                todo.pop()()

        return tell

    def test_the_same_pack_twice_makes_one(self, server: LocalS3) -> None:
        made = []

        def other() -> None:
            made.append(pack(SOURCE, DEST, shard_size=SMALL))

        manifest = pack(SOURCE, DEST, shard_size=SMALL, progress=self.meanwhile(other))
        assert [manifest] == made
        assert streamed() == expected()
        assert not [key for key in server.keys("dest", "packed/") if "/pack/" in key]

    def test_another_one_that_takes_the_place_is_told(self) -> None:
        def other() -> None:
            pack(SOURCE, DEST, shard_size=2 * SMALL, overwrite=True)

        with pytest.raises(ManifestMismatchError, match="another pack") as raised:
            pack(SOURCE, DEST, shard_size=SMALL, progress=self.meanwhile(other))
        assert f"shard_size: {2 * SMALL}, and here {SMALL}" in str(raised.value)
        assert not getattr(raised.value, "__notes__", ())

    def test_the_same_one_that_begins_anew_is_told(self, server: LocalS3) -> None:
        def other() -> None:
            def stop(_done: int, _total: int) -> None:
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                pack(SOURCE, DEST, shard_size=SMALL, overwrite=True, progress=stop)

        def is_some_finished() -> bool:
            return any("/pack/" in key for key in server.keys("dest", "packed/"))

        with pytest.raises(ManifestMismatchError, match="begun anew"):
            pack(SOURCE, DEST, shard_size=SMALL, progress=self.meanwhile(other, is_some_finished))

    def test_shards_of_nobody_are_told_and_go_with_the_next_call(self, server: LocalS3) -> None:
        def other() -> None:
            server.put("dest", "packed/shard-000099.tar", b"")

        with pytest.raises(ManifestMismatchError, match=r"shard-000099.tar came while this pack ran, and is none"):
            pack(SOURCE, DEST, shard_size=SMALL, progress=self.meanwhile(other))
        pack(SOURCE, DEST, shard_size=SMALL)
        assert streamed() == expected()


def test_a_pack_that_replaces_another_and_is_stopped_leaves_nothing_of_it(server: LocalS3) -> None:
    pack(SOURCE, DEST, shard_size=SMALL)
    before = shards(server)

    def stop(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(SOURCE, DEST, shard_size=3 * SMALL, overwrite=True, progress=stop)
    manifest = pack(SOURCE, DEST, shard_size=3 * SMALL)
    assert len(manifest) == len(shards(server)) < len(before)
    assert streamed() == expected()
