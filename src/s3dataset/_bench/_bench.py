"""Bench: the whole measurement, phase by phase."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from s3dataset._bench._advice import advise, binary
from s3dataset._bench._objects import Load, Stored, Temporary, some_objects
from s3dataset._bench._plan import CONCURRENCIES, Options
from s3dataset._bench._result import Latencies, Result, Step, WorkerStep, WriteStep
from s3dataset._bench._steps import Allowance, run_step, warm_up
from s3dataset._bench._workers import run_workers, usable_cores
from s3dataset._client import Client, get_client
from s3dataset._config import S3ClientConfig
from s3dataset._limits import most_connections, process_limits
from s3dataset._survey import survey
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectNotFoundError

__all__ = ["Bench"]

_PATIENCE_S: Final = 60.0
"""For all attempts at a request: a job would wait longer, but a measurement is then none."""
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_REQUEST_SIZES: Final = (16 * _KIB, 128 * _KIB, _MIB, 4 * _MIB, 8 * _MIB, 16 * _MIB, 32 * _MIB)
_PARTS: Final = {"single": 0.1, "curve": 0.5, "sizes": 0.15, "workers": 0.25}
"""Of seconds, bytes and requests. What a phase leaves over, the next ones have."""
_LEAST_SHARE: Final = 0.5
"""Of the time that a step should have: with less, after others took too much, a figure would be none."""

Told = Latencies | Step | WorkerStep | WriteStep | str


class Bench:
    """Measures a place. Reads only, unless sizes of temporary objects are given, which are deleted at the end.

    Args:
        place: Bucket and prefix.
        options: What to measure, and how much may be spent.
        region: As everywhere.
        endpoint: As everywhere.
        s3client_config: As everywhere; connections follow from the concurrencies.
    """

    def __init__(
        self,
        place: S3Uri,
        options: Options,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        self.place = place
        self.temporary: Temporary | None = None
        # Who names numbers may try what the client would have by other settings.
        is_usual = options.concurrencies == CONCURRENCIES
        most = min(max(options.concurrencies), process_limits().max_connections if is_usual else most_connections())
        self.options = replace(options, concurrencies=tuple(c for c in options.concurrencies if c <= most))
        self.result = Result(str(place), cores=usable_cores(), transformed=options.transform is not None)
        if left_out := [c for c in options.concurrencies if c > most]:
            self._skip(f"{_listed(left_out)} requests at once: this process has {most} connections at most")
        config = s3client_config or S3ClientConfig()
        self._own = get_client(region, endpoint, config)
        # 3.2 large ranges at once for each gigabit a second: enough for all steps of the curve. Ranges are not split.
        wide = replace(
            config,
            max_connections=most,
            retry_max_elapsed_s=min(config.retry_max_elapsed_s, _PATIENCE_S),
            throughput_target_gbps=max(10.0, most / 3.2),
            part_size=max(config.part_size, 2 * _REQUEST_SIZES[-1]),
        )
        self._client = Client(region, endpoint=endpoint, s3client_config=wide)
        self._left = Allowance(options.seconds, options.max_bytes, options.max_requests)

    def run(self, tell: Callable[[str, Told], None]) -> Result:
        """Measures.

        Args:
            tell: Is told (phase, what was measured) as it comes: "objects", "write", "single", "curve", "sizes",
                "workers"; and ("waiting", for what).

        Returns:
            All of it; `self.result` holds what there is of it if this raises.

        Raises:
            ObjectNotFoundError: There is nothing to read, and nothing is to be written.
            S3Exception: A request failed.
        """
        begin = time.perf_counter()
        result = self.result
        objects, result.complete = some_objects(self._client, self.place, self.options.pattern)
        result.engine_threads = self._client.stats()["lanes"]
        with ExitStack() as stack:
            written: list[Stored] = []
            if self.options.sizes:
                self.temporary = stack.enter_context(Temporary(self._own, self.place, self.options))
                for write in self.temporary.write():
                    result.writes.append(write)
                    tell("write", write)
                written = self.temporary.objects
            own = objects or written
            if not own:
                raise ObjectNotFoundError(
                    f"There is nothing to read below {self.place}: name a prefix with objects, or let bench write some "
                    "(--write)",
                    uri=str(self.place),
                )
            result.objects = len(own)
            result.mean_bytes = sum(stored.size for stored in own) // len(own)
            tell("objects", "")
            self._single(own, tell)
            self._curve(own, tell)
            self._sizes(written or own, tell)
            self._workers(own, tell)
        result.seconds = time.perf_counter() - begin
        result.bottleneck, result.advice = advise(
            result, str(self.place), self._own.part_size, self._own.max_connections
        )
        return result

    # -- Phases ------------------------------------------------------------------------------------------------------

    def _single(self, objects: list[Stored], tell: Callable[[str, Told], None]) -> None:
        """One request at a time."""
        limit = self._left.share(_PARTS["single"])
        for name, load, share in (("byte", Load(objects, 1), 0.3), ("single", self._load(objects), 0.7)):
            step = self._step(load, 1, limit.share(share))
            if step is None:
                self._skip("one request at a time: it was not answered in time")
            elif name == "byte":
                self.result.first_byte = step.latencies
            else:
                self.result.single = step
        tell("single", "")

    def _curve(self, objects: list[Stored], tell: Callable[[str, Told], None]) -> None:
        limit = self._left.share(_PARTS["curve"] / (1 - _PARTS["single"]))
        load = self._load(objects)
        steps = self.options.concurrencies
        fair = self.options.seconds * _PARTS["curve"] / max(len(steps), 1)
        for place, concurrency in enumerate(steps):
            share = self._shared(limit, len(steps) - place)
            if share.seconds < _LEAST_SHARE * fair:
                self._skip(f"{concurrency} requests at once and more: raise --seconds")
                break
            if share.bytes < 2 * concurrency * load.mean_bytes or share.requests < 2 * concurrency:
                self._skip(f"{concurrency} requests at once and more: raise --max-bytes or --max-requests")
                break
            step = self._step(load, concurrency, share, limit)
            if step is None:
                self._skip(f"{concurrency} requests at once: none was answered in time")
                continue
            self.result.curve.append(step)
            tell("curve", step)

    def _sizes(self, objects: list[Stored], tell: Callable[[str, Told], None]) -> None:
        best = self.result.best
        loads = [(size, load) for size in _REQUEST_SIZES if (load := Load(objects, size, exact=True))]
        if best is None or len(loads) < 2:
            self._skip("requests of other sizes: the objects are too small (--write measures them)")
            return
        limit = self._left.share(_PARTS["sizes"] / (_PARTS["sizes"] + _PARTS["workers"]))
        fair = self.options.seconds * _PARTS["sizes"] / len(loads)
        for place, (size, load) in enumerate(loads):
            share = self._shared(limit, len(loads) - place)
            if share.seconds < _LEAST_SHARE * fair:
                self._skip(f"requests of {binary(size)} and more: raise --seconds")
                break
            # Of large requests fewer are enough, and the byte budget has no room for more.
            room = min(self._client.memory_limit_bytes, share.bytes // 2) // load.mean_bytes
            concurrency = max(1, min(best.concurrency, room))
            if share.bytes < 2 * load.mean_bytes:
                self._skip(f"requests of {binary(size)}: raise --max-bytes")
                continue
            step = self._step(load, concurrency, share, limit)
            if step is None:
                self._skip(f"requests of {binary(size)}: none was answered in time")
                continue
            self.result.sizes.append(step)
            tell("sizes", step)

    def _workers(self, objects: list[Stored], tell: Callable[[str, Told], None]) -> None:
        options = self.options
        if options.workers:
            tell("waiting", "PyTorch is loaded")
        limit = replace(self._left)
        found = survey([stored.size for stored in objects], (stored.key for stored in objects[:1000]))
        kind = self.result.format = found.format if found.are_shards else None
        for place, workers in enumerate(options.workers):
            share = self._shared(limit, len(options.workers) - place)
            step, spent = run_workers(
                self._own,
                objects,
                workers,
                share,
                transform=options.transform,
                batch_size=options.batch_size,
                format=kind,
            )
            for allowance in (limit, self._left):
                allowance.spend(spent.seconds, spent.bytes, spent.requests)
            self.result.bytes += spent.bytes
            self.result.requests += spent.requests
            if step is None:
                self._skip(f"a DataLoader with {workers} workers: --seconds or --max-bytes leave it too little")
                continue
            self.result.workers.append(step)
            tell("workers", step)

    # -- Parts of them -----------------------------------------------------------------------------------------------

    def _load(self, objects: list[Stored]) -> Load:
        return Load(objects, self._own.part_size)

    @staticmethod
    def _shared(limit: Allowance, steps_left: int) -> Allowance:
        return limit.share(1 / steps_left)

    def _step(self, load: Load, concurrency: int, share: Allowance, *others: Allowance) -> Step | None:
        begin = time.perf_counter()
        warm = warm_up(self._client, load, concurrency)
        share.spend(0.0, 0, warm)
        step, spent = run_step(self._client, load, concurrency, share)
        for allowance in (*others, self._left):
            allowance.spend(time.perf_counter() - begin, spent.bytes, spent.requests + warm)
        self.result.bytes += spent.bytes
        self.result.requests += spent.requests + warm
        return step

    def _skip(self, why: str) -> None:
        self.result.skipped.append(why)


def _listed(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers))
