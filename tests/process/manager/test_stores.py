"""The manager on stores that are not quite S3."""

import time
import warnings
from typing import Any

import pytest
from tests.process.manager.world import MIB, URI, state, steps

from s3dataset import CheckpointManager, PreconditionFailedError, S3ClientConfig
from s3dataset._commits import _conditions
from s3dataset.errors import WeakConditionsWarning
from s3dataset.testing import LocalS3


@pytest.mark.parametrize("variant", ["s3", "ignore_write_conditions", "refuse_write_conditions", "minio", "r2", "gcs"])
def test_other_stores(server: LocalS3, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = variant in ("s3", "minio", "r2", "gcs")
    server.configure(variant=variant if named else {variant: True})
    monkeypatch.setattr(_conditions, "_known", {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with CheckpointManager(URI, keep_last=2) as manager:
            for step in (1, 2, 3):
                manager.save(step, state(float(step), 3 * MIB), dataset_state=step)
                if variant == "gcs":
                    time.sleep(0.1)
            with pytest.raises(PreconditionFailedError):
                manager.save(3, state(0.0))
            manager.save(3, state(3.5), overwrite=True)
            restored = manager.restore()
            assert restored is not None
            assert (restored.step, restored.state["weights"][0], restored.dataset_state) == (3, 3.5, None)
            assert steps(manager) == [3, 2]
            assert manager.verify() == []
            manager.pin(2)
            manager.rollback(2)
            assert manager.latest() == 2
    weak = [str(warning.message) for warning in caught if warning.category is WeakConditionsWarning]
    if variant == "s3":
        assert weak == []
    if "conditions" in variant:
        (said,) = weak
        assert ("ignores" if "ignore" in variant else "refuses") in said
        assert "the later one wins" in said


def test_what_is_known_of_a_store_is_not_taken_for_another_that_the_environment_names() -> None:
    for variant in ("refuse_write_conditions", "ignore_write_conditions"):
        with (
            LocalS3("two-stores", variant={variant: True}) as server,
            CheckpointManager("s3://two-stores/run") as manager,
            pytest.warns(WeakConditionsWarning, match=rf"{server.endpoint}\) {variant.split('_')[0]}s? "),
        ):
            manager.save(1, state(1.0))
    with LocalS3("two-stores") as server, CheckpointManager("s3://two-stores/run") as manager:
        manager.save(1, state(1.0))
        commits = [request for request in server.requests("PutObject") if "/commits/" in request.key]
        assert commits[0].headers["if-none-match"] == "*"


def test_a_store_without_conditions_still_looks_before_it_commits(
    server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.configure(variant={"ignore_write_conditions": True})
    monkeypatch.setattr(_conditions, "_known", {})
    with pytest.warns(WeakConditionsWarning), CheckpointManager(URI) as manager:
        manager.save(1, state(1.0))
        files = manager._files
        write = files.save

        def save(*arguments: Any) -> None:
            write(*arguments)
            with CheckpointManager(URI) as other:
                files.save = write  # type: ignore[method-assign]
                other.save(2, state(2.5))

        files.save = save  # type: ignore[method-assign]
        with pytest.raises(PreconditionFailedError, match="committed by somebody else meanwhile"):
            manager.save(2, state(2.0))
        restored = manager.restore()
        assert restored is not None
        assert restored.state["weights"][0] == 2.5


def test_directory_buckets(running: LocalS3) -> None:
    """They list in no order, and whole directories only."""
    bucket = "runs--usw2-az1--x-s3"
    running.create_bucket(bucket)
    with CheckpointManager(f"s3://{bucket}/a/run", keep_last=2) as manager:
        for step in (1, 2, 3):
            manager.save(step, state(float(step)))
        assert manager.latest() == 3
        restored = manager.restore()
        assert restored is not None
        assert restored.step == 3
        assert steps(manager) == [3, 2]
        assert manager.verify() == []
        manager.prune()
    assert len(running.keys(bucket)) == 4


def test_moto() -> None:
    moto_server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    moto = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="bucket")
        client.close()
        config = S3ClientConfig(credentials=("any", "any"), part_size=5 * MIB)
        with (
            warnings.catch_warnings(),
            CheckpointManager(
                URI, keep_last=2, region="us-east-1", endpoint=endpoint, s3client_config=config
            ) as manager,
        ):
            warnings.simplefilter("ignore", WeakConditionsWarning)
            for step in (1, 2, 3):
                manager.save(step, state(float(step), 4 * MIB), dataset_state={"step": step})
            manager.save(3, state(3.5), overwrite=True)
            restored = manager.restore()
            assert restored is not None
            assert (restored.step, restored.state["weights"][0]) == (3, 3.5)
            assert steps(manager) == [3, 2]
            assert manager.verify() == []
    finally:
        moto.stop()
