"""Uses keys in every way that this library knows, successfully and not, and prints all that it can print of it.

Run by test_secrets.py, which then looks for the secrets in whatever came of it.
"""

import contextlib
import copy
import io
import json
import logging
import pickle
import sys
import traceback
import warnings
from typing import Any

import torch.utils.data

import s3dataset
from s3dataset import Manifest, S3Checkpoint, S3Client, S3ClientConfig, S3IterableDataset, S3MapDataset
from s3dataset._client import get_client

URI = "s3://bucket/few/"


def say(*values: object) -> None:
    sys.stdout.write(" ".join(map(str, values)) + "\n")
    sys.stdout.flush()


def show(*values: Any) -> None:
    """Prints what a value says of itself, and its pickle where it has one."""
    for value in values:
        say(repr(value), str(value), ascii(value))
        if isinstance(value, BaseException):
            say("".join(traceback.format_exception(value)), getattr(value, "__notes__", ()), vars(value))
            for cause in (value.__cause__, value.__context__):
                if cause is not None:
                    show(cause)
        with contextlib.suppress(Exception):
            say(pickle.dumps(value))
        with contextlib.suppress(Exception):
            say(pickle.dumps(copy.deepcopy(value)))


def failing(use: Any) -> None:
    try:
        show(use())
    except Exception as error:  # noqa: BLE001 - whatever it is
        show(error)
    else:
        raise SystemExit(f"{use} was to fail")


def read(reader: s3dataset.S3Reader) -> bytes:
    return bytes(reader.read())


def use(config: S3ClientConfig | None, *, spawn: bool) -> None:
    """Reads, writes, lists, over workers too."""
    options: Any = {"s3client_config": config}
    with S3Client(**options) as client:
        client.put_many([("bucket", f"few/{number}", b"x" * number) for number in range(6)])
        show(client, client.stats(), client.head_object("bucket", "few/1"), client.config, client.ref)
        say(repr(client.loaded))
        show(client.get_object("bucket", "few/2"), client.put_object("bucket", "few/9"))
        with client.queue() as queue:
            show(queue)
    for kind in (S3MapDataset, S3IterableDataset):
        dataset = kind.from_prefix(URI, transform=read, **options)
        with S3Checkpoint(**options).writer("s3://bucket/saved") as writer:
            torch.save({"state": pickle.dumps(dataset), "config": pickle.dumps(config)}, writer)
        method = "spawn" if kind is S3MapDataset and spawn else "fork"
        loader = s3dataset.DataLoader(dataset, num_workers=1, multiprocessing_context=method)
        assert len(list(loader)) == 6
        show(loader.stats())
        readers = kind.from_prefix(URI, **options)
        show(dataset, dataset.stats(), dataset.manifest, next(iter(readers)))
        show(*torch.utils.data.DataLoader(readers, batch_size=6, num_workers=1))
    manifest = Manifest.from_prefix(URI, **options)
    manifest.save("few.manifest")
    manifest.save("s3://bucket/few.manifest")
    show(manifest, pickle.loads(pickle.dumps(manifest)))


def main(ways: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
    logging.getLogger("botocore").setLevel(logging.INFO)  # what it says below that is its own affair
    warnings.simplefilter("ignore", DeprecationWarning)
    keys = tuple(ways["keys"])
    use(None, spawn=False)
    use(S3ClientConfig(credentials=keys), spawn=True)
    use(S3ClientConfig(credentials=lambda: keys), spawn=False)
    wrong = {
        "secret": (keys[0], keys[1] + "!", keys[2]),
        "token": (keys[0], keys[1], keys[2] + "!"),
        "all": ("AKIA", keys[1], keys[2]),
        "callable": lambda: {"access_key": keys[0], "secret_key": keys[1], "session_token": 5, "more": keys[2]},
        "expired": lambda: keys,
    }
    for name, given in wrong.items():
        client = S3Client(s3client_config=S3ClientConfig(credentials=given))
        if name == "expired":
            client.head_object("bucket", "few/1")
            say("EXPIRE")
            sys.stdin.readline()
        failing(lambda client=client: client.get_object("bucket", "few/1").read())
        failing(lambda client=client: client.put_many([("bucket", "few/1", b"")]))
        show(client, client.stats())
    for value in ((*keys, 1), [keys[1]], {"secret_key": keys[1], "session_token": keys[2]}, io.StringIO(keys[1])):
        failing(lambda value=value: S3ClientConfig(credentials=value))
    show(get_client(), s3dataset.monitoring)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
