"""The server, what is on it, and keys that expire."""

import itertools
import json
import os
import random
import time
from pathlib import Path
from typing import Any, Final

import s3dataset
from s3dataset.testing import LocalS3

__all__ = ["BUCKET", "CONFIG", "COUNT", "LARGE", "LISTED", "MIB", "World", "current_keys", "large", "number", "small"]

BUCKET: Final = "bucket"
MIB: Final = 1 << 20
COUNT: Final = 240
LARGE: Final = {"plain/large/0": 12 * MIB, "plain/large/1": 21 * MIB + 7}
LISTED: Final = 20_000
_KEYS_FILE: Final = "S3DATASET_SOAK_KEYS"
_LIFETIME_S: Final = 40.0


def small(i: int) -> bytes:
    """The bytes of "images/<i>" and of "plain/<i>": its number, then what only it has."""
    generator = random.Random(i)
    return f"{i:06}".encode() + generator.randbytes(generator.randrange(100, 120_000))


def large(key: str) -> bytes:
    return random.Random(key).randbytes(LARGE[key])


def number(reader: s3dataset.S3Reader) -> int:
    """The transform: an object's number, when all of its bytes are right."""
    data = reader.read()
    i = int(data[:6])
    if data != small(i):
        raise AssertionError(f"{reader.key} has wrong bytes")
    return i


def current_keys() -> dict[str, Any]:
    """The provider of keys, called by the library when those that it has run out or are refused."""
    keys: dict[str, Any] = json.loads(Path(os.environ[_KEYS_FILE]).read_text())
    return keys


# Patience that ends within a fault's few seconds, so that it is met more often than once a minute.
CONFIG: Final = s3dataset.S3ClientConfig(
    part_size=5 * MIB,
    connect_timeout_s=1.0,
    first_byte_timeout_s=1.5,
    stall_timeout_s=1.5,
    memory_limit_bytes=64 * MIB,
    credentials=current_keys,
)


class World:
    """A server with the objects that are read, and keys that it takes until they are renewed.

    Args:
        folder: For the file with the keys; not the temporary folder, which is watched.
        seed: Of everything that is drawn.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.server = LocalS3(BUCKET, activate=True)
        self.random = random.Random(seed)
        self._keys_file = folder / "keys.json"
        self._numbers = itertools.count()
        self._valid: list[dict[str, Any]] = []

    def start(self) -> None:
        self.server.start()
        os.environ[_KEYS_FILE] = str(self._keys_file)
        self.renew_keys()
        for i in range(COUNT):
            self.server.put(BUCKET, f"images/{i:06}", small(i))
            self.server.put(BUCKET, f"plain/{i:06}", small(i))
        for key in LARGE:
            self.server.put(BUCKET, key, large(key))
        self.server.add_synthetic(BUCKET, "listed/{}", size_bytes=10, count=LISTED)
        self.client = s3dataset.S3Client("us-east-1", s3client_config=CONFIG)

    def stop(self) -> None:
        self.server.stop()

    def renew_keys(self) -> None:
        """New keys for whoever asks; all before them have expired from now on."""
        name = f"SOAK{next(self._numbers)}"
        keys = {"access_key": name, "secret_key": f"secret of {name}"}
        before = self._valid[-20:]
        own = {"access_key": self.server.access_key, "secret_key": self.server.secret_key}
        self.server.configure(credentials=[own, *before, keys])
        given = keys | {"expires_at": time.time() + _LIFETIME_S}
        waiting = self._keys_file.with_suffix(".new")
        waiting.write_text(json.dumps(given))
        waiting.replace(self._keys_file)
        before = [{**old, "expired": True} for old in before]
        self.server.configure(credentials=[own, *before, keys])
        self._valid = [*before, keys]
