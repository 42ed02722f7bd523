"""What the process is told by its environment and the shared configuration files."""

import os
from typing import TYPE_CHECKING, Final

from s3dataset._proxies import PROXY_VARIABLES
from s3dataset.errors import InvalidConfigError

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = [
    "environment",
    "environment_has_keys",
    "environment_region",
    "load_botocore",
    "metadata_service_is_configured",
    "metadata_service_is_disabled",
    "open_session",
    "request_log_setting",
]

# What decides where requests go and who signs them. A client that was made under other values is not handed out again.
_ENVIRONMENT: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_MAX_ATTEMPTS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_ROLE_ARN",
    "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH",
    "AWS_S3_USE_ARN_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    *PROXY_VARIABLES,
)


def environment() -> tuple[str | None, ...]:
    """The values of the environment variables that settings come from; equal as long as none of them changed."""
    return tuple(map(os.environ.get, _ENVIRONMENT))


def take_over_environment(values: tuple[str | None, ...]) -> None:
    """Sets the variables to what `environment` told in the process that has started this one."""
    for name, value in zip(_ENVIRONMENT, values, strict=True):
        if value is not None:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def environment_region() -> str | None:
    """AWS_REGION, which botocore alone of the SDKs does not read, before AWS_DEFAULT_REGION."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def environment_has_keys() -> bool:
    """Whether keys are in the environment, where botocore's chain begins unless a profile was given in code."""
    return bool(os.environ.get("AWS_ACCESS_KEY_ID"))


def request_log_setting() -> str | None:
    """S3DATASET_LOG: "debug", or "debug:" and a file name in which %p stands for the process id."""
    return os.environ.get("S3DATASET_LOG") or None


def metadata_service_is_disabled() -> bool:
    """Whether the user said not to ask EC2's metadata service."""
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"


def metadata_service_is_configured(session: "Session") -> bool:
    """Whether the user said where EC2's metadata service is, which means that there is one."""
    names = ("ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode")
    return any(session.get_config_variable(name) for name in names)


def load_botocore() -> None:
    """Imports what `open_session` needs: 0.15 s, which the first batch would come later."""
    import botocore.session  # noqa: F401, PLC0415


def open_session(profile: str | None) -> "Session":
    """A botocore session on this profile, or on the one that the environment names.

    Raises:
        InvalidConfigError: There is no such profile, or its file cannot be parsed.
    """
    from botocore.exceptions import ConfigParseError, ProfileNotFound  # noqa: PLC0415 - botocore takes 0.1 s and more to import
    from botocore.session import Session  # noqa: PLC0415

    session = Session(profile=profile) if profile is not None else Session()
    try:
        session.get_scoped_config()
    except ProfileNotFound as error:
        known = ", ".join(session.available_profiles) or "none"
        raise InvalidConfigError(
            f"Client error: {error}. Profiles in {session.get_config_variable('config_file')} and "
            f"{session.get_config_variable('credentials_file')}: {known}"
        ) from None
    except ConfigParseError as error:
        raise InvalidConfigError(f"Client error: {error}: correct it, or name another by AWS_CONFIG_FILE") from None
    return session
