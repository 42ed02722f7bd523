"""Programs that wait for the server, each in one place of the library."""

from dataclasses import dataclass
from textwrap import indent
from typing import Final

__all__ = ["BUCKET", "OLD", "WAITS", "Wait"]

BUCKET: Final = "bucket"
OLD: Final = b"what stood here before"

_PREAMBLE: Final = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
import s3dataset
MIB = 1 << 20
URI = "s3://bucket/images/"
CONFIG = s3dataset.S3ClientConfig(part_size=5 * MIB, memory_limit_bytes=32 * MIB)

def begun():
    print("begun", flush=True)
    sys.stdin.readline()  # the server falls silent

def struck():
    os.read(int(os.environ["STRUCK"]), 1)

def size(reader):
    return len(reader.read())

def client():
    made = s3dataset.S3Client(s3client_config=CONFIG)
    made.queue().close()
    return made

def loader(kind, **options):
    dataset = kind.from_prefix(URI, transform=size, s3client_config=CONFIG).prepare()
    return s3dataset.DataLoader(dataset, **({"batch_size": 4, "num_workers": 2} | options))

def work():
"""


@dataclass(frozen=True, slots=True)
class Wait:
    """A program that waits.

    Attributes:
        title: Where.
        body: What the program does, in Python; `begun()` comes right before the wait.
        operation: What the server does not answer, or slowly, from `begun()` on.
        workers: How many processes the program has.
        saves: Whether it writes "target".
        whole: What a slow server has of it in one request, and may publish though nobody waits any more.
        threads: Whether it may wait in a thread while the program ends. CPython ends such a thread amid torch's C++,
            which takes the process down.
    """

    title: str
    body: str
    operation: str
    workers: int = 0
    saves: bool = False
    whole: bytes = OLD
    threads: bool = True

    def program(self, main: str) -> str:
        """The program's text; `main` calls `work()`, and may call `struck()`."""
        return _PREAMBLE + indent(self.body, "    ") + '\n\nif __name__ == "__main__":\n' + indent(main, "    ") + "\n"


WAITS: Final = (
    Wait("get_object().read()", "s3 = client(); begun(); s3.get_object('bucket', 'large').read()", "GetObject"),
    Wait(
        "readinto",
        "r = client().get_object('bucket', 'large'); into = bytearray(12 * MIB); begun(); r.readinto(into)",
        "GetObject",
    ),
    Wait(
        "get_many", "s3 = client(); begun(); list(s3.get_many([f'{URI}{i:02}' for i in range(40)] * 50))", "GetObject"
    ),
    Wait("list_objects", "s3 = client(); begun(); list(s3.list_objects('bucket', ''))", "ListObjectsV2"),
    Wait("Manifest.from_prefix", "begun(); s3dataset.Manifest.from_prefix('s3://bucket/listed/')", "ListObjectsV2"),
    Wait("len(dataset)", "d = s3dataset.S3MapDataset.from_prefix(URI); begun(); len(d)", "ListObjectsV2"),
    Wait("dataset[i]", "d = s3dataset.S3MapDataset.from_prefix(URI); len(d); begun(); d[3].read()", "GetObject"),
    Wait(
        "put_many",
        "s3 = client(); begun(); s3.put_many([('bucket', 'target', bytes(MIB))])",
        "PutObject",
        saves=True,
        whole=bytes(1 << 20),
    ),
    Wait(
        "writer.write",
        "w = client().put_object('bucket', 'target'); begun()\nwhile True: w.write(bytes(MIB))",
        "UploadPart",
        saves=True,
    ),
    Wait(
        "writer.write, from the caller's memory",
        "w = client().put_object('bucket', 'target'); begun(); w.write(bytes(80 * MIB)); w.close()",
        "UploadPart",
        saves=True,
    ),
    Wait(
        "writer.close",
        "w = client().put_object('bucket', 'target'); w.write(bytes(MIB)); begun(); w.close()",
        "PutObject",
        saves=True,
        whole=bytes(1 << 20),
    ),
    Wait(
        "writer.close, in parts",
        "w = client().put_object('bucket', 'target'); w.write(bytes(12 * MIB)); begun(); w.close()",
        "UploadPart",
        saves=True,
    ),
    Wait(
        "torch.save",
        "import torch; s3 = s3dataset.S3Checkpoint(s3client_config=CONFIG); begun()\n"
        "with s3.writer('s3://bucket/target') as w: torch.save(torch.zeros(20 * MIB), w)",
        "UploadPart",
        saves=True,
        threads=False,
    ),
    Wait(
        "torch.load",
        "import torch; s3 = s3dataset.S3Checkpoint(s3client_config=CONFIG); begun()\n"
        "with s3.reader('s3://bucket/saved.pt') as r: torch.load(r)",
        "GetObject",
    ),
    Wait(
        "a map dataset, no workers",
        "d = loader(s3dataset.S3MapDataset, num_workers=0).dataset; begun(); list(d)",
        "GetObject",
    ),
    Wait(
        "an iterable dataset, no workers",
        "d = loader(s3dataset.S3IterableDataset, num_workers=0).dataset; begun(); list(d)",
        "GetObject",
    ),
    Wait(
        "a map dataset, forked workers",
        "d = loader(s3dataset.S3MapDataset, shuffle=True, multiprocessing_context='fork'); begun(); list(d)",
        "GetObject",
        workers=2,
    ),
    Wait(
        "an iterable dataset, forked workers",
        "d = loader(s3dataset.S3IterableDataset, multiprocessing_context='fork'); begun(); list(d)",
        "GetObject",
        workers=2,
    ),
    Wait(
        "a map dataset, spawned workers",
        "d = loader(s3dataset.S3MapDataset, multiprocessing_context='spawn'); begun(); list(d)",
        "GetObject",
        workers=2,
    ),
    Wait(
        "workers that stay, and list",
        "import torch; d = s3dataset.S3IterableDataset.from_prefix(URI, transform=size, s3client_config=CONFIG)\n"
        "d = torch.utils.data.DataLoader(d, num_workers=2, persistent_workers=True); begun(); list(d)",
        "ListObjectsV2",
        workers=2,
    ),
    Wait(
        "a save beside workers",
        "d = iter(loader(s3dataset.S3MapDataset)); next(d); w = client().put_object('bucket', 'target')\n"
        "begun(); w.write(bytes(80 * MIB)); w.close()",
        "UploadPart",
        workers=2,
        saves=True,
    ),
)
