"""Proxies: what a user may write, which environment variable holds, and how the password stays out of sight."""

import base64
import re
import uuid
import weakref
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

from s3dataset._secrets import is_starting_a_process
from s3dataset.errors import InvalidConfigError

__all__ = ["PROXY_VARIABLES", "ProxyUrl", "proxy_of_environment"]

PROXY_VARIABLES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")

_DEFAULT_PORT: Final = 80
_HOST: Final = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)


class ProxyUrl:
    """A proxy's URL. Immutable; the password is not in its repr, and False when it stands for no proxy.

    Pickles as credentials do: only the one that starts a process carries the password.

    Args:
        url: "http://host:port" or "http://user:password@host:port", special characters %-escaped; "" for no proxy.
        source: What it is called in errors.

    Raises:
        InvalidConfigError: It is no such URL. The message shows no password.
    """

    __slots__ = ("__weakref__", "_authorization", "_id", "_lost", "_shown", "host", "port")

    host: str
    port: int

    def __init__(self, url: str, *, source: str = "proxy", known_as: str | None = None, lost: bool = False) -> None:
        url = url.strip()
        self.host, self.port, self._authorization, self._shown = _parsed(url, source) if url else ("", 0, None, "")
        self._lost = lost
        self._id = known_as or uuid.uuid4().hex
        _known[self._id] = self

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization.

        Raises:
            InvalidConfigError: The password is in the process that made it, and this is another one.
        """
        if self._lost:
            raise InvalidConfigError(
                f"The password of the proxy {self._shown} stayed in the process that made the S3ClientConfig: no "
                "pickle carries it but the one that starts a process. Make the S3ClientConfig in this process, too"
            )
        return self._authorization

    def __bool__(self) -> bool:
        return bool(self.host)

    def __eq__(self, other: object) -> bool:
        return self._value() == other._value() if isinstance(other, ProxyUrl) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value())

    def _value(self) -> tuple[object, ...]:
        return self.host, self.port, self._authorization, self._lost

    def __repr__(self) -> str:
        return repr(self._shown)

    def __str__(self) -> str:
        return self._shown

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        lost = self._lost or (self._authorization is not None and not is_starting_a_process())
        authorization = None if lost else self._authorization
        return _restored, (self._id, self.host, self.port, self._shown, authorization, lost)


def _parsed(url: str, source: str) -> tuple[str, int, str | None, str]:
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "http", url.removeprefix("//")
    lead, at, place = rest.partition("/")[0].rpartition("@")
    user, colon, password = lead.partition(":")
    hidden = f"{user}:***@" if colon else "***@"
    shown = f"{scheme.lower()}://{hidden if at else ''}{place}"
    if scheme.lower() != "http":
        also = " (HTTPS_PROXY means the proxy for https endpoints, whose own URL begins with http://)"
        raise InvalidConfigError(
            f"{source} is {shown!r}: only proxies that are spoken to by plain HTTP are supported. Write "
            f"'http://host:port'{also if scheme.lower() == 'https' else ''}, or go without a proxy by proxy=\"\""
        )
    try:
        parts = urlsplit(f"http://{place}")
        port = _DEFAULT_PORT if parts.port is None else parts.port
        host = place.rpartition(":")[0] if parts.port is not None or place.endswith(":") else place
        token = f"{unquote(user)}:{unquote(password)}".encode() if at else None
        valid = port > 0 and _HOST.fullmatch(host) is not None
    except ValueError:  # no number, no address, or a lone surrogate, which no character is
        valid = False
    if not valid:
        raise InvalidConfigError(
            f"{source} is {shown!r}, which is no URL of a proxy: write 'http://host:port' or "
            "'http://user:password@host:port', special characters of user and password %-escaped"
        )
    return host, port, None if token is None else f"Basic {base64.b64encode(token).decode()}", shown


_known: Final[weakref.WeakValueDictionary[str, ProxyUrl]] = weakref.WeakValueDictionary()


def _restored(known_as: str, host: str, port: int, shown: str, authorization: str | None, lost: bool) -> ProxyUrl:
    known = _known.get(known_as)
    if known is not None:
        return known
    proxy = ProxyUrl("", known_as=known_as, lost=lost)
    proxy.host, proxy.port, proxy._shown, proxy._authorization = host, port, shown, authorization  # noqa: SLF001
    return proxy


def proxy_of_environment(scheme: str) -> tuple[ProxyUrl | None, str]:
    """The proxy for endpoints of this scheme, and NO_PROXY, as botocore finds them.

    Lower case goes before upper. HTTP_PROXY is nothing in a CGI program, where whoever asks may set it; ALL_PROXY is
    nothing anywhere.

    Raises:
        InvalidConfigError: The variable holds no URL of a proxy.
    """
    from urllib.request import getproxies_environment  # noqa: PLC0415 - botocore has imported it where this is called

    found = getproxies_environment()
    url = found.get(scheme, "")
    return (ProxyUrl(url, source=f"{scheme.upper()}_PROXY") if url.strip() else None), found.get("no", "")
