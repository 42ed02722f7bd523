"""What is said of an object when it is written, as headers."""

import base64
import json
from urllib.parse import parse_qsl

import pytest

from s3dataset._object_headers import object_headers
from s3dataset.errors import InvalidConfigError


def test_each_has_its_header() -> None:
    made = dict(
        object_headers(
            storage_class="STANDARD_IA",
            content_type="image/png",
            metadata={"Label": "cat", "run.id": "7"},
            tags={"team": "vision & more", "é": ""},
            sse="aws:kms",
            kms_key_id="arn:aws:kms:us-west-2:1:key/k",
            kms_context={"b": "2", "a": "1"},
            bucket_key=True,
        )
    )
    assert parse_qsl(made.pop("x-amz-tagging"), keep_blank_values=True) == [("team", "vision & more"), ("é", "")]
    assert json.loads(base64.b64decode(made.pop("x-amz-server-side-encryption-context"))) == {"a": "1", "b": "2"}
    assert made == {
        "x-amz-storage-class": "STANDARD_IA",
        "content-type": "image/png",
        "x-amz-meta-label": "cat",
        "x-amz-meta-run.id": "7",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:us-west-2:1:key/k",
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
    }


def test_nothing_is_said_of_what_is_left_out() -> None:
    assert object_headers() == []
    assert object_headers(metadata={}, tags={}) == []


def test_a_key_of_kms_means_kms() -> None:
    assert ("x-amz-server-side-encryption", "aws:kms") in object_headers(kms_key_id="k")


def test_headers_of_the_callers_go_first() -> None:
    made = object_headers(content_type="a/b", headers=[("content-type", "c/d"), ("cache-control", "no-store")])
    assert made == [("content-type", "c/d"), ("cache-control", "no-store")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sse": "AES128"}, "sse must be one of AES256"),
        ({"sse": "AES256", "kms_key_id": "k"}, "uses no KMS key"),
        ({"tags": {str(i): "" for i in range(11)}}, "at most 10 tags"),
        ({"metadata": {"a b": "x"}}, "no name of metadata"),
        ({"metadata": {"a": "ü"}}, "percent-encode"),
        ({"metadata": {"a": "x\r\nx-amz-acl: public-read"}}, "percent-encode"),
        ({"metadata": {"a": 7}}, "must be a str"),
    ],
)
def test_what_cannot_be_said_is_refused(arguments: dict, says: str) -> None:
    with pytest.raises(InvalidConfigError, match=says):
        object_headers(**arguments)
