"""Ranks see to it that they read the same listing, through the store of their process group."""

import contextlib
import hashlib
import json
import os
import socket
from collections import Counter
from typing import Any, Final

import torch.distributed

from s3dataset._datasets._listing import Listing
from s3dataset._datasets._rank import Rank, rank_of_group
from s3dataset._manifest import Manifest
from s3dataset.errors import ManifestMismatchError, S3Exception

__all__ = ["Agreement", "group_store"]


def group_store() -> Any:
    """The store behind the default process group, None where there is no group or it shows none."""
    if rank_of_group() is None:
        return None
    # torch has no public name for it; the alternatives, collectives, would need every rank at the same time.
    find = getattr(torch.distributed.distributed_c10d, "_get_default_store", None)
    return find() if find is not None else None


class _Calls:
    """How often datasets of the same origin were agreed upon, so that a second dataset has a key of its own."""

    pid: int | None = None
    counts: Final[Counter[str]] = Counter()

    @classmethod
    def next(cls, topic: str) -> int:
        if cls.pid != os.getpid():
            cls.pid = os.getpid()
            cls.counts.clear()
        cls.counts[topic] += 1
        return cls.counts[topic]


class Agreement:
    """Compares the listing of a dataset with those of the other ranks, once.

    Every rank makes its datasets in the same order, so the n-th dataset of an origin means the same one everywhere.
    """

    __slots__ = ("_done", "_listing")

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._done = False

    def check(self) -> None:
        """Compares, without waiting for anybody: the first rank leaves its fingerprint, the others find it.

        Must not be called in a worker, whose copy of the store shares the parent's socket.

        Raises:
            ManifestMismatchError: Another rank lists other objects.
        """
        store = None if self._done else group_store()
        if store is None:
            return
        self._done = True
        manifest = self._listing.manifest()
        mine = json.dumps(_facts(manifest))
        first = store.compare_set(self._key("seen"), "", mine)
        self._compare(json.loads(first), manifest)

    def share(self) -> None:
        """Rank 0 lists; the other ranks of its machine map what it wrote, and those elsewhere list and compare.

        Every rank must call it. Without a process group it lists, and that is all.

        Raises:
            ManifestMismatchError: Another rank lists other objects.
            S3Exception: Listing failed, here or on rank 0.
        """
        store = None if self._done else group_store()
        rank = rank_of_group()
        if store is None or rank is None or rank.world_size == 1:
            self._listing.manifest()
            return
        self._done = True
        key = self._key("shared")
        if rank.rank == 0:
            self._lead(store, key)
        else:
            self._follow(store, key, rank)

    def _lead(self, store: Any, key: str) -> None:
        try:
            manifest = self._listing.manifest()
            self._listing.share()
        except BaseException as error:
            store.set(key, json.dumps({"error": f"{type(error).__name__}: {error}"}))
            raise
        facts = {**_facts(manifest), "host": socket.gethostname(), "path": self._listing.published_path()}
        store.set(key, json.dumps(facts))

    def _follow(self, store: Any, key: str, rank: Rank) -> None:
        facts = json.loads(store.get(key))
        if "error" in facts:
            raise S3Exception(f"rank 0 could not list {self._listing.origin} for rank {rank.rank}: {facts['error']}")
        if facts["host"] == socket.gethostname() and facts["path"]:
            with contextlib.suppress(FileNotFoundError):  # a container elsewhere may have the same name
                self._listing.adopt(Manifest.open(facts["path"], ref=self._listing.client_ref))
        self._compare(facts, self._listing.manifest())

    def _compare(self, first: dict[str, Any], manifest: Manifest) -> None:
        if first["fingerprint"] != manifest.fingerprint:
            raise ManifestMismatchError(
                f"ranks list different objects for {self._listing.origin}: {first['num_objects']:,} on the first rank, "
                f"{manifest.num_objects:,} here; something is writing there. Save a listing once (Manifest.save), and "
                "make the dataset of every rank from it (from_manifest)"
            )

    def _key(self, purpose: str) -> str:
        ref = self._listing.client_ref
        topic = hashlib.sha256(f"{self._listing.origin}|{ref.region}|{ref.endpoint}".encode()).hexdigest()[:16]
        return f"s3dataset/{purpose}/{topic}/{_Calls.next(purpose + topic)}"


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {"fingerprint": manifest.fingerprint, "num_objects": manifest.num_objects}
