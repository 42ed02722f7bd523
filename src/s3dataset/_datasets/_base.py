"""What both kinds of datasets have in common."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._datasets._agreement import Agreement
from s3dataset._datasets._ahead import request_of
from s3dataset._datasets._bad_samples import BadLedger, BadPolicy, OnError, checked_on_error
from s3dataset._datasets._counters import Counters
from s3dataset._datasets._listing import Listing
from s3dataset._datasets._origin import Origin, Prefix
from s3dataset._datasets._rank import Rank, is_spawning, rank_of_group
from s3dataset._datasets._sample_rng import Draws
from s3dataset._datasets._samples import Row, SampleMaker
from s3dataset._datasets._shard_samples import IndexedShards, ShardSampleMaker, check_index
from s3dataset._datasets._worker_exit import end_in_order
from s3dataset._manifest import Manifest
from s3dataset._order import BadSamples
from s3dataset._stats import Stats
from s3dataset._warnings import warn_caller
from s3dataset.formats import Format

if TYPE_CHECKING:
    from s3dataset._datasets._epoch_order import EpochOrder

__all__ = ["S3Dataset", "client_ref"]

T_co = TypeVar("T_co", covariant=True)

ROWS_AT_ONCE = 512


def client_ref(region: str | None, endpoint: str | None, s3client_config: S3ClientConfig | None) -> ClientRef:
    """Names the client, and checks what can be checked without files and network.

    Raises:
        InvalidConfigError: The endpoint is no URL.
        TypeError: `s3client_config` is none.
    """
    if not isinstance(s3client_config, S3ClientConfig | None):
        raise TypeError(f"s3client_config must be an S3ClientConfig, not {type(s3client_config).__name__}")
    ref = ClientRef(region or None, endpoint or None, s3client_config)
    ref.get().preload()
    return ref


class S3Dataset(Generic[T_co]):
    """Listing, client, statistics and pickling of a dataset. Private: users meet the two classes derived from it.

    Pickles as its options. The pickle that starts a worker takes along the shared page, the listing's place, the keys
    and the rank; any other none of these.
    """

    def __init__(
        self,
        origin: Origin,
        ref: ClientRef,
        transform: Callable[[Any], T_co],
        reader_constructor: Any,
        format: Format | None = None,  # noqa: A002
        on_error: OnError = "raise",
    ) -> None:
        self._client_ref = ref
        self._format = format
        self._on_error = checked_on_error(on_error)
        self._maker: SampleMaker[T_co] = SampleMaker(ref, transform, reader_constructor)
        self._listing = Listing(origin, ref)
        self._begin_process()

    def _begin_process(self) -> None:
        """State that belongs to this process alone."""
        self._parent_rank: Rank | None = None
        self._agreement = Agreement(self._listing)
        self._ledger = BadLedger(self._page_of_listing)
        self._counters: tuple[int, Counters] | None = None
        self._indexed: tuple[int, IndexedShards[T_co]] | None = None

    # -- What it is -------------------------------------------------------------------------------------------------

    @property
    def region(self) -> str | None:
        """The region given."""
        return self._client_ref.region

    @property
    def endpoint(self) -> str | None:
        """The endpoint given."""
        return self._client_ref.endpoint

    @property
    def manifest(self) -> Manifest:
        """What the dataset consists of. Lists at first use.

        Raises:
            S3Exception: Listing failed.
        """
        return self._listing.manifest()

    def prepare(self) -> Self:
        """Lists now, and lets the other ranks have the listing; returns the dataset.

        With a process group every rank must call it: rank 0 lists, the ranks of its machine map what it wrote, and
        ranks elsewhere list too and compare. Without one it lists, and the first training step does not wait for that.

        Raises:
            ManifestMismatchError: Ranks found different objects.
            S3Exception: Listing failed.
        """
        self._agreement.share()
        return self

    def stats(self) -> Stats:
        """What reading cost since the dataset was made, over this process and its workers.

        Workers report several times a second and when they end.
        """
        return self._count.totals()

    def bad_samples(self) -> BadSamples:
        """What was left out or replaced because of `on_error`, in this process and its workers: printable.

        States keep it: a run that goes on from one counts what was met before, too.
        """
        return self._ledger.read()

    def __repr__(self) -> str:
        known = self._listing.known
        facts = "not listed yet" if known is None else f"{len(known):,} objects"
        return f"<{type(self).__name__} of {self._listing.origin} ({facts})>"

    def _with_ledger(self, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "bad": self.bad_samples().to_dict()}

    # -- For the classes derived ------------------------------------------------------------------------------------

    @property
    def _count(self) -> Counters:
        counters = self._counters
        if counters is None or counters[0] != os.getpid():
            counters = self._counters = os.getpid(), Counters(self._page_of_listing, self._client_stats)
        return counters[1]

    @property
    def _format_of_shards(self) -> Format | None:
        """What the objects are shards of; None: an object is a sample. May load the manifest."""
        if self._format is not None or isinstance(self._listing.origin, Prefix):
            return self._format
        return self.manifest.format

    @property
    def _shards(self) -> "IndexedShards[T_co] | None":
        """The samples of indexed shards; None where an object is a sample.

        Raises:
            UnindexedError: There is no index.
            ManifestMismatchError: The index is of another format.
        """
        indexed = self._indexed
        if indexed is None or indexed[0] != os.getpid():
            kind = self._format_of_shards
            if kind is None:
                return None
            manifest = self.manifest
            check_index(manifest, kind, str(self._listing.origin))
            maker = ShardSampleMaker(self._client_ref, kind, self._maker.transform)
            indexed = self._indexed = os.getpid(), IndexedShards(maker, manifest)
        return indexed[1]

    def _maker_drawing(self, seed: int, epoch: int) -> SampleMaker[T_co]:
        """What makes samples of objects in which `sample_rng` draws for an epoch."""
        return self._maker.drawing(Draws(seed, epoch, self._position_of))

    def _shards_drawing(self, seed: int, epoch: int) -> "IndexedShards[T_co] | None":
        """The samples of indexed shards in which `sample_rng` draws for an epoch; None where an object is a sample."""
        shards = self._shards
        return None if shards is None else shards.drawing(seed, epoch)

    def _bad_policy(
        self, *, seed: int = 0, epoch: int = 0, order: "EpochOrder | None" = None
    ) -> "BadPolicy[T_co] | None":
        """What becomes of bad samples; None: they raise.

        Args:
            seed: Names the choice of those that stand in for them.
            epoch: The same.
            order: In which samples of shards come; default: by number.
        """
        if self._on_error == "raise":
            return None
        shards = None if self._reads_unindexed is not None else self._shards_drawing(seed, epoch)
        ledger = self._ledger
        if shards is not None and order is not None:
            of_block = order.block
            return BadPolicy(
                self._on_error,
                ledger,
                lambda slot: shards.make(order.sample(slot)),
                lambda slot: of_block(slot) or shards.neighbours(slot),
                lambda slot: shards.frame_of(order.sample(slot)),
                slot_of=order.slot,
                seed=seed,
                epoch=epoch,
            )
        if shards is not None:
            return BadPolicy(
                self._on_error, ledger, shards.make, shards.neighbours, shards.frame_of, seed=seed, epoch=epoch
            )
        manifest, maker = self.manifest, self._maker_drawing(seed, epoch)

        def remake(position: int) -> T_co:
            row = manifest.rows((position,))[0]
            with maker.client.queue() as queue:
                body = queue.take(queue.get([request_of(row)], limit=maker.client.part_size)[0])
            return maker.make(maker.client, row, body)

        return BadPolicy(self._on_error, ledger, remake, lambda _: range(len(manifest)), seed=seed, epoch=epoch)

    @property
    def _reads_unindexed(self) -> Format | None:
        """The format of shards that have no index; None where samples have numbers."""
        kind = self._format_of_shards
        return kind if kind is not None and self.manifest.format is None else None

    def _page_of_listing(self) -> Any:
        return self._listing.page

    def _client_stats(self) -> dict[str, Any]:
        return self._client_ref.get().stats()

    def _position_of(self, row: Row) -> int:
        return self.manifest.find(f"s3://{row[0]}/{row[1]}")

    def _rows(self, indices: Sequence[int]) -> list[Row]:
        return self.manifest.rows(indices)

    def _row_chunks(self, positions: Iterator[Sequence[int]]) -> Iterator[list[Row]]:
        manifest = self.manifest
        for chunk in positions:
            for start in range(0, len(chunk), ROWS_AT_ONCE):
                yield manifest.rows(chunk[start : start + ROWS_AT_ONCE])

    def _prepare_workers(self) -> None:
        """Lists and finds credentials before workers are forked, so that they inherit both and errors show here.

        Raises:
            S3Exception: Listing failed, or there are no credentials.
        """
        self._listing.manifest()
        with self._client_ref.get().queue():
            pass

    def _compare_ranks(self, world_size: int) -> None:
        """Sees to it that all ranks list the same; called where an iteration begins, never in a worker."""
        if world_size == 1:
            return
        if rank_of_group() is not None:
            self._agreement.check()
        elif isinstance(self._listing.origin, Prefix):
            self._warn_once(
                "unshared",
                f"each of the {world_size} ranks lists {self._listing.origin} by itself, and no process group lets "
                "them "
                "compare what they found: save the listing once with Manifest.save, and use from_manifest.",
            )

    def _warn_once(self, topic: str, text: str) -> None:
        """Warns in one of the processes that share the page, for one of all copies."""
        if self._listing.is_first(f"warned_{topic}"):
            warn_caller(text)

    # -- Pickling ---------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = {
            name: value
            for name, value in self.__dict__.items()
            if name not in {"_agreement", "_counters", "_indexed", "_ledger", "_parent_rank"}
        }
        # A spawned worker has no process group to ask, unlike a forked one. Plain pickles go anywhere, so they say
        # nothing.
        state["_parent_rank"] = (rank_of_group() or self._parent_rank) if is_spawning() else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        end_in_order()
        self.__dict__.update(state)
        parent = state["_parent_rank"]
        self._begin_process()
        self._parent_rank = parent

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.__dict__["_listing"] = self._listing.copy()
        twin._begin_process()
        twin.__dict__["_parent_rank"] = self._parent_rank
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies the transform; the listing, which nobody changes, is shared and not made again."""
        twin = self.__copy__()
        memo[id(self)] = twin
        twin.__dict__["_maker"] = copy.deepcopy(self._maker, memo)
        return twin
