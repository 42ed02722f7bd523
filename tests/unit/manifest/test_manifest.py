"""Manifests: rows, finding, keeping, deriving, comparing."""

import gc
import os
import pickle
import random
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.unit.manifest.fake_service import BUCKET, FakeClient, FakeService

from s3dataset._manifest import Manifest, ManifestEntry, list_prefix
from s3dataset.errors import DecodeError, InvalidUriError, ManifestMismatchError

KEYS = [b"images/%d/%05d.png" % (number % 10, number) for number in range(2000)]


def of_keys(keys: Iterable[bytes] = KEYS) -> Manifest:
    return list_prefix(FakeClient(FakeService(keys)), f"s3://{BUCKET}/images/")  # type: ignore[arg-type]


def large() -> Manifest:
    """One that is too large for memory, and lies in a file."""
    return Manifest.from_objects(f"s3://{BUCKET}/{number:090d}" for number in range(60_000))


def uris(manifest: Manifest) -> list[str]:
    return [entry.uri for entry in manifest.objects]


class TestFromObjects:
    def test_keeps_order_and_repetitions(self) -> None:
        given = ["s3://b/z", "s3://a/y/ü", "s3://b/z", "s3://a/ "]
        manifest = Manifest.from_objects(iter(given))
        assert uris(manifest) == given
        assert manifest.rows(range(4)) == [
            ("b", "z", None, None), ("a", "y/ü", None, None), ("b", "z", None, None), ("a", " ", None, None)
        ]  # fmt: skip
        assert (manifest.num_objects, manifest.num_samples, manifest.num_bytes) == (4, 4, 0)
        assert manifest.buckets == ("b", "a")

    def test_takes_one_uri(self) -> None:
        assert uris(Manifest.from_objects("s3://b/key")) == ["s3://b/key"]

    def test_none_at_all(self) -> None:
        manifest = Manifest.from_objects([])
        assert len(manifest) == 0
        assert list(manifest.objects) == []
        assert manifest.rows([]) == []
        with pytest.raises(KeyError):
            manifest.find("key")

    @pytest.mark.parametrize("uri", ["key", "s3://b", "s3://b/", "s3:///k", "https://b/k", "s3://b/\udc80"])
    def test_refuses_what_names_no_object(self, uri: str) -> None:
        with pytest.raises(InvalidUriError) as caught:
            Manifest.from_objects(["s3://b/k", uri])
        assert repr(uri) in str(caught.value)


class TestObjects:
    def test_entries_and_columns_agree(self) -> None:
        manifest = of_keys()
        entry = manifest.objects[5]
        assert entry == ManifestEntry(
            manifest.bucket(5), manifest.key(5), manifest.size(5), manifest.etag(5), manifest.mtime(5)
        )
        assert entry.uri == manifest.uri(5) == f"s3://{BUCKET}/{entry.key}"
        assert manifest.objects[-1] == manifest.objects[1999] == list(manifest.objects)[-1]
        assert manifest.objects[3:6] == [manifest.objects[row] for row in (3, 4, 5)]
        assert manifest.rows([7, 0, 7])[0] == (entry.bucket, manifest.key(7), manifest.size(7), manifest.etag(7))

    @pytest.mark.parametrize("index", [2000, -2001])
    def test_out_of_range(self, index: int) -> None:
        manifest = of_keys()
        with pytest.raises(IndexError, match="out of range for 2,000 objects"):
            manifest.key(index)
        with pytest.raises(IndexError):
            manifest.objects[index]

    def test_rows_out_of_range(self) -> None:
        with pytest.raises(IndexError):
            of_keys().rows([1999, 2000])

    def test_it_is_made_by_its_constructors_only(self) -> None:
        with pytest.raises(TypeError, match="from_prefix"):
            Manifest()


class TestFind:
    @pytest.mark.parametrize("ascending", [True, False])
    def test_finds_keys_and_uris(self, ascending: bool) -> None:
        manifest = of_keys()
        if not ascending:
            manifest = Manifest.from_objects(random.Random(0).sample(uris(manifest), 2000))
        for row in (0, 1, 999, 1999):
            assert manifest.find(manifest.key(row)) == row
            assert manifest.find(manifest.uri(row)) == row

    @pytest.mark.parametrize("ascending", [True, False])
    def test_names_similar_keys(self, ascending: bool) -> None:
        manifest = of_keys()
        if not ascending:
            manifest = Manifest.from_objects(uris(manifest)[::-1])
        with pytest.raises(
            KeyError, match=r"images/3/00013.pgn is not among these 2,000 objects. Similar: 'images/3/00013.png'"
        ):
            manifest.find("images/3/00013.pgn")

    def test_names_the_key_with_its_prefix(self) -> None:
        with pytest.raises(KeyError, match=r"With the prefix it is: 'images/3/00013.png'"):
            of_keys().find("3/00013.png")

    @pytest.mark.parametrize("ascending", [True, False])
    def test_names_keys_that_end_so(self, ascending: bool) -> None:
        given = ["s3://b/x/", "s3://b/a/b.png", "s3://b/y/a/b.png", "s3://b/ya/b.png", "s3://b/a/b.pngx"]
        manifest = Manifest.from_objects(sorted(given) if ascending else given)
        with pytest.raises(KeyError) as caught:
            manifest.find("b.png")
        named = sorted(["a/b.png", "y/a/b.png", "ya/b.png"], key=manifest.find)
        assert caught.value.args[0].endswith(f"Keys that end so: {', '.join(map(repr, named))}")

    def test_a_search_for_keys_that_end_so_is_bounded(self) -> None:
        manifest = Manifest.from_objects(f"s3://b/a/{number}" for number in range(3000))
        with pytest.raises(KeyError, match=r"is not among these 3,000 objects'$"):
            manifest.find("a")

    def test_buckets_count(self) -> None:
        manifest = Manifest.from_objects(["s3://a/k", "s3://b/k", "s3://b/l"])
        assert manifest.find("s3://b/k") == 1
        assert manifest.find("k") == 0
        with pytest.raises(KeyError, match="in s3://a, s3://b"):
            manifest.find("s3://c/k")
        with pytest.raises(KeyError):
            manifest.find("s3://a/l")
        with pytest.raises(InvalidUriError):
            manifest.find("s3://a/")


class TestKeeping:
    @pytest.mark.parametrize("make", [of_keys, large, lambda: Manifest.from_objects([])])
    def test_saved_and_loaded_it_is_the_same(self, make: object, tmp_path: Path) -> None:
        manifest = make()  # type: ignore[operator]
        manifest.save(tmp_path / "a.manifest")
        loaded = Manifest.load(tmp_path / "a.manifest")
        assert loaded == manifest
        assert loaded.path == str(tmp_path / "a.manifest")
        assert loaded.rows(range(len(loaded))) == manifest.rows(range(len(manifest)))
        assert list(loaded.objects) == list(manifest.objects)

    def test_saving_through_a_link_or_to_a_pipe_leaves_them_there(self, tmp_path: Path) -> None:
        manifest = Manifest.from_objects(["s3://b/k"])
        (tmp_path / "link").symlink_to("real")
        manifest.save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert uris(Manifest.load(tmp_path / "real")) == ["s3://b/k"]
        os.mkfifo(tmp_path / "pipe")
        came: list[bytes] = []
        reader = threading.Thread(target=lambda: came.append((tmp_path / "pipe").read_bytes()))
        reader.start()
        manifest.save(tmp_path / "pipe")
        assert (tmp_path / "pipe").is_fifo()
        reader.join()
        assert came == [(tmp_path / "real").read_bytes()]

    def test_saving_replaces_at_once_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        place = tmp_path / "m"
        Manifest.from_objects(["s3://b/old"]).save(place)
        old = Manifest.load(place)
        Manifest.from_objects(["s3://b/new"]).save(place)
        assert uris(old) == ["s3://b/old"]
        assert uris(Manifest.load(place)) == ["s3://b/new"]
        assert [file.name for file in tmp_path.iterdir()] == ["m"]
        umask = os.umask(0)
        os.umask(umask)
        assert place.stat().st_mode & 0o777 == 0o666 & ~umask

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Manifest.load(tmp_path / "none")

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "has 0 bytes only"),
            (b"<html>" + bytes(100), "begins with b'<html>"),
            (b"S3DSMNF\x03" + bytes(100), "format version 3, and this release reads 1 and 2"),
        ],
    )
    def test_other_files_are_refused(self, content: bytes, why: str, tmp_path: Path) -> None:
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(DecodeError, match="is no manifest") as caught:
            Manifest.load(tmp_path / "m")
        assert why in str(caught.value)
        assert str(tmp_path / "m") in str(caught.value)

    @pytest.mark.parametrize("keep", [20, 1000, -1])
    def test_a_file_that_was_cut_off_is_refused(self, keep: int, tmp_path: Path) -> None:
        of_keys().save(tmp_path / "m")
        content = (tmp_path / "m").read_bytes()
        (tmp_path / "m").write_bytes(content[:keep])
        with pytest.raises(DecodeError, match=r"cut off|header cannot be read|20 bytes only"):
            Manifest.load(tmp_path / "m")

    @pytest.mark.parametrize("make", [of_keys, large])
    def test_published_it_outlives_its_maker(self, make: object, tmp_path: Path) -> None:
        manifest = make()  # type: ignore[operator]
        place = str(tmp_path / "page.manifest")
        manifest.publish(place)
        fingerprint = manifest.fingerprint
        del manifest
        gc.collect()
        assert Manifest.open(place).fingerprint == fingerprint

    def test_a_large_one_lies_in_a_private_file_that_goes_with_it(self) -> None:
        manifest = large()
        place = Path(manifest.path or "")
        assert place.stat().st_mode & 0o777 == 0o600
        child = os.fork()
        if child == 0:
            del manifest
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert place.exists()
        del manifest
        gc.collect()
        assert not place.exists()


class TestPickling:
    def test_a_small_one_takes_its_rows_along(self) -> None:
        manifest = of_keys()
        copy = pickle.loads(pickle.dumps(manifest))
        assert copy == manifest
        assert list(copy.objects) == list(manifest.objects)

    def test_one_in_memory_takes_them_along_whatever_its_size(self) -> None:
        manifest = Manifest.from_objects(f"s3://{BUCKET}/{number:030d}" for number in range(40_000))
        assert manifest.path is None
        content = pickle.dumps(manifest)
        assert len(content) > 1 << 20
        assert pickle.loads(content).rows(range(40_000)) == manifest.rows(range(40_000))

    def test_a_large_one_takes_the_path_of_its_file(self) -> None:
        manifest = large()
        content = pickle.dumps(manifest)
        assert len(content) < 2000
        copy = pickle.loads(content)
        assert copy.path == manifest.path
        assert copy == manifest
        del manifest, copy
        gc.collect()
        with pytest.raises(ManifestMismatchError, match=r"Manifest\.save"):
            pickle.loads(content)

    def test_another_file_in_its_place_is_told(self, tmp_path: Path) -> None:
        large().save(tmp_path / "m")
        content = pickle.dumps(Manifest.load(tmp_path / "m"))
        Manifest.from_objects(["s3://b/other"]).save(tmp_path / "m")
        with pytest.raises(ManifestMismatchError, match="replaced"):
            pickle.loads(content)


class TestFingerprint:
    def test_equal_objects_in_equal_order_only(self) -> None:
        given = ["s3://a/k", "s3://a/l", "s3://b/m"]
        fingerprint = Manifest.from_objects(given).fingerprint
        assert fingerprint == Manifest.from_objects(iter(given)).fingerprint
        others = [
            given[::-1],
            given[:2],
            [*given, "s3://b/n"],
            ["s3://a/k", "s3://a/lm", "s3://b/"[:-1] + "/m"],
            ["s3://a/k", "s3://b/l", "s3://b/m"],
        ]
        assert fingerprint not in {Manifest.from_objects(other).fingerprint for other in others}

    def test_sizes_and_etags_count_and_times_do_not(self) -> None:
        service = FakeService(KEYS)

        def fingerprint() -> str:
            return list_prefix(FakeClient(service), f"s3://{BUCKET}/").fingerprint  # type: ignore[arg-type]

        first = fingerprint()
        size, mtime, etag = service.objects[KEYS[0]]
        service.objects[KEYS[0]] = (size, mtime + 5, etag)
        assert fingerprint() == first
        service.objects[KEYS[0]] = (size + 1, mtime, etag)
        second = fingerprint()
        service.objects[KEYS[0]] = (size, mtime, b"0" * 32)
        assert len({first, second, fingerprint()}) == 3

    def test_it_is_of_the_rows_and_not_of_how_they_came(self) -> None:
        whole = of_keys()
        assert (
            whole.filter(lambda entry: entry.key < "images/5") + whole.filter(lambda entry: entry.key >= "images/5")
        ) == whole
        slow = list_prefix(FakeClient(FakeService(KEYS, page_keys=7)), f"s3://{BUCKET}/")  # type: ignore[arg-type]
        assert slow == whole


class TestDeriving:
    @pytest.mark.parametrize("make", [of_keys, large])
    def test_rows_are_copied_whether_they_stand_together_or_not(self, make: object) -> None:
        manifest = make()  # type: ignore[operator]
        entries = list(manifest.objects)
        for chosen in (
            [row for row in range(len(entries)) if row % 2],
            [row for row in range(len(entries)) if row % 7 in (0, 1, 2, 5)],
            [len(entries) - 1],
            [],
            list(range(len(entries))),
        ):
            wanted = {entries[row].key for row in chosen}
            part = manifest.filter(lambda entry, wanted=wanted: entry.key in wanted)
            assert list(part.objects) == [entries[row] for row in chosen]
            assert all(part.find(entry.key) == row for row, entry in enumerate(list(part.objects)[:50]))

    def test_filter(self) -> None:
        manifest = of_keys()
        chosen = manifest.filter(lambda entry: entry.key.endswith("7.png"))
        expected = [entry for entry in manifest.objects if entry.key.endswith("7.png")]
        assert list(chosen.objects) == expected
        assert chosen.num_bytes == sum(entry.size or 0 for entry in expected)
        assert len(manifest.filter(lambda _: False)) == 0

    def test_split_deals_every_object_to_one_part(self) -> None:
        manifest = of_keys()
        parts = manifest.split({"train": 0.9, "val": 0.1}, seed=3)
        assert list(parts) == ["train", "val"]
        assert sorted(uris(parts["train"]) + uris(parts["val"])) == uris(manifest)
        assert uris(parts["val"]) == sorted(uris(parts["val"]))
        assert 140 < len(parts["val"]) < 260
        assert parts == manifest.split({"train": 0.9, "val": 0.1}, seed=3)
        assert parts != manifest.split({"train": 0.9, "val": 0.1}, seed=4)

    def test_split_moves_nothing_when_objects_are_added(self) -> None:
        before = of_keys(KEYS[::2]).split({"train": 0.8, "val": 0.2})
        after = of_keys(KEYS).split({"train": 0.8, "val": 0.2})
        assert set(uris(before["train"])) <= set(uris(after["train"]))
        assert set(uris(before["val"])) <= set(uris(after["val"]))

    def test_split_may_leave_a_rest_out(self) -> None:
        parts = of_keys().split({"a": 0.25, "b": 0.25})
        assert 800 < len(parts["a"]) + len(parts["b"]) < 1200

    @pytest.mark.parametrize("fractions", [{}, {"a": -0.1}, {"a": 1.1}, {"a": 0.6, "b": 0.5}])
    def test_split_refuses_what_is_no_share(self, fractions: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=r"fractions is empty|must be between|sum to"):
            of_keys().split(fractions)

    def test_thirds_deal_everything(self) -> None:
        parts = of_keys().split({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
        assert sum(map(len, parts.values())) == len(KEYS)

    def test_sum(self) -> None:
        named = Manifest.from_objects(["s3://other/x", "s3://other/y"])
        both = named + of_keys() + named
        assert uris(both) == [*uris(named), *uris(of_keys()), *uris(named)]
        assert both.size(0) is None
        assert both.etag(-1) is None
        assert both.rows([2])[0] == of_keys().rows([0])[0]
        assert both.num_bytes == of_keys().num_bytes
        with pytest.raises(TypeError):
            named + 1  # type: ignore[operator]

    def test_odd_etags_survive(self) -> None:
        service = FakeService(KEYS)
        for number, key in enumerate(KEYS[::5]):
            service.put(key, etag=b"odd-%d" % number)
        manifest = list_prefix(FakeClient(service), f"s3://{BUCKET}/")  # type: ignore[arg-type]
        etags = {entry.uri: entry.etag for entry in manifest.objects}
        derived = manifest.filter(lambda entry: entry.key[-5] in "0369") + manifest
        assert [entry.etag for entry in derived.objects] == [etags[entry.uri] for entry in derived.objects]


class TestVerify:
    def manifest(self, service: FakeService, uri: str = f"s3://{BUCKET}/images/") -> Manifest:
        return list_prefix(FakeClient(service), uri)  # type: ignore[arg-type]

    def test_nothing_changed(self) -> None:
        service = FakeService(KEYS)
        manifest = self.manifest(service)
        assert manifest.verify() == []
        assert manifest.split({"a": 0.5})["a"].verify() == []

    def test_tells_what_changed(self) -> None:
        service = FakeService(KEYS)
        manifest = self.manifest(service)
        service.delete(KEYS[10])
        service.put(KEYS[11], size=5, etag=b"f" * 32)
        service.put(b"images/new")
        changes = manifest.verify()
        assert [(change.kind, change.uri) for change in changes] == sorted(
            [
                ("removed", f"s3://{BUCKET}/{KEYS[10].decode()}"),
                ("changed", f"s3://{BUCKET}/{KEYS[11].decode()}"),
                ("added", f"s3://{BUCKET}/images/new"),
            ],
            key=lambda change: change[1],
        )
        changed = next(change for change in changes if change.kind == "changed")
        assert changed.before is not None
        assert changed.after is not None
        assert (changed.before.size, changed.after.size) == (manifest.size(manifest.find(KEYS[11].decode())), 5)

    def test_a_part_is_told_nothing_of_the_rest(self) -> None:
        service = FakeService(KEYS)
        manifest = self.manifest(service).filter(lambda entry: entry.key.startswith("images/3/"))
        service.put(b"images/3/new")
        service.delete(KEYS[0])
        service.delete(KEYS[3])
        assert [(change.kind, change.uri) for change in manifest.verify()] == [
            ("removed", f"s3://{BUCKET}/{KEYS[3].decode()}")
        ]

    def test_named_objects_are_asked_for_one_by_one(self) -> None:
        service = FakeService(KEYS)
        manifest = self.manifest(service, f"s3://{BUCKET}/images/1/") + Manifest.from_objects(
            [f"s3://{BUCKET}/{KEYS[0].decode()}", f"s3://{BUCKET}/{KEYS[2].decode()}"] * 2
        )
        service.delete(KEYS[2])
        assert {(change.kind, change.uri) for change in manifest.verify()} == {
            ("removed", f"s3://{BUCKET}/{KEYS[2].decode()}")
        }


def test_a_million_rows_take_forty_bytes_and_their_keys() -> None:
    keys = sorted(b"%016x" % (number * 2654435761 % 2**64) for number in range(100_000))
    manifest = list_prefix(FakeClient(FakeService(keys)), f"s3://{BUCKET}/")  # type: ignore[arg-type]
    size = Path(manifest.path or "").stat().st_size if manifest.path else sys.maxsize
    assert size <= 100_000 * (40 + 16) + 4096
