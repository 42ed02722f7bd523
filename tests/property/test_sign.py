"""Our signatures are botocore's, for whatever key, query and headers a request has."""

import datetime as dt
from types import SimpleNamespace
from unittest import mock
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from s3dataset import _native

# Surrogates have no UTF-8 and so are in no key.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
keys = text.filter(bool)
names = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
# What a header can carry: visible ASCII and blanks.
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=40).filter(str.strip)
headers = st.dictionaries(
    st.sampled_from(["range", "content-type", "content-md5", "if-match"]) | names.map("x-amz-meta-{}".format),
    values,
    max_size=5,
)
times = st.integers(0, 4_102_444_800)


def of_botocore(
    *, token: str | None, region: str, epoch_s: int, method: str, host: str, key: str, query: dict, headers: dict
) -> dict[str, str]:
    url = f"https://{host}/{quote(key, safe='/~')}"
    if query:
        url += "?" + urlencode(query, quote_via=quote, safe="-_.~")
    request = AWSRequest(method=method, url=url, headers=headers)
    request.context["client_config"] = SimpleNamespace(s3={"payload_signing_enabled": False})
    now = dt.datetime.fromtimestamp(epoch_s, dt.UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=now):
        S3SigV4Auth(Credentials("AKIDEXAMPLE", "secret/key+", token), "s3", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items() if name.lower() not in headers}


@given(
    key=keys,
    query=st.dictionaries(text, text, max_size=4),
    headers=headers,
    token=st.none() | st.text("abcXYZ012/+=", min_size=1, max_size=30),
    epoch_s=times,
    method=st.sampled_from(["GET", "PUT", "HEAD", "POST", "DELETE"]),
    host=st.sampled_from(["bucket.s3.us-west-2.amazonaws.com", "127.0.0.1:9000", "localhost"]),
    region=st.sampled_from(["us-west-2", "us-gov-east-1", "here"]),
)
@example("a b+c%2F~é/鍵//x", {}, {}, None, 0, "GET", "localhost", "here")
@example("/leading", {"": ""}, {"range": "bytes=0-1"}, "t", 951_782_400, "GET", "localhost", "here")
@example("k", {"a": "b", "A": "b", "a-": "1", "list-type": "2", "prefix": "x/ y"}, {}, None, 1, "GET", "localhost", "h")
@example("k", {}, {"x-amz-meta-a": "  many   blanks  "}, None, 1, "PUT", "localhost", "h")
def test_equal_to_botocores(
    key: str, query: dict, headers: dict, token: str | None, epoch_s: int, method: str, host: str, region: str
) -> None:
    ours = _native.sign(
        access_key="AKIDEXAMPLE",
        secret_key="secret/key+",
        session_token=token,
        region=region,
        service="s3",
        epoch_s=epoch_s,
        method=method,
        host=host,
        key=key,
        query=list(query.items()),
        headers=list(headers.items()),
    )
    theirs = of_botocore(
        token=token, region=region, epoch_s=epoch_s, method=method, host=host, key=key, query=query, headers=headers
    )
    assert ours == theirs
