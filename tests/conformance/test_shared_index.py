"""An index among others: of folders above, written by several at once, kept after failures."""

import gzip
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3dataset import S3IterableDataset, S3MapDataset
from s3dataset._client import get_client
from s3dataset._manifest import Manifest, check_index, find_index, index_location, update_index
from s3dataset.errors import ObjectNotFoundError, UnindexableError
from s3dataset.formats import JSONL, Text
from s3dataset.testing import Fault, LocalS3

ZIPPED = gzip.compress(b"a line\n")


def lines(number: int) -> bytes:
    return b"".join(b"%d-%d\n" % (number, line) for line in range(10 + number))


@pytest.fixture
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as server:
        for part in ("train", "val"):
            for number in range(4):
                server.put("bucket", f"data/deep/{part}/{number}.txt", lines(number))
        yield server


def index(uri: str, pattern: str | None = None) -> str:
    place = index_location(uri, "text")
    update_index(Manifest.from_prefix(uri, pattern=pattern), Text(), place, shared=True)
    return place


class TestOfFoldersAbove:
    @pytest.mark.parametrize("above", ["s3://bucket/", "s3://bucket/data/", "s3://bucket/data/deep/"])
    def test_it_is_found(self, server: LocalS3, above: str) -> None:
        place = index(above)
        for uri, pattern, count in [
            ("s3://bucket/data/deep/train/", None, 4),
            ("s3://bucket/data/deep/train/", "[01].txt", 2),
            ("s3://bucket/data/deep/train/3", None, 1),
            (above, "**/*3.txt", 2),
        ]:
            found = find_index(get_client(), uri, Manifest.from_prefix(uri, pattern=pattern), Text())
            assert found is not None
            assert found.location == place
            assert found.manifest is not None
            assert len(found.manifest) == count
        dataset = S3MapDataset.from_prefix("s3://bucket/data/deep/val/", format="text")
        assert [dataset[0]["text"], dataset[-1]["text"], len(dataset)] == ["0-0", "3-12", 46]
        streamed = S3IterableDataset.from_prefix("s3://bucket/data/deep/val/", format="text", shuffle=True)
        assert len(streamed) == 46

    def test_one_that_is_nearer_comes_first(self, server: LocalS3) -> None:
        index("s3://bucket/")
        near = index("s3://bucket/data/deep/")
        found = find_index(
            get_client(), "s3://bucket/data/deep/val/", Manifest.from_prefix("s3://bucket/data/deep/val/"), "text"
        )
        assert found is not None
        assert found.location == near
        server.put("bucket", "data/deep/val/9.txt", lines(9))
        far = index("s3://bucket/")
        found = find_index(
            get_client(), "s3://bucket/data/deep/val/", Manifest.from_prefix("s3://bucket/data/deep/val/"), "text"
        )
        assert found is not None
        assert found.location == far
        assert found.manifest is not None

    def test_it_is_held_against_size_and_etag(self, server: LocalS3) -> None:
        place = index("s3://bucket/data/")
        server.put("bucket", "data/deep/val/3.txt", lines(5))
        with pytest.warns(
            UserWarning, match=r"tar|text-index.manifest is not used: it is of earlier contents of 1 shard"
        ):
            listed = S3IterableDataset.from_prefix("s3://bucket/data/deep/val/", format="text").manifest
        assert listed.format is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert S3MapDataset.from_prefix("s3://bucket/data/deep/train/", format="text").manifest.format == Text()
        assert place != index("s3://bucket/data/deep/val/")
        assert len(S3MapDataset.from_prefix("s3://bucket/data/deep/val/", format="text")) == 48

    def test_one_of_other_shards_is_none_of_these(self, server: LocalS3) -> None:
        index("s3://bucket/data/", pattern="deep/train/*.txt")
        uri = "s3://bucket/data/deep/val/"
        assert find_index(get_client(), uri, Manifest.from_prefix(uri), Text()) is None
        assert find_index(get_client(), "s3://bucket/data/deep/train/", Manifest.from_prefix(uri), JSONL()) is None

    def test_what_looking_for_it_costs(self, server: LocalS3) -> None:
        uri = "s3://bucket/data/deep/val/"
        listed = Manifest.from_prefix(uri)

        def requests() -> list[str]:
            before = server.requests()[-1].number
            find_index(get_client(), uri, listed, Text())
            found = [(record.operation, record.range == "bytes=0-0") for record in server.requests(after=before)]
            assert {operation for operation, _ in found} == {"GetObject"}
            return ["byte" if small else "index" for _, small in found]

        assert sorted(requests()) == ["byte", "byte", "byte", "index"]
        index("s3://bucket/data/")
        assert sorted(requests()) == ["byte", "byte", "byte", "index", "index"]
        index(uri)
        assert requests() == ["index"]

    def test_eight_folders_are_asked_at_most(self, server: LocalS3) -> None:
        deep = "s3://bucket/" + "".join(f"{level}/" for level in range(12))
        server.put("bucket", deep[len("s3://bucket/") :] + "a.txt", lines(1))
        listed = Manifest.from_prefix(deep)
        before = server.requests()[-1].number
        assert find_index(get_client(), deep, listed, Text()) is None
        assert len(server.requests("GetObject", after=before)) == 1 + 8

    def test_who_may_not_read_above_is_not_disturbed(self, server: LocalS3) -> None:
        index("s3://bucket/data/deep/")
        server.add_fault(Fault.status(403, code="AccessDenied", key="data/.s3dataset/*", times=None))
        assert len(S3MapDataset.from_prefix("s3://bucket/data/deep/val/", format="text")) == 46

    def test_a_new_index_takes_over_what_those_know(self, server: LocalS3) -> None:
        index("s3://bucket/data/")
        server.put("bucket", "data/deep/val/4.txt", lines(4))
        uri = "s3://bucket/data/deep/val/"
        done = update_index(Manifest.from_prefix(uri), Text(), index_location(uri, "text"), shared=True)
        assert (done.scanned, done.kept) == (1, 4)


class TestSeveralAtOnce:
    def test_nothing_is_lost(self, server: LocalS3) -> None:
        for number in range(8):
            server.put("bucket", f"many/{number}.txt", lines(number))
        place = index_location("s3://bucket/many/", "text")
        listings = [Manifest.from_prefix("s3://bucket/many/", pattern=f"{number}.txt") for number in range(8)]
        failures: list[Exception] = []

        def work(listed: Manifest) -> None:
            try:
                update_index(listed, Text(), place, shared=True)
            except Exception as error:  # noqa: BLE001 - for the assertion below
                failures.append(error)

        threads = [threading.Thread(target=work, args=[listed]) for listed in listings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        found = check_index(place, Manifest.from_prefix("s3://bucket/many/"), Text())
        assert found is not None
        assert found.manifest is not None
        assert found.manifest.num_samples == sum(10 + number for number in range(8))

    def test_what_came_after_the_listing_stays(self, server: LocalS3) -> None:
        uri = "s3://bucket/data/deep/val/"
        index(uri)
        early = Manifest.from_prefix(uri)
        server.put("bucket", "data/deep/val/9.txt", lines(9))
        late = Manifest.from_prefix(uri)

        def meanwhile(_: object) -> None:
            if not done:
                done.append(update_index(late, Text(), index_location(uri, "text"), shared=True))

        done: list[object] = []
        update_index(early, Text(), index_location(uri, "text"), shared=True, full=True, progress=meanwhile)
        found = check_index(index_location(uri, "text"), Manifest.from_prefix(uri), Text())
        assert found is not None
        assert (found.missing, found.changed) == (0, 0)

    def test_a_store_that_refuses_conditions(self) -> None:
        with LocalS3("bucket", variant={"refuse_write_conditions": True}) as server:
            for number in range(3):
                server.put("bucket", f"a/{number}.txt", lines(number))
            index("s3://bucket/a/", pattern="[01].txt")
            place = index("s3://bucket/a/", pattern="2.txt")
            assert len(Manifest.load(place)) == 3

    def test_a_store_that_refuses_if_match_alone(self, server: LocalS3) -> None:
        index("s3://bucket/data/", pattern="**/0.txt")
        key = "data/.s3dataset/text-index.manifest"
        server.add_fault(Fault.status(412, code="PreconditionFailed", operation="PutObject", key=key, times=1))
        place = index("s3://bucket/data/", pattern="**/1.txt")
        assert len(Manifest.load(place)) == 4

    def test_an_index_that_goes_away_meanwhile(self, server: LocalS3) -> None:
        place = index("s3://bucket/data/", pattern="**/0.txt")

        def meanwhile(_: object) -> None:
            get_client().delete_object("bucket", "data/.s3dataset/text-index.manifest")

        listed = Manifest.from_prefix("s3://bucket/data/", pattern="**/1.txt")
        update_index(listed, Text(), place, shared=True, progress=meanwhile)
        assert len(Manifest.load(place)) == 2


class TestAfterAFailure:
    @pytest.mark.parametrize("local", [True, False])
    def test_what_was_scanned_is_kept_beside_any_place(self, server: LocalS3, tmp_path: Path, local: bool) -> None:
        place = str(tmp_path / "train.manifest") if local else "s3://bucket/elsewhere/train.manifest"
        uri = "s3://bucket/data/deep/"
        done = update_index(Manifest.from_prefix(uri), Text(), place)
        whole = done.manifest
        for number in range(100, 140):
            server.put("bucket", f"data/deep/train/{number}.txt", lines(number))
        server.put("bucket", "data/deep/val/zipped.txt.gz", ZIPPED)
        with pytest.raises(UnindexableError) as caught:
            update_index(Manifest.from_prefix(uri), Text(), place)
        assert Manifest.load(place) == whole  # nothing that looks whole and is not
        kept = len(Manifest.load(f"{place}.partial"))
        assert kept > 8
        assert any(f"{kept} of 49 shards are kept in {place}.partial" in note for note in caught.value.__notes__)
        done = update_index(Manifest.from_prefix(uri, pattern="**/*.txt"), Text(), place)
        assert (done.scanned, done.kept) == (48 - kept, kept)
        with pytest.raises(FileNotFoundError if local else ObjectNotFoundError):
            Manifest.load(f"{place}.partial")
