"""The suite: one class a subject, put together in `ClientConformance`."""

from s3dataset.testing.conformance._listing import ListingSemantics
from s3dataset.testing.conformance._reading import ReadingSemantics
from s3dataset.testing.conformance._writing import WritingSemantics

__all__ = ["ClientConformance"]


class ClientConformance(ReadingSemantics, WritingSemantics, ListingSemantics):
    """S3's semantics through `s3dataset.S3Client`, for a store of your choice.

    A subclass named `Test...` has the fixtures `client` and `bucket` and the class method `client_with`.

    Attributes:
        lacks: What the store at hand does not do; tests of it are skipped. Of: "conditional_writes" (If-None-Match and
            If-Match on PUT), "conditional_completion" (the same for multipart uploads), "crc64nvme" (it refuses that
            checksum), "signatures" (it accepts any), "storage_classes", "dotted_keys" (`.` and `..` as parts of keys),
            "empty_parts_of_keys" (`a//b`), "copy", "etags_of_uploads" (a completed multipart upload does not tell its
            ETag), "listing_order" (as in directory buckets), and "missing_buckets" (it does not tell them from missing
            objects).
    """
