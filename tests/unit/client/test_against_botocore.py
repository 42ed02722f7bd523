"""Where requests go, and how they are signed: the same as botocore itself would have it, for every kind of bucket.

botocore is asked by its own client, up to where it would open a connection; nothing is sent.
"""

import datetime as dt
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import create_loader
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from s3dataset import _native
from s3dataset._client._queue import _copy_source
from s3dataset._client._routes import Address, address_of
from s3dataset._config import S3ClientConfig, open_session, resolved
from s3dataset._uri import is_arn
from s3dataset.errors import InvalidConfigError, InvalidUriError

KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/secret", "a/token==")
SESSION_KEYS = ("ASIASESSION", "of the session", "session/token==")
ACCOUNT = "123456789012"

BUCKETS = {
    "plain": "plain",
    "dots": "with.dots",
    "alias": "ap-9xyzexample-s3alias",
    "access point": f"arn:{{partition}}:s3:{{region}}:{ACCOUNT}:accesspoint/mine",
    "access point, colon": f"arn:{{partition}}:s3:{{region}}:{ACCOUNT}:accesspoint:mine",
    "access point elsewhere": f"arn:{{partition}}:s3:ap-south-1:{ACCOUNT}:accesspoint/mine",
    "outposts": f"arn:{{partition}}:s3-outposts:{{region}}:{ACCOUNT}:outpost/op-01234567890123456/accesspoint/mine",
    "outposts alias": "mine-o01234567890123456ab5po9s3example--op-s3",
    "directory": "data--usw2-az1--x-s3",
    "directory in a local zone": "data--usw2-lax1-az1--x-s3",
    "access point of a directory": "mine--usw2-az1--xa-s3",
}
SETTINGS = {
    "nothing": "",
    "path": "s3 =\n  addressing_style = path\n",
    "virtual": "s3 =\n  addressing_style = virtual\n",
    "dual-stack": "use_dualstack_endpoint = true\n",
    "dual-stack of S3": "s3 =\n  use_dualstack_endpoint = true\n",
    "FIPS": "use_fips_endpoint = true\n",
    "FIPS, dual-stack": "use_fips_endpoint = true\nuse_dualstack_endpoint = true\n",
    "accelerate": "s3 =\n  use_accelerate_endpoint = true\n",
    "accelerate, dual-stack": "s3 =\n  use_accelerate_endpoint = true\n  use_dualstack_endpoint = true\n",
    "accelerate, path": "s3 =\n  use_accelerate_endpoint = true\n  addressing_style = path\n",
    "region of the client": "s3 =\n  use_arn_region = false\n",
    "no sessions": "s3_disable_express_session_auth = true\n",
}
AN_ADDRESS = "http://10.0.0.7:9000"
ENDPOINTS = [
    "https://store.example:8443",
    "https://store.example/s3",
    "https://bucket.vpce-1a2b3c4d-5e6f.s3.us-west-2.vpce.amazonaws.com",
    AN_ADDRESS,
]


@dataclass
class Sent:
    """What botocore would have sent."""

    method: str
    url: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.url).path or "/"

    @property
    def place(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


_LOADER = create_loader()  # reads its files once


@dataclass
class Botocore:
    """A client of botocore's that sends nothing."""

    region: str
    endpoint: str | None = None

    def __post_init__(self) -> None:
        self.sent: list[Sent] = []
        # As we do: what is signed of a body is its checksum.
        own = Config(
            s3={"payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            retries={"total_max_attempts": 1},
        )
        session = Session()
        session.register_component("data_loader", _LOADER)
        s3 = {**(session.get_config_variable("s3") or {}), "payload_signing_enabled": False}
        self.client = session.create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
            aws_session_token=KEYS[2],
            config=own.merge(Config(s3=s3)),
        )
        self.client.meta.events.register("before-send.s3", self._catch)

    def _catch(self, request: Any, **_: Any) -> AWSResponse:
        text = {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        self.sent.append(Sent(request.method, request.url, text))
        body = b""
        if urlsplit(request.url).query == "session":
            until = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)).isoformat()
            access_key, secret_key, token = SESSION_KEYS
            body = (
                f"<CreateSessionResult><Credentials><AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>{secret_key}"
                f"</SecretAccessKey><SessionToken>{token}</SessionToken><Expiration>{until}</Expiration>"
                "</Credentials></CreateSessionResult>"
            ).encode()
        elif request.method == "GET":
            body = b"<ListBucketResult/>" if "list-type" in request.url else b"x"
        elif request.method == "PUT" and "x-amz-copy-source" in text:
            body = b"<CopyObjectResult/>"
        return AWSResponse(request.url, 200, {"Content-Length": str(len(body))}, _Raw(body))

    def call(self, operation: str, **arguments: Any) -> Sent:
        getattr(self.client, operation)(**arguments)
        return self.sent[-1]

    def close(self) -> None:
        self.client.close()


class _Raw:
    """A body as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self._body

    def read(self, *_: Any, **__: Any) -> bytes:
        body, self._body = self._body, b""
        return body


def our_address(bucket: str, region: str, endpoint: str | None) -> Address:
    return address_of(bucket, resolved(S3ClientConfig(), open_session(None), region=region, endpoint=endpoint))


def our_place(address: Address) -> str:
    port = "" if address.port is None else f":{address.port}"
    return f"{address.scheme}://{address.host.replace('{region}', address.region)}{port}"


def our_path(address: Address, key: str) -> str:
    """As the engine makes it: see `head_of` in attempt.rs."""
    return address.path_prefix if not key and address.path_prefix else f"{address.path_prefix}/{key}"


def our_signature(address: Address, sent: Sent, *, session: bool) -> str:
    """What the engine's signer makes of this request at the same moment."""
    keys = SESSION_KEYS if session else KEYS
    moment = dt.datetime.strptime(sent.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    names = sent.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    own = {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-s3session-token"}
    parts = urlsplit(sent.url)
    return _native.sign(
        access_key=keys[0],
        secret_key=keys[1],
        session_token=keys[2],
        of_session=session,
        region=address.region,
        service=address.service,
        epoch_s=int(moment.timestamp()),
        method=sent.method,
        host=our_place(address).partition("://")[2],
        key=unquote(parts.path)[1:],
        query=parse_qsl(parts.query, keep_blank_values=True),
        headers=[(name, sent.headers[name]) for name in names if name not in own],
    )["authorization"]


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    # Where botocore still goes to a host that serves the world; every region has one of its own.
    monkeypatch.setenv("AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "regional")
    return file


@pytest.mark.parametrize(
    ("said", "endpoint", "region"),
    [
        *itertools.product(SETTINGS, [None], ["us-west-2", "us-gov-west-1"]),
        ("nothing", None, "us-east-1"),
        *itertools.product(["nothing", "virtual", "dual-stack", "no sessions"], ENDPOINTS, ["us-west-2"]),
    ],
)
def test_every_kind_of_bucket_is_where_botocore_has_it(
    said: str, endpoint: str | None, region: str, profile: Path
) -> None:
    profile.write_text(f"[default]\n{SETTINGS[said]}")
    theirs = Botocore(region, endpoint)
    try:
        for kind, bucket in buckets_of(region):
            if endpoint == AN_ADDRESS and (is_arn(bucket) or "." in bucket):
                continue  # see below
            try:
                sent = theirs.call("get_object", Bucket=bucket, Key="a/b c")
            except BotoCoreError:
                with pytest.raises((InvalidUriError, InvalidConfigError)):
                    our_address(bucket, region, endpoint)
                continue
            address = our_address(bucket, region, endpoint)
            assert (our_place(address), our_path(address, "a/b%20c")) == (sent.place, sent.path), kind
            session = "x-amz-s3session-token" in sent.headers
            assert address.has_sessions == session, kind
            assert our_signature(address, sent, session=session) == sent.headers["authorization"], kind
    finally:
        theirs.close()


def buckets_of(region: str) -> Iterator[tuple[str, str]]:
    for kind, name in BUCKETS.items():
        if "director" in kind and region != "us-west-2":
            continue  # the zone tells the region, where botocore does not look
        yield kind, name.format(region=region, partition="aws-us-gov" if "gov" in region else "aws")


def test_what_cannot_be_at_an_endpoint_of_ones_own(profile: Path) -> None:
    """Where we differ: acceleration is Amazon's affair, and names go before no address."""
    profile.write_text("[default]\ns3 =\n  use_accelerate_endpoint = true\n")
    assert our_place(our_address("plain", "us-west-2", "https://store.example")) == "https://store.example"
    profile.write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    assert our_place(our_address("with.dots", "us-west-2", AN_ADDRESS)) == AN_ADDRESS
    arn = BUCKETS["access point"].format(region="us-west-2", partition="aws")
    with pytest.raises(InvalidConfigError, match="host name of its own"):
        our_address(arn, "us-west-2", AN_ADDRESS)


def test_the_zone_of_a_directory_bucket_tells_its_region() -> None:
    """Where botocore takes whatever region it is told, and finds no such host."""
    for bucket, region in [
        ("data--use1-az4--x-s3", "us-east-1"),
        ("data--apne1-az4--x-s3", "ap-northeast-1"),
        ("a--b--usw2-lax1-az1--xa-s3", "us-west-2"),
        ("data--zzz9-az1--x-s3", "eu-west-1"),
    ]:
        address = our_address(bucket, "eu-west-1", None)
        assert (address.region, f".{region}." in address.host) == (region, True)
    assert our_address("data--use1-az4--x-s3", "here", "https://store.example").region == "here"


@pytest.mark.parametrize(
    ("operation", "arguments", "key", "session"),
    [
        ("get_object", {"Key": "k", "Range": "bytes=0-9"}, "k", True),
        ("head_object", {"Key": "k", "VersionId": "v/1 +"}, "k", True),
        ("put_object", {"Key": "k", "Body": b"", "ContentType": "image/png", "Metadata": {"a": "b"}}, "k", True),
        ("list_objects_v2", {"Prefix": "a/b +"}, "", True),
        ("create_multipart_upload", {"Key": "k", "StorageClass": "EXPRESS_ONEZONE"}, "k", True),
        ("delete_object", {"Key": "k"}, "k", True),
        ("copy_object", {"Key": "k", "CopySource": {"Bucket": "other", "Key": "a b"}}, "k", False),
        ("upload_part_copy", {"Key": "k", "CopySource": "other/k", "PartNumber": 1, "UploadId": "u"}, "k", False),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "dots", "access point", "directory"])
def test_every_operation_is_signed_as_botocore_signs_it(
    kind: str, operation: str, arguments: dict, key: str, session: bool
) -> None:
    bucket = BUCKETS[kind].format(region="us-west-2", partition="aws")
    theirs = Botocore("us-west-2")
    sent = theirs.call(operation, Bucket=bucket, **arguments)
    theirs.close()
    address = our_address(bucket, "us-west-2", None)
    assert (our_place(address), our_path(address, key)) == (sent.place, sent.path)
    # botocore has a session for HeadBucket too, the service's documentation says not to.
    assert ("x-amz-s3session-token" in sent.headers) == (session and address.has_sessions)
    signature = our_signature(address, sent, session=session and address.has_sessions)
    assert signature == sent.headers["authorization"]


def test_a_session_is_asked_for_as_botocore_asks() -> None:
    theirs = Botocore("us-west-2")
    theirs.call("get_object", Bucket=BUCKETS["directory"], Key="k")
    theirs.close()
    asked = theirs.sent[0]
    address = our_address(BUCKETS["directory"], "us-west-2", None)
    assert (asked.method, asked.place, asked.path) == ("GET", our_place(address), our_path(address, ""))
    assert "x-amz-create-session-mode" not in asked.headers  # the service gives as much as a policy allows
    assert our_signature(address, asked, session=False) == asked.headers["authorization"]


@pytest.mark.parametrize("bucket", ["other", BUCKETS["access point"].format(region="us-west-2", partition="aws")])
def test_sources_of_copies_are_named_as_botocore_names_them(bucket: str) -> None:
    theirs = Botocore("us-west-2")
    sent = theirs.call("copy_object", Bucket="plain", Key="k", CopySource={"Bucket": bucket, "Key": "a b/ü+"})
    theirs.close()
    assert unquote(sent.headers["x-amz-copy-source"]) == _copy_source(bucket, "a b/ü+")


@pytest.fixture(scope="module")
def plain() -> Iterator[Botocore]:
    client = Botocore("us-west-2")
    yield client
    client.close()


@settings(max_examples=60)
@given(key=st.text(min_size=1, max_size=40).filter(lambda key: key.isprintable() or " " in key))
def test_keys_are_encoded_and_signed_as_botocore_does(plain: Botocore, key: str) -> None:
    if any(part in (".", "..") for part in key.split("/")):
        return  # urllib, which botocore sends with, would take these out of a path
    try:
        sent = plain.call("get_object", Bucket="plain", Key=key)
    except UnicodeEncodeError:
        return
    assert our_signature(our_address("plain", "us-west-2", None), sent, session=False) == sent.headers["authorization"]
