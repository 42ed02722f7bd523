"""S3Checkpoint.save_async, against a server."""

import gc
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch
from tests.process.checkpoints.states import URI, file_of, large, stored
from tests.process.test_torch_save_load import same

from s3dataset import InvalidUriError, S3Checkpoint, S3Exception
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.testing import Fault


def test_the_snapshot_is_what_counts(checkpoint, s3):
    state = large()
    expected = file_of(state)
    s3.add_fault(Fault.delay(0.3, operation="UploadPart", times=None))
    future = checkpoint.save_async(state, URI)
    for tensor in state.values():
        tensor.fill_(7)
    assert not future.done()
    assert future.result(60).size == len(expected)
    assert stored() == expected


def test_saves_keep_their_order(checkpoint):
    futures = [checkpoint.save_async({"i": i, "t": torch.full((1000,), i)}, URI) for i in range(5)]
    assert len({future.result(60).etag for future in futures}) == 5
    assert checkpoint.load(URI)["i"] == 4


def test_the_memory_of_a_snapshot_serves_the_next(checkpoint):
    checkpoint.save_async(large(), URI).result(60)
    before = [storage.data_ptr() for storage in checkpoint._background._spare]
    state = large()
    checkpoint.save_async(state, URI).result(60)
    assert [storage.data_ptr() for storage in checkpoint._background._spare] == before
    assert same(state, checkpoint.load(URI))


def test_two_under_way_do_not_share_memory(checkpoint, s3):
    checkpoint.save_async(large(), URI).result(60)
    s3.add_fault(Fault.delay(0.2, operation="UploadPart", times=None))
    states = [large(), large()]
    for i, state in enumerate(states):
        checkpoint.save_async(state, f"s3://models/{i}")
    checkpoint.save_async({}, "s3://models/last").result(60)
    for i, state in enumerate(states):
        assert same(state, checkpoint.load(f"s3://models/{i}"))


def test_a_third_waits_for_the_first(checkpoint, s3):
    s3.add_fault(Fault.delay(0.3, operation="UploadPart", times=None))
    futures = []
    for i in range(4):
        futures.append(checkpoint.save_async(large(), f"s3://models/{i}"))
        assert sum(not future.done() for future in futures) <= 2
    assert len({future.result(60).key for future in futures}) == 4


def test_one_that_has_not_begun_can_be_cancelled(checkpoint, s3, recwarn):
    checkpoint.save({"old": 1}, URI)
    s3.add_fault(Fault.delay(1, operation="PutObject", times=1))
    first = checkpoint.save_async({"a": 1}, "s3://models/first")
    second = checkpoint.save_async({"new": 1}, URI)
    assert second.cancel()
    first.result(60)
    checkpoint.save_async({}, "s3://models/last").result(60)
    assert checkpoint.load(URI) == {"old": 1}
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_the_copy_of_one_that_is_cancelled_goes_at_once(checkpoint, s3):
    s3.add_fault(Fault.delay(3, operation="PutObject", times=1))
    first = checkpoint.save_async({"a": torch.zeros(1)}, "s3://models/first")
    for _ in range(3):
        assert checkpoint.save_async({"a": torch.zeros(1)}, URI).cancel()
    assert not first.done()
    copies = sum(type(thing) is Skeleton for thing in gc.get_objects())
    first.result(60)
    assert copies <= 1  # none with a torch before 2.6, whose copies are of another kind


def test_a_forked_child_saves_by_itself(checkpoint, s3):
    s3.add_fault(Fault.delay(0.5, operation="PutObject", times=1))
    future = checkpoint.save_async({"a": 1}, URI)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            checkpoint.save_async({"b": 2}, "s3://models/child").result(30)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    future.result(60)
    assert checkpoint.load("s3://models/child") == {"b": 2}


def test_errors_are_raised_by_the_result(checkpoint, s3):
    s3.add_fault(Fault.status(403, code="AccessDenied", operation="PutObject", times=1))
    future = checkpoint.save_async({"a": 1}, URI)
    with pytest.raises(S3Exception, match=r"models/model\.pt"):
        future.result(60)
    checkpoint.save({"a": 2}, URI)  # somebody has seen it


def test_errors_that_nobody_saw_are_raised_by_the_next_save(checkpoint, s3, caplog):
    checkpoint.save({"old": 1}, URI)
    s3.add_fault(Fault.status(403, code="AccessDenied", operation="PutObject", times=1))
    future = checkpoint.save_async({"a": 1}, URI)
    while not future.done():
        time.sleep(0.01)
    with pytest.raises(S3Exception, match=r"models/model\.pt"):
        checkpoint.save({"a": 2}, URI)
    assert "NOT saved" in caplog.text
    assert checkpoint.load(URI) == {"old": 1}
    checkpoint.save({"a": 2}, URI)


def test_quantized_tensors(checkpoint, recwarn):
    state = torch.quantize_per_tensor(torch.randn(5), 0.1, 0, torch.qint8)
    checkpoint.save_async(state, URI).result(60)
    assert torch.equal(state.dequantize(), checkpoint.load(URI).dequantize())


def test_bad_calls_are_refused_at_once(checkpoint):
    with pytest.raises(InvalidUriError):
        checkpoint.save_async({}, "models")
    with pytest.raises(ValueError, match="exclude"):
        checkpoint.save_async({}, URI, if_none_match=True, if_match="x")


def test_it_pickles(checkpoint):
    checkpoint.save_async({"a": 1}, URI).result(60)
    again = pickle.loads(pickle.dumps(checkpoint))
    again.save_async({"a": 2}, URI).result(60)
    assert again.load(URI) == {"a": 2}


def test_the_end_of_the_program_waits(s3, tmp_path):
    program = """
import torch, s3dataset
checkpoint = s3dataset.S3Checkpoint("us-east-1")
checkpoint.save_async({"t": torch.arange(8 << 20)}, "s3://models/at-exit.pt")
"""
    s3.add_fault(Fault.delay(0.5, operation="UploadPart", times=None))
    environment = {**os.environ, **s3.environment}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert torch.equal(S3Checkpoint("us-east-1").load("s3://models/at-exit.pt")["t"], torch.arange(8 << 20))


def test_a_later_save_to_the_same_place_stays(checkpoint, s3):
    s3.add_fault(Fault.delay(1, operation="PutObject", times=1))
    checkpoint.save_async({"n": 1}, URI)
    checkpoint.save({"n": 2}, URI)
    assert checkpoint.load(URI) == {"n": 2}
