"""Where a setting comes from, for whoever asks why. The order is that of `resolved`."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = ["origin_of_endpoint", "origin_of_region"]


def origin_of_region(region: str | None, session: "Session") -> str:
    """Who named the region: the argument, a variable, the profile; "" when nobody did."""
    if region:
        return "the argument"
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if os.environ.get(name):
            return name
    return _profile(session) if session.get_config_variable("region") else ""


def origin_of_endpoint(endpoint: str | None, session: "Session") -> str:
    """Who named the endpoint; "" when nobody did, and it is Amazon's."""
    if endpoint:
        return "the argument"
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return ""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return name
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    named = services.get("s3", {}).get("endpoint_url") or profile.get("endpoint_url")
    return _profile(session) if named else ""


def _profile(session: "Session") -> str:
    return f"the profile {session.get_config_variable('profile') or 'default'!r}"
