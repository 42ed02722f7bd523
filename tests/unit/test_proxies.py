"""ProxyUrl: what is taken, what is refused, and what is shown."""

import base64
import pickle
import subprocess
import sys

import pytest

from s3dataset._config import S3ClientConfig, open_session, resolved
from s3dataset._proxies import ProxyUrl, proxy_of_environment
from s3dataset.errors import InvalidConfigError


@pytest.mark.parametrize(
    ("url", "host", "port", "token", "shown"),
    [
        ("http://proxy:3128", "proxy", 3128, None, "http://proxy:3128"),
        (" proxy:3128 ", "proxy", 3128, None, "http://proxy:3128"),
        ("//proxy", "proxy", 80, None, "http://proxy"),
        ("HTTP://proxy/ignored", "proxy", 80, None, "http://proxy"),
        ("http://[::1]:8080", "[::1]", 8080, None, "http://[::1]:8080"),
        ("http://[::1]", "[::1]", 80, None, "http://[::1]"),
        ("http://u:p@10.0.0.1:1", "10.0.0.1", 1, "u:p", "http://u:***@10.0.0.1:1"),
        ("http://u%40d:a%3Ab%2F%25@h", "h", 80, "u@d:a:b/%", "http://u%40d:***@h"),
        ("http://token@h", "h", 80, "token:", "http://***@h"),
        ("http://u:a@b@h", "h", 80, "u:a@b", "http://u:***@h"),
    ],
)
def test_urls(url: str, host: str, port: int, token: str | None, shown: str) -> None:
    proxy = ProxyUrl(url)
    assert (proxy.host, proxy.port, str(proxy)) == (host, port, shown)
    expected = None if token is None else f"Basic {base64.b64encode(token.encode()).decode()}"
    assert proxy.authorization == expected
    assert proxy


@pytest.mark.parametrize(
    "url",
    ["https://u:secret@h:1", "socks5://u:secret@h", "http://u:secret@", "http://u:secret@h:99999", "http://h:x",
     "http://u:secret@h:0", "http://h h", "http://[::1", "http://u:secret@h\r\nx: y", "http://"],
)  # fmt: skip
def test_what_is_no_proxy(url: str) -> None:
    with pytest.raises(InvalidConfigError, match="http://host:port") as caught:
        ProxyUrl(url)
    assert "secret" not in str(caught.value)


def test_none() -> None:
    assert not ProxyUrl("")
    assert repr(S3ClientConfig(proxy="")) == "S3ClientConfig(proxy='')"


def settings(config: S3ClientConfig, endpoint: str | None = None):
    return resolved(config, open_session(None), endpoint=endpoint)


def test_argument_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://u:secret@one")
    monkeypatch.setenv("HTTP_PROXY", "two:8080")
    monkeypatch.setenv("NO_PROXY", "a,b")
    found = settings(S3ClientConfig())
    assert (str(found.proxy), found.no_proxy) == ("http://u:***@one", "a,b")
    assert "secret" not in repr(found)
    assert str(settings(S3ClientConfig(), "http://host").proxy) == "http://two:8080"
    found = settings(S3ClientConfig(proxy="three"))
    assert (str(found.proxy), found.no_proxy) == ("http://three", "")
    assert settings(S3ClientConfig(proxy="")).proxy is None
    monkeypatch.setenv("HTTPS_PROXY", "socks5://u:secret@one")
    with pytest.raises(InvalidConfigError, match=r"HTTPS_PROXY is 'socks5://u:\*\*\*@one'"):
        settings(S3ClientConfig())
    assert settings(S3ClientConfig(proxy="")).proxy is None


def test_a_cgi_program_does_not_take_the_askers_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    monkeypatch.setenv("HTTP_PROXY", "evil")
    assert proxy_of_environment("http") == (None, "")


def test_another_process_has_no_password() -> None:
    travelling = pickle.dumps([ProxyUrl("http://u:secret@h:1"), ProxyUrl("http://h:1")])
    assert b"secret" not in travelling
    program = (
        "import pickle, sys; from s3dataset.errors import InvalidConfigError\n"
        f"lost, whole = pickle.loads({travelling!r})\n"
        "assert (str(lost), lost.host, whole.authorization) == ('http://u:***@h:1', 'h', None)\n"
        "try: lost.authorization\n"
        "except InvalidConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "stayed in the process" in done.stdout
