"""Who asks, which region and endpoint, and why these."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from s3dataset._client import Address, address_of, load_credentials
from s3dataset._config import (
    ResolvedConfig,
    S3ClientConfig,
    open_session,
    origin_of_endpoint,
    origin_of_region,
    resolved,
)
from s3dataset._doctor._check import Check, Status, first_line
from s3dataset._secrets import AccessKeys, CredentialSource
from s3dataset.errors import NoCredentialsError, S3Exception

__all__ = ["Asked", "find_address", "find_credentials", "find_settings", "find_who"]

_SOON_S: Final = 15 * 60
_PATIENCE_S: Final = 5


class Asked(NamedTuple):
    """What the user said."""

    region: str | None
    endpoint: str | None
    config: S3ClientConfig


def find_settings(asked: Asked) -> tuple[ResolvedConfig | None, list[Check]]:
    """Configuration, environment and profile together."""
    try:
        session = open_session(asked.config.profile)
        settings = resolved(asked.config, session, region=asked.region, endpoint=asked.endpoint)
    except S3Exception as error:
        return None, [Check("identity", "settings", "fail", first_line(error), "correct it: no request can be made")]
    profile = session.get_config_variable("profile")
    checks = [Check("identity", "profile", "info", str(profile or "default (none was named)"))]
    by = origin_of_region(asked.region, session)
    said = f"{settings.region}, by {by}" if settings.region else "none named; the bucket tells, for a request more"
    checks.append(Check("identity", "region", "info", said, facts={"region": settings.region, "origin": by or None}))
    by = origin_of_endpoint(asked.endpoint, session)
    said = f"{settings.endpoint}, by {by}" if settings.endpoint else "Amazon's"
    checks.append(
        Check("identity", "endpoint", "info", said, facts={"endpoint": settings.endpoint, "origin": by or None})
    )
    return settings, checks


def find_credentials(asked: Asked, settings: ResolvedConfig) -> tuple[AccessKeys | None, list[Check]]:
    """Asks for keys as a client would."""
    if settings.unsigned:
        return None, [Check("identity", "credentials", "info", "none: requests are not signed")]
    begin = time.perf_counter()
    try:
        source = asked.config.credentials
        loaded = load_credentials(source if isinstance(source, CredentialSource) else None, asked.config.profile)
    except NoCredentialsError as error:
        return None, [
            Check(
                "identity",
                "credentials",
                "fail",
                first_line(error).split(". ")[0],
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose a profile with --profile or AWS_PROFILE "
                "(aws configure, aws sso login make one); --unsigned reads public buckets",
            )
        ]
    except S3Exception as error:
        return None, [Check("identity", "credentials", "fail", first_line(error), "see what it says of its source")]
    seconds = time.perf_counter() - begin
    keys = loaded.keys
    kind = "temporary" if keys.session_token else "long-lived"
    said = f"{_masked(keys.access_key)} ({kind}), from {loaded.source}, in {1e3 * seconds:.0f} ms"
    facts = {
        "access_key": _masked(keys.access_key),
        "source": loaded.source,
        "temporary": keys.session_token is not None,
        "renewable": loaded.renewable,
        "expires_at": keys.expires_at,
        "seconds": round(seconds, 4),
    }
    checks = [Check("identity", "credentials", "ok", said, facts=facts)]
    checks.append(_expiry(keys, renewable=loaded.renewable))
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_PROFILE") and not asked.config.profile:
        checks.append(
            Check(
                "identity",
                "two sources",
                "warn",
                "keys in the environment go before the profile in AWS_PROFILE",
                "unset AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or pass --profile, if the profile is meant",
            )
        )
    return keys, checks


def _expiry(keys: AccessKeys, *, renewable: bool) -> Check:
    if keys.expires_at is None:
        if keys.session_token and not renewable:
            return Check(
                "identity",
                "expiry",
                "warn",
                "temporary keys without a date, and nobody renews them",
                "a job that outlives them fails: use a profile or a role, which renew",
            )
        return Check("identity", "expiry", "ok", "none")
    left = keys.expires_at - time.time()
    when = datetime.fromtimestamp(keys.expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if left <= 0:
        return Check("identity", "expiry", "fail", f"expired at {when}", "get new ones, as by aws sso login")
    status: Status = "ok" if renewable or left > _SOON_S else "warn"
    after = "renewed before" if renewable else "not renewed"
    return Check("identity", "expiry", status, f"{when}, in {left / 60:.0f} minutes; {after}")


def find_who(asked: Asked, keys: AccessKeys) -> Iterator[Check]:
    """Asks STS. Whoever may not, or has no way there, can use S3 all the same."""
    from botocore.config import Config  # noqa: PLC0415 - botocore takes 0.1 s and more to import
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    session = open_session(asked.config.profile)
    try:
        sts = session.create_client(
            "sts",
            region_name=asked.region or session.get_config_variable("region") or "us-east-1",
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.session_token,
            config=Config(connect_timeout=_PATIENCE_S, read_timeout=_PATIENCE_S, retries={"max_attempts": 0}),
        )
        who = sts.get_caller_identity()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        refused = code in {"InvalidClientTokenId", "ExpiredToken", "SignatureDoesNotMatch"}
        advice = "these keys are no longer, or never were, valid: get new ones" if refused else ""
        yield Check("identity", "who", "fail" if refused else "info", f"STS says {code}", advice)
    except (BotoCoreError, ValueError) as error:
        yield Check("identity", "who", "info", f"STS could not be asked: {first_line(error)}")
    else:
        yield Check("identity", "who", "ok", who["Arn"], facts={"arn": who["Arn"], "account": who["Account"]})


def _masked(access_key: str) -> str:
    return f"{access_key[:4]}…{access_key[-4:]}" if len(access_key) > 12 else "…"


def find_address(settings: ResolvedConfig, bucket: str | None) -> tuple[Address | None, list[Check]]:
    """Where a bucket is reached, by botocore's rules."""
    try:
        address = address_of(bucket or "bucket", settings)
    except S3Exception as error:
        return None, [Check("network", "address", "fail", first_line(error), "check bucket, region and endpoint")]
    if bucket is None and settings.endpoint is None:
        return None, []
    style = "virtual-hosted" if bucket and address.host.startswith(f"{bucket}.") else "path"
    host = address.host.replace("{region}", address.region)
    said = f"{address.scheme}://{host}{f':{address.port}' if address.port else ''} ({style} style)"
    status: Status = "ok"
    advice = ""
    if address.scheme == "http" and not _is_loopback(host):
        status, advice = "warn", "bytes travel unencrypted, unchecked by TLS: use an https:// endpoint"
    return address, [Check("network", "address", status, said, advice, {"host": host, "scheme": address.scheme})]


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "[::1]"} or host.startswith("127.")
