"""Copies within the service: no bytes pass through this machine."""

from s3dataset._client import Client, ObjectInfo
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectNotFoundError

__all__ = ["copy"]


def copy(client: Client, source: S3Uri, target: S3Uri, *, replace: bool = True) -> ObjectInfo:
    """Copies an object with its metadata, of any size -> the copy.

    Raises:
        FileExistsError: There is such an object, and `replace` is False. It is asked for before the copy, which has no
            condition for it.
        ValueError: Source and target are the same.
        ObjectNotFoundError: There is no source.
        S3Exception: It failed otherwise.
    """
    if source == target:
        raise ValueError(f"{source} and {target} are the same object")
    if not replace:
        try:
            client.head_object(target.bucket, target.key)
        except ObjectNotFoundError:
            pass
        else:
            raise FileExistsError(f"{target} exists, and --no-clobber was given")
    client.copy_object(source.bucket, source.key, target.bucket, target.key)
    return client.head_object(target.bucket, target.key)
