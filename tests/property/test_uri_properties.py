"""Whatever stands where a URI, a proxy or a pattern is expected is read, or refused by the error that says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3dataset._manifest import Pattern
from s3dataset._proxies import ProxyUrl
from s3dataset._uri import S3Uri, parse_s3_uri, split_object_uri
from s3dataset.errors import InvalidConfigError, InvalidUriError

# Lone surrogates too, as os.fsdecode makes them of names that are no UTF-8.
CHARACTERS = st.characters()


def text_of(*pieces: str) -> st.SearchStrategy[str]:
    """Any text, and texts that look nearly right."""
    piece = st.one_of(st.sampled_from(pieces), st.text(CHARACTERS, max_size=5))
    return st.one_of(st.text(CHARACTERS), st.lists(piece, max_size=10).map("".join))


URIS = text_of(
    "s3://", "s3:/", "S3://", "s3a://", "/", "//", "b", "bucket", "arn:aws:s3:us-west-2:123456789012:accesspoint/m",
    "arn:", "arn:aws:s3-outposts:us-west-2:1:outpost/op-1/accesspoint/m", ":", "?x=1", "#", "%2F", " ", "\n",
    "\0", "\ud800",
)  # fmt: skip


@given(text=URIS, need_key=st.booleans())
def test_a_uri_is_read_or_refused(text: str, need_key: bool) -> None:
    uri, refused = None, None
    try:
        uri = S3Uri.parse(text, need_key=need_key)
    except InvalidUriError as error:
        refused = error
    if uri is None:
        assert refused is not None
        assert refused.uri == text
        assert repr(text) in str(refused)
        return
    assert uri.bucket
    assert uri.key or not need_key
    assert text in (str(uri), str(uri).removesuffix("/"))
    assert S3Uri.parse(str(uri), need_key=need_key) == uri
    if need_key:
        assert split_object_uri(text) == (uri.bucket, uri.key)


@given(text=URIS)
def test_all_parsers_agree(text: str) -> None:
    def outcome(parse: object) -> object:
        try:
            return parse(text)  # type: ignore[operator]
        except InvalidUriError as error:
            return str(error)

    def parsed(text: str) -> tuple[str, str]:
        uri = S3Uri.parse(text, need_key=True)
        return uri.bucket, uri.key

    assert outcome(split_object_uri) == outcome(parsed)
    prefix = outcome(lambda text: str(S3Uri.parse_prefix(text)))
    assert outcome(lambda text: str(S3Uri(*parse_s3_uri(text)))) == prefix or not text


@given(
    text=text_of("http://", "https://", "socks5://", "user", ":", "@", "password", "host", "[::1]", "[", "]", "3128",
                 "99999", "/", "%40", "%", "\r\n", " ", "\udcff")
)  # fmt: skip
def test_a_proxy_is_read_or_refused_and_shows_no_password(text: str) -> None:
    try:
        proxy = ProxyUrl(text)
    except InvalidConfigError:
        return
    assert bool(proxy) == bool(text.strip())
    if proxy:
        assert 0 < proxy.port < 65536
        assert proxy.host.isascii()
        assert not any(character.isspace() for character in proxy.host)
        assert (proxy.authorization or "x").isascii()
        assert (proxy.authorization or "x").isprintable()


@given(password=st.text(CHARACTERS, min_size=3))
def test_no_error_of_a_proxy_shows_the_password(password: str) -> None:
    secret = f"hunter2{password}"
    for host in ("host:0", "ho st", "host:x", "[::1", ""):
        with pytest.raises(InvalidConfigError) as caught:
            ProxyUrl(f"http://user:{secret.replace('/', '%2F')}@{host}")
        assert "hunter2" not in str(caught.value)


@given(
    text=text_of("*", "**", "?", "{", "}", ",", "..", "[", "]", "!", "-", "\\", "/", "0", "10", "9" * 30, "a", ".jpg"),
    key=st.text(CHARACTERS, max_size=20),
)
def test_a_pattern_is_read_or_refused(text: str, key: str) -> None:
    try:
        pattern = Pattern(text)
    except ValueError:
        return
    assert pattern.matches(key) in (True, False)
