"""s3:// URIs, the good and the bad."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3dataset._uri import S3Uri, split_object_uri
from s3dataset.errors import InvalidUriError


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://bucket/key", "bucket", "key"),
        ("s3://bucket/a/b.jpg", "bucket", "a/b.jpg"),
        ("s3://bucket//double//slash/", "bucket", "/double//slash/"),
        ("s3://bucket/a b%20c?x=1#y", "bucket", "a b%20c?x=1#y"),
        ("s3://bucket/ключ/鍵", "bucket", "ключ/鍵"),
        ("s3://my.bucket-1/s3://inner/key", "my.bucket-1", "s3://inner/key"),
    ],
)
def test_reads_objects(text: str, bucket: str, key: str) -> None:
    uri = S3Uri.parse(text, need_key=True)
    assert (uri.bucket, uri.key, str(uri)) == (bucket, key, text)
    assert split_object_uri(text) == (bucket, key)


ARN = "arn:aws:s3:us-west-2:123456789012:accesspoint"
OUTPOST = "arn:aws:s3-outposts:us-west-2:123456789012:outpost"


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        (f"s3://{ARN}/mine/a/b.jpg", f"{ARN}/mine", "a/b.jpg"),
        (f"s3://{ARN}:mine/a/b.jpg", f"{ARN}:mine", "a/b.jpg"),
        (f"s3://{ARN}/mine/object/key", f"{ARN}/mine", "object/key"),
        (f"s3://{ARN}/mine//x\ny", f"{ARN}/mine", "/x\ny"),
        (f"s3://{OUTPOST}/op-1/accesspoint/mine/key", f"{OUTPOST}/op-1/accesspoint/mine", "key"),
        (f"s3://{OUTPOST}:op-1:accesspoint:mine/key", f"{OUTPOST}:op-1:accesspoint:mine", "key"),
        ("s3://arn:aws:s3::123456789012:accesspoint/m.mrap/k", "arn:aws:s3::123456789012:accesspoint/m.mrap", "k"),
        ("s3://mine-abc-s3alias/key", "mine-abc-s3alias", "key"),
    ],
)
def test_the_arn_of_an_access_point_stands_for_a_bucket(text: str, bucket: str, key: str) -> None:
    uri = S3Uri.parse(text, need_key=True)
    assert (uri.bucket, uri.key, str(uri)) == (bucket, key, text)
    assert split_object_uri(text) == (bucket, key)
    assert S3Uri.parse_prefix(f"s3://{bucket}") == S3Uri(bucket, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3://arn:aws:s3:::bucket/key", "not the ARN of an access point.*'s3://bucket/key' for a bucket"),
        (f"s3://{ARN}", "not the ARN of an access point"),
        (f"s3://{ARN}/", "not the ARN of an access point"),
        (f"s3://{ARN}/mine", "Object key must be non-empty"),
        ("s3://arn:aws:iam::1:role/x", "not the ARN of an access point"),
        (f"{ARN}/mine/key", f"write 's3://{ARN}/mine/key'"),
    ],
)
def test_other_arns_are_refused(text: str, says: str) -> None:
    for parse in (lambda text: S3Uri.parse(text, need_key=True), split_object_uri):
        with pytest.raises(InvalidUriError, match=says):
            parse(text)


@pytest.mark.parametrize(("text", "key"), [("s3://b", ""), ("s3://b/", ""), ("s3://b/p", "p"), ("s3://b/p/", "p/")])
def test_reads_prefixes(text: str, key: str) -> None:
    assert S3Uri.parse_prefix(text) == S3Uri("b", key)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Only s3:// URIs are supported"),
        ("bucket/key", "Only s3:// URIs are supported"),
        ("S3://bucket/key", "Only s3:// URIs are supported"),
        ("s3a://bucket/key", "Only s3:// URIs are supported"),
        ("https://bucket.s3.amazonaws.com/key", "Only s3:// URIs are supported"),
        ("s3://", "Bucket name must be non-empty"),
        ("s3:///key", "Bucket name must be non-empty"),
        ("s3://bucket", "Object key must be non-empty"),
        ("s3://bucket/", "Object key must be non-empty"),
    ],
)
def test_refuses_what_is_no_object_and_quotes_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        S3Uri.parse(text, need_key=True)
    assert isinstance(caught.value, InvalidUriError)
    with pytest.raises(InvalidUriError, match=says):
        split_object_uri(text)
    assert repr(text) in str(caught.value)
    assert caught.value.uri == text


def test_refuses_what_is_no_text() -> None:
    with pytest.raises(TypeError, match="must be a str"):
        S3Uri.parse(b"s3://bucket/key", need_key=True)  # type: ignore[arg-type]


@given(bucket=st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True), key=st.text(min_size=1))
def test_text_and_pickle_give_the_same_back(bucket: str, key: str) -> None:
    uri = S3Uri(bucket, key)
    assert S3Uri.parse(str(uri), need_key=True) == uri
    assert pickle.loads(pickle.dumps(uri)) == uri
    assert hash(S3Uri(bucket, key)) == hash(uri)
