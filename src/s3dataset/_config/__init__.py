"""S3ClientConfig, and what becomes of it with environment and profile; only here are S3's variables read."""

from s3dataset._config._environment import (
    environment,
    environment_has_keys,
    environment_region,
    load_botocore,
    metadata_service_is_configured,
    metadata_service_is_disabled,
    open_session,
    request_log_setting,
    take_over_environment,
)
from s3dataset._config._origins import origin_of_endpoint, origin_of_region
from s3dataset._config._resolved import ResolvedConfig, resolved
from s3dataset._config._settings import Credentials, S3ClientConfig

__all__ = [
    "Credentials",
    "ResolvedConfig",
    "S3ClientConfig",
    "environment",
    "environment_has_keys",
    "environment_region",
    "load_botocore",
    "metadata_service_is_configured",
    "metadata_service_is_disabled",
    "open_session",
    "origin_of_endpoint",
    "origin_of_region",
    "request_log_setting",
    "resolved",
    "take_over_environment",
]
