"""What a newcomer does wrong: each gives an exception that names the object and the next thing to try."""

import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch.utils.data

from s3dataset import S3Checkpoint, S3ClientConfig, S3IterableDataset, S3MapDataset
from s3dataset.errors import (
    AccessDeniedError,
    CredentialsError,
    DecodeError,
    InvalidConfigError,
    InvalidUriError,
    ObjectNotFoundError,
    RegionError,
)
from s3dataset.testing import Fault, LocalS3
from s3dataset.transforms import Bytes, Image

pytestmark = pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")

BOTH: Any = [S3MapDataset, S3IterableDataset]
URI = "s3://bucket/images/"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as server:
        for number in range(4):
            server.put("bucket", f"images/cat/{number:02}.jpg", b"\xff\xd8\xff\xe0 cut off")
        yield server


def fail(reader: Any) -> None:
    raise LookupError("no label")


class Holder:
    """Holds what no pickle can."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, reader: Any) -> None:
        return None


def first_batch(dataset: Any, workers: int, method: str = "fork") -> Any:
    return next(iter(torch.utils.data.DataLoader(dataset, num_workers=workers, multiprocessing_context=method)))


@pytest.mark.parametrize("kind", BOTH)
class TestTransforms:
    def test_one_that_raises_in_a_worker(self, server: LocalS3, kind: Any) -> None:
        with pytest.raises(LookupError, match=r"(?s)no label.*This happened in the transform of s3://bucket/images/"):
            first_batch(kind.from_prefix(URI, transform=fail), 1)

    def test_bytes_that_do_not_decode_in_a_worker(self, server: LocalS3, kind: Any) -> None:
        with pytest.raises(DecodeError) as caught:
            first_batch(kind.from_prefix(URI, transform=Image()), 1)
        for part in ("s3://bucket/images/cat/00.jpg: 12 bytes", r"b'\xff\xd8\xff\xe0", "a JPEG image", "pattern="):
            assert part in str(caught.value)

    @pytest.mark.parametrize(("make", "named"), [(lambda: lambda reader: 1, "test_bad_input.py:"), (Holder, "Holder")])
    @pytest.mark.filterwarnings("ignore:Got pickle error:UserWarning")
    def test_one_that_does_not_pickle(self, server: LocalS3, kind: Any, make: Callable[[], Any], named: str) -> None:
        with pytest.raises(pickle.PicklingError, match="at the top level of a module") as caught:
            first_batch(kind.from_prefix(URI, transform=make()), 1, "spawn")
        assert named in str(caught.value)


@pytest.mark.parametrize("kind", BOTH)
class TestRefusals:
    def test_denied(self, server: LocalS3, kind: Any) -> None:
        server.add_fault(Fault.status(403, times=None))
        try:
            with pytest.raises(AccessDeniedError, match=r"s3://bucket/images/ .*get-caller-identity"):
                list(kind.from_prefix(URI))
            with pytest.raises(AccessDeniedError, match=r"s3://bucket/images/x .*get-caller-identity"):
                list(kind.from_objects(f"{URI}x", transform=Bytes()))
        finally:
            server.clear_faults()

    def test_keys_that_are_wrong(self, server: LocalS3, kind: Any) -> None:
        config = S3ClientConfig(credentials=("AKIAWRONG", "wrong"))
        with pytest.raises(CredentialsError, match=r"s3://bucket/images/ .*InvalidAccessKeyId.*renew the keys"):
            list(kind.from_prefix(URI, s3client_config=config))

    def test_a_region_that_cannot_be_followed(self, server: LocalS3, kind: Any) -> None:
        server.add_fault(Fault.wrong_region("eu-west-3", times=None))
        try:
            with pytest.raises(RegionError, match=r"s3://bucket/images/ .*in eu-west-3.*region="):
                list(kind.from_prefix(URI, region="us-east-1"))
        finally:
            server.clear_faults()

    def test_a_missing_object(self, server: LocalS3, kind: Any) -> None:
        with pytest.raises(ObjectNotFoundError, match=r"s3://bucket/images/none .*list its prefix"):
            list(kind.from_objects(f"{URI}none", transform=Bytes()))


class TestFiles:
    def test_a_closed_reader(self, server: LocalS3) -> None:
        reader = S3MapDataset.from_prefix(URI)[0]
        reader.close()
        for use in (reader.read, reader.tell, lambda: reader.seek(0)):
            with pytest.raises(ValueError, match=r"closed reader of s3://bucket/images/cat/00.jpg"):
                use()

    def test_a_negative_seek(self, server: LocalS3) -> None:
        with pytest.raises(ValueError, match=r"negative seek value -1 in s3://bucket/images/cat/00.jpg"):
            S3MapDataset.from_prefix(URI)[0].seek(-1)

    def test_a_part_size_out_of_range(self, server: LocalS3) -> None:
        config = S3ClientConfig(part_size=6 << 30)
        with pytest.raises(InvalidConfigError, match=r"5,368,709,120 \(5 GiB\) at most"):
            S3Checkpoint(s3client_config=config).writer("s3://bucket/saved")

    def test_a_bucket_for_an_object(self, server: LocalS3) -> None:
        with pytest.raises(InvalidUriError, match="write 's3://bucket/key'"):
            S3Checkpoint().reader("s3://bucket")


class TestIndices:
    def test_out_of_range(self, server: LocalS3) -> None:
        dataset = S3MapDataset.from_prefix(URI)
        for index in (lambda: dataset[4], lambda: dataset.__getitems__([-5])):
            with pytest.raises(IndexError, match=r"out of range for <S3MapDataset of s3://bucket/images/ \(4 objects"):
                index()

    @pytest.mark.parametrize("given", ["cat/02.jpg", "02.jpg", "images/cat/2.jpg", "s3://bucket/images/cats/02.jpg"])
    def test_texts_that_are_nearly_right(self, server: LocalS3, given: str) -> None:
        with pytest.raises(KeyError, match=r"is not among these 4 objects\. .*'images/cat/02.jpg'"):
            S3MapDataset.from_prefix(URI)[given]
