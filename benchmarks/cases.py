"""What is measured, in the order of the tables."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.data import GIB, LARGE_BYTES, SMALL_BYTES

LISTED_KEYS = 200_000
LATENCY_S, CONNECTION_BYTES_S = 0.025, 90e6  # about what a client sees within Amazon's network

Server = Literal["plain", "latency", "tls"]


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement.

    Attributes:
        name: For the command line and the results.
        title: For tables and the picture.
        kind: Which adapters take part: clients, loaders or checkpoints.
        server: As fast as it can over HTTP; 25 ms to the first byte and 90 MB/s a connection; or over TLS.
        items: Objects, samples or pages that one round moves.
        num_bytes: Bytes that one round moves; 0 where that says nothing.
        unit: Of the main figure: "MB/s" or "<items>/s".
        concurrency: What a client that leaves it to its user is given.
        workers: Processes of the DataLoader.
        slow_items: Fewer items for adapters that wait for each in turn.
    """

    name: str
    title: str
    kind: Literal["client", "loader", "checkpoint"]
    server: Server
    items: int
    num_bytes: int
    unit: str
    concurrency: int = 64
    workers: int = 0
    slow_items: int = 0


CASES = (
    Case("get-large", "1 GiB object into memory", "client", "plain", 1, LARGE_BYTES, "MB/s"),
    Case("get-small", "100 KiB objects, 64 at once", "client", "plain", 2000, 2000 * SMALL_BYTES, "objects/s"),
    Case("get-one", "100 KiB objects, one at a time", "client", "plain", 500, 500 * SMALL_BYTES, "objects/s", 1),
    Case(
        "get-small-25ms",
        "100 KiB objects, 256 at once, 25 ms away",
        "client",
        "latency",
        4000,
        4000 * SMALL_BYTES,
        "objects/s",
        256,
    ),
    Case(
        "get-busy-25ms",
        "the same beside a busy Python thread",
        "client",
        "latency",
        2000,
        2000 * SMALL_BYTES,
        "objects/s",
        256,
    ),
    Case("get-large-tls", "1 GiB object over TLS", "client", "tls", 1, LARGE_BYTES, "MB/s"),
    Case(
        "get-small-tls", "100 KiB objects over TLS, 64 at once", "client", "tls", 1000, 1000 * SMALL_BYTES, "objects/s"
    ),
    Case("put-large", "1 GiB up from memory", "client", "plain", 1, GIB, "MB/s"),
    Case("put-small", "100 KiB objects up, 64 at once", "client", "plain", 1000, 1000 * SMALL_BYTES, "objects/s"),
    Case(
        "list-numbers", "200,000 numbered keys listed, 25 ms a page", "client", "latency", LISTED_KEYS, 0, "keys/s", 32
    ),
    Case("list-uuids", "200,000 keys of UUIDs listed, 25 ms a page", "client", "latency", LISTED_KEYS, 0, "keys/s", 32),
    Case("list-dates", "200,000 keys by date listed, 25 ms a page", "client", "latency", LISTED_KEYS, 0, "keys/s", 32),
    Case(
        "list-hot",
        "200,000 keys, nearly all below one long prefix, listed, 25 ms a page",
        "client",
        "latency",
        LISTED_KEYS,
        0,
        "keys/s",
        32,
    ),
    Case(
        "iterate",
        "a dataset iterated in one process, 25 ms away",
        "loader",
        "latency",
        2000,
        2000 * SMALL_BYTES,
        "samples/s",
        64,
        0,
        100,
    ),
    Case(
        "shuffled",
        "shuffled DataLoader, 2 workers, 25 ms away",
        "loader",
        "latency",
        2000,
        2000 * SMALL_BYTES,
        "samples/s",
        64,
        2,
        200,
    ),
    Case("save", "Saving 1 GiB by torch.save", "checkpoint", "plain", 1, GIB, "MB/s"),
    Case("save-direct", "Saving 1 GiB by S3Checkpoint.save", "checkpoint", "plain", 1, GIB, "MB/s"),
    Case("load", "Loading 1 GiB by torch.load", "checkpoint", "plain", 1, GIB, "MB/s"),
    Case("load-direct", "Loading 1 GiB by S3Checkpoint.load", "checkpoint", "plain", 1, GIB, "MB/s"),
    Case("load-25ms", "the same by torch.load, 25 ms away", "checkpoint", "latency", 1, GIB, "MB/s"),
    Case("load-direct-25ms", "the same by S3Checkpoint.load, 25 ms away", "checkpoint", "latency", 1, GIB, "MB/s"),
)
