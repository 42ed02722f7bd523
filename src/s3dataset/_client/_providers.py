"""Asks for keys: what was given in code, else botocore's chain of providers.

Nothing that a provider raises is chained to what is raised here: a JSONDecodeError, to name one, holds the text that
was to be decoded, secrets and all.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from s3dataset._config import metadata_service_is_configured, metadata_service_is_disabled, open_session
from s3dataset._secrets import AccessKeys, CredentialSource
from s3dataset.errors import CredentialsError, NoCredentialsError, S3Exception

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = ["Loaded", "load"]

_METADATA_TIMEOUT_S: Final = (0.6, 0.8)
"""To connect, and to read: a silent address is asked twice, and its refusal has to come within 2 s."""
_METADATA_PATIENCE_S: Final = 1.0  # with a metadata service that answers, though not with keys: a busy one, mostly
_METADATA_PAUSE_S: Final = 0.2


class _Provider(NamedTuple):
    """How a provider is called, and what to try when it fails."""

    title: str
    advice: str


_PROVIDERS: Final[Mapping[str, _Provider]] = {
    "env": _Provider("environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)", "Set both variables, or neither"),
    "assume-role": _Provider(
        "profile's role", "Check role_arn and source of the profile, and that the role trusts whoever asks"
    ),
    "assume-role-with-web-identity": _Provider(
        "web identity (AWS_WEB_IDENTITY_TOKEN_FILE)", "Check the token file, AWS_ROLE_ARN and the role's trust policy"
    ),
    "sso": _Provider("SSO", "Log in anew: aws sso login"),
    "login": _Provider("console login", "Log in anew: aws login"),
    "shared-credentials-file": _Provider("shared credentials file", "Correct the profile in it"),
    "custom-process": _Provider("credential_process", "Run the command by hand to see what it says"),
    "config-file": _Provider("shared configuration file", "Correct the profile in it"),
    "ec2-credentials-file": _Provider("AWS_CREDENTIAL_FILE", "Correct the file"),
    "boto-config": _Provider("boto configuration", "Correct the file"),
    "container-role": _Provider(
        "container (ECS, EKS)", "Check AWS_CONTAINER_CREDENTIALS_FULL_URI and the agent that answers there"
    ),
    "iam-role": _Provider("instance metadata (EC2)", "Check that the instance has a role"),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Keys, and whether their provider gives others when asked again.

    Attributes:
        keys: What to sign with.
        renewable: Whether there are others when these run out.
        source: Who gave them, in words; "" where that is no longer known.
    """

    keys: AccessKeys
    renewable: bool
    source: str = field(default="", compare=False)


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
        InvalidConfigError: A source of the user's gave something that is no credentials, or the profile is broken.
    """
    if source is not None:
        try:
            return Loaded(source.load(refused=refused), source.kind != "keys", f"credentials= ({source.kind})")
        except S3Exception:
            raise
        except Exception as error:
            raise CredentialsError(
                f"Client error: The {source.kind} given as credentials= failed: {type(error).__name__}: {error}"
            ) from error
    return _from_chain(session or open_session(profile))


def _from_chain(session: "Session") -> Loaded:
    _bound_metadata_timeout(session)
    chain = session.get_component("credential_provider")
    skipped = _metadata_is_worth_asking(session)
    if skipped is not None:
        chain.remove("iam-role")
    for provider in chain.providers:
        failure: CredentialsError | None = None
        try:
            found = _asked(provider)
            loaded = None if found is None else Loaded(*_frozen(found), _named(provider.METHOD).title)
        except Exception as error:  # noqa: BLE001 - providers run commands, read files, and ask services
            failure = _failure(provider.METHOD, session, error)
        if failure is not None:
            raise failure
        if loaded is not None:
            return loaded
    tried = [_named(provider.METHOD).title for provider in chain.providers]
    raise NoCredentialsError(
        f"Client error: No signing credentials found. Tried: {', '.join(tried)}"
        f"{f'; skipped: {skipped}' if skipped else ''}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a "
        "profile by AWS_PROFILE or S3ClientConfig(profile=...), or read public buckets with "
        "S3ClientConfig(unsigned=True)"
    )


def _named(method: str) -> _Provider:
    return _PROVIDERS.get(method) or _Provider(method, "Correct its settings")


def _failure(method: str, session: "Session", error: Exception) -> CredentialsError:
    title, advice = _named(method)
    profile = session.get_config_variable("profile")
    if method in {"sso", "login"} and profile:
        advice += f" --profile {profile}"
    said = str(error).strip().rstrip(".:") or "no reason given"
    return CredentialsError(
        f"Client error: Credentials could not be loaded from {title}: {type(error).__name__}: {said}. {advice}; "
        "S3ClientConfig(unsigned=True) reads public buckets without any"
    )


def _asked(provider: Any) -> Any:
    """What a provider has. A metadata service that is asked by every process of a machine at once is asked again."""
    until = time.monotonic() + (_METADATA_PATIENCE_S if provider.METHOD == "iam-role" else 0.0)
    while (found := provider.load()) is None and time.monotonic() < until:
        time.sleep(_METADATA_PAUSE_S)
    return found


def _frozen(found: Any) -> tuple[AccessKeys, bool]:
    from botocore.credentials import RefreshableCredentials  # noqa: PLC0415 - botocore takes 0.1 s and more to import

    frozen = found.get_frozen_credentials()
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
