"""ClientCore: configuration, keys and routes of a client; made at first use, and anew after a fork."""

import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from s3dataset import _native
from s3dataset._client import _process
from s3dataset._client._credentials import CredentialKeeper
from s3dataset._client._failures import exception_of
from s3dataset._client._providers import Loaded
from s3dataset._client._queue import RequestQueue
from s3dataset._client._routes import address_of, check_endpoint, load_endpoint_rules
from s3dataset._client._shared_keys import SharedKeys
from s3dataset._client._user_agent import UserAgent
from s3dataset._config import ResolvedConfig, S3ClientConfig, load_botocore, open_session, resolved
from s3dataset._secrets import CredentialSource
from s3dataset.errors import InvalidConfigError, InvalidUriError

if TYPE_CHECKING:
    from botocore.session import Session

    from s3dataset._native import Buffer

__all__ = ["ClientCore", "Routes"]


class Routes(dict[str, _native.Route]):
    """Routes by bucket, made when first asked for.

    Args:
        settings: What endpoints follow from.
        regions: Where buckets were found to be, so that nobody is redirected twice.
    """

    def __init__(self, settings: ResolvedConfig, regions: Mapping[str, str]) -> None:
        super().__init__()
        self._settings = settings
        self._regions = regions

    def __missing__(self, bucket: str) -> _native.Route:
        if not bucket:
            raise InvalidUriError("Bucket name must be non-empty")
        region = self._regions.get(bucket, self._settings.region)
        address = address_of(bucket, replace(self._settings, region=region))
        try:
            route = _native.Route(
                bucket,
                scheme=address.scheme,
                host=address.host,
                port=address.port,
                path_prefix=address.path_prefix,
                region=address.region,
                service=address.service,
                session_headers=self._settings.encryption_headers if address.has_sessions else None,
            )
        except ValueError as error:
            raise InvalidConfigError(
                f"Client error: No request for bucket {bucket!r} can be sent to region {address.region!r} at "
                f"{address.host!r}: {error}. Check region and endpoint for spaces and other characters that no host "
                "name has"
            ) from None
        return self.setdefault(bucket, route)


def _nothing_counted() -> dict[str, Any]:
    """What a client that has sent nothing has counted."""
    counts = ("requests", "bytes_in", "bytes_out", "retries", "throttles", "reads_verified", "reads_unverified")
    more = ("hedges", "uploads_in_doubt", "connections_opened", "connections_reused", "connections_open", "in_flight")
    others: dict[str, Any] = {"network_wait_s": 0.0, "retries_by_cause": {}, "ttfb_s": [], "latency_s": []}
    return {**dict.fromkeys((*counts, *more), 0), **others, "by_operation": {}}


class _Engine(NamedTuple):
    """The part that the network needs, and that a fork takes away."""

    native: _native.Client
    routes: Routes
    settings: ResolvedConfig
    max_connections: int
    ended: threading.Event

    def close(self) -> None:
        self.ended.set()
        self.native.close()


class ClientCore:
    """One endpoint or region with one configuration. Nothing is read, resolved or opened before the first request.

    Safe between threads. Lives through forks: the child makes a connection of its own at first use, with the keys and
    regions that the parent knew.

    Args:
        region: Where buckets are first looked for; default: AWS_REGION, AWS_DEFAULT_REGION, the profile, else the
            bucket itself tells.
        endpoint: URL of a service of one's own; default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile, else
            Amazon's.
        user_agent: Put before the library's own in the User-Agent header.
        s3client_config: Everything else.

    Raises:
        InvalidConfigError: `endpoint` is no URL.
        TypeError: `s3client_config` is none.
    """

    def __init__(
        self,
        region: str | None = None,
        *,
        endpoint: str | None = None,
        user_agent: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        for name, value in (("region", region), ("endpoint", endpoint)):
            if not isinstance(value, str | None):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}: {value!r}")
        if endpoint:
            check_endpoint(endpoint)
        if not isinstance(s3client_config, S3ClientConfig | None):
            raise TypeError(f"s3client_config must be an S3ClientConfig, not {type(s3client_config).__name__}")
        self._region = region or None
        self._endpoint = endpoint or None
        self._user_agent = user_agent or None
        self._config = s3client_config or S3ClientConfig()
        source = self._config.credentials
        self._keeper = CredentialKeeper(source if isinstance(source, CredentialSource) else None, self._config.profile)
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._settings: ResolvedConfig | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._regions: dict[str, str] = {}
        _process.forget_at_fork(self)

    @property
    def region(self) -> str | None:
        """The region given."""
        return self._region

    @property
    def endpoint(self) -> str | None:
        """The endpoint given."""
        return self._endpoint

    @property
    def user_agent(self) -> str | None:
        """The user agent given."""
        return self._user_agent

    @property
    def config(self) -> S3ClientConfig:
        """The configuration given, or the default one."""
        return self._config

    @property
    def s3client_config(self) -> S3ClientConfig:
        """The configuration given, or the default one."""
        return self._config

    @property
    def part_size(self) -> int:
        """Bytes of a range or part."""
        return self._config.part_size

    @property
    def memory_limit_bytes(self) -> int:
        """The byte budget that this client's requests live in: its own, or the process's."""
        return (
            self._config.memory_limit_bytes or _process.limits(self._config.throughput_target_gbps).memory_limit_bytes
        )

    @property
    def max_connections(self) -> int:
        """Connections at once."""
        if self._engine is not None:
            return self._engine.max_connections
        return self._config.max_connections or _process.limits(self._config.throughput_target_gbps).max_connections

    @property
    def checksum(self) -> str | None:
        """Algorithm of the checksums sent with uploads, None for none."""
        return self._opened().settings.checksum

    @property
    def service(self) -> str:
        """Which store it is, in words that differ between stores: by the arguments, the environment and the profile."""
        settings = (self._engine or self._opened()).settings
        return settings.endpoint or f"Amazon S3{f' in {settings.region}' if settings.region else ''}"

    def region_of(self, bucket: str) -> str:
        """Where requests for a bucket are sent: as configured, and from the first answer on as the service told."""
        return (self._engine or self._opened()).routes[bucket].region

    def queue(self) -> RequestQueue:
        """A queue for requests of one caller.

        Raises:
            NoCredentialsError, CredentialsError: There is nothing to sign with.
            InvalidConfigError: Environment or profile hold something that cannot work.
        """
        engine = self._engine or self._opened()
        settings = engine.settings
        key = settings.customer_key
        return RequestQueue(
            engine.native.queue(),
            engine.routes,
            settings.checksum,
            settings.write_headers,
            () if key is None else key.headers(of_copy_source=True),
        )

    def fetch(
        self,
        bucket: str,
        key: str,
        start: int | None = None,
        end: int | None = None,
        *,
        size: int | None = None,
        etag: str | None = None,
        limit: int | None = None,
        version_id: str | None = None,
        verify: bool = False,
    ) -> _native.Body:
        """One object or range alone, without a queue: 10 us less than with one.

        Args:
            bucket: Name of the bucket.
            key: The key.
            start: First byte; negative: so many before the object's end; None: from the beginning.
            end: The byte behind the last; None: up to the object's end.
            size: Bytes of the whole object, where known.
            etag: The version it must be, in quotes.
            limit: At most so many bytes, from the start on.
            version_id: Of a bucket with versions; None: the current one.
            verify: Compare a whole object that comes in parallel ranges with the checksum stored, too.

        Raises:
            S3Exception: It failed.
        """
        engine = self._engine or self._opened()
        result = engine.native.fetch(engine.routes[bucket], key, start, end, size, etag, limit, version_id, verify)
        if isinstance(result, _native.Failure):
            raise exception_of(result)
        return result

    def buffer(self, size: int, *, force: bool = False) -> "Buffer | None":
        """Memory of the engine's, to fill and send; None when the byte budget has no room and `force` is False."""
        return self._opened().native.buffer(size, force=force)

    def stats(self) -> dict[str, Any]:
        """Counts and histograms since this client's first request in this process; `close` begins them anew.

        Returns:
            `requests`, and of these `retries`, `retries_by_cause`, `throttles` (answers that asked for fewer), `hedges`
            (sent again as no answer came) and `by_operation`; `bytes_in`, `bytes_out`; `reads_verified`,
            `reads_unverified` (whole objects in one answer, with a stored checksum and without); `uploads_in_doubt`;
            `connections_opened`, `connections_reused`, `connections_open`, `in_flight`; `network_wait_s`, summed over
            requests; `ttfb_s` and `latency_s`, lists of (seconds at most, how many). Of the whole process: `lanes`
            (engine threads), `memory_limit_bytes` (the byte budget), `memory_in_use_bytes`, `memory_pooled_bytes`.
        """
        engine = self._engine
        counted = _nothing_counted() if engine is None else engine.native.stats()
        return {**counted, **_native.process_stats()}

    def close(self) -> None:
        """Closes idle connections. Queues that are open go on, and the next request opens what it needs anew."""
        with self._lock:
            engine, self._engine = self._engine, None
            self._settings = None
            if self._finalizer is not None:
                self._finalizer.detach()
        if engine is not None:
            self._regions.update(_regions(engine))
            engine.close()

    # -- For spawned processes and forks -----------------------------------------------------------------------------

    @property
    def loaded(self) -> Loaded | None:
        """The keys in use, for a process that is being started."""
        return self._keeper.loaded

    def share_keys(self) -> SharedKeys | None:
        """What a process that is being started shares with this one, so that one of them asks for keys."""
        return None if self._config.unsigned else self._keeper.share()

    def adopt(self, loaded: Loaded | None, shared: SharedKeys | None) -> None:
        """Begins with keys that the parent process had, and with what it shares."""
        if self._keeper.loaded is None:
            source = self._config.credentials
            self._keeper = CredentialKeeper(
                source if isinstance(source, CredentialSource) else None, self._config.profile, loaded, shared
            )

    @staticmethod
    def preload() -> None:
        """Imports, and reads endpoint rules: 0.15 s once a process, better spent before the first batch is waited for.

        Forked children inherit it. Nothing of the user's is read.
        """
        load_botocore()
        load_endpoint_rules()

    def settle(self) -> None:
        """Reads configuration, and keys that need no network, so that children forked from here need not.

        A child would spend 55 ms of CPU on it, each DataLoader worker in each epoch. Nothing is opened or sent.

        Raises:
            InvalidConfigError: Environment or profile hold something that cannot work.
        """
        with self._lock:
            if self._settings is None:
                self._settings, session = self._resolve()
                if not self._settings.unsigned:
                    self._keeper.settle(session)
                load_endpoint_rules()

    def before_fork(self) -> None:
        self.share_keys()
        if self._engine is not None:
            self._regions.update(_regions(self._engine))

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._engine = None
        self._keeper.after_fork_in_child()
        if self._finalizer is not None:
            self._finalizer.detach()

    # -- At first use ------------------------------------------------------------------------------------------------

    def _opened(self) -> _Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._open()
            return self._engine

    def _resolve(self) -> "tuple[ResolvedConfig, Session]":
        session = open_session(self._config.profile)
        settings = resolved(self._config, session, region=self._region, endpoint=self._endpoint)
        if settings.endpoint is not None:
            check_endpoint(settings.endpoint)
        return settings, session

    def _open(self) -> _Engine:
        session = None
        settings = self._settings
        if settings is None:
            settings, session = self._resolve()
            self._settings = settings
        limits = _process.ensure_started(self._config.throughput_target_gbps)
        max_connections = settings.max_connections or limits.max_connections
        proxy = settings.proxy
        native = _made(
            unsigned=settings.unsigned,
            user_agent=_user_agent(self._user_agent),
            part_size=settings.part_size,
            max_attempts=settings.max_attempts,
            max_connections=max_connections,
            large_in_flight=min(settings.large_in_flight, max_connections),
            connect_timeout_s=settings.connect_timeout_s,
            first_byte_timeout_s=settings.first_byte_timeout_s,
            stall_timeout_s=settings.stall_timeout_s,
            retry_max_elapsed_s=settings.retry_max_elapsed_s,
            verify_reads=settings.verify_reads,
            save_max_elapsed_s=settings.save_max_elapsed_s,
            memory_limit_bytes=settings.memory_limit_bytes,
            ca_bundle=settings.ca_bundle,
            headers=settings.headers,
            proxy=proxy and (proxy.host, proxy.port, proxy.authorization, settings.no_proxy),
            object_headers=() if settings.customer_key is None else settings.customer_key.headers(),
        )
        engine = _Engine(native, Routes(settings, self._regions), settings, max_connections, threading.Event())
        if not settings.unsigned:
            renew = self._keeper.provide(native, engine.ended, session)
            if renew is None:
                native.keep_credentials("these keys have no provider that renews them: put new ones in their place")
            else:
                _process.run_until_closed("s3dataset-credentials", renew, engine.close)
        self._finalizer = weakref.finalize(self, engine.close)
        self._finalizer.atexit = False  # uploads may go on while the interpreter ends
        return engine


def _made(**settings: Any) -> _native.Client:
    try:
        return _native.Client(**settings)
    except (ValueError, OverflowError) as error:
        raise InvalidConfigError(f"Client error: The configuration cannot work: {error}") from error


def _regions(engine: _Engine) -> dict[str, str]:
    """Where buckets turned out to be, unless somebody else's endpoint makes regions meaningless."""
    if engine.settings.endpoint is not None:
        return {}
    return {bucket: route.region for bucket, route in list(engine.routes.items())}


def _user_agent(prefix: str | None) -> str:
    own = UserAgent.get_default_prefix()
    if not prefix or prefix.startswith(own):
        return prefix or own
    return f"{prefix} {own}"
