"""Brings about each error and warning that docs/troubleshooting.md quotes, and gives its message."""

import contextlib
import gzip
import pickle
import re
import socket
import warnings
from dataclasses import dataclass

import s3dataset
from s3dataset import CheckpointManager, S3Checkpoint, S3Client, S3ClientConfig, S3IterableDataset, S3MapDataset, Stats
from s3dataset._client._failures import exception_of
from s3dataset._datasets import _loop_watch
from s3dataset.errors import S3Exception
from s3dataset.testing import Fault, LocalS3
from s3dataset.transforms import Bytes, Image

_VARYING = (
    (r"request id [0-9A-Za-z]+", "request id 4442587FB7D0A2F9"),
    (r"127\.0\.0\.1:\d+|localhost:\d+", "127.0.0.1:9000"),
    (r"attempts in \d+\.\d s", "attempts in 1.2 s"),
    (r"after \d+ attempts", "after 4 attempts"),
    (r"\(/[^ ]*/messages\.py:\d+\)", "(train.py:12)"),
    (r"Producer\.\w+\.<locals>", "main.<locals>"),
    (r"Can't \w+ local object", "Can't pickle local object"),  # Python's, which differs between its versions
    (r"os error \d+", "os error 111"),
    (r"console login, ", ""),  # newer releases of botocore have it
)


def settled(message):
    """What differs from run to run is as on the page."""
    for pattern, instead in _VARYING:
        message = re.sub(pattern, instead, message)
    return message


@dataclass
class Failure:
    """What the engine would tell of a fault of its own."""

    kind: str = "internal"
    operation: str = "GetObject"
    bucket: str = "my-bucket"
    key: str = "data/a.jpg"
    status: int = 0
    code: str = ""
    message: str = "a result is missing"
    request_id: str = ""
    attempts: int = 1
    elapsed_s: float = 0.1
    causes: tuple[str, ...] = ()
    retries_exhausted: bool = False
    region: str = ""


class Producer:
    """A server, and what goes wrong with it. Each method is named like the class or symptom that it brings about."""

    def __init__(self, server: LocalS3, monkeypatch) -> None:
        self.server = server
        self.monkeypatch = monkeypatch

    @staticmethod
    def names():
        return sorted(name for name in vars(Producer) if not name.startswith("_") and name != "names")

    def _get(self, *faults, key="data/a.jpg", region=None, **settings):
        self.server.add_fault(*(_always(fault) for fault in faults))
        config = S3ClientConfig(**{"max_attempts": 2, **settings})
        list(
            S3MapDataset.from_objects(
                [f"s3://my-bucket/{key}"], region=region, s3client_config=config, transform=Bytes()
            )
        )

    # -- Classes -----------------------------------------------------------------------------------------------------

    def S3Exception(self):  # noqa: N802 - named like the class
        self._get(Fault.status(405, code="MethodNotAllowed", message="The specified method is not allowed."))

    def InvalidUriError(self):  # noqa: N802
        S3MapDataset.from_prefix("my-bucket/data/")

    def InvalidConfigError(self):  # noqa: N802
        S3Client(endpoint="minio:9000").head_object("my-bucket", "k")

    def CredentialsError(self):  # noqa: N802
        self._get(credentials=("AKIAWRONG", "wrong"))

    def NoCredentialsError(self):  # noqa: N802
        self.monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        self._get(region="eu-central-1")

    def ObjectNotFoundError(self):  # noqa: N802
        self._get(key="data/b.jpg")

    def BucketNotFoundError(self):  # noqa: N802
        len(S3MapDataset.from_prefix("s3://mybucket/data/"))

    def AccessDeniedError(self):  # noqa: N802
        self.server.add_fault(_always(Fault.status(403, code="AccessDenied", message="Access Denied")))
        len(S3MapDataset.from_prefix("s3://my-bucket/data/"))

    def ObjectArchivedError(self):  # noqa: N802
        self.server.put("my-bucket", "cold/a.jpg", b"x", x_amz_storage_class="DEEP_ARCHIVE")
        self._get(key="cold/a.jpg")

    def RegionError(self):  # noqa: N802
        self._get(Fault.wrong_region("eu-west-3"), region="us-east-1")

    def PreconditionFailedError(self):  # noqa: N802
        S3Checkpoint().save({"step": 1}, "s3://my-bucket/data/a.jpg", if_none_match=True)

    def ConflictError(self):  # noqa: N802
        message = "A conflicting operation is in progress against this resource. Try again."
        self._get(Fault.status(409, code="OperationAborted", message=message))

    def ObjectChangedError(self):  # noqa: N802
        dataset = S3MapDataset.from_prefix("s3://my-bucket/data/", transform=Bytes())
        assert len(dataset)
        self.server.put("my-bucket", "data/a.jpg", b"another photo, no jpeg either")
        dataset[0]

    def ChecksumMismatchError(self):  # noqa: N802
        self.server.add_fault(_always(Fault.corrupt(at=3, operation="GetObject")))
        config = S3ClientConfig(max_attempts=2)
        list(S3MapDataset.from_prefix("s3://my-bucket/data/", transform=Bytes(), s3client_config=config))

    def DecodeError(self):  # noqa: N802
        S3MapDataset.from_prefix("s3://my-bucket/data/", transform=Image())[0]

    def UnindexedError(self):  # noqa: N802
        self.server.put("my-bucket", "train/0.tar", bytes(10240))
        S3MapDataset.from_prefix("s3://my-bucket/train/", format="tar")[0]

    def UnindexableError(self):  # noqa: N802
        self.server.put("my-bucket", "zipped/0.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 100, mtime=0))
        s3dataset.Manifest.from_prefix("s3://my-bucket/zipped/").index("jsonl")

    def ManifestMismatchError(self):  # noqa: N802
        def loader(prefix):
            return s3dataset.DataLoader(S3IterableDataset.from_prefix(f"s3://my-bucket/{prefix}/", transform=Bytes()))

        self.server.put("my-bucket", "more/a", b"a")
        self.server.put("my-bucket", "more/b", b"b")
        before, after = loader("data"), loader("more")
        list(before)
        after.load_state_dict(before.state_dict())
        list(after)

    def RetriesExhaustedError(self):  # noqa: N802
        self._get(Fault.status(500), max_attempts=4)

    def ThrottledError(self):  # noqa: N802
        self._get(Fault.status(503), retry_max_elapsed_s=1)

    def TransportError(self):  # noqa: N802
        self._get(Fault.truncate(at=3), max_attempts=4)

    def ConnectTimeoutError(self):  # noqa: N802
        with contextlib.ExitStack() as stack:
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(8):  # until its backlog is full
                waiting = stack.enter_context(socket.socket())
                waiting.settimeout(0.05)
                with contextlib.suppress(OSError):
                    waiting.connect(silent.getsockname())
            config = S3ClientConfig(max_attempts=1, connect_timeout_s=0.3)
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            S3Client(endpoint=endpoint, s3client_config=config).head_object("my-bucket", "data/a.jpg")

    def FirstByteTimeoutError(self):  # noqa: N802
        self._get(Fault.stall(), first_byte_timeout_s=0.2, max_attempts=1)

    def StallTimeoutError(self):  # noqa: N802
        self._get(Fault.stall(at=3), stall_timeout_s=0.2, max_attempts=1)

    def CancelledError(self):  # noqa: N802
        self.server.add_fault(_always(Fault.stall()))
        from s3dataset._client import get_client

        with get_client().queue() as queue:
            indices = queue.get([("my-bucket", "data/a.jpg", None, None, None, None)])
            queue.cancel(indices)
            (result,) = queue.take_many(indices)
        assert isinstance(result, S3Exception)
        raise result

    def InternalError(self):  # noqa: N802
        raise exception_of(Failure())

    # -- Symptoms ----------------------------------------------------------------------------------------------------

    def DataWaitWarning(self):  # noqa: N802
        """A loop that waits half of its time for two workers on a machine with many cores."""
        now, counted = 0.0, Stats()
        self.monkeypatch.setattr(_loop_watch, "clock", lambda: now)
        self.monkeypatch.setattr(_loop_watch, "cores", lambda: 16)
        watch = _loop_watch.LoopWatch(lambda: counted, lambda: _loop_watch.Settings(num_workers=2), 2, warn=True)
        watch.begin(lambda wait_s: None)

        def train():
            nonlocal now, counted
            for batch in range(1, 17):
                watch.asks()
                now += 0.5
                counted = Stats(samples=32 * batch, network_wait_s=0.05 * batch, transform_s=1.75 * batch)
                watch.comes()
                now += 0.5

        _raise_warning(train)

    def WeakConditionsWarning(self):  # noqa: N802
        with LocalS3("my-bucket", variant="gcs"), CheckpointManager("s3://my-bucket/run-7") as manager:
            _raise_warning(lambda: manager.save(1, {}))

    def nothing_below_the_prefix(self):
        _raise_warning(lambda: len(S3MapDataset.from_prefix("s3://my-bucket/dta/")))

    def a_lambda_and_spawned_workers(self):
        dataset = S3MapDataset.from_prefix("s3://my-bucket/data/", transform=lambda reader: 1)
        loader = s3dataset.DataLoader(dataset, num_workers=1, multiprocessing_context="spawn")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has a warning of its own before the error
            next(iter(loader))

    def several_ranks(self):
        self.monkeypatch.setenv("RANK", "0")
        self.monkeypatch.setenv("WORLD_SIZE", "2")
        next(iter(S3IterableDataset.from_prefix("s3://my-bucket/data/")))

    def the_clock(self):
        message = "The difference between the request time and the current time is too large."
        self._get(Fault.status(403, code="RequestTimeTooSkewed", message=message))

    def an_unknown_authority(self):
        with LocalS3("my-bucket", tls=True, activate=False) as server:
            config = S3ClientConfig(credentials=(server.access_key, server.secret_key))
            S3Client(endpoint=server.endpoint, s3client_config=config).head_object("my-bucket", "data/a.jpg")

    def a_proxy_that_is_not_there(self):
        config = S3ClientConfig(proxy="http://127.0.0.1:9", max_attempts=1)
        S3Client(s3client_config=config).head_object("my-bucket", "data/a.jpg")

    def nobody_listens(self):
        config = S3ClientConfig(max_attempts=1)
        S3Client(endpoint="http://127.0.0.1:9", s3client_config=config).head_object("my-bucket", "data/a.jpg")

    def a_writer_that_was_forgotten(self):
        def forget():
            S3Checkpoint().writer("s3://my-bucket/run-7/epoch-3.pt").write(b"some")

        _raise_warning(forget)


def _always(fault):
    from dataclasses import replace

    return replace(fault, times=None)


def _raise_warning(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    (warning,) = caught
    raise warning.category(str(warning.message))


def message_of(name, server, monkeypatch):
    """The class of what is raised, and its message as the page has it."""
    server.put("my-bucket", "data/a.jpg", b"no photo at all")
    try:
        getattr(Producer(server, monkeypatch), name)()
    except (S3Exception, ValueError, pickle.PicklingError, RuntimeError, Warning) as error:
        return type(error).__name__, settled(str(error))
    finally:
        server.clear_faults()
        for key in server.keys("my-bucket"):
            server.delete("my-bucket", key)
    raise AssertionError(f"{name} raised nothing")
