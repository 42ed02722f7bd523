"""Memory of one batch of `bytes` serves for the next, unless the program's environment says otherwise."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest

from s3dataset.testing import LocalS3

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of the GNU C library")

SAMPLES, NBYTES = 128, 100 << 10
PAGES = SAMPLES * NBYTES // os.sysconf("SC_PAGE_SIZE")

PROGRAM = f"""
import resource, statistics
import s3dataset

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/", transform=lambda reader: reader.read())
taken = []
for _ in range(12):
    before = faults()
    batch = dataset.__getitems__(list(range({SAMPLES})))
    assert sum(map(len, batch)) == {SAMPLES * NBYTES}
    del batch
    taken.append(faults() - before)
print(statistics.median(taken[4:]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as running:
        for i in range(SAMPLES):
            running.put("bucket", f"{i:04}.bin", bytes(NBYTES))
        yield running


def faults(**environment: str) -> float:
    """Pages that a batch faults in, once the first few are over."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**env, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.usefixtures("server")
def test_a_batch_takes_the_memory_of_the_one_before() -> None:
    assert faults() < PAGES / 4


@pytest.mark.usefixtures("server")
def test_whoever_sets_the_limits_of_the_c_library_has_them() -> None:
    assert faults(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > PAGES / 2
