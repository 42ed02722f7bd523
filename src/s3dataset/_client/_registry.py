"""One client a process for each region, endpoint and configuration, and the reference to it that pickles."""

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from s3dataset._client import _process
from s3dataset._config import S3ClientConfig, environment, take_over_environment
from s3dataset._secrets import is_starting_a_process

if TYPE_CHECKING:
    from s3dataset._client._client import Client
    from s3dataset._client._providers import Loaded
    from s3dataset._client._shared_keys import SharedKeys

__all__ = ["ClientRef", "get_client"]

_clients: "Final[weakref.WeakValueDictionary[tuple[Any, ...], Client]]" = weakref.WeakValueDictionary()
_recent: "Final[OrderedDict[tuple[Any, ...], Client]]" = OrderedDict()
"""Kept though nobody holds them, so that the next dataset finds their connections; others go with their last user."""
_MOST_RECENT: Final = 16


class _Lock:
    """Guards both of them, and is replaced in a forked child."""

    def __init__(self) -> None:
        self.held = threading.Lock()
        _process.forget_at_fork(self)

    def before_fork(self) -> None:
        pass

    def after_fork_in_child(self) -> None:
        self.held = threading.Lock()


_lock: Final = _Lock()


def get_client(
    region: str | None = None,
    endpoint: str | None = None,
    config: S3ClientConfig | None = None,
    *,
    user_agent: str | None = None,
) -> "Client":
    """The client of this process for these settings: the same object each time, as long as the environment is the same.

    Programs that give other settings each time, such as a function made on the spot that returns keys, have so many
    clients as they hold datasets and readers, and a few more.

    Reads neither files nor network, and imports no botocore: that waits for the client's first request.

    Raises:
        InvalidConfigError: The endpoint is no URL.
    """
    from s3dataset._client._client import Client  # noqa: PLC0415 - it makes ClientRefs

    config = config or _DEFAULT
    key = (region or None, endpoint or None, config, user_agent or None, environment())
    released = []  # outside of the lock: a client that goes closes its connections
    with _lock.held:
        client = _clients.get(key)
        if client is None:
            client = Client(region, endpoint=endpoint, user_agent=user_agent, s3client_config=config)
            # Who holds a client of another environment keeps it; nobody is given it any more.
            for other in [other for other in _clients if other[-1] != key[-1]]:
                released.append(_recent.pop(other, None))
                _clients.pop(other, None)
            _clients[key] = client
        _recent[key] = client
        _recent.move_to_end(key)
        while len(_recent) > _MOST_RECENT:
            released.append(_recent.popitem(last=False)[1])
    return client


_DEFAULT: Final = S3ClientConfig()


@dataclass(frozen=True)
class ClientRef:
    """Names a client; what datasets and readers carry and pickle instead of one.

    The pickle that starts a process takes along the keys that the client signs with, and the environment's settings:
    those of a forkserver are of when it was started. Any other pickle takes neither.
    """

    region: str | None = None
    endpoint: str | None = None
    config: S3ClientConfig | None = None
    user_agent: str | None = None
    _client: "Client | None" = field(default=None, init=False, repr=False, compare=False)

    def get(self) -> "Client":
        """The client, in whichever process this is; found once and kept.

        Raises:
            InvalidConfigError: The endpoint is no URL.
        """
        client = self._client
        if client is None:
            client = get_client(self.region, self.endpoint, self.config, user_agent=self.user_agent)
            object.__setattr__(self, "_client", client)
        return client

    def __reduce__(self) -> tuple[Any, ...]:
        loaded = shared = variables = None
        if is_starting_a_process():
            variables = environment()
            client = self.get()
            loaded, shared = client.loaded, client.share_keys()
        return _restored, (self.region, self.endpoint, self.config, self.user_agent, loaded, shared, variables)


def _restored(
    region: str | None,
    endpoint: str | None,
    config: S3ClientConfig | None,
    user_agent: str | None,
    loaded: "Loaded | None",
    shared: "SharedKeys | None",
    variables: tuple[str | None, ...] | None,
) -> ClientRef:
    if variables is not None and variables != environment():
        take_over_environment(variables)
    ref = ClientRef(region, endpoint, config, user_agent)
    if loaded is not None or shared is not None:
        ref.get().adopt(loaded, shared)
    return ref
