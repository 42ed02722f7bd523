"""load_file: all tensors of a file, or of the shards that an index names."""

import torch

from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._progress import Progress, showing
from s3dataset.safetensors._files import device_of, read_files
from s3dataset.safetensors._weights import open_weights

__all__ = ["load_file"]


def load_file(
    uri: str,
    device: torch.device | str | int = "cpu",
    *,
    progress: Progress | bool | None = None,
    region: str | None = None,
    endpoint: str | None = None,
    s3client_config: S3ClientConfig | None = None,
) -> dict[str, torch.Tensor]:
    """Loads tensors: all parts of all files at once, straight into the tensors' memory, each tensor with its own.

    Every file is read as the version that was there when it was opened, and compared with the checksum that the service
    has stored of it (uploads of s3dataset have one). Headers are checked before memory is taken for anything they name.

    Args:
        uri: "s3://bucket/model.safetensors"; the index of a model in shards, "...safetensors.index.json"; or the folder
            that holds a "model.safetensors", else a "model.safetensors.index.json".
        device: Where the tensors are to be. To a GPU bytes go through pinned memory, at most 16 parts of `part_size`.
        progress: Is called with (bytes done, all bytes) now and then. None: a bar on a terminal, where tqdm is
            installed, if it takes longer than two seconds; False: nothing.
        region: Where the bucket is; default: from the environment, the profile, else the bucket itself tells.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        s3client_config: Everything else.

    Returns:
        The tensors by name, in the order of their data.

    Raises:
        InvalidUriError: `uri` is something else.
        DecodeError: A file is no safetensors file, or says what cannot be. It is a ValueError too.
        ObjectNotFoundError: There is none.
        ObjectChangedError: One was replaced meanwhile.
        ChecksumMismatchError: Other bytes came than are stored, several times.
        S3Exception: One could not be read.
        TypeError: This torch has no such type of numbers.
    """
    client = ClientRef(region, endpoint, s3client_config).get()
    place = device_of(device)
    weights = open_weights(client, uri, checksums=True)
    with showing(progress, f"loading {uri}") as tell:
        found = read_files(
            client, weights.files, place, tell, wanted=lambda file, name: weights.home[name].uri == file.uri
        )
    return {name: tensor for tensors in found for name, tensor in tensors.items()}
