"""Readers and writers across forks, spawned processes and the end of the interpreter; what they send for."""

import gc
import io
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from s3dataset import ObjectChangedError, PreconditionFailedError, S3Checkpoint, S3Client, S3ClientConfig, S3Reader
from s3dataset._client import RequestQueue
from s3dataset._io import _upload
from s3dataset.testing import Fault, LocalS3

KIB = 1 << 10
MIB = 1 << 20
DATA = random.Random(0).randbytes(64 * MIB)


@pytest.fixture(scope="module")
def server():
    with LocalS3("bucket") as s3:
        s3.put("bucket", "large", DATA)
        s3.put("bucket", "small", DATA[: 100 * KIB])
        yield s3


@pytest.fixture
def s3(server):
    server.clear_faults()
    server.reset_stats()
    return server


@pytest.fixture
def client(s3):
    return S3Client("us-east-1")


class TestRequests:
    def test_reading_a_small_object_is_one_get(self, client, s3):
        assert client.get_object("bucket", "small").read() == DATA[: 100 * KIB]
        assert s3.stats()["operations"] == {"GetObject": 1}

    @pytest.mark.parametrize("known", [False, True])
    def test_the_tail_of_a_large_object(self, client, s3, known):
        info = client.head_object("bucket", "large") if known else None
        s3.reset_stats()
        reader = client.get_object("bucket", "large", object_info=info)
        reader.seek(-10, io.SEEK_END)
        assert reader.read() == DATA[-10:]
        assert s3.stats()["operations"] == {"GetObject": 1}
        assert s3.stats()["bytes_out"] <= 64 * KIB

    def test_reading_all_of_a_large_object(self, client, s3):
        assert client.get_object("bucket", "large").read() == DATA
        assert s3.stats()["bytes_out"] == len(DATA)
        assert s3.stats()["max_in_flight"] > 1

    def test_saving_two_bytes_is_one_put(self, client, s3):
        with client.put_object("bucket", "two") as writer:
            writer.write(b"ok")
        assert s3.stats()["operations"] == {"PutObject": 1}
        assert s3.get("bucket", "two") == b"ok"

    def test_checksums_go_with_parts_and_the_whole(self, client, s3):
        with client.put_object("bucket", "parts") as writer:
            writer.write(DATA[: 20 * MIB])
        assert s3.get("bucket", "parts") == DATA[: 20 * MIB]
        for record in s3.requests("UploadPart") + s3.requests("CompleteMultipartUpload"):
            assert record.headers["x-amz-checksum-crc64nvme"]
        (complete,) = s3.requests("CompleteMultipartUpload")
        assert complete.headers["x-amz-mp-object-size"] == str(20 * MIB)

    @pytest.mark.parametrize("checksum", ["CRC32", "CRC32C", None])
    def test_other_checksums(self, s3, checksum):
        client = S3Client("us-east-1", s3client_config=S3ClientConfig(checksum=checksum))
        for nbytes in (10, 12 * MIB):
            with client.put_object("bucket", "other") as writer:
                writer.write(DATA[:nbytes])
            assert s3.get("bucket", "other") == DATA[:nbytes]

    def test_empty_objects(self, client, s3):
        with client.put_object("bucket", "empty"):
            pass
        reader = client.get_object("bucket", "empty")
        assert reader.read() == b""
        assert reader.size == 0
        assert reader.etag == client.head_object("bucket", "empty").etag
        other = client.get_object("bucket", "empty")
        assert other.seek(0, io.SEEK_END) == 0
        assert other.read(10) == b""
        third = client.get_object("bucket", "empty")
        assert third.readinto(bytearray(5)) == 0
        assert bytes(third.getbuffer()) == b""

    @pytest.mark.parametrize("nbytes", [10, 12 * MIB])
    def test_conditional_writes(self, client, s3, nbytes):
        from s3dataset import S3Checkpoint

        checkpoint = S3Checkpoint("us-east-1")
        uri = f"s3://bucket/conditional-{nbytes}"
        with checkpoint.writer(uri, if_none_match=True) as writer:
            writer.write(DATA[:nbytes])
        with pytest.raises(PreconditionFailedError), checkpoint.writer(uri, if_none_match=True) as second:
            second.write(DATA[:nbytes])
        with checkpoint.writer(uri, if_match=writer.etag) as third:
            third.write(b"new")
        with pytest.raises(PreconditionFailedError), checkpoint.writer(uri, if_match=writer.etag) as fourth:
            fourth.write(b"newer")
        assert s3.get("bucket", f"conditional-{nbytes}") == b"new"
        assert not s3.uploads("bucket")

    @pytest.mark.parametrize("nbytes", [10, 12 * MIB])
    def test_a_save_whose_answer_is_lost_is_not_reported_failed(self, s3, nbytes):
        from s3dataset import S3Checkpoint

        s3.add_fault(
            Fault.lost_answer(operation="PutObject"),
            Fault.lost_answer(operation="CompleteMultipartUpload"),
        )
        uri = f"s3://bucket/lost-{nbytes}"
        with S3Checkpoint("us-east-1").writer(uri, if_none_match=True) as writer:
            writer.write(DATA[:nbytes])
        assert s3.get("bucket", f"lost-{nbytes}") == DATA[:nbytes]
        assert writer.etag

    def test_parts_are_read_from_the_writers_own_memory(self, client, s3):
        s3.add_fault(
            Fault.status(503, operation="UploadPart", times=6), Fault.delay(0.05, operation="UploadPart", times=None)
        )
        source = bytearray(66 * MIB)
        expected = b""
        with client.put_object("bucket", "overwritten") as writer:
            for nbytes in (3 * MIB, 66 * MIB, 9 * MIB, 100):
                view = memoryview(source)[:nbytes]
                view[:] = DATA[:nbytes] if nbytes <= len(DATA) else (DATA + DATA[: 2 * MIB])[:nbytes]
                expected += view
                writer.write(view)
                view[:] = b"\xee" * nbytes
        assert s3.get("bucket", "overwritten") == expected


class TestChangedObjects:
    def test_replaced_between_two_reads(self, client, s3):
        s3.put("bucket", "changing", DATA[: 10 * MIB])
        reader = client.get_object("bucket", "changing")
        reader.read(10)
        s3.put("bucket", "changing", DATA[10 * MIB : 20 * MIB])
        with pytest.raises(ObjectChangedError, match="s3://bucket/changing"):
            reader.read()


def read_in_child(connection, reader):
    connection.send((reader.tell(), reader.read(5), reader.read(), reader.size))
    connection.close()


class TestForksAndPickles:
    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_reader_goes_on_in_another_process(self, client, s3, method):
        reader = client.get_object("bucket", "large")
        assert reader.read(3 * MIB) == DATA[: 3 * MIB]
        context = multiprocessing.get_context(method)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=read_in_child, args=(sender, reader))
        process.start()
        sender.close()
        position, five, rest, size = receiver.recv()
        process.join()
        assert process.exitcode == 0
        assert (position, size) == (3 * MIB, len(DATA))
        assert five + rest == DATA[3 * MIB :]
        assert reader.read(10) == DATA[3 * MIB : 3 * MIB + 10]

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_what_was_handed_over_before_a_fork_stays_readable(self, client, s3):
        reader = client.get_object("bucket", "small")
        view = reader.getbuffer()
        pid = os.fork()
        if pid == 0:
            right = False
            try:
                right = view == DATA[: 100 * KIB] and reader.read() == DATA[: 100 * KIB]
            finally:
                os._exit(0 if right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert s3.stats()["operations"] == {"GetObject": 1}

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_lock_held_by_another_thread_at_the_fork_stops_nobody(self, client, s3):
        reader = client.get_object("bucket", "large")
        reader.read(10)
        held, release = threading.Event(), threading.Event()

        def hold():
            with reader._lock:
                held.set()
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        pid = os.fork()
        if pid == 0:
            right = False
            try:
                right = reader.read(10) == DATA[10:20]
            finally:
                os._exit(0 if right else 1)
        release.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_a_small_reader_carries_its_bytes(self, client, s3):
        reader = client.get_object("bucket", "small")
        reader.getbuffer()
        copy = pickle.loads(pickle.dumps(reader))
        s3.reset_stats()
        assert isinstance(copy, S3Reader)
        assert copy.read() == DATA[: 100 * KIB]
        assert copy.getbuffer()[:3] == DATA[:3]
        assert not s3.stats()["requests"]

    def test_a_large_reader_goes_by_reference_to_the_same_version(self, client, s3):
        s3.put("bucket", "pinned", DATA)
        reader = client.get_object("bucket", "pinned")
        reader.getbuffer()
        pickled = pickle.dumps(reader)
        assert len(pickled) < MIB
        assert pickle.loads(pickled).read(10) == DATA[:10]
        s3.put("bucket", "pinned", DATA[::-1])
        with pytest.raises(ObjectChangedError):
            pickle.loads(pickled).read(10)

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_never_ends_its_parents_upload(self, client, s3):
        writer = client.put_object("bucket", "parents")
        writer.write(DATA[: 20 * MIB])
        pid = os.fork()
        if pid == 0:
            try:
                writer.close()
                del writer
                gc.collect()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        writer.write(b"more")
        writer.close()
        assert s3.get("bucket", "parents") == DATA[: 20 * MIB] + b"more"


class TestTheEndOfTheInterpreter:
    @pytest.mark.parametrize("nbytes", [10, 20 * MIB])
    def test_a_writer_left_open_publishes_nothing(self, s3, nbytes):
        s3.put("bucket", "left", b"before")
        program = (
            "import s3dataset\n"
            "writer = s3dataset.S3Client('us-east-1').put_object('bucket', 'left')\n"
            f"writer.write(bytes({nbytes}))\n"
        )
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0
        assert "s3://bucket/left was NOT saved" in done.stderr
        assert "ResourceWarning" in done.stderr
        assert s3.get("bucket", "left") == b"before"
        assert not s3.uploads("bucket")

    def test_reads_under_way_do_not_hold_it_up(self, s3):
        program = (
            "import s3dataset\n"
            "reader = s3dataset.S3Client('us-east-1').get_object('bucket', 'large')\n"
            "for _ in range(40): reader.read(65536)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_dropped_writer_publishes_nothing(self, client, s3, caplog):
        s3.put("bucket", "dropped", b"before")
        writer = client.put_object("bucket", "dropped")
        writer.write(DATA[: 20 * MIB])
        with pytest.warns(ResourceWarning, match="s3://bucket/dropped was NOT saved"):
            del writer
            gc.collect()
        assert "s3://bucket/dropped was NOT saved" in caplog.text
        assert s3.get("bucket", "dropped") == b"before"
        assert not s3.uploads("bucket")


class TestTheByteBudget:
    """Nobody waits for room that only the waiting thread could make."""

    @pytest.fixture
    def small(self, s3):
        return S3Client("us-east-1", s3client_config=S3ClientConfig(memory_limit_bytes=16 * MIB))

    def test_half_read_readers_do_not_keep_a_writer_from_saving(self, small, s3):
        readers = [small.get_object("bucket", "large") for _ in range(12)]
        for reader in readers:
            for _ in range(40):
                assert reader.read(64 * KIB)
        with small.put_object("bucket", "saved") as writer:
            for at in range(0, 50 * MIB, MIB):
                writer.write(DATA[at : at + MIB])
        assert s3.get("bucket", "saved") == DATA[: 50 * MIB]
        for reader in readers[:3]:
            assert reader.read() == DATA[40 * 64 * KIB :]

    def test_objects_larger_than_the_budget(self, small):
        assert small.get_object("bucket", "large").read() == DATA
        assert bytes(small.get_object("bucket", "large").getbuffer()) == DATA
        reader = small.get_object("bucket", "large")
        assert b"".join(iter(lambda: reader.read(3 * MIB), b"")) == DATA


class TestCtrlC:
    def interrupt_soon(self):
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        return timer

    def test_while_reading_into_the_callers_memory(self, client, s3):
        reader = client.get_object("bucket", "large")
        reader.read(10)
        s3.add_fault(Fault.stall(at=MIB, duration_s=1.5, operation="GetObject", times=None))
        target = bytearray(40 * MIB)
        timer = self.interrupt_soon()
        with pytest.raises(KeyboardInterrupt):
            reader.readinto(target)
        timer.join()
        target[:] = b"\xee" * len(target)
        s3.clear_faults()
        time.sleep(2)  # the server goes on sending
        assert target.count(b"\xee") == len(target)
        assert reader.read(10) == DATA[10:20]

    @pytest.mark.parametrize("taken", [1, 2, 5])
    def test_as_bytes_that_were_sent_for_ahead_are_taken(self, client, s3, monkeypatch, taken):
        # As in a notebook, where the reader is still there.
        take = RequestQueue.take_many
        takes = 0

        def interrupted(queue, *arguments):
            nonlocal takes
            takes += 1
            results = take(queue, *arguments)
            if takes == taken:
                raise KeyboardInterrupt
            return results

        monkeypatch.setattr(RequestQueue, "take_many", interrupted)
        reader = client.get_object("bucket", "large")
        pieces = []
        with pytest.raises(KeyboardInterrupt):
            while True:
                pieces.append(reader.read(3 * MIB))
        pieces += iter(lambda: reader.read(3 * MIB), b"")
        assert b"".join(pieces) == DATA

    def test_while_writing(self, client, s3):
        s3.put("bucket", "interrupted", b"before")
        s3.add_fault(Fault.stall(at=None, duration_s=30, operation="UploadPart", times=None))
        timer = self.interrupt_soon()
        with pytest.raises(KeyboardInterrupt), client.put_object("bucket", "interrupted") as writer:
            writer.write(DATA + DATA[: 6 * MIB])
        timer.join()
        assert s3.get("bucket", "interrupted") == b"before"
        assert not s3.uploads("bucket")

    @pytest.mark.parametrize(("operation", "nbytes"), [("PutObject", 10), ("CompleteMultipartUpload", 20 * MIB)])
    def test_as_the_object_is_made_visible(self, client, s3, caplog, operation, nbytes):
        """It may be there, and nobody says that it is not."""
        s3.add_fault(Fault.delay(20, operation=operation, times=None))
        writer = client.put_object("bucket", "perhaps")
        writer.write(DATA[:nbytes])
        timer = self.interrupt_soon()
        with pytest.raises(KeyboardInterrupt) as caught:
            writer.close()
        timer.join()
        s3.clear_faults()
        note = "s3://bucket/perhaps may have been saved: the request that does it was under way."
        assert note in caught.value.__notes__
        assert "s3://bucket/perhaps may have been saved: KeyboardInterrupt" in caplog.text
        assert "NOT saved" not in caplog.text
        assert writer.closed

    @pytest.mark.parametrize("taken", [2, 3, 8])
    def test_as_the_answers_to_parts_are_taken(self, s3, monkeypatch, caplog, taken):
        # Python hears of a signal when the call that waits returns: what that returned is lost.
        take = RequestQueue.next
        takes = 0

        def interrupted(queue, *arguments, **options):
            nonlocal takes
            results = take(queue, *arguments, **options)
            takes += bool(results)
            if results and takes == taken:
                raise KeyboardInterrupt
            return results

        checkpoint = S3Checkpoint("us-east-1", s3client_config=S3ClientConfig(part_size=5 * MIB))
        monkeypatch.setattr(RequestQueue, "next", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save({"weights": torch.zeros(16 * MIB)}, "s3://bucket/interrupted-2")
        assert not s3.uploads("bucket")
        assert [record.getMessage() for record in caplog.records] == [
            "s3://bucket/interrupted-2 was NOT saved: KeyboardInterrupt"
        ]

    def test_as_the_id_of_an_upload_is_taken(self, s3, monkeypatch, caplog):
        take = RequestQueue.next

        def interrupted(queue, *arguments, **options):
            if take(queue, *arguments, **options):
                raise KeyboardInterrupt
            return []

        s3.create_bucket("begun")
        checkpoint = S3Checkpoint("us-east-1")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RequestQueue, "next", interrupted)
            checkpoint.save({"weights": torch.zeros(16 * MIB)}, "s3://begun/interrupted")
        assert [upload["key"] for upload in s3.uploads("begun")] == ["interrupted"]
        assert "an upload of s3://begun/interrupted was interrupted as it began, and may remain" in caplog.text


class TestAbortsThatAreNotAnswered:
    """They are waited for by a thread, so that Ctrl-C is heard soon, and no upload stays."""

    CONFIG = S3ClientConfig(first_byte_timeout_s=0.5, max_attempts=100)

    @pytest.fixture
    def silent(self, s3):
        s3.add_fault(Fault.stall(at=None, operation="AbortMultipartUpload", times=None))
        return s3

    def wait_for_no_uploads(self, s3):
        deadline = time.monotonic() + 30
        while s3.uploads("bucket"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_in_a_program_that_goes_on(self, silent):
        client = S3Client("us-east-1", s3client_config=self.CONFIG)
        with pytest.raises(KeyboardInterrupt), client.put_object("bucket", "given-up") as writer:
            writer.write(DATA[: 20 * MIB])
            raise KeyboardInterrupt
        assert silent.uploads("bucket"), "nobody answered"
        silent.clear_faults()
        self.wait_for_no_uploads(silent)

    def test_at_the_end_of_the_program(self, silent):
        program = (
            "import s3dataset\n"
            "config = s3dataset.S3ClientConfig(first_byte_timeout_s=0.5, max_attempts=100)\n"
            "writer = s3dataset.S3Client('us-east-1', s3client_config=config).put_object('bucket', 'given-up')\n"
            f"writer.write(bytes({20 * MIB}))\n"
            "writer.abort()\n"
            "print('done', flush=True)\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True) as process:
            assert process.stdout.readline() == "done\n"
            assert silent.uploads("bucket"), "nobody answered"
            silent.clear_faults()
            assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
        assert not silent.uploads("bucket")

    def test_one_that_is_never_answered_is_named(self, silent, caplog, monkeypatch):
        monkeypatch.setattr(_upload, "_ABORT_PATIENCE_S", 0.2)
        monkeypatch.setattr(_upload, "_ABORT_TIMEOUT_S", 1.0)
        writer = S3Client("us-east-1").put_object("bucket", "given-up")
        writer.write(DATA[: 20 * MIB])
        writer.abort()
        (left,) = silent.uploads("bucket")
        _upload._await_aborts()
        assert f"{left['upload_id']} of s3://bucket/given-up may remain" in caplog.text
        silent.clear_faults()
        silent.boto3_client().abort_multipart_upload(Bucket="bucket", Key="given-up", UploadId=left["upload_id"])
