"""Datasets of each library under a DataLoader. A sample is the length of its object: reading is measured."""

import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.clients import Boto3, Obstore, Target
from benchmarks.data import BUCKET, small_key

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Loader:
    """How a library's dataset is iterated in one process, and how shuffled by workers; None where it cannot.

    `one_by_one`: it waits for each object in turn, and is given fewer of them.
    """

    package: str
    iterate: Callable[[Target, int], Iterable[Any]] | None = None
    shuffled: Callable[[Target, int, int], Iterable[Any]] | None = None
    one_by_one: bool = False


def uris(count: int) -> list[str]:
    return [f"s3://{BUCKET}/{small_key(number)}" for number in range(count)]


def length(reader: Any) -> int:
    return len(reader.read())


def torch_loader(dataset: Any, workers: int = 0, *, shuffle: bool = False) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=workers, shuffle=shuffle or None)


def ours(kind: str, target: Target, count: int) -> Any:
    import s3dataset

    return getattr(s3dataset, kind).from_objects(
        uris(count), region=target.region, endpoint=target.endpoint, transform=length
    )


def ours_ahead(target: Target, count: int, workers: int) -> Iterable[Any]:
    import s3dataset

    dataset = ours("S3MapDataset", target, count)
    return s3dataset.DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=workers, shuffle=True)


def connector(kind: str, target: Target, count: int, **options: Any) -> Any:
    import s3torchconnector

    return getattr(s3torchconnector, kind).from_objects(
        uris(count),
        region=target.region,
        endpoint=target.endpoint,
        transform=length,
        s3client_config=s3torchconnector.S3ClientConfig(force_path_style=True),
        **options,
    )


def litdata(target: Target) -> Any:
    from litdata import StreamingRawDataset
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # there is no setting for an endpoint without TLS
    os.environ.update(AWS_ENDPOINT_URL=target.endpoint, LITDATA_DISABLE_VERSION_CHECK="1")
    cache = tempfile.mkdtemp(prefix="s3dataset-bench-litdata-")
    return StreamingRawDataset(f"s3://{BUCKET}/small/", cache_dir=cache, transform=len)


class OnThreads:
    """A map dataset over a plain client: a batch's objects are fetched on threads. Each worker has its own client."""

    def __init__(self, kind: type[Any], target: Target, count: int) -> None:
        self.kind, self.target, self.count, self.process = kind, target, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: list[int]) -> list[int]:
        if self.process != os.getpid():
            self.process, self.client = os.getpid(), self.kind(self.target)
            self.threads = ThreadPoolExecutor(BATCH_SIZE)
        return list(self.threads.map(lambda index: len(self.client.get_one(small_key(index))), indices))

    def __getitem__(self, index: int) -> int:
        return self.__getitems__([index])[0]


def on_threads(package: str, kind: type[Any]) -> Loader:
    return Loader(
        package,
        iterate=lambda target, count: torch_loader(OnThreads(kind, target, count)),
        shuffled=lambda target, count, workers: torch_loader(OnThreads(kind, target, count), workers, shuffle=True),
    )


LOADERS = {
    "s3dataset": Loader(
        "s3dataset",
        iterate=lambda target, count: torch_loader(ours("S3IterableDataset", target, count)),
        shuffled=lambda target, count, workers: torch_loader(
            ours("S3MapDataset", target, count), workers, shuffle=True
        ),
    ),
    "s3dataset.DataLoader": Loader("s3dataset", shuffled=ours_ahead),
    "s3torchconnector": Loader(
        "s3torchconnector",
        iterate=lambda target, count: torch_loader(connector("S3IterableDataset", target, count)),
        shuffled=lambda target, count, workers: torch_loader(
            connector("S3MapDataset", target, count), workers, shuffle=True
        ),
        one_by_one=True,
    ),
    "litdata": Loader(
        "litdata",
        iterate=lambda target, _: torch_loader(litdata(target)),
        shuffled=lambda target, _, workers: torch_loader(litdata(target), workers, shuffle=True),
    ),
    "obstore": on_threads("obstore", Obstore),
    "boto3": on_threads("boto3", Boto3),
}
