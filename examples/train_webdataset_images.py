"""Packs images from folders into WebDataset shards, and trains on these with augmentation.

python examples/train_webdataset_images.py s3://bucket/images/ s3://bucket/shards/ s3://bucket/run-3 --region us-west-2

Images lie as `<prefix>/<label>/<name>.<jpg or png>`. The first start packs them, 256 MiB a shard, with an index beside
them; later starts find that. Single images cost a request each; shards are read by the block, tens of thousands of
samples a second. What is random about a sample comes from `sample_rng`, so a run that was stopped goes on with the very
pictures that it would have seen.
"""

import argparse
import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

import s3dataset
from s3dataset.transforms import Decode, Image, LabelFromKey


class Augmented:
    """A transform: an image of `size` by `size`, cut out and flipped at random, and its label."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.decode = Decode(image=Image(output="numpy"))

    def __call__(self, sample: Mapping[str, Any]) -> tuple[torch.Tensor, int]:
        fields = self.decode(sample)
        image = next(value for name, value in fields.items() if name.rsplit(".")[-1] in {"jpg", "jpeg", "png"})
        rng = s3dataset.sample_rng()  # belongs to seed, epoch and sample, whichever worker makes it
        image = np.pad(image, ((self.size // 8, self.size), (self.size // 8, self.size), (0, 0)), mode="symmetric")
        top, left = rng.integers(0, self.size // 4 + 1, 2)
        image = image[top : top + self.size, left : left + self.size]
        if rng.random() < 0.5:
            image = image[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1), fields["cls"]


def pack(arguments: argparse.Namespace) -> s3dataset.Manifest:
    """The shards, made if they are not there yet. A pack that was interrupted goes on where it stopped."""
    with contextlib.suppress(s3dataset.ObjectNotFoundError):
        return s3dataset.Manifest.load(
            s3dataset.Manifest.index_location(arguments.shards, "tar"), region=arguments.region
        )
    images = s3dataset.Manifest.from_prefix(arguments.images, pattern="**/*.{png,jpg,jpeg}", region=arguments.region)
    if not len(images):
        raise SystemExit(f"There are no images below {arguments.images}.")
    classes = sorted({images.key(index).split("/")[-2] for index in range(len(images))})
    packed = s3dataset.pack(images, arguments.shards, label=LabelFromKey(classes=classes), region=arguments.region)
    print(f"packed {packed.num_samples:,} images of {len(classes)} classes into {packed.num_objects:,} shards")
    return packed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folders of images, each named like its label")
    parser.add_argument("shards", help="where the shards go, or are")
    parser.add_argument("run", help="where checkpoints go")
    parser.add_argument("--region")
    parser.add_argument("--classes", type=int, default=1000, help="at most (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="of the images trained on (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    dataset = s3dataset.S3IterableDataset.from_manifest(
        pack(arguments), transform=Augmented(arguments.size), shuffle=s3dataset.Shuffle(seed=1), region=arguments.region
    )
    loader = s3dataset.DataLoader(dataset, arguments.batch_size, num_workers=arguments.workers)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, arguments.classes),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with s3dataset.CheckpointManager(arguments.run, region=arguments.region) as manager:
        restored = manager.restore(map_location=device)
        epoch = 0
        if restored is not None:
            model.load_state_dict(restored.state["model"])
            optimizer.load_state_dict(restored.state["optimizer"])
            loader.load_state_dict(restored.dataset_state)
            epoch = restored.step
            print(f"goes on behind epoch {epoch}")
        while epoch < arguments.epochs:
            losses = []
            for images, labels in loader:
                loss = nn.functional.cross_entropy(model(images.to(device).float() / 255 - 0.5), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            epoch += 1  # the loader's state behind the last batch is the beginning of the next epoch
            print(f"epoch {epoch}: loss {np.mean(losses):.3f}")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            manager.save_async(epoch, state, dataset_state=loader.state_dict())
    print(loader.stats())


if __name__ == "__main__":
    main()
