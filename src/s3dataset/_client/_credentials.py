"""Who signs: botocore finds credentials, a thread of ours renews them before they expire.

botocore is asked when a client sends its first request and when keys run out, never by a request. Keys that do not
expire need no thread.
"""

import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from s3dataset._config import (
    environment_has_keys,
    metadata_service_is_configured,
    metadata_service_is_disabled,
    open_session,
)
from s3dataset._secrets import AccessKeys, CredentialSource
from s3dataset.errors import CredentialsError, InvalidConfigError, NoCredentialsError, S3Exception

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = ["CredentialKeeper", "Loaded", "load"]

_AHEAD_S: Final = 600.0
"""Keys are renewed so long before they expire: time for many attempts while the old ones still work."""
_JITTER_S: Final = 120.0  # the ranks of a job got their keys in the same second
_AGAIN_S: Final = 30.0  # after a renewal that failed
_WAIT_S: Final = 60.0
_METADATA_TIMEOUT_S: Final = 0.6  # a silent address is asked twice, and its refusal has to come within 2 s

_PROVIDERS: Final = {
    "env": "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
    "assume-role": "profile's role",
    "assume-role-with-web-identity": "web identity (AWS_WEB_IDENTITY_TOKEN_FILE)",
    "sso": "SSO",
    "login": "console login",
    "shared-credentials-file": "shared credentials file",
    "custom-process": "credential_process",
    "config-file": "shared configuration file",
    "ec2-credentials-file": "AWS_CREDENTIAL_FILE",
    "boto-config": "boto configuration",
    "container-role": "container (ECS, EKS)",
    "iam-role": "instance metadata (EC2)",
}


class Signer(Protocol):
    """What gets the keys: the engine's client."""

    def set_credentials(self, access_key: str, secret_key: str, session_token: str | None, /) -> None: ...
    def wait_credentials_wanted(self, timeout_s: float, /) -> str | None: ...
    def refuse_credentials(self, reason: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """Keys, and whether their provider gives others when asked again."""

    keys: AccessKeys
    renewable: bool


def load(
    source: CredentialSource | None,
    profile: str | None,
    session: "Session | None" = None,
    *,
    refused: AccessKeys | None = None,
) -> Loaded:
    """Asks the source given in code, else botocore's chain of providers.

    Args:
        source: Given in code.
        profile: For the chain.
        session: For the chain, where one is open already.
        refused: Keys that the service refused.

    Raises:
        NoCredentialsError: No provider has any.
        CredentialsError: One should have, and failed.
        InvalidConfigError: A source of the user's gave something that is no credentials.
    """
    if source is not None:
        try:
            return Loaded(source.load(refused=refused), source.kind != "keys")
        except S3Exception:
            raise
        except Exception as error:
            raise CredentialsError(
                f"Client error: The {source.kind} given as credentials= failed: {type(error).__name__}: {error}"
            ) from error
    return _from_chain(session or open_session(profile))


def _from_chain(session: "Session") -> Loaded:
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - botocore takes 0.1 s and more to import

    _bound_metadata_timeout(session)
    chain = session.get_component("credential_provider")
    skipped = _metadata_is_worth_asking(session)
    if skipped is not None:
        chain.remove("iam-role")
    try:
        found = chain.load_credentials()
    except (BotoCoreError, ValueError, KeyError) as error:
        raise CredentialsError(
            f"Client error: Credentials could not be loaded: {error}. Log in anew or correct the profile; "
            "S3ClientConfig(unsigned=True) reads public buckets without any"
        ) from error
    if found is None:
        tried = [_PROVIDERS.get(provider.METHOD, provider.METHOD) for provider in chain.providers]
        raise NoCredentialsError(
            f"Client error: No signing credentials found. Tried: {', '.join(tried)}"
            f"{f'; skipped: {skipped}' if skipped else ''}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a "
            "profile by AWS_PROFILE or S3ClientConfig(profile=...), or read public buckets with "
            "S3ClientConfig(unsigned=True)"
        )
    return Loaded(*_frozen(found))


def _frozen(found: Any) -> tuple[AccessKeys, bool]:
    from botocore.credentials import RefreshableCredentials  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        frozen = found.get_frozen_credentials()
    except (BotoCoreError, RuntimeError) as error:
        raise CredentialsError(
            f"Client error: Credentials from {found.method} could not be renewed: {error}. Log in anew"
        ) from error
    if not isinstance(found, RefreshableCredentials):
        return AccessKeys(frozen.access_key, frozen.secret_key, frozen.token), False
    # The expiry has no public name there; without it, keys are renewed when the service refuses them.
    expiry = getattr(found, "_expiry_time", None)
    return AccessKeys(
        frozen.access_key, frozen.secret_key, frozen.token, expiry.timestamp() if expiry is not None else None
    ), True


def _bound_metadata_timeout(session: "Session") -> None:
    from botocore.configprovider import ConstantProvider  # noqa: PLC0415

    name = "metadata_service_timeout"
    if session.get_config_variable(name) == 1:  # botocore's default; by set_config_variable() it would become 0
        session.get_component("config_store").set_config_provider(name, ConstantProvider(_METADATA_TIMEOUT_S))


_DMI: Final = ("/sys/devices/virtual/dmi/id/sys_vendor", "/sys/devices/virtual/dmi/id/board_vendor")


def _metadata_is_worth_asking(session: "Session") -> str | None:
    """None when it is; otherwise why not. Outside of EC2 its address is silent, and asking takes seconds."""
    if metadata_service_is_disabled():
        return "instance metadata (AWS_EC2_METADATA_DISABLED)"
    if metadata_service_is_configured(session):
        return None
    for file in _DMI:
        try:
            if "amazon" in Path(file).read_text().lower():
                return None
        except OSError:
            continue
    try:
        if Path("/sys/hypervisor/uuid").read_text().lower().startswith("ec2"):
            return None
    except OSError:
        pass
    return "instance metadata (this machine is none of EC2's)"


class CredentialKeeper:
    """The keys that a client signs with, from its first request to its last.

    Safe between threads. Lives through forks: the child begins with the parent's keys, and asks by itself when they run
    out. The thread that renews holds the signer, and a weak reference to the keeper.

    Args:
        source: Given in code; None: botocore's chain.
        profile: For the chain.
        loaded: What another process had, to begin with.
    """

    def __init__(self, source: CredentialSource | None, profile: str | None, loaded: Loaded | None = None) -> None:
        self._source = source
        self._profile = profile
        self._lock = threading.Lock()
        self._loaded = loaded

    @property
    def loaded(self) -> Loaded | None:
        """The keys in use; None before the first request."""
        return self._loaded

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
                self._loaded = loaded = load(self._source, self._profile, session)
        _hand_over(signer, loaded.keys)
        if not loaded.renewable:
            return None
        me = weakref.ref(self)
        return lambda: _serve(me, signer, ended)

    def settle(self, session: "Session") -> None:
        """Loads keys that are at hand: given as such, or in the environment, which comes first in botocore's chain."""
        if self._source is not None:
            at_hand = self._source.kind == "keys"
        else:
            at_hand = self._profile is None and environment_has_keys()
        with self._lock:
            if at_hand and self._loaded is None:
                self._loaded = load(self._source, self._profile, session)

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
            try:
                loaded = load(self._source, self._profile, refused=before.keys if refused and before else None)
            except InvalidConfigError as error:
                raise CredentialsError(str(error)) from error
            if refused is not None and before is not None and loaded.keys == before.keys:
                raise CredentialsError(
                    "Client error: The service refused the credentials, and their provider has no others: log in anew"
                )
            self._loaded = replace(loaded, renewable=True)
            return loaded.keys

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()  # a thread that the child does not have may hold the old one


def _is_over(keys: AccessKeys) -> bool:
    return keys.expires_at is not None and keys.expires_at <= time.time()


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
