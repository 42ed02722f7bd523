"""Small data, and a loader of each kind whose state is kept."""

import io

import s3dataset
from s3dataset import MixedDataset, S3IterableDataset, S3MapDataset
from s3dataset.formats import Tar


def fill(server):
    """Objects and shards whose bytes, and so their ETags and fingerprints, are the same for ever."""
    for number in range(40):
        server.put("my-bucket", f"objects/{number:03}", f"object {number}".encode())
    for shard in range(5):
        file = io.BytesIO()
        with Tar().writer(file) as writer:
            for number in range(shard * 8, shard * 8 + 8):
                writer.write({"__key__": f"{number:03}", "txt": f"text {number}"})
            writer.finish()
        server.put("my-bucket", f"shards/{shard}.tar", file.getvalue())


def key_of(reader):
    return reader.key[-3:]


def key_of_sample(sample):
    return sample["__key__"]


def is_even(key):
    return int(key) % 2 == 0


def loader(dataset, **options):
    return s3dataset.DataLoader(dataset, batch_size=4, collate_fn=list, **options)


def indexed(**options):
    manifest = s3dataset.Manifest.from_prefix("s3://my-bucket/shards/").index("tar")
    return S3IterableDataset.from_manifest(manifest, transform=key_of_sample, shuffle=True, **options)


def unindexed():
    return S3IterableDataset.from_prefix("s3://my-bucket/shards/", format="tar", transform=key_of_sample, shuffle=True)


WORLDS = {
    "map": lambda: loader(S3MapDataset.from_prefix("s3://my-bucket/objects/", transform=key_of), shuffle=True),
    "objects": lambda: loader(S3IterableDataset.from_prefix("s3://my-bucket/objects/", transform=key_of, shuffle=True)),
    "indexed": lambda: loader(indexed()),
    "shards": lambda: loader(unindexed()),
    "staged": lambda: loader(unindexed().filter(is_even)),
    "mixed": lambda: loader(MixedDataset([indexed(), indexed()], [3, 1])),
}


def pack_objects():
    return s3dataset.pack("s3://my-bucket/objects/", "s3://my-bucket/packed/", shard_size=2_000, workers=0)
