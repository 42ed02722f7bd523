"""Finds the ceiling of a bucket and a machine: reads what is there, in bounded time, and says what limits it.

::

    Bench           the whole measurement, phase by phase
    ├── Options, Plan   what was asked for; what will be read at most, and what that costs. Pure
    ├── _objects        what there is to read: some of the user's objects, or temporary ones
    ├── _steps          a closed loop of so many requests: bytes, requests, latencies, CPU
    ├── _workers        a real DataLoader over the same objects
    └── advise          what the figures say, in words. Pure
"""

from s3dataset._bench._advice import Bottleneck, advise
from s3dataset._bench._bench import Bench
from s3dataset._bench._plan import CONCURRENCIES, SIZES, WORKERS, Options, Plan
from s3dataset._bench._result import Latencies, Result, Step, WorkerStep, WriteStep
from s3dataset._bench._workers import TransformFailedError, usable_cores

__all__ = [
    "CONCURRENCIES",
    "SIZES",
    "WORKERS",
    "Bench",
    "Bottleneck",
    "Latencies",
    "Options",
    "Plan",
    "Result",
    "Step",
    "TransformFailedError",
    "WorkerStep",
    "WriteStep",
    "advise",
    "usable_cores",
]
