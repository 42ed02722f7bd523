"""Keys from services that are slow, silent or failing; their renewal; and how often they are asked for."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.process.credential_services import KeyService, key, key_service, store

import s3dataset
from s3dataset import S3ClientConfig
from s3dataset._client import ClientRef, _credentials, _providers
from s3dataset.errors import CredentialsError, NoCredentialsError
from s3dataset.testing import LocalS3

pytestmark = pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyService]:
    with key_service() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def running_store() -> Iterator[LocalS3]:
    with store() as running:
        yield running


@pytest.fixture
def server(running_store: LocalS3, monkeypatch: pytest.MonkeyPatch) -> LocalS3:
    monkeypatch.setenv("AWS_ENDPOINT_URL", running_store.endpoint)
    monkeypatch.setenv("AWS_REGION", running_store.region)
    expire(running_store, 0)
    running_store.reset_stats()
    return running_store


def expire(server: LocalS3, up_to: int) -> None:
    """Has the store refuse KEY1 to KEYn as expired."""
    server.configure(credentials=[key(number, expired=number <= up_to) for number in range(1, 10)])


def read_at(ref: ClientRef, start: Any, answers: Any) -> None:
    """Reads once when told to, and says what came and whose keys it signs with."""
    for _ in range(2):
        if not start.wait(60):
            return
        start.clear()
        try:
            body: object = bytes(ref.get().get_range("bucket", "k", 0, 5))
        except s3dataset.S3Exception as error:
            body = f"{type(error).__name__}: {error}"
        loaded = ref.get().loaded
        answers.put((body, loaded and loaded.keys.access_key))


class Workers:
    """Processes that each read when told to, all at once."""

    def __init__(self, method: str, count: int, ref: ClientRef) -> None:
        ref.get().settle()  # as a dataset sees to it
        context: Any = multiprocessing.get_context(method)
        self.starts = [context.Event() for _ in range(count)]
        self.answers = context.Queue()
        self.processes = [context.Process(target=read_at, args=(ref, start, self.answers)) for start in self.starts]
        for process in self.processes:
            process.start()

    def read(self) -> set[Any]:
        for start in self.starts:
            start.set()
        return {self.answers.get(timeout=120) for _ in self.starts}

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join(60)
            process.close()
        self.answers.close()
        self.answers.join_thread()


@pytest.fixture
def workers() -> Iterator[Callable[..., Workers]]:
    started: list[Workers] = []

    def start(method: str, count: int, ref: ClientRef) -> Workers:
        started.append(Workers(method, count, ref))
        return started[-1]

    yield start
    for some in started:
        some.end()


class TestWorkersAskOnce:
    @pytest.mark.parametrize(("method", "count"), [("fork", 12), ("spawn", 2), ("forkserver", 2)])
    def test_at_their_first_request_and_when_the_keys_are_refused(
        self, service: KeyService, server: LocalS3, workers: Callable[..., Workers], method: str, count: int
    ) -> None:
        service.delay_s = 0.3  # so that all of them come meanwhile
        family = workers(method, count, ClientRef(server.region))
        assert family.read() == {(b"hello", "KEY1")}
        assert service.given == 1
        expire(server, 1)
        assert family.read() == {(b"hello", "KEY2")}
        assert service.given == 2

    def test_children_of_another_epoch_take_what_their_elders_were_given(
        self, service: KeyService, server: LocalS3, workers: Callable[..., Workers]
    ) -> None:
        ref = ClientRef(server.region)
        for _ in range(2):
            assert workers("fork", 2, ref).read() == {(b"hello", "KEY1")}
        assert bytes(ref.get().get_range("bucket", "k", 0, 5)) == b"hello"
        assert service.given == 1

    def test_a_refusal_is_shared_by_those_who_waited_for_it(
        self, service: KeyService, server: LocalS3, workers: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.3)
        service.status = 500
        family = workers("fork", 8, ClientRef(server.region))
        ((message, loaded),) = family.read()
        assert loaded is None
        assert message.startswith("CredentialsError: Client error: Credentials could not be loaded from container")
        service.status = 200
        assert family.read() == {(b"hello", "KEY1")}
        assert service.given == 1

    def test_one_that_is_killed_while_it_asks_leaves_it_to_another(
        self, service: KeyService, server: LocalS3, workers: Callable[..., Workers]
    ) -> None:
        service.status = None
        family = workers("fork", 2, ClientRef(server.region))
        first, second = family.starts
        first.set()
        deadline = time.monotonic() + 60
        while not _has_lock(family.processes[0].pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second.set()
        family.processes[0].kill()
        family.processes[0].join()
        service.status = 200  # not before: it would have its keys
        assert family.answers.get(timeout=60) == (b"hello", "KEY1")


def _has_lock(pid: int) -> bool:
    """Whether a process holds a record lock, as the one that asks does."""
    with open("/proc/locks") as locks:  # noqa: PTH123
        return any(" POSIX " in line and f" {pid} " in line for line in locks)


class TestRenewal:
    def test_keys_that_are_about_to_expire_are_renewed_unasked(
        self, service: KeyService, server: LocalS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service.lifetime_s = 3
        client = s3dataset.S3Client(server.region)
        with client:
            assert client.head_object("bucket", "k").size == 5
            service.lifetime_s = 21600
            deadline = time.monotonic() + 60
            while client.loaded is None or client.loaded.keys.access_key != "KEY2":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            expire(server, 1)
            assert client.head_object("bucket", "k").size == 5
        assert service.given == 2
        assert [record.status for record in server.requests("HeadObject")] == [200, 200]

    def test_a_renewal_that_fails_is_tried_again_while_the_old_keys_work(
        self, service: KeyService, server: LocalS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_credentials, "_AGAIN_S", 0.2)
        monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.05)
        service.lifetime_s = 6
        with s3dataset.S3Client(server.region) as client:
            assert client.head_object("bucket", "k").size == 5
            service.status, service.lifetime_s = 500, 21600
            time.sleep(3.5)  # beyond the half of their life
            assert client.head_object("bucket", "k").size == 5
            service.status = 200
            deadline = time.monotonic() + 60
            while client.loaded is None or client.loaded.keys.access_key != "KEY2":
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def test_in_the_midst_of_a_long_upload(self, service: KeyService, server: LocalS3) -> None:
        config = S3ClientConfig(part_size=5 << 20)
        part = os.urandom(5 << 20)
        with s3dataset.S3Client(server.region, s3client_config=config) as client:
            with client.put_object("bucket", "long") as writer:
                for number in range(8):
                    writer.write(part)
                    if number == 3:
                        expire(server, 1)
            assert service.given == 2
        expire(server, 0)
        assert server.get("bucket", "long") == part * 8
        assert server.uploads("bucket") == []

    def test_expired_keys_without_others_end_the_request(self, service: KeyService, server: LocalS3) -> None:
        with s3dataset.S3Client(server.region) as client:
            assert client.head_object("bucket", "k").size == 5
            expire(server, 9)
            service.status = 404
            with pytest.raises(CredentialsError, match=r"s3://bucket/k .*could not be loaded from container") as caught:
                client.head_object("bucket", "k")
            assert "the-secret" not in str(caught.value)


class TestMetadataService:
    @pytest.fixture(autouse=True)
    def metadata(self, service: KeyService, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in service.environment:
            monkeypatch.delenv(name)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        for name, value in service.metadata_environment.items():
            monkeypatch.setenv(name, value)

    @pytest.mark.parametrize("delay_s", [0.0, 0.5])
    def test_it_gives_keys_though_slowly(self, service: KeyService, server: LocalS3, delay_s: float) -> None:
        service.delay_s = delay_s
        with s3dataset.S3Client(server.region) as client:
            assert client.head_object("bucket", "k").size == 5
        assert service.given == 1

    def test_one_that_is_busy_is_asked_again(self, service: KeyService, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            service.status = 200

        monkeypatch.setattr(_providers.time, "sleep", pause)
        service.status = 503
        assert _providers.load(None, None).keys.access_key == "KEY1"
        assert len(pauses) == 1

    def test_one_that_is_silent_is_not(self, service: KeyService) -> None:
        service.status = None
        with pytest.raises(NoCredentialsError, match=r"instance metadata \(EC2\)\. Set AWS_ACCESS_KEY_ID"):
            _providers.load(None, None)
