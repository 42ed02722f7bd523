"""What the plan of a large distributed checkpoint takes, without its bytes: `python -m benchmarks.dcp plan [ITEMS]`.

4,096 ranks of one process, with as many items as are named (a million): every step that one rank, or the coordinator,
does in a save and a load, ours and torch's own, in time and in memory over what was there before.
"""

import gc
import multiprocessing
import time
import warnings
from typing import Any

from benchmarks.manifest import Peak
from s3dataset.testing import LocalS3

RANKS = 4096
BUCKET = "bucket"
URI = f"s3://{BUCKET}/large"


class Steps:
    """One after the other, on what the earlier ones have made."""

    def __init__(self, items: int) -> None:
        import torch
        from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

        from s3dataset.dcp import S3StorageReader, S3StorageWriter

        self.planner = DefaultLoadPlanner
        self.writer = S3StorageWriter("us-east-1", URI)
        self.reader = S3StorageReader("us-east-1", URI)
        # Tensors of 1,024 rows, each sharded over 256 ranks.
        shards, columns = 256, 1024
        rows = torch.Size([4, columns])
        properties = TensorProperties(dtype=torch.float32)
        whole = torch.Size([4 * shards, columns])

        def item(number: int) -> Any:
            offsets = torch.Size([4 * (number % shards), 0])
            return WriteItem(
                MetadataIndex(f"layers.{number // shards}.weight", offsets),
                WriteItemType.SHARD,
                tensor_data=TensorWriteData(ChunkStorageMetadata(offsets, rows), properties, whole),
            )

        plans: list[list[Any]] = [[] for _ in range(RANKS)]
        for number in range(items):
            plans[number % RANKS].append(item(number))
        self.plans = [SavePlan(some) for some in plans]
        self.metadata: Any = None
        self.loaded: Any = None
        self.plan: Any = None

    def global_plan(self) -> None:
        from torch.distributed.checkpoint.default_planner import create_default_global_save_plan

        self.plans, self.metadata = create_default_global_save_plan(self.plans)

    def prefixes(self) -> None:
        self.writer.prepare_local_plan(self.plans[0])
        self.plans = self.writer.prepare_global_plan(self.plans)

    def finish(self) -> None:
        from torch.distributed.checkpoint.filesystem import _StorageInfo
        from torch.distributed.checkpoint.storage import WriteResult

        results = []
        for plan in self.plans:
            name = f"{plan.storage_data.prefix}0.distcp"
            length = 4 * 4 * 1024 + 1577
            results.append(
                [
                    WriteResult(item.index, length, _StorageInfo(name, number * length, length))
                    for number, item in enumerate(plan.items)
                ]
            )
        self.writer.finish(self.metadata, results)
        self.plans, self.metadata = [], None

    def read_metadata(self) -> None:
        self.loaded = self.reader.read_metadata()
        self.reader.set_up_storage_reader(self.loaded, True)

    def load_plan(self) -> None:
        """All of it, which is what one process that loads everything wants."""
        import torch
        from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

        zero, size = torch.Size([0, 0]), torch.Size([4, 1024])
        self.plan = LoadPlan(
            [ReadItem(LoadItemType.TENSOR, index, zero, index, zero, size) for index in self.loaded.storage_data]
        )

    def ranges(self) -> None:
        from s3dataset.dcp._collection import uncollected
        from s3dataset.dcp._items import Chunks, grouped
        from s3dataset.dcp._ranges import runs_of

        plan = self.reader.prepare_local_plan(self.plan)
        with uncollected():
            items, streamed = grouped(plan.items, self.reader.storage_data, Chunks(self.loaded))
        objects: dict[str, list[tuple[int, int]]] = {}
        for item in items:
            item.guess()
            objects.setdefault(item.path, []).extend(item.ranges())
        runs = runs_of(list(objects.values()), 128 << 10)
        if streamed or sum(map(len, runs)) != RANKS:
            raise RuntimeError("one range an object was expected")


STEPS: dict[str, str] = {
    "global_plan": "torch: the global plan of a save",
    "prefixes": "a save's prefixes, and a look at what is there",
    "finish": "a save's metadata, sent",
    "read_metadata": "the metadata, read",
    "load_plan": "torch: the items of a load plan of everything",
    "ranges": "the ranges of that plan",
}


def run(items: int, answers: Any) -> None:
    warnings.simplefilter("ignore")
    steps = Steps(items)
    for name in STEPS:
        gc.collect()
        peak, began, cpu = Peak(), time.perf_counter(), time.process_time()
        getattr(steps, name)()
        answers.send((name, time.perf_counter() - began, time.process_time() - cpu, peak.read()))


def main(items: int = 1_000_000) -> None:
    rows: dict[str, list[str]] = {name: [] for name in STEPS}
    counts = (items // 4, items)
    for count in counts:
        with LocalS3(BUCKET):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(target=run, args=(count, theirs))
            process.start()
            theirs.close()
            for _ in STEPS:
                name, wall_s, cpu_s, megabytes = ours.recv()
                rows[name] += [f"{wall_s:.2f}", f"{cpu_s:.2f}", f"{megabytes:,}"]
            process.join()
    heads = " | ".join(f"{count:,} items: s | CPU s | MB" for count in counts)
    print(f"| | {heads} |\n|{'---|' * (1 + 3 * len(counts))}")
    for name, figures in rows.items():
        print(f"| {STEPS[name]} | {' | '.join(figures)} |")
