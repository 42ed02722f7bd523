"""What each rank runs: `python rank_programs.py NAME OUT ARGUMENTS`, with the answer as JSON in OUT.

The launcher's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) tell the rank, as torchrun sets them.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.utils.data
from torch.nn.parallel import DistributedDataParallel

import s3dataset
from s3dataset import Split
from s3dataset._checkpoint._image import Image
from s3dataset.errors import ManifestMismatchError

URI = "s3://bucket/images/"
TAILS: Any = ("pad", "drop", "exact")


def number(reader: s3dataset.S3Reader) -> int:
    return int(reader.read())


def join_group() -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))


def train(loader: Any) -> dict[str, Any]:
    """An epoch of DDP; Join lets ranks have one step more than others, as tail="exact" does."""
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    seen, sizes = [], []
    with torch.distributed.algorithms.Join([model]):
        for batch in loader:
            seen += batch.tolist()
            sizes.append(len(batch))
            model(batch.float().unsqueeze(1)).sum().backward()
    return {"seen": seen, "sizes": sizes, "length": len(loader)}


def shards(stop: str) -> Any:
    """Some batches of shards, with and without an index; then what all ranks know of where they are."""
    join_group()
    answers = {}
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/shards/")
    for kind, one in (("indexed", manifest.index("jsonl")), ("unindexed", manifest)):
        dataset = s3dataset.S3IterableDataset.from_manifest(
            one, format="jsonl", transform=number_in, shuffle=True, enable_sharding=Split(tail="exact")
        )
        loader: Any = s3dataset.DataLoader(dataset, batch_size=8, num_workers=2)
        seen: list[int] = []
        for step, batch in enumerate(loader):
            seen += batch.tolist()
            if step + 1 == int(stop):
                break
        answers[kind] = {"seen": seen, "state": s3dataset.gather_state(loader)}
    return answers


def number_in(sample: Any) -> int:
    return int(sample["n"])


def ddp(kind: str) -> Any:
    join_group()
    answers = {}
    for tail in TAILS:
        if kind == "map":
            dataset: Any = s3dataset.S3MapDataset.from_prefix(URI, transform=number)
            loader: Any = s3dataset.DataLoader(dataset, batch_size=32, shuffle=True, num_workers=3, tail=tail, seed=1)
        else:
            dataset = s3dataset.S3IterableDataset.from_prefix(
                URI, transform=number, enable_sharding=Split(tail=tail), batch_size=32
            )
            loader_class: Any = s3dataset.DataLoader if kind == "iterable" else torch.utils.data.DataLoader
            loader = loader_class(dataset, batch_size=32, num_workers=3)
        answers[tail] = train(loader)
    return answers


def sharding(kind: str) -> Any:
    """What the values of enable_sharding do with the launcher's variables alone."""
    choices: Any = {"none": None, "true": True, "false": False, "workers": Split(ranks=False)}
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, enable_sharding=choices[kind])
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".*is multi-threaded")  # Python 3.12 and later say so of every fork
        try:
            alone = list(dataset)
            seen = list(loader)
        except ValueError as error:
            return {"error": str(error)}
    return {"alone": alone, "seen": seen, "warnings": [str(warning.message) for warning in caught]}


def prepared() -> Any:
    join_group()
    dataset = s3dataset.S3MapDataset.from_prefix(URI, transform=number).prepare()
    dist.barrier()
    return {"length": len(dataset), "fingerprint": dataset.manifest.fingerprint}


def growing(kind: str) -> Any:
    """The prefix grows after rank 0 listed and before rank 1 does."""
    join_group()
    answer: dict[str, Any] = {}
    if kind == "map":
        dataset: Any = s3dataset.S3MapDataset.from_prefix(URI, transform=number)
        loader: Any = s3dataset.DataLoader(dataset, batch_size=8, num_workers=2)
    else:
        dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, enable_sharding=True)
        loader = dataset if kind == "iterable" else s3dataset.DataLoader(dataset, batch_size=8, num_workers=2)
    if dist.get_rank() == 0:
        iter(loader)
    dist.barrier()
    if dist.get_rank() == 1:
        s3dataset.S3Client().put_many([("bucket", "images/late", b"1")])
        try:
            next(iter(loader))
        except ManifestMismatchError as error:
            answer["error"] = str(error)
    dist.barrier()  # rank 0 has the store
    return answer


def accelerated(kind: str) -> Any:
    from accelerate import Accelerator, DataLoaderConfiguration

    configuration = DataLoaderConfiguration(dispatch_batches=kind == "dispatch", even_batches=False)
    accelerator = Accelerator(cpu=True, dataloader_config=configuration)
    choices: Any = {"shard": None, "shard-main": False, "dispatch": Split(ranks=False)}
    if kind in choices:
        dataset: Any = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, enable_sharding=choices[kind])
        workers = 0 if kind == "shard-main" else 1
        loader: Any = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=workers)
    else:
        dataset = s3dataset.S3MapDataset.from_prefix(URI, transform=number)
        split = None if kind == "map-unsaid" else Split(ranks=False)
        loader = s3dataset.DataLoader(dataset, batch_size=8, num_workers=1, split=split)
    loader = accelerator.prepare(loader)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            seen = [i for batch in loader for i in batch.tolist()]
    except ValueError as error:
        return {"error": str(error)}
    return {"seen": seen, "warnings": [str(warning.message) for warning in caught]}


class Seeing(torch.nn.Module):
    """A model that remembers what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen += labels.tolist()
        return {"loss": self.linear(x).square().mean()}


def example(reader: s3dataset.S3Reader) -> dict[str, Any]:
    return {"x": torch.ones(1), "labels": int(reader.read())}


def hugging_face(kind: str, folder: str) -> Any:
    from transformers import Trainer, TrainingArguments

    if kind == "map":
        dataset: Any = s3dataset.S3MapDataset.from_prefix(URI, transform=example)
    else:
        sharding = None if kind == "iterable-unsaid" else Split(ranks=False)
        dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=example, enable_sharding=sharding)
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=32,
        dataloader_num_workers=1,
        use_cpu=True,
        ddp_backend="gloo",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    model = Seeing()
    try:
        steps = Trainer(model=model, args=arguments, train_dataset=dataset).train().global_step
    except ValueError as error:
        return {"error": str(error)}
    return {"seen": model.seen, "steps": steps}


def trained() -> Any:
    join_group()
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, enable_sharding=True)
    dataset.set_epoch(3)
    answer = {"seen": list(dataset), "length": len(dataset)}
    dist.barrier()  # rank 0 has the store
    return answer


def _spawned(rank: int, method: str, out: str) -> None:
    """A rank that knows itself from the process group alone."""
    dist.init_process_group(
        "gloo", init_method=f"file://{out}.group", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, enable_sharding=True)
    loader: Any = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2 if method == "fork" else 1, multiprocessing_context=method
    )
    Path(f"{out}.{rank}").write_text(json.dumps(list(loader)))
    dist.barrier()


def spawned(method: str, out: str) -> Any:
    torch.multiprocessing.spawn(_spawned, args=(method, out), nprocs=2)
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(2)]


def shared_checkpoint(*cases: str) -> Any:
    """Every rank loads s3://bucket/<case>, one after the other; what differs between them is told by the case."""
    join_group()
    two = dist.new_group([0, 2])
    return {case: _load_shared(case, two) for case in cases}


def _load_shared(case: str, two: Any) -> Any:
    rank = dist.get_rank()
    group = dist.group.WORLD
    settings: dict[str, Any] = {}
    if case == "failing-share" and rank == 1:
        # Rank 0 opens the object; this one cannot read its share of it.
        settings = {"endpoint": "http://127.0.0.1:9", "s3client_config": s3dataset.S3ClientConfig(max_attempts=1)}
    if case == "group-of-two":
        group = two
        if rank == 1:
            return "not in it"
    placed: list[int] = []

    def place(storage: Any, location: str) -> Any:
        placed.append(1)
        if rank == 1 and (case == "failing-place" or (case == "failing-last-place" and len(placed) == 3)):
            raise LookupError("no place here")
        return storage

    if case == "no-memory" and rank == 1:
        Image.want = _no_room  # type: ignore[method-assign] # the last case
    keys: Any = ["b", ("nested", "c")] if case == "keys" else None
    if case == "other-keys":
        keys = [["a"], ["b"], ["a"]][rank]
    where: Any = "meta" if case == "meta-on-one" and rank == 1 else place
    told: list[int] = []

    def progress(done: int, total: int) -> None:
        told.append(total - done)

    checkpoint = s3dataset.S3Checkpoint("us-east-1", **settings)
    try:
        loaded = checkpoint.load(f"s3://bucket/{case}", keys=keys, group=group, map_location=where, progress=progress)
    except Exception as error:  # noqa: BLE001 - an answer
        return [type(error).__name__, str(error)]
    if where == "meta":
        return str(loaded["a"].device)
    tensors = [loaded["b"], loaded["nested"]["c"]] + ([] if keys else [loaded["a"]])
    return [[float(tensor.double().sum()) for tensor in tensors], told[-1:]]


def _no_room(*_: Any) -> None:
    raise MemoryError("no room on this rank")


PROGRAMS: dict[str, Callable[..., Any]] = {
    program.__name__: program
    for program in (
        ddp,
        sharding,
        shards,
        prepared,
        growing,
        accelerated,
        hugging_face,
        trained,
        spawned,
        shared_checkpoint,
    )
}

if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    answer = PROGRAMS[sys.argv[1]](*sys.argv[3:])
    Path(sys.argv[2]).write_text(json.dumps(answer))
    if dist.is_initialized():
        dist.destroy_process_group()
    if sys.argv[1] == "shared_checkpoint":
        os._exit(0)  # with a second group, gloo's threads may be ended while they run: std::terminate
