"""Where buckets are reached: botocore's rules, applied as botocore applies them."""

import dataclasses

import pytest

from s3dataset._client._core import Routes
from s3dataset._client._routes import address_of, check_endpoint
from s3dataset._config import ResolvedConfig, S3ClientConfig, open_session, resolved
from s3dataset._secrets import CustomerKey
from s3dataset.errors import InvalidConfigError, InvalidUriError


def settings(*, region: str | None = None, endpoint: str | None = None, **changes: object) -> ResolvedConfig:
    base = resolved(S3ClientConfig(), open_session(None), region=region, endpoint=endpoint)
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("bucket", "options", "url", "region"),
    [
        ("plain", {}, "https://plain.s3.{region}.amazonaws.com", "us-east-1"),
        ("plain", {"region": "eu-west-1"}, "https://plain.s3.{region}.amazonaws.com", "eu-west-1"),
        ("of-us-west-2", {"region": "us-west-2"}, "https://of-us-west-2.s3.{region}.amazonaws.com", "us-west-2"),
        ("us-west-2", {"region": "us-west-2"}, "https://us-west-2.s3.{region}.amazonaws.com", "us-west-2"),
        ("with.dots", {}, "https://s3.{region}.amazonaws.com/with.dots", "us-east-1"),
        ("Old_Style", {}, "https://s3.{region}.amazonaws.com/Old_Style", "us-east-1"),
        ("plain", {"addressing_style": "path"}, "https://s3.{region}.amazonaws.com/plain", "us-east-1"),
        ("plain", {"region": "cn-north-1"}, "https://plain.s3.{region}.amazonaws.com.cn", "cn-north-1"),
        ("plain", {"use_dualstack": True}, "https://plain.s3.dualstack.{region}.amazonaws.com", "us-east-1"),
        ("plain", {"use_fips": True}, "https://plain.s3-fips.{region}.amazonaws.com", "us-east-1"),
        ("plain", {"use_accelerate": True}, "https://plain.s3-accelerate.amazonaws.com", "us-east-1"),
        ("b", {"endpoint": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/b", "us-east-1"),
        ("b", {"endpoint": "http://127.0.0.1:9000/"}, "http://127.0.0.1:9000/b", "us-east-1"),
        ("b", {"endpoint": "http://localhost:9000"}, "http://localhost:9000/b", "us-east-1"),
        ("b", {"endpoint": "http://[::1]:9000"}, "http://[::1]:9000/b", "us-east-1"),
        ("bkt", {"endpoint": "https://minio.example"}, "https://minio.example/bkt", "us-east-1"),
        ("bkt", {"endpoint": "https://minio.example/s3/"}, "https://minio.example/s3/bkt", "us-east-1"),
        ("bkt", {"endpoint": "https://m.example", "region": "here"}, "https://m.example/bkt", "here"),
        ("bkt", {"endpoint": "https://m.example", "addressing_style": "virtual"}, "https://bkt.m.example", "us-east-1"),
        (
            "bkt",
            {"endpoint": "http://localhost:80", "addressing_style": "virtual"},
            "http://bkt.localhost:80",
            "us-east-1",
        ),
        ("bkt", {"endpoint": "http://10.0.0.1", "addressing_style": "virtual"}, "http://10.0.0.1/bkt", "us-east-1"),
        ("bkt", {"endpoint": "https://m.example", "use_fips": True}, "https://m.example/bkt", "us-east-1"),
    ],
)
def test_addresses(bucket: str, options: dict, url: str, region: str) -> None:
    address = address_of(bucket, settings(**options))
    port = "" if address.port is None else f":{address.port}"
    assert f"{address.scheme}://{address.host}{port}{address.path_prefix}" == url
    assert (address.region, address.service, address.bucket) == (region, "s3", bucket)


@pytest.mark.parametrize(
    "endpoint",
    ["localhost:9000", "s3://bucket", "http://", "http://host:port", "ftp://host", "http://[::1", "nonsense"],
)
def test_an_endpoint_that_is_no_url_is_quoted(endpoint: str) -> None:
    with pytest.raises(InvalidConfigError, match="http://host:port") as caught:
        check_endpoint(endpoint)
    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"endpoint": "http://local host:9000"}, "'local host'"), ({"region": "us-east-1\n"}, r"'us-east-1\n'")],
)
def test_what_no_request_can_carry_is_quoted(options: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidConfigError, match="Check region") as caught:
        Routes(settings(**options), {})["bkt"]
    assert named in str(caught.value)


def test_an_endpoint_with_a_query_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="query"):
        check_endpoint("https://host/?x=1")


@pytest.mark.parametrize(
    ("bucket", "what"),
    [
        ("arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap", "multi-Region access point.*4A.*Instead, use the"),
        ("mfzwi23gnjvgw.mrap", "multi-Region access point.*4A.*Instead, use the bucket"),
        (
            "arn:aws:s3-object-lambda:us-east-1:123456789012:accesspoint/mine",
            "Object Lambda.*Instead, read.*transform=",
        ),
        ("mine-abcdefgh--ol-s3", "alias of an Object Lambda.*Instead, read the bucket"),
    ],
)
def test_what_is_not_supported_says_what_to_do_instead(bucket: str, what: str) -> None:
    with pytest.raises(InvalidUriError, match=what) as caught:
        address_of(bucket, settings())
    assert caught.value.uri == f"s3://{bucket}/"


@pytest.mark.parametrize(
    ("bucket", "options", "error", "says"),
    [
        ("arn:aws:nonsense", {}, InvalidUriError, "arn:aws:nonsense"),
        ("arn:aws:s3:us-east-1:123456789012:accesspoint/a_b", {}, InvalidUriError, "access point name"),
        ("data--x-s3", {}, InvalidUriError, "Unrecognized"),
        ("arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/a", {}, InvalidConfigError, "partition"),
        (
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/a",
            {"region": "us-east-1", "use_arn_region": False},
            InvalidConfigError,
            "does not match client region",
        ),
        ("arn:aws:s3:us-east-1:123456789012:accesspoint/a", {"use_accelerate": True}, InvalidConfigError, "Accelerate"),
        ("plain", {"use_accelerate": True, "use_fips": True}, InvalidConfigError, "cannot be used with FIPS"),
        ("data--use1-az4--x-s3", {"unsigned": True}, InvalidConfigError, "none of them is public"),
        ("plain", {"endpoint": "http://10.0.0.1", "customer_key": CustomerKey(bytes(32))}, InvalidConfigError, "https"),
    ],
)
def test_refusals_tell_names_from_settings(bucket: str, options: dict, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        address_of(bucket, settings(**options))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "https://10.0.0.1"])
def test_a_key_of_ones_own_may_go_to_this_machine(endpoint: str) -> None:
    assert address_of("plain", settings(endpoint=endpoint, customer_key=CustomerKey(bytes(32)))).bucket == "plain"


@pytest.mark.parametrize(
    "bucket", ["arn:aws:s3:us-east-1:123456789012:accesspoint/a", "data--use1-az4--x-s3", "a--use1-az4--xa-s3"]
)
def test_no_redirect_changes_a_host_whose_name_tells_the_region(bucket: str) -> None:
    assert "{region}" not in address_of(bucket, settings()).host
