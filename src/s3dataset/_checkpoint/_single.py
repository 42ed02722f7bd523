"""S3Checkpoint: one checkpoint, one object."""

from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._io import CHECKPOINT_READER, S3Reader, S3ReaderConstructorProtocol, S3Writer, open_reader
from s3dataset._uri import S3Uri

__all__ = ["S3Checkpoint"]


class S3Checkpoint:
    """Opens checkpoints in S3 for `torch.save` and `torch.load`. Picklable; safe between threads; sends nothing itself.

    Example:
        >>> checkpoint = S3Checkpoint(region="us-west-2")
        >>> with checkpoint.writer("s3://bucket/model.pt") as writer:
        ...     torch.save(model.state_dict(), writer)
        >>> with checkpoint.reader("s3://bucket/model.pt") as reader:
        ...     state = torch.load(reader)

    Args:
        region: Where the bucket is; default: from the environment, the profile, else the bucket itself tells.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        s3client_config: Everything else.
        reader_constructor: Read-ahead of the readers; the default is made for `torch.load`.

    Raises:
        InvalidConfigError: The endpoint is no URL. It is a ValueError too.
        TypeError: `s3client_config` is none.
    """

    def __init__(
        self,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> None:
        if not isinstance(s3client_config, S3ClientConfig | None):
            raise TypeError(f"s3client_config must be an S3ClientConfig, not {type(s3client_config).__name__}")
        self._ref = ClientRef(region, endpoint, s3client_config)
        self._ref.get()  # checks the rest; reads and sends nothing
        self._reader_constructor = reader_constructor or CHECKPOINT_READER

    @property
    def region(self) -> str | None:
        """The region given."""
        return self._ref.region

    @property
    def endpoint(self) -> str | None:
        """The endpoint given."""
        return self._ref.endpoint

    def __repr__(self) -> str:
        return f"{type(self).__name__}(region={self.region!r}, endpoint={self.endpoint!r})"

    def reader(self, s3_uri: str) -> S3Reader:
        """Opens a checkpoint for reading; works as a context manager and without one.

        Args:
            s3_uri: "s3://bucket/key".

        Raises:
            InvalidUriError: It is something else.
        """
        uri = S3Uri.parse(s3_uri, need_key=True)
        return open_reader(self._ref.get(), uri.bucket, uri.key, reader_constructor=self._reader_constructor)

    def writer(self, s3_uri: str, *, if_none_match: bool = False, if_match: str | None = None) -> S3Writer:
        """Opens a checkpoint for writing; it appears, whole, when the writer is closed without an error.

        Args:
            s3_uri: "s3://bucket/key".
            if_none_match: Write only if there is no such object.
            if_match: Write only if the object there has this ETag.

        Raises:
            InvalidUriError: `s3_uri` is something else.
            ValueError: The conditions exclude each other, or `part_size` is more than S3 takes.
        """
        uri = S3Uri.parse(s3_uri, need_key=True)
        return S3Writer(self._ref.get(), uri.bucket, uri.key, if_none_match=if_none_match, if_match=if_match)
