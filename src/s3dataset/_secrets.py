"""Credentials as values: what a user may give, how it is masked, and which pickles carry it.

Only the pickle that starts a process (spawn, forkserver) carries keys. Every other one (a reader on its way from a
worker, Ray, a saved state) carries an id: a process that knows credentials by it goes on using them, and any other
finds its own.
"""

import base64
import binascii
import datetime as dt
import hashlib
import pickle
import sys
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self, cast

from s3dataset.errors import InvalidConfigError

__all__ = ["AccessKeys", "CredentialSource", "CustomerKey", "SessionLike", "is_starting_a_process"]

_HOW: Final = (
    "give (access key, secret key), (access key, secret key, session token), a mapping with those names, "
    "a callable that returns one of them, or a botocore or boto3 session"
)
_NAMES: Final = {
    "access_key": ("access_key", "aws_access_key_id", "AccessKeyId"),
    "secret_key": ("secret_key", "aws_secret_access_key", "SecretAccessKey"),
    "session_token": ("session_token", "token", "aws_session_token", "SessionToken"),
    "expires_at": ("expires_at", "expiry_time", "Expiration"),
}


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """One set of keys. The secrets are not in its repr.

    Attributes:
        access_key: The access key's id.
        secret_key: The secret.
        session_token: Of temporary keys.
        expires_at: Epoch seconds, None when they do not expire or nobody knows.

    Raises:
        InvalidConfigError: One of them has a control character. The message does not quote it.
    """

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None

    def __post_init__(self) -> None:
        for called, text in (
            ("access key", self.access_key),
            ("secret key", self.secret_key),
            ("session token", self.session_token),
        ):
            if isinstance(text, str) and any(character < " " or character == "\x7f" for character in text):
                raise InvalidConfigError(
                    f"Client error: The {called} has a control character in it, such as the newline at the end of a "
                    "file: no request can carry it. Strip it where the credentials come from"
                )

    @classmethod
    def parse(cls, value: object) -> Self:
        """Takes a tuple, a mapping or an object with such attributes (botocore's credentials).

        Raises:
            InvalidConfigError: It is none of them, or a key is missing or no text. The message does not quote the
                value.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            found = {name: next((value[n] for n in names if value.get(n)), None) for name, names in _NAMES.items()}
        elif hasattr(value, "access_key"):  # before tuples: botocore's frozen credentials are a tuple with more items
            found = {
                name: next((v for n in names if (v := getattr(value, n, None))), None) for name, names in _NAMES.items()
            }
        elif isinstance(value, tuple | list) and len(value) in (2, 3):
            found = dict(zip(_NAMES, value, strict=False))
        else:
            raise InvalidConfigError(f"Credentials are of type {type(value).__name__}: {_HOW}")
        access_key, secret_key, token = found["access_key"], found["secret_key"], found.get("session_token") or None
        if not (isinstance(access_key, str) and access_key and isinstance(secret_key, str) and secret_key):
            raise InvalidConfigError(f"Credentials lack an access key or a secret key: {_HOW}")
        if token is not None and not isinstance(token, str):
            raise InvalidConfigError(f"The session token is of type {type(token).__name__}, not str: {_HOW}")
        return cls(access_key, secret_key, token, _epoch_s(found.get("expires_at")))


def _epoch_s(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if not isinstance(value, dt.datetime):
        raise InvalidConfigError(
            f"The credentials' expiry is of type {type(value).__name__}: "
            "give epoch seconds, ISO 8601 text or a datetime"
        )
    return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()


def is_starting_a_process() -> bool:
    """Whether what is pickled now goes to a process that multiprocessing is starting."""
    context = sys.modules.get("multiprocessing.context")
    return context is not None and context.get_spawning_popen() is not None


class SessionLike(Protocol):
    """A botocore or boto3 session."""

    def get_credentials(self) -> Any:
        """The session's credentials, or None."""


class CredentialSource:
    """Credentials given in code: keys, a callable that returns keys, or a session that has them.

    Immutable, masked in repr. Two sources are equal when their keys are, or when they hold the same callable or
    session.
    """

    __slots__ = ("__weakref__", "_id", "_value", "kind")

    kind: Literal["keys", "callable", "session"]
    _value: Any

    def __init__(self, value: object, *, known_as: str | None = None) -> None:
        if hasattr(value, "get_credentials") or hasattr(value, "get_frozen_credentials"):
            self.kind, self._value = "session", value
        elif callable(value):
            self.kind, self._value = "callable", value
        else:
            self.kind, self._value = "keys", AccessKeys.parse(value)
        self._id = known_as or uuid.uuid4().hex
        _known[self._id] = self

    @property
    def session(self) -> Any:
        """The session, or botocore's credentials object, of kind "session"."""
        return self._value

    def load(self, *, refused: AccessKeys | None = None) -> AccessKeys:
        """The keys of now: asks the callable or the session.

        Args:
            refused: Keys that the service refused although they have not expired: a session is made to renew them.

        Raises:
            InvalidConfigError: The callable returned something else.
            Exception: Whatever the callable or the session raises.
        """
        if self.kind == "keys":
            return cast(AccessKeys, self._value)
        if self.kind == "callable":
            return AccessKeys.parse(cast(Callable[[], object], self._value)())
        found = self._value.get_credentials() if hasattr(self._value, "get_credentials") else self._value
        if found is None:
            raise InvalidConfigError("The session given as credentials= has none: check its profile")
        keys = _frozen(found)
        if refused is not None and keys.access_key == refused.access_key and hasattr(found, "_protected_refresh"):
            found._protected_refresh(is_mandatory=True)  # noqa: SLF001 - the public way renews by the clock alone
            keys = _frozen(found)
        return keys

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CredentialSource):
            return NotImplemented
        if self.kind == "keys":
            return bool(self._value == other._value)
        return self._value is other._value

    def __hash__(self) -> int:
        return hash(self._value) if self.kind == "keys" else id(self._value)

    def __repr__(self) -> str:
        return f"<{self.kind}, masked>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._id, self._travelling() if is_starting_a_process() else None)

    def _travelling(self) -> object:
        if self.kind == "callable":
            try:
                pickle.dumps(self._value)
            except Exception:  # noqa: BLE001 - lambdas and bound methods fail in many ways; their keys of now go instead
                return self.load()
            return self._value
        return self.load()


def _frozen(found: Any) -> AccessKeys:
    frozen = found.get_frozen_credentials()
    # botocore tells the expiry of refreshable credentials by this attribute alone.
    expiry = getattr(found, "_expiry_time", None)
    return AccessKeys(frozen.access_key, frozen.secret_key, frozen.token, _epoch_s(expiry))


_known: Final[weakref.WeakValueDictionary[str, CredentialSource]] = weakref.WeakValueDictionary()


def _restored(known_as: str, value: object) -> CredentialSource | None:
    source = _known.get(known_as)
    if source is None and value is not None:
        source = CredentialSource(value, known_as=known_as)
    return source


_KEY_BYTES: Final = 32


class CustomerKey:
    """A key that the service encrypts objects with and does not keep (SSE-C). Immutable, masked in repr.

    Pickles as credentials do: only the one that starts a process carries it.

    Args:
        value: 32 bytes, or base64 of them.

    Raises:
        InvalidConfigError: It is something else. The message does not quote it.
    """

    __slots__ = ("__weakref__", "_id", "_value")

    _value: bytes | None

    def __init__(self, value: bytes | str | None, *, known_as: str | None = None) -> None:
        self._value = _key_bytes(value)
        self._id = known_as or uuid.uuid4().hex
        _known_keys[self._id] = self

    def headers(self, *, of_copy_source: bool = False) -> tuple[tuple[str, str], ...]:
        """What a request that reads or writes an object has to say.

        Raises:
            InvalidConfigError: The key is in the process that made it, and this is another one.
        """
        if self._value is None:
            raise InvalidConfigError(
                "The key given as sse_customer_key= stayed in the process that made the S3ClientConfig: no pickle "
                "carries it but the one that starts a process. Make the S3ClientConfig in this process, too"
            )
        prefix = "x-amz-copy-source-" if of_copy_source else "x-amz-"
        digest = hashlib.md5(self._value, usedforsecurity=False).digest()
        return (
            (f"{prefix}server-side-encryption-customer-algorithm", "AES256"),
            (f"{prefix}server-side-encryption-customer-key", base64.b64encode(self._value).decode()),
            (f"{prefix}server-side-encryption-customer-key-md5", base64.b64encode(digest).decode()),
        )

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, CustomerKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "<key, masked>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored_key, (self._id, self._value if is_starting_a_process() else None)


def _key_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except binascii.Error:
            value = b""
    if value is not None and not (isinstance(value, bytes) and len(value) == _KEY_BYTES):
        raise InvalidConfigError(f"sse_customer_key must be {_KEY_BYTES} bytes, or base64 of them as a str")
    return value


_known_keys: Final[weakref.WeakValueDictionary[str, CustomerKey]] = weakref.WeakValueDictionary()


def _restored_key(known_as: str, value: bytes | None) -> CustomerKey:
    known = _known_keys.get(known_as)
    return known if known is not None else CustomerKey(value, known_as=known_as)
