"""Looking at what s3dataset does: metrics while a model trains, and the request log.

Metrics come from `stats()` of datasets, loaders and clients, which tells the totals of all processes of a dataset:

- `TensorBoardSink(writer, loader)`, called once a step, writes rates and shares every ten seconds;
- `PrometheusCollector(loader)` is registered with `prometheus_client`;
- `OpenTelemetrySink(loader)` makes observable instruments of a meter.

None of them touches a sample's way: they read counters, when somebody asks for them. docs/monitoring.md has examples.

Every request to the service can leave a record: operation, bucket, key, range, attempt, status, request id, time to
the first byte, duration, bytes, error. Records go to the logger "s3dataset.request", as attribute `s3` of each log
record; the log is off unless one of these turns it on:

- environment variable `S3DATASET_LOG=debug` (to the logger, and to standard error where logging is not set up), or
  `S3DATASET_LOG=debug:requests-%p.jsonl` (lines of JSON, a file a process: %p is the process id). Worker processes do
  the same, however they are started;
- `start_request_log()`, in this process and in those forked from it;
- level DEBUG of the logger itself, set before the first request.
"""

from s3dataset.errors import DataWaitWarning
from s3dataset.monitoring._opentelemetry import OpenTelemetrySink
from s3dataset.monitoring._prometheus import PrometheusCollector
from s3dataset.monitoring._request_log import REQUEST_LOGGER, start_request_log, stop_request_log
from s3dataset.monitoring._sources import Source, Sources
from s3dataset.monitoring._tensorboard import ScalarWriter, TensorBoardSink

__all__ = [
    "REQUEST_LOGGER",
    "DataWaitWarning",
    "OpenTelemetrySink",
    "PrometheusCollector",
    "ScalarWriter",
    "Source",
    "Sources",
    "TensorBoardSink",
    "start_request_log",
    "stop_request_log",
]
