"""Client: the operations put together. Stateless: everything that reads or writes bytes as a file stands above it."""

from typing import Any

from s3dataset._client._copy import CopyOperations
from s3dataset._client._delete import DeleteOperations
from s3dataset._client._get import GetOperations
from s3dataset._client._head import HeadOperations
from s3dataset._client._list import ListOperations
from s3dataset._client._put import PutOperations
from s3dataset._client._registry import ClientRef
from s3dataset._client._uploads import UploadOperations

__all__ = ["Client"]


class Client(
    GetOperations,
    PutOperations,
    ListOperations,
    HeadOperations,
    DeleteOperations,
    CopyOperations,
    UploadOperations,
):
    """Operations on objects over one endpoint or region. See `ClientCore` for its life and arguments."""

    @property
    def ref(self) -> ClientRef:
        """What names this client in a pickle; in this process it gives this very client."""
        ref = ClientRef(self.region, self.endpoint, self.config, self.user_agent)
        object.__setattr__(ref, "_client", self)
        return ref

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.ref)

    def __repr__(self) -> str:
        place = ", ".join(f"{name}={value!r}" for name in ("region", "endpoint") if (value := getattr(self, name)))
        return f"{type(self).__name__}({place})"


def _restored(cls: type[Client], ref: ClientRef) -> Client:
    """A client of its own in another process, with the keys that the reference may have brought along."""
    client = cls(ref.region, endpoint=ref.endpoint, user_agent=ref.user_agent, s3client_config=ref.config)
    brought = ref.get()
    client.adopt(brought.loaded, brought.share_keys())
    return client
