"""Settings for every test: no AWS account is seen, Ctrl-C works, hypothesis has one time limit, pytest's."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["s3dataset.testing.pytest_plugin"]

# Set before anything is imported, so that subprocesses and DataLoader workers have them too.
_ISOLATION = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",  # botocore would wait for a metadata service that is not there
    "OMP_NUM_THREADS": "1",
}


_LONGEST = ("test_notebook.py", "test_training_examples.py", "test_soak.py")
"""Tests in these take up to a minute and a half: they begin first, so that no process is alone with one at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONGEST)


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3DATASET_"))]:
        del os.environ[name]
    os.environ.update(_ISOLATION)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A deadline by example would fail on a busy machine.
    common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("default", **common)
    settings.register_profile("ci", print_blob=True, derandomize=True, **common)
    settings.register_profile("thorough", max_examples=2000, **common)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))
