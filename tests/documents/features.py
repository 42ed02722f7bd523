"""What docs/permissions.md counts: each feature once, on a server that writes down its requests."""

import io
import os

import torch
import torch.distributed.checkpoint as dcp

import s3dataset
from s3dataset import S3Checkpoint, S3IterableDataset, S3MapDataset
from s3dataset._cli import main
from s3dataset.dcp import S3StorageReader, S3StorageWriter
from s3dataset.formats import Tar
from s3dataset.transforms import Bytes

MIB = 1 << 20
DIRECTORY_BUCKET = "data--usw2-az1--x-s3"
OBJECTS, SHARDS, SAMPLES = 1000, 10, 100
STATE = {"weight": torch.zeros(64 * MIB // 4)}


def tar_of(numbers):
    file = io.BytesIO()
    with Tar().writer(file) as writer:
        for number in numbers:
            writer.write({"__key__": f"{number:06}", "txt": f"{number:06}" * 20})
        writer.finish()
    return file.getvalue()


def fill(server):
    """What is there before: small objects, shards with and without an index, a large object, checkpoints."""
    server.add_synthetic("my-bucket", "small/{}", size_bytes=10_000, count=OBJECTS)
    server.add_synthetic("my-bucket", "junk/{}", size_bytes=1, count=OBJECTS)
    server.add_synthetic("my-bucket", "list/{}", size_bytes=1, count=100_000)
    server.add_synthetic("my-bucket", "large/0", size_bytes=64 * MIB)
    for folder in ("shards", "unindexed", "growing"):
        for shard in range(SHARDS):
            numbers = range(shard * SAMPLES, (shard + 1) * SAMPLES)
            server.put("my-bucket", f"{folder}/{shard:03}.tar", tar_of(numbers))
    with Quiet():
        main(["index", "s3://my-bucket/shards/"])
    S3Checkpoint().save(STATE, "s3://my-bucket/there/model.pt")
    dcp.save(STATE, storage_writer=S3StorageWriter(path="s3://my-bucket/there/dcp"))
    for run in ("there/run", "there/growing-run"):
        with s3dataset.CheckpointManager(f"s3://my-bucket/{run}", keep_last=3) as manager:
            for step in (1, 2, 3):
                manager.save(step, STATE)
    server.create_bucket(DIRECTORY_BUCKET)
    for number in range(10):
        server.put(DIRECTORY_BUCKET, f"small/{number}", b"x")


class Quiet:
    """Nothing is printed within."""

    def __enter__(self):
        self.saved = os.dup(1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

    def __exit__(self, *exc):
        os.dup2(self.saved, 1)
        os.close(self.saved)


def loaded(dataset, **options):
    return sum(len(batch) for batch in s3dataset.DataLoader(dataset, batch_size=50, collate_fn=list, **options))


def list_a_prefix():
    assert len(s3dataset.Manifest.from_prefix("s3://my-bucket/list/")) == 100_000


def first_epoch_of_a_map_dataset():
    assert loaded(S3MapDataset.from_prefix("s3://my-bucket/small/", transform=Bytes()), shuffle=True) == OBJECTS


def first_epoch_of_an_iterable_dataset():
    assert loaded(S3IterableDataset.from_prefix("s3://my-bucket/small/", transform=Bytes()), num_workers=2) == OBJECTS


def epoch_of_named_objects():
    uris = [f"s3://my-bucket/small/{number:08d}" for number in range(OBJECTS)]
    assert loaded(S3MapDataset.from_objects(uris, transform=Bytes())) == OBJECTS


def epoch_of_shards_as_they_are():
    dataset = S3IterableDataset.from_prefix("s3://my-bucket/unindexed/", format="tar")
    assert loaded(dataset) == SHARDS * SAMPLES


def shuffled_epoch_of_indexed_shards():
    dataset = S3IterableDataset.from_prefix("s3://my-bucket/shards/", format="tar", shuffle=True)
    assert loaded(dataset) == SHARDS * SAMPLES


def read_a_large_object():
    with s3dataset.S3Client().get_object("my-bucket", "large/0") as reader:
        assert len(reader.read()) == 64 * MIB


def index_shards():
    with Quiet():
        main(["index", "s3://my-bucket/growing/"])


def index_again():
    with Quiet():
        main(["index", "s3://my-bucket/shards/"])


def pack_objects():
    s3dataset.pack("s3://my-bucket/small/", "s3://my-bucket/packed/", workers=0, shard_size=5_000_000)


def save_a_small_file():
    S3Checkpoint().save({"step": 1}, "s3://my-bucket/new/small.pt")


def save_a_file():
    S3Checkpoint().save(STATE, "s3://my-bucket/new/model.pt")


def load_a_file():
    S3Checkpoint().load("s3://my-bucket/there/model.pt")


def dcp_save():
    dcp.save(STATE, storage_writer=S3StorageWriter(path="s3://my-bucket/new/dcp"))


def dcp_load():
    dcp.load({"weight": torch.empty(64 * MIB // 4)}, storage_reader=S3StorageReader(path="s3://my-bucket/there/dcp"))


def manager_latest():
    with s3dataset.CheckpointManager("s3://my-bucket/there/run") as manager:
        assert manager.latest() == 3


def manager_restore():
    with s3dataset.CheckpointManager("s3://my-bucket/there/run") as manager:
        assert manager.restore().step == 3


def manager_save_and_delete_the_oldest():
    with s3dataset.CheckpointManager("s3://my-bucket/there/growing-run", keep_last=3) as manager:
        manager.save(4, STATE)


def delete_many():
    assert s3dataset.S3Client().delete_objects("my-bucket", [f"junk/{number:08d}" for number in range(OBJECTS)]) == []


def copy_within_s3():
    s3dataset.S3Client().copy_object("my-bucket", "small/00000000", "my-bucket", "new/copy")


def command_ls():
    with Quiet():
        main(["ls", "s3://my-bucket/small/"])


def command_cp_down(tmp_path):
    with Quiet():
        main(["cp", "s3://my-bucket/large/0", str(tmp_path / "file")])


def command_cp_up(tmp_path):
    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    with Quiet():
        main(["cp", str(tmp_path / "file"), "s3://my-bucket/new/file"])


def a_writer_that_is_given_up():
    try:
        with S3Checkpoint().writer("s3://my-bucket/new/given-up") as writer:
            writer.write(bytes(20 * MIB))
            raise RuntimeError("on purpose")
    except RuntimeError:
        pass


def epoch_of_a_directory_bucket():
    assert loaded(S3MapDataset.from_prefix(f"s3://{DIRECTORY_BUCKET}/small/", transform=Bytes())) == 10
