"""Listing a prefix: what it finds, with how many requests, and on which services."""

import random
import uuid
import warnings
from datetime import date, timedelta

import pytest
from tests.unit.manifest.fake_service import BUCKET, FakeClient, FakeService

from s3dataset._manifest import Manifest, Progress, list_prefix
from s3dataset.errors import AccessDeniedError, EmptyPrefixWarning, InvalidUriError, S3Exception

KEYS = 200_000


def listed(service: FakeService, uri: str = f"s3://{BUCKET}/", pattern: str | None = None) -> list[bytes]:
    return keys_of(list_prefix(FakeClient(service), uri, pattern=pattern))  # type: ignore[arg-type]


def keys_of(manifest: Manifest) -> list[bytes]:
    return [key.encode() for _, key, _, _ in manifest.rows(range(len(manifest)))]


def dense() -> list[bytes]:
    return [b"key-%08d.jpg" % number for number in range(KEYS)]


def uuids() -> list[bytes]:
    source = random.Random(1)
    return sorted(str(uuid.UUID(int=source.getrandbits(128), version=4)).encode() for _ in range(KEYS))


def dates() -> list[bytes]:
    begin = date(2021, 3, 1)
    return [f"{begin + timedelta(day):%Y/%m/%d}/{n:05d}.json".encode() for day in range(1600) for n in range(125)]


def one_hot_prefix() -> list[bytes]:
    cold = [b"user-%04d/%03d.bin" % (user, n) for user in range(1000) for n in range(10)]
    return sorted({*cold, *(b"user-0567/%08d.bin" % n for n in range(KEYS - len(cold)))})


def classes() -> list[bytes]:
    source = random.Random(2)
    synsets = sorted(source.sample(range(1_440_000, 15_140_000), 160))
    return sorted(
        {b"train/n%08d/n%08d_%d.JPEG" % (s, s, source.randrange(30000)) for s in synsets for _ in range(1300)}
    )


def classes_in_names() -> list[bytes]:
    return sorted(key.rpartition(b"/")[2] for key in classes())


def unpadded() -> list[bytes]:
    return sorted(b"img_%d.jpg" % number for number in range(KEYS))


class TestParallel:
    @pytest.mark.parametrize(
        "keys", [dense, uuids, dates, one_hot_prefix, classes, classes_in_names, unpadded], ids=lambda f: f.__name__
    )
    def test_large_listings_take_few_requests_and_little_time(self, keys: object) -> None:
        expected = keys()  # type: ignore[operator]
        service = FakeService(expected)
        client = FakeClient(service)
        manifest = list_prefix(client, f"s3://{BUCKET}/")  # type: ignore[arg-type]
        assert keys_of(manifest) == expected
        pages = -(-len(expected) // 1000)
        assert len(service.requests) <= 1.25 * pages + 32
        # The bar is 350 pages a second at 25 ms a page; the network and the parser want a share of the time as well.
        assert pages / client.now_ms * 1000 > 400

    def test_one_page_is_one_request(self) -> None:
        service = FakeService([b"images/%03d" % number for number in range(1000)] + [b"other"])
        assert len(listed(service, f"s3://{BUCKET}/images/")) == 1000
        assert service.requests == [{"prefix": "images/", "delimiter": "", "start_after": "", "token": None}]

    @pytest.mark.parametrize("folders", [1, 50])
    def test_slow_names_of_directories_are_not_waited_for(self, folders: int) -> None:
        keys = sorted(b"%03d/%s" % (n % folders, key) for n, key in enumerate(dense()))
        client = FakeClient(FakeService(keys, slow_delimiter_ms=10_000))
        assert keys_of(list_prefix(client, f"s3://{BUCKET}/")) == keys  # type: ignore[arg-type]
        assert client.now_ms < 5000

    def test_few_connections_are_kept_to(self) -> None:
        client = FakeClient(FakeService(dense()), max_connections=7)
        assert len(list_prefix(client, f"s3://{BUCKET}/")) == KEYS  # type: ignore[arg-type]
        assert client.most_at_once <= 14  # the client opens no more than 7 connections for them

    def test_other_prefixes_are_left_out(self) -> None:
        keys = [b"%s/%06d" % (folder, n) for folder in (b"a", b"aa", b"b") for n in range(3000)]
        service = FakeService(keys)
        assert listed(service, f"s3://{BUCKET}/aa/") == [key for key in keys if key.startswith(b"aa/")]
        assert listed(service, f"s3://{BUCKET}/a") == [key for key in keys if key.startswith(b"a")]

    def test_folder_objects_and_odd_keys_are_objects_like_others(self) -> None:
        keys = sorted([b"x/", b"x/a", b"x//", b"x/\xc3\xbc", "x/\U0001f600".encode(), b"x/ &<>\"'%2F+", b"x/\x01"])
        assert listed(FakeService(keys), f"s3://{BUCKET}/x/") == keys

    def test_small_pages_of_other_stores(self) -> None:
        keys = [b"k%06d" % number for number in range(20_000)]
        service = FakeService(keys, page_keys=100)
        assert listed(service) == keys
        assert len(service.requests) <= 1.25 * 200 + 32

    def test_progress_counts_up_to_the_end(self) -> None:
        told: list[Progress] = []
        service = FakeService(dense()[:5000])
        list_prefix(FakeClient(service), f"s3://{BUCKET}", progress=told.append)  # type: ignore[arg-type]
        assert told == sorted(told)
        assert told[-1] == (5000, len(service.requests))

    def test_columns_are_those_of_the_service(self) -> None:
        service = FakeService(dense()[:3500])
        service.put(b"key-00001234.jpg", size=2**40, etag=b"0123456789abcdef0123456789abcdef-17")
        service.put(b"key-00002345.jpg", size=0, etag=b"not an MD5")
        service.put(b"key-00003456.jpg", etag=b"0123456789ABCDEF0123456789ABCDEF")
        service.put(b"key-00000007.jpg", etag=b"")
        manifest = list_prefix(FakeClient(service), f"s3://{BUCKET}")  # type: ignore[arg-type]
        for entry in manifest.objects:
            size, mtime, etag = service.objects[entry.key.encode()]
            expected = f'"{etag.decode()}"' if etag else None
            assert (entry.size, entry.last_modified, entry.etag) == (size, mtime, expected)
        assert manifest.num_bytes == sum(size for size, _, _ in service.objects.values())
        sizes = {key: service.objects[key.encode()][0] for _, key, _, _ in manifest.rows(range(3500))}
        assert [size for _, _, size, _ in manifest.rows(range(3500))] == list(sizes.values())


class TestPattern:
    def test_chooses_among_what_follows_the_prefix(self) -> None:
        keys = sorted(
            [b"data/images/", b"data/images/.DS_Store", b"data/images/labels.json"]
            + [b"data/images/%d/%04d.%s" % (n % 10, n, b"jpg" if n % 3 else b"json") for n in range(5000)]
        )
        service = FakeService(keys)
        assert listed(service, f"s3://{BUCKET}/data/images/", "*.jpg") == [key for key in keys if key.endswith(b".jpg")]
        some = listed(service, f"s3://{BUCKET}/data/images/", "{2..4}/*.jpg")
        assert some == [key for key in keys if key.endswith(b".jpg") and key[12:13] in b"234"]

    def test_says_what_is_there_when_nothing_matches(self) -> None:
        service = FakeService([b"images/a.png", b"images/b.png"])
        with pytest.warns(
            EmptyPrefixWarning, match=r"None of the 2 objects below s3://bucket/images/ .*'a.png', 'b.png'"
        ):
            assert listed(service, f"s3://{BUCKET}/images/", "*.jpg") == []


class TestEmpty:
    def test_names_the_nearest_prefixes(self) -> None:
        service = FakeService([b"data/train/1", b"data/val/1", b"data/test/1", b"other/1"])
        with pytest.warns(
            EmptyPrefixWarning,
            match=r"no object below s3://bucket/data/trian/: in s3://bucket/data/ .*s3://bucket/data/train/",
        ):
            assert listed(service, f"s3://{BUCKET}/data/trian/") == []

    def test_climbs_until_there_is_something(self) -> None:
        service = FakeService([b"data/train/1"])
        with pytest.warns(EmptyPrefixWarning, match=r"in s3://bucket/ there are s3://bucket/data/$"):
            listed(service, f"s3://{BUCKET}/dat/a/b/c/")

    def test_an_empty_bucket(self) -> None:
        with pytest.warns(EmptyPrefixWarning, match="the bucket bucket is empty"):
            assert listed(FakeService(), f"s3://{BUCKET}/x/y") == []

    def test_a_wildcard_is_one_of_pattern(self) -> None:
        with pytest.warns(EmptyPrefixWarning, match=r"s3://bucket/data/a\. .* pattern= chooses among what lies below"):
            listed(FakeService([b"data/a"]), f"s3://{BUCKET}/data/*.jpg")

    def test_warns_once(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            listed(FakeService([b"a"]), f"s3://{BUCKET}/b")
        assert [warning.category for warning in caught] == [EmptyPrefixWarning]


class TestOtherServices:
    @pytest.mark.parametrize(
        "service",
        [
            FakeService(dense()[:30_000], ignore_start_after=True),
            FakeService(dense()[:30_000], empty_pages=True),
            FakeService(dense()[:30_000], refuse_start_after=501),
            FakeService(dates()[:30_000], refuse_delimiter=403),
            FakeService(dense()[:5_000], unordered=True),
            FakeService(dense()[:30_000], unordered=True, empty_pages=True),
        ],
        ids=[
            "ignores start-after",
            "empty pages",
            "no start-after",
            "no delimiter",
            "unordered",
            "unordered, empty pages",
        ],
    )
    def test_lists_all_in_order(self, service: FakeService) -> None:
        assert listed(service) == sorted(service.objects)

    def test_express_buckets_are_listed_page_by_page(self) -> None:
        service = FakeService(dense()[:5000], unordered=True)
        found = listed(service, "s3://base--use1-az4--x-s3/")
        assert found == sorted(service.objects)
        assert len(service.requests) == 5
        assert not any(request["start_after"] for request in service.requests)

    def test_a_listing_that_does_not_advance_ends_with_an_error(self) -> None:
        service = FakeService([b"a", b"b"])
        page = service.page(prefix="", delimiter="", start_after="", token=None)
        page.is_truncated, page.next_token = True, None  # type: ignore[union-attr]
        service.page = lambda **_: page  # type: ignore[method-assign]
        with pytest.raises(S3Exception, match="does not go on"):
            listed(service)


class TestErrors:
    def test_failures_of_the_service_pass(self) -> None:
        service = FakeService([b"a"], failure=AccessDeniedError("no", uri="s3://bucket/", status=403))
        with pytest.raises(AccessDeniedError):
            listed(service)

    def test_uri_and_pattern_are_looked_at_first(self) -> None:
        service = FakeService([b"a"])
        with pytest.raises(InvalidUriError):
            listed(service, "http://bucket/")
        with pytest.raises(ValueError, match="cannot be read"):
            listed(service, f"s3://{BUCKET}", "{a")
        assert not service.requests
