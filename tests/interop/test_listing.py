"""Listings of the local S3, as boto3 reads them."""

from typing import Any

import pytest

from s3dataset.testing import LocalS3

from .errors import refused

KEYS = ["a", "a/1", "a/2/x", "a/2/y", "a0", "b//c", "b/d", "dir/", "é", "\U0001f600", "\uffff"]


@pytest.fixture
def filled(server: LocalS3, bucket: str) -> str:
    for key in KEYS:
        server.put(bucket, key, key.encode())
    return bucket


def pages(
    s3: Any, bucket: str, operation: str = "list_objects_v2", **options: Any
) -> list[tuple[list[str], list[str]]]:
    """The keys and common prefixes of every page."""
    found = []
    for page in s3.get_paginator(operation).paginate(Bucket=bucket, **options):
        contents, prefixes = page.get("Contents", []), page.get("CommonPrefixes", [])
        assert operation == "list_objects" or page["KeyCount"] == len(contents) + len(prefixes)
        found.append(([entry["Key"] for entry in contents], [entry["Prefix"] for entry in prefixes]))
    return found


def merged(found: list[tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
    return [key for keys, _ in found for key in keys], [prefix for _, prefixes in found for prefix in prefixes]


def in_byte_order(keys: list[str]) -> list[str]:
    return sorted(keys, key=str.encode)


def test_keys_come_in_byte_order(s3: Any, filled: str) -> None:
    assert merged(pages(s3, filled)) == (in_byte_order(KEYS), [])
    # UTF-16 would have it the other way round.
    assert in_byte_order(KEYS)[-2:] == ["\uffff", "\U0001f600"]


@pytest.mark.parametrize("operation", ["list_objects_v2", "list_objects"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("prefix", "delimiter", "keys", "prefixes"),
    [
        ("", "", KEYS, []),
        ("", "/", ["a", "a0", "é", "\U0001f600", "\uffff"], ["a/", "b/", "dir/"]),
        ("a/", "/", ["a/1"], ["a/2/"]),
        ("a", "/", ["a", "a0"], ["a/"]),
        ("a/2", "/", [], ["a/2/"]),
        ("b/", "/", ["b/d"], ["b//"]),
        ("dir/", "/", ["dir/"], []),
        ("", "2/", [k for k in KEYS if "2/" not in k], ["a/2/"]),
        ("nothing", "/", [], []),
    ],
)
def test_pages_of_any_size_add_up(
    s3: Any, filled: str, operation: str, size: int, prefix: str, delimiter: str, keys: list[str], prefixes: list[str]
) -> None:
    found = pages(s3, filled, operation, Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": size})
    assert merged(found) == (in_byte_order(keys), prefixes)
    assert all(len(page_keys) + len(page_prefixes) <= size for page_keys, page_prefixes in found)


def test_listing_from_a_key_on(s3: Any, filled: str) -> None:
    listed = in_byte_order(KEYS)
    for start in ["", "a", "a/", "a/2/x", "b", "zzz", "\U0001f600"]:
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=filled, StartAfter=start).get("Contents", [])]
        assert keys == [key for key in listed if key.encode() > start.encode()]
    # A token overrules the start.
    page = s3.list_objects_v2(Bucket=filled, MaxKeys=1)
    again = s3.list_objects_v2(
        Bucket=filled, MaxKeys=1, StartAfter="zzz", ContinuationToken=page["NextContinuationToken"]
    )
    assert [entry["Key"] for entry in again["Contents"]] == [listed[1]]


def test_an_entry_tells_about_its_object(s3: Any, server: LocalS3, bucket: str) -> None:
    etag = server.put(bucket, "k", b"12345")
    (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (entry["ETag"], entry["Size"], entry["StorageClass"]) == (f'"{etag}"', 5, "STANDARD")
    assert entry["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"].replace(
        microsecond=entry["LastModified"].microsecond
    )


def test_arguments_that_are_refused(s3: Any, bucket: str) -> None:
    with refused(400, "InvalidArgument"):
        s3.list_objects_v2(Bucket=bucket, ContinuationToken="made up")
    with refused(400, "InvalidArgument"):
        s3.list_objects_v2(Bucket=bucket, MaxKeys=-1)
    with refused(404, "NoSuchBucket"):
        s3.list_objects_v2(Bucket="no-such-bucket")
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["IsTruncated"] is False
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)["MaxKeys"] == 1000


class TestSynthetic:
    def test_two_hundred_thousand_keys(self, s3: Any, server: LocalS3, bucket: str) -> None:
        server.add_synthetic(bucket, "train/{}.jpg", count=200_000, size_bytes=7)
        server.put(bucket, "train/00001000.jpg", b"mine")
        server.delete(bucket, "train/00001001.jpg")
        page = s3.list_objects_v2(Bucket=bucket, StartAfter="train/00000999.jpg", MaxKeys=3)
        assert [(entry["Key"], entry["Size"]) for entry in page["Contents"]] == [
            ("train/00001000.jpg", 4),
            ("train/00001002.jpg", 7),
            ("train/00001003.jpg", 7),
        ]
        assert len(server.keys(bucket)) == 199_999
        assert s3.list_objects_v2(Bucket=bucket, Delimiter="/")["CommonPrefixes"] == [{"Prefix": "train/"}]

    def test_ten_million_need_no_memory(self, s3: Any, server: LocalS3, bucket: str) -> None:
        for pattern in ("{}", "{uuid}", "logs/{date}"):
            server.add_synthetic(bucket, pattern, count=10_000_000, size_bytes=1)
        page = s3.list_objects_v2(Bucket=bucket, StartAfter="logs/2022", MaxKeys=2)
        assert all(entry["Key"].startswith("logs/2022/01/01/") for entry in page["Contents"])
        assert s3.list_objects_v2(Bucket=bucket, StartAfter="09999998", MaxKeys=1)["Contents"][0]["Key"] == "09999999"
        assert s3.list_objects_v2(Bucket=bucket, StartAfter="fffffff0-", MaxKeys=1)["KeyCount"] == 1
