"""Each request of a save and of a load in turn goes wrong: old or new checkpoint is there, whole, every time."""

import io
from collections.abc import Iterator

import pytest
import torch

from s3dataset import S3Checkpoint, S3ClientConfig, S3Exception
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.testing import Fault, LocalS3

URI = "s3://models/model.pt"
PART_BYTES = 5 << 20
OLD = {"step": 1, "weights": torch.zeros(100)}
NEW = {"step": 2, "weights": torch.arange(3 * PART_BYTES // 4 - 1000, dtype=torch.int32), "more": torch.ones(10)}
CLIENT = S3ClientConfig(part_size=PART_BYTES, max_attempts=2)

pytestmark = pytest.mark.skipif(not Skeleton.is_possible(), reason="torch < 2.6 saves through a writer")

ONCE = {
    "reset": lambda **where: Fault.reset(times=1, **where),
    "500": lambda **where: Fault.status(500, times=1, **where),
    "lost answer": lambda **where: Fault.lost_answer(times=1, **where),
}
FOR_EVER = {
    "full": lambda **where: Fault.status(507, times=None, **where),
    "500": lambda **where: Fault.status(500, times=None, **where),
    "refused": lambda **where: Fault.status(403, code="AccessDenied", times=None, **where),
    "expired": lambda **where: Fault.expired_token(times=None, **where),
}
SAVE_REQUESTS, LOAD_REQUESTS = 5, 6


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("models") as s3:
        yield s3


@pytest.fixture
def s3(server: LocalS3) -> LocalS3:
    server.clear_faults()
    S3Checkpoint("us-east-1", s3client_config=CLIENT).save(OLD, URI)
    server.reset_stats()
    return server


def content(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def stored() -> bytes:
    with S3Checkpoint("us-east-1").reader(URI) as reader:
        return reader.read()


def test_as_many_requests_as_are_spoilt_here(s3: LocalS3) -> None:
    checkpoint = S3Checkpoint("us-east-1", s3client_config=CLIENT)
    checkpoint.save(NEW, URI)
    assert len(s3.requests()) == SAVE_REQUESTS
    s3.reset_stats()
    checkpoint.load(URI)
    assert len(s3.requests()) == LOAD_REQUESTS


@pytest.mark.parametrize("number", range(SAVE_REQUESTS))
@pytest.mark.parametrize("fault", ONCE)
def test_a_save_gets_over_one_fault(s3: LocalS3, number: int, fault: str) -> None:
    before = len(s3.uploads("models"))
    s3.add_fault(ONCE[fault](after=number))
    S3Checkpoint("us-east-1", s3client_config=CLIENT).save(NEW, URI)
    assert stored() == content(NEW)
    unheard = fault == "lost answer" and number == 0  # nobody knows that it has begun: docs/decisions/0011
    assert len(s3.uploads("models")) == before + unheard


@pytest.mark.parametrize("number", range(SAVE_REQUESTS))
@pytest.mark.parametrize("fault", FOR_EVER)
def test_a_save_that_fails_leaves_the_old_one(s3: LocalS3, number: int, fault: str) -> None:
    s3.add_fault(FOR_EVER[fault](after=number))
    with pytest.raises(S3Exception, match=r"models/model\.pt"):
        S3Checkpoint("us-east-1", s3client_config=CLIENT).save(NEW, URI)
    s3.clear_faults()
    assert stored() == content(OLD)


@pytest.mark.parametrize("number", range(LOAD_REQUESTS))
@pytest.mark.parametrize("fault", ONCE)
def test_a_load_gets_over_one_fault(s3: LocalS3, number: int, fault: str) -> None:
    checkpoint = S3Checkpoint("us-east-1", s3client_config=CLIENT)
    checkpoint.save(NEW, URI)
    s3.add_fault(ONCE[fault](after=number))
    loaded = checkpoint.load(URI)
    assert torch.equal(loaded["weights"], NEW["weights"])
    assert loaded["step"] == 2


@pytest.mark.parametrize("number", range(LOAD_REQUESTS))
@pytest.mark.parametrize("fault", FOR_EVER)
def test_a_load_that_fails_says_so(s3: LocalS3, number: int, fault: str) -> None:
    checkpoint = S3Checkpoint("us-east-1", s3client_config=CLIENT)
    checkpoint.save(NEW, URI)
    s3.add_fault(FOR_EVER[fault](after=number))
    with pytest.raises(S3Exception, match=r"models/model\.pt"):
        checkpoint.load(URI)
