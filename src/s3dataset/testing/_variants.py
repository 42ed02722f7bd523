"""Stores that are not quite S3. Where each behaviour is known from stands in docs/local-s3.md."""

from collections.abc import Sequence
from typing import Literal, TypedDict

StoreName = Literal["s3", "minio", "r2", "gcs", "b2"]


class Variant(TypedDict, total=False):
    """What a store does otherwise than S3.

    Attributes:
        like: Begin with the behaviours of this store.
        uniform_parts: All parts but the last must have one size, and the last no greater one.
        refuse_part_copies: UploadPartCopy is not there.
        no_completion_etag: CompleteMultipartUpload answers with an empty ETag.
        uploads_by_name: ListMultipartUploads tells of the uploads of the key that its prefix is.
        refuse_checksums: Refuse requests that carry `x-amz-checksum-*` or `x-amz-sdk-checksum-algorithm`.
        ignore_checksums: Accept and forget checksums.
        refuse_headers: Refuse requests that carry one of these headers (in lower case).
        refuse_as_invalid: Refuse headers with 400 InvalidArgument instead of 501 NotImplemented.
        refuse_streaming: Refuse bodies in aws-chunked coding (501 NotImplemented).
        misread_streaming: The same as wrongly signed (403 SignatureDoesNotMatch).
        rewrite_accept_encoding: A signature over Accept-Encoding is wrong, because the header changes on its way.
        ignore_conditions: Serve as if no condition had been sent.
        ignore_write_conditions: The same for writes alone.
        refuse_write_conditions: Refuse conditions of writes.
        one_write_a_second: 429 for a second write to a key within a second.
        refuse_multi_delete: DeleteObjects is not there.
        require_content_md5: DeleteObjects demands Content-MD5, whatever checksum is sent.
        refuse_versions: Versions are not there.
        always_versioned: Every bucket made from then on has versions (not in a directory); when the server starts.
        strict_names: Refuse keys that are no paths: `a//b`, `/a`, `a/../b`.
        hide_children: LIST leaves out what is below an object: `a/b` where there is `a`.
        unordered_listing: LIST answers without order.
    """

    like: StoreName
    uniform_parts: bool
    refuse_part_copies: bool
    no_completion_etag: bool
    uploads_by_name: bool
    refuse_checksums: bool
    ignore_checksums: bool
    refuse_headers: Sequence[str]
    refuse_as_invalid: bool
    refuse_streaming: bool
    misread_streaming: bool
    rewrite_accept_encoding: bool
    ignore_conditions: bool
    ignore_write_conditions: bool
    refuse_write_conditions: bool
    one_write_a_second: bool
    refuse_multi_delete: bool
    require_content_md5: bool
    refuse_versions: bool
    always_versioned: bool
    strict_names: bool
    hide_children: bool
    unordered_listing: bool
