"""Pages of listings that are not as they should be."""

from typing import Any

import pytest

from s3dataset.testing import Fault, LocalS3


@pytest.fixture(autouse=True)
def keys(server: LocalS3) -> list[str]:
    keys = ["k", *(f"n{number:02}" for number in range(20))]
    for key in keys[1:]:
        server.put("bucket", key, b"")
    return keys


def all_keys(s3: Any) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", PaginationConfig={"PageSize": 7})
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_unordered(server: LocalS3, s3: Any, keys: list[str]) -> None:
    server.add_fault(Fault.listing("unordered", times=None))
    listed = all_keys(s3)
    assert listed != keys
    assert sorted(listed) == keys


def test_a_key_twice(server: LocalS3, s3: Any, keys: list[str]) -> None:
    server.add_fault(Fault.listing("duplicate", after=1))
    listed = all_keys(s3)
    assert (sorted(set(listed)), len(listed)) == (keys, len(keys) + 1)


def test_a_page_without_keys(server: LocalS3, s3: Any, keys: list[str]) -> None:
    server.add_fault(Fault.listing("empty", after=1))
    assert s3.list_objects_v2(Bucket="bucket", MaxKeys=7)["KeyCount"] == 7
    page = s3.list_objects_v2(Bucket="bucket")
    assert (page["KeyCount"], page["IsTruncated"]) == (0, True)
    following = s3.list_objects_v2(Bucket="bucket", ContinuationToken=page["NextContinuationToken"])
    assert [entry["Key"] for entry in following["Contents"]] == keys


def test_without_end(server: LocalS3, s3: Any) -> None:
    server.add_fault(Fault.listing("endless", times=None))
    assert s3.list_objects_v2(Bucket="bucket")["IsTruncated"] is True


def test_a_page_that_leads_to_itself(server: LocalS3, s3: Any, keys: list[str]) -> None:
    server.add_fault(Fault.listing("stuck", times=None))
    page = s3.list_objects_v2(Bucket="bucket", MaxKeys=7)
    again = s3.list_objects_v2(Bucket="bucket", MaxKeys=7, ContinuationToken=page["NextContinuationToken"])
    assert [entry["Key"] for entry in again["Contents"]] == keys[:7]
    assert again["IsTruncated"]


def test_more_and_no_token(server: LocalS3, s3: Any) -> None:
    server.add_fault(Fault.listing("tokenless"))
    page = s3.list_objects_v2(Bucket="bucket", MaxKeys=7)
    assert (page["IsTruncated"], "NextContinuationToken" in page) == (True, False)
