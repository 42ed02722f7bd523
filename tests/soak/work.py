"""Pieces of work, each as a program does it, each checking all that it got. None may fail, whatever the weather."""

import contextlib
import gc
import io
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

import torch
import torch.utils.data
from tests.soak.world import BUCKET, CONFIG, COUNT, LARGE, LISTED, MIB, World, current_keys, large, number, small

import s3dataset

__all__ = ["Work"]

IMAGES: Final = f"s3://{BUCKET}/images/"
LOADERS: Final[list[Any]] = [s3dataset.DataLoader, torch.utils.data.DataLoader]
KINDS: Final[list[Any]] = [s3dataset.S3MapDataset, s3dataset.S3IterableDataset]


def check(condition: object, text: str) -> None:
    if not condition:
        raise AssertionError(text)


class Work:
    """The pieces, by name, over one world; and the workers that stay from one piece to the next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._client = world.client
        self._checkpoint = s3dataset.S3Checkpoint(s3client_config=CONFIG)
        self._lasting = self._loader("fork", persistent=True)
        self._saved: dict[str, int] = {}
        self.epochs = self.samples = 0
        self.pieces: dict[str, Callable[[], None]] = {
            "epoch, forked workers": lambda: self.epoch("fork"),
            "epoch, workers that stay": self.lasting_epoch,
            "epoch, no workers": self.bare_epoch,
            "save beside an epoch": self.save_beside_an_epoch,
            "save and load": self.save_and_load,
            "a save given up": self.save_given_up,
            "many at once": self.many_at_once,
            "readers": self.readers,
            "threads": self.threads,
            "listing": self.listing,
            "a client for once": self.client_for_once,
            "forked children that die": self.dying_children,
            "epoch, spawned workers": lambda: self.epoch("spawn"),
        }
        for _ in range(16):  # so many clients are kept though nobody uses them
            self.client_for_once()
        self.rare = {"epoch, spawned workers"}  # starting them takes seconds

    # -- Epochs ------------------------------------------------------------------------------------------------------

    def _loader(self, method: str | None, *, persistent: bool = False) -> Any:
        draw = self._random
        kind = draw.choice(KINDS)
        dataset = kind.from_prefix(IMAGES, transform=number, s3client_config=CONFIG)
        return draw.choice(LOADERS)(
            dataset,
            batch_size=draw.choice([1, 7, 32]),
            shuffle=True if kind is s3dataset.S3MapDataset else None,
            num_workers=2 if method else 0,
            multiprocessing_context=method,
            persistent_workers=persistent,
        )

    def _iterate(self, loader: Iterable[Any], beside: Callable[[], None] = lambda: None) -> None:
        """A whole epoch, with `beside` done in its midst, or one that is broken off."""
        stop = self._random.randrange(COUNT) if self._random.random() < 0.25 else None
        seen: Counter[int] = Counter()
        for place, batch in enumerate(loader):
            seen.update(batch.tolist())
            if place == 3:
                beside()
            if stop is not None and sum(seen.values()) > stop:
                check(max(seen.values()) == 1, "a sample came twice in an epoch that was broken off")
                return
        self.epochs += 1
        self.samples += seen.total()
        wrong = {i: seen[i] for i in {*range(COUNT), *seen} if seen[i] != 1}
        check(not wrong, f"samples that did not come exactly once: {wrong}")

    def epoch(self, method: str) -> None:
        self._iterate(self._loader(method))

    def lasting_epoch(self) -> None:
        self._iterate(self._lasting)

    def bare_epoch(self) -> None:
        self._iterate(self._loader(None))

    def save_beside_an_epoch(self) -> None:
        self._iterate(self._lasting, beside=self.save_and_load)

    # -- Checkpoints -------------------------------------------------------------------------------------------------

    def save_and_load(self) -> None:
        draw = self._random
        key = f"runs/{draw.randrange(4)}.pt"
        generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
        state = {
            f"layer{i}": torch.randn(size, generator=generator)
            for i, size in enumerate(draw.choice([[1000], [MIB, 3], [4 * MIB, 5, 2 * MIB]]))
        }
        with self._checkpoint.writer(f"s3://{BUCKET}/{key}") as writer:
            torch.save(state, writer)
        with self._checkpoint.reader(f"s3://{BUCKET}/{key}") as reader:
            loaded = torch.load(reader)
        check(
            state.keys() == loaded.keys() and all(torch.equal(state[name], loaded[name]) for name in state),
            f"{key} is not what was saved",
        )

    def save_given_up(self) -> None:
        key, before = "runs/kept", small(1)
        self._client.put_many([(BUCKET, key, before)])
        data = large("plain/large/0")
        length = self._random.choice([10, MIB, len(data)])
        with contextlib.suppress(ZeroDivisionError), self._client.put_object(BUCKET, key) as writer:
            writer.write(data[:length])
            raise ZeroDivisionError
        check(self._read(key) == before, f"{key} was given up, and is not as it was")

    # -- Calls -------------------------------------------------------------------------------------------------------

    def _read(self, key: str) -> bytes:
        return self._client.get_object(BUCKET, key).read()

    def many_at_once(self) -> None:
        draw, client = self._random, self._client
        wanted = [draw.randrange(COUNT) for _ in range(300)]
        bodies = client.get_many([(BUCKET, f"plain/{i:06}") for i in wanted], ordered=draw.random() < 0.5)
        stop = draw.choice([None, draw.randrange(300)])
        for place, (index, body) in enumerate(bodies):
            check(bytes(body) == small(wanted[index]), f"plain/{wanted[index]:06} has wrong bytes")
            if place == stop:
                break
        del bodies
        key = draw.choice(list(LARGE))
        whole = large(key)
        start = draw.randrange(len(whole))
        into = bytearray(min(draw.randrange(1, 9 * MIB), len(whole) - start))
        client.read_into([(BUCKET, key, start, into)])
        check(into == whole[start : start + len(into)], f"{key} was read wrong from {start} on")
        kept = [f"put/{i}" for i in range(40)]
        client.put_many([(BUCKET, name, small(i)) for i, name in enumerate(kept)])
        client.copy_object(BUCKET, kept[7], BUCKET, "put/copy")
        check(self._read("put/copy") == small(7), "put/copy is not its source")
        check(client.head_object(BUCKET, kept[3]).size == len(small(3)), "put/3 has a wrong size")
        check(client.delete_objects(BUCKET, [*kept, "put/copy"]) == [], "not everything was deleted")
        left = [info.key for page in client.list_objects(BUCKET, "put/") for info in page.object_info]
        check(not left, f"{left} were deleted, and are there")

    def readers(self) -> None:
        draw = self._random
        for key in LARGE:
            whole = large(key)
            reader = self._client.get_object(BUCKET, key)
            for _ in range(draw.randrange(1, 6)):
                at = reader.seek(draw.randrange(len(whole)))
                nbytes = draw.choice([100, 64 << 10, 3 * MIB])
                check(reader.read(nbytes) == whole[at : at + nbytes], f"{key} was read wrong at {at}")
            if draw.random() < 0.5:
                reader.seek(0, io.SEEK_SET)
                check(bytes(reader.getbuffer()) == whole, f"{key} was read wrong")

    def threads(self) -> None:
        """Many that share a client."""
        wrong: list[BaseException] = []

        def use(seed: int) -> None:
            draw = random.Random(seed)
            try:
                for _ in range(10):
                    i = draw.randrange(COUNT)
                    data = bytes(self._client.get_range(BUCKET, f"plain/{i:06}", 0, 200_000))
                    check(data == small(i), f"plain/{i:06} has wrong bytes")
            except BaseException as error:  # noqa: BLE001 - raised in the main thread
                wrong.append(error)

        seeds = [self._random.randrange(1 << 30) for _ in range(8)]
        threads = [threading.Thread(target=use, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise wrong[0]

    def listing(self) -> None:
        prefix = f"s3://{BUCKET}/listed/"
        manifest = s3dataset.Manifest.from_prefix(prefix, s3client_config=CONFIG)
        check(len(manifest) == LISTED, f"{len(manifest)} objects of {LISTED} were listed")
        check(manifest.num_bytes == 10 * LISTED, "sizes were listed wrong")
        i = self._random.randrange(LISTED)
        check(manifest.find(manifest.key(i)) == i, f"{manifest.key(i)} is not found")
        keys = [info.key for page in self._client.list_objects(BUCKET, "images/") for info in page.object_info]
        check(keys == [f"images/{i:06}" for i in range(COUNT)], "images/ was listed wrong")

    def client_for_once(self) -> None:
        """A client, and a dataset, that nobody keeps, with settings that are no others'."""
        i = self._random.randrange(COUNT)
        client = s3dataset.S3Client("us-east-1", s3client_config=CONFIG)
        check(bytes(client.get_range(BUCKET, f"plain/{i:06}", 0, MIB)) == small(i), "wrong bytes")
        own = replace(CONFIG, credentials=lambda: current_keys())  # noqa: PLW0108 - a new function each time
        dataset = s3dataset.S3MapDataset.from_prefix(IMAGES, transform=number, s3client_config=own)
        check(dataset[i] == i, f"sample {i} is another")

    # -- Children that die -------------------------------------------------------------------------------------------

    def dying_children(self) -> None:
        """Four at once use the client: one leaves whole, one amid requests, two are killed amid reads and a save."""
        self._client.put_many([(BUCKET, "child/kept", small(2))])
        children = {end: self._fork(end) for end in ("whole", "amid", "killed", "saving")}
        for end, (pid, told) in children.items():
            with told:
                said = told.read(1)
                check(said == b".", f"the child that ends '{end}' did not get that far")
                if end in ("killed", "saving"):
                    os.kill(pid, 9)
                status = os.waitpid(pid, 0)[1]
                check(status == (9 if end in ("killed", "saving") else 0), f"the child '{end}' ended with {status}")
        check(self._read("child/kept") == small(2), "a child that was killed published something")
        # As a bucket's lifecycle rule does. What was killed cannot.
        with self._client.queue() as queue:
            for upload in self._world.server.uploads(BUCKET):
                if upload["key"] == "child/kept":
                    with contextlib.suppress(s3dataset.S3Exception):
                        queue.take(queue.abort_upload(BUCKET, upload["key"], upload["upload_id"]))

    def _fork(self, end: str) -> tuple[int, Any]:
        reading, writing = os.pipe()
        seed = self._random.randrange(1 << 30)
        pid = os.fork()
        if pid:
            os.close(writing)
            return pid, os.fdopen(reading, "rb")
        try:
            threading.Timer(100, os._exit, (3,)).start()  # a hang is an end that the parent tells
            self._live(random.Random(seed), end, writing)
        finally:
            os._exit(2)

    def _live(self, draw: random.Random, end: str, told: int) -> None:
        client = self._client
        for _ in range(5):
            i = draw.randrange(COUNT)
            check(bytes(client.get_range(BUCKET, f"plain/{i:06}", 0, MIB)) == small(i), "wrong bytes")
        if end == "saving":
            writer = client.put_object(BUCKET, "child/kept")
            writer.write(large("plain/large/0"))
        elif end != "whole":
            dataset: Any = draw.choice(KINDS).from_prefix(IMAGES, transform=number, s3client_config=CONFIG)
            next(iter(dataset))
            queue = client.queue()
            queue.get([(BUCKET, f"plain/{i:06}", None, None, None, None) for i in range(COUNT)])
        else:
            gc.collect()
        os.write(told, b".")
        if end in ("killed", "saving"):
            threading.Event().wait()
        os._exit(0)
