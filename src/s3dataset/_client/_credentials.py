"""Who signs: botocore finds credentials, a thread of ours renews them before they expire.

botocore is asked when a client sends its first request and when keys run out, never by a request, and by one process of
a family only. Keys that do not expire need no thread.
"""

import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from s3dataset._client._providers import Loaded, load
from s3dataset._client._shared_keys import SharedKeys
from s3dataset._config import environment_has_keys
from s3dataset._secrets import AccessKeys, CredentialSource
from s3dataset.errors import CredentialsError, InvalidConfigError

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = ["CredentialKeeper"]

_AHEAD_S: Final = 600.0
"""Keys are renewed so long before they expire: time for many attempts while the old ones still work."""
_JITTER_S: Final = 120.0  # the ranks of a job got their keys in the same second
_AGAIN_S: Final = 30.0  # after a renewal that failed
_WAIT_S: Final = 60.0


class Signer(Protocol):
    """What gets the keys: the engine's client."""

    def set_credentials(self, access_key: str, secret_key: str, session_token: str | None, /) -> None: ...
    def wait_credentials_wanted(self, timeout_s: float, /) -> str | None: ...
    def refuse_credentials(self, reason: str, /) -> None: ...


class CredentialKeeper:
    """The keys that a client signs with, from its first request to its last.

    Safe between threads. Lives through forks: the child begins with the parent's keys, and when they run out one of the
    family asks for all. The thread that renews holds the signer, and a weak reference to the keeper.

    Args:
        source: Given in code; None: botocore's chain.
        profile: For the chain.
        loaded: What another process had, to begin with.
        shared: With other processes.
    """

    def __init__(
        self,
        source: CredentialSource | None,
        profile: str | None,
        loaded: Loaded | None = None,
        shared: SharedKeys | None = None,
    ) -> None:
        self._source = source
        self._profile = profile
        self._lock = threading.Lock()
        self._loaded = loaded
        self._shared = shared

    @property
    def loaded(self) -> Loaded | None:
        """The keys in use; None before the first request."""
        return self._loaded

    def share(self) -> SharedKeys | None:
        """What this process shares with those that come from it from now on; None where keys never change."""
        changing = not self._at_hand if self._loaded is None else self._loaded.renewable
        if changing and self._shared is None:
            self._shared = SharedKeys.create()
        return self._shared

    def provide(
        self, signer: Signer, ended: threading.Event, session: "Session | None" = None
    ) -> Callable[[], None] | None:
        """Gives `signer` its keys.

        Args:
            signer: The engine's client.
            ended: Set before `signer` is closed.
            session: For botocore's chain, where one is open already.

        Returns:
            What a thread has to run to renew them, None when they never expire.

        Raises:
            NoCredentialsError, CredentialsError, InvalidConfigError: As `load`.
        """
        with self._lock:
            loaded = self._loaded
            if loaded is None or _is_over(loaded.keys):
                self._loaded = loaded = self._ask(
                    lambda: load(self._source, self._profile, session), lambda known, _: not _is_over(known.keys)
                )
        _hand_over(signer, loaded.keys)
        if not loaded.renewable:
            return None
        me = weakref.ref(self)
        return lambda: _serve(me, signer, ended)

    def settle(self, session: "Session") -> None:
        """Loads keys that are at hand: given as such, or in the environment, which comes first in botocore's chain."""
        with self._lock:
            if self._at_hand and self._loaded is None:
                self._loaded = load(self._source, self._profile, session)

    @property
    def _at_hand(self) -> bool:
        if self._source is not None:
            return self._source.kind == "keys"
        return self._profile is None and environment_has_keys()

    def _ask(self, ask: Callable[[], Loaded], will_do: Callable[[Loaded, float], bool]) -> Loaded:
        return ask() if self._shared is None else self._shared.ask(ask, will_do)

    def renew(self, refused: str | None = None) -> AccessKeys:
        """Asks for other keys.

        Args:
            refused: The access key that the service refused. When another thread has renewed since, nobody is asked.

        Raises:
            CredentialsError: There are none, or the provider failed, or gives the same that were refused.
        """
        with self._lock:
            if refused is not None and self._loaded is not None and self._loaded.keys.access_key != refused:
                return self._loaded.keys
            before = self._loaded

            def ask() -> Loaded:
                loaded = load(self._source, self._profile, refused=before.keys if refused and before else None)
                if refused is not None and before is not None and loaded.keys == before.keys:
                    raise CredentialsError(
                        "Client error: The service refused the credentials, and their provider has no others: log in "
                        "anew"
                    )
                return replace(loaded, renewable=True)

            def will_do(known: Loaded, age_s: float) -> bool:
                if _is_over(known.keys) or known.keys.access_key == refused:
                    return False
                if refused is not None or before is None or age_s < _AGAIN_S:
                    return True
                return _expiry(known.keys) > _expiry(before.keys)

            try:
                self._loaded = loaded = self._ask(ask, will_do)
            except InvalidConfigError as error:
                raise CredentialsError(str(error)) from error
            return loaded.keys

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()  # a thread that the child does not have may hold the old one


def _is_over(keys: AccessKeys) -> bool:
    return _expiry(keys) <= time.time()


def _expiry(keys: AccessKeys) -> float:
    return float("inf") if keys.expires_at is None else keys.expires_at


def _hand_over(signer: Signer, keys: AccessKeys) -> None:
    signer.set_credentials(keys.access_key, keys.secret_key, keys.session_token)


def renewal_time(keys: AccessKeys, now: float, jitter: float) -> float:
    """When to renew, epoch seconds; infinity for keys without expiry.

    Args:
        keys: The keys in use.
        now: Epoch seconds.
        jitter: In [0, 1).
    """
    if keys.expires_at is None:
        return float("inf")
    left = keys.expires_at - now
    # Keys that live for a few minutes only are renewed at half time.
    ahead = min(_AHEAD_S + jitter * _JITTER_S, left / 2)
    return now + left - ahead


def _serve(keeper: "weakref.ref[CredentialKeeper]", signer: Signer, ended: threading.Event) -> None:
    """Renews before expiry and when a request asks for it, until the keeper is gone or the signer closed."""
    due: float | None = None
    while not ended.is_set() and (me := keeper()) is not None:
        if me.loaded is None:
            return
        if due is None:
            due = renewal_time(me.loaded.keys, time.time(), random.random())
        del me  # waiting must not keep the client alive
        refused = signer.wait_credentials_wanted(max(0.0, min(_WAIT_S, due - time.time())))
        if ended.is_set() or (me := keeper()) is None:
            return
        if refused is None and time.time() < due:
            continue
        try:
            _hand_over(signer, me.renew(refused))
            due = None
        except CredentialsError as error:
            if refused is not None:
                signer.refuse_credentials(str(error))
            due = time.time() + _AGAIN_S * (1 + random.random())
