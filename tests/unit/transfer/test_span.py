"""Ranges as HTTP writes them."""

import pytest

from s3dataset._transfer import Span
from s3dataset.errors import S3Exception


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-0", (0, 1)),
        ("0-99", (0, 100)),
        ("10-", (10, 1000)),
        ("-100", (900, 1000)),
        ("-5000", (0, 1000)),
        ("990-5000", (990, 1000)),
        ("bytes=1-2", (1, 3)),
    ],
)
def test_both_ends_count(text, expected):
    assert Span.parse(text).within(1000, "s3://b/k") == expected


@pytest.mark.parametrize("text", ["", "-", "5", "a-b", "5-4", "-0", "1-2,3-4", "1:2", "--5"])
def test_others_are_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match="is no range of bytes"):
        Span.parse(text)


def test_behind_the_end_names_the_object_and_its_size():
    with pytest.raises(S3Exception, match=r"begins at byte 1,000, and s3://b/k has 1,000 bytes"):
        Span.parse("1000-").within(1000, "s3://b/k")
