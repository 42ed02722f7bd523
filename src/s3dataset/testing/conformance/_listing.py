"""Listing: order, pages, prefixes, delimiters."""

import pytest

from s3dataset._io import S3Client
from s3dataset.testing.conformance._keys import ODD_KEYS
from s3dataset.testing.conformance._suite import Suite

__all__ = ["ListingSemantics"]

KEYS = ("a", "a/1", "a/2/x", "a/2/y", "a0", "b/d", "dir/", "é", "\ufffd", "\U0001f600")


class ListingSemantics(Suite):
    """What a listing tells."""

    def _ordered(self, names: "list[str]") -> "list[str]":
        """Names as they came, or in order where the store has none."""
        return sorted(names, key=str.encode) if "listing_order" in self.lacks else names

    @staticmethod
    def _fill(client: S3Client, bucket: str, prefix: str, keys: "tuple[str, ...] | list[str]" = KEYS) -> list[str]:
        client.put_many((bucket, prefix + key, key.encode()) for key in keys)
        return sorted((prefix + key for key in keys), key=str.encode)

    def test_keys_come_in_byte_order(self, client: S3Client, bucket: str, prefix: str) -> None:
        expected = self._fill(client, bucket, prefix)
        entries = [entry for page in client.list_objects(bucket, prefix) for entry in page.object_info]
        assert self._ordered([entry.key for entry in entries]) == expected
        for entry in entries:
            assert entry.size == len(entry.key.removeprefix(prefix).encode())
            assert entry.etag == client.head_object(bucket, entry.key).etag

    @pytest.mark.parametrize("max_keys", [1, 2, 3, 1000])
    def test_pages_of_any_size_add_up(self, client: S3Client, bucket: str, prefix: str, max_keys: int) -> None:
        expected = self._fill(client, bucket, prefix)
        pages = list(client.list_objects(bucket, prefix, max_keys=max_keys))
        assert self._ordered([entry.key for page in pages for entry in page.object_info]) == expected
        assert all(len(page.object_info) <= max_keys for page in pages)

    @pytest.mark.parametrize("max_keys", [1, 2, 1000])
    def test_a_delimiter_gathers_keys(self, client: S3Client, bucket: str, prefix: str, max_keys: int) -> None:
        self._fill(client, bucket, prefix)
        cases = {
            "": (["a", "a0", "é", "\ufffd", "\U0001f600"], ["a/", "b/", "dir/"]),
            "a": (["a", "a0"], ["a/"]),
            "a/": (["a/1"], ["a/2/"]),
            "dir/": (["dir/"], []),
            "nothing": ([], []),
        }
        for start, (keys, prefixes) in cases.items():
            pages = list(client.list_objects(bucket, prefix + start, "/", max_keys))
            listed = [entry.key for page in pages for entry in page.object_info]
            assert self._ordered(listed) == [prefix + key for key in keys]
            found = [common for page in pages for common in page.common_prefixes]
            assert self._ordered(found) == [prefix + common for common in prefixes]

    def test_more_than_one_page_of_the_service(self, client: S3Client, bucket: str, prefix: str) -> None:
        expected = self._fill(client, bucket, prefix, [f"{number:04}" for number in range(1234)])
        pages = list(client.list_objects(bucket, prefix))
        assert self._ordered([entry.key for page in pages for entry in page.object_info]) == expected
        assert len(pages) == 2

    def test_odd_keys_and_prefixes(self, client: S3Client, bucket: str, prefix: str) -> None:
        keys = [key for key in ODD_KEYS if self.is_possible(key)]
        expected = self._fill(client, bucket, prefix, keys)
        pages = client.list_objects(bucket, prefix, max_keys=5)
        assert self._ordered([entry.key for page in pages for entry in page.object_info]) == expected
        for key in keys:
            part = prefix + key[: len(key) // 2 + 1]
            found = [entry.key for page in client.list_objects(bucket, part) for entry in page.object_info]
            assert self._ordered(found) == [other for other in expected if other.startswith(part)]
