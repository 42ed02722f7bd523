"""Trains on images in S3 with Lightning's Trainer, whose checkpoints go to S3; started again, it goes on.

python examples/train_lightning.py s3://bucket/images/ s3://bucket/run-4 --region us-west-2

On several GPUs: --devices 8, and on several machines --nodes 4 in an sbatch file:
    #SBATCH --nodes 4 --ntasks-per-node 8 --gpus-per-node 8 --requeue
    srun python examples/train_lightning.py s3://bucket/images/ s3://bucket/run-4 --devices 8 --nodes 4

Images lie as `<prefix>/<label>/<name>.<png or jpg>`. The loader splits the samples over the ranks by itself and keeps
its place in the checkpoint, so a run goes on in mid-epoch. Needs s3dataset[lightning,images].
"""

import argparse
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import s3dataset
from s3dataset.lightning import S3LightningCheckpoint
from s3dataset.transforms import Image, LabelFromKey, Pair


def picture(reader: Any) -> torch.Tensor:
    """A transform: an image of any size as 3 by 64 by 64. Put your augmentation here, by `s3dataset.sample_rng()`."""
    image = Image()(reader)  # Pillow's
    return torch.from_numpy(np.array(image.resize((64, 64)))).permute(2, 0, 1)


class Images(pl.LightningDataModule):
    def __init__(self, uri: str, region: str | None, batch_size: int, workers: int) -> None:
        super().__init__()
        images = s3dataset.Manifest.from_prefix(uri, pattern="**/*.{png,jpg,jpeg}", region=region)
        if not len(images):
            raise SystemExit(f"There are no images below {uri}.")
        self.classes = sorted({images.key(index).split("/")[-2] for index in range(len(images))})
        self.dataset = s3dataset.S3MapDataset.from_manifest(
            images, region=region, transform=Pair(picture, LabelFromKey(classes=self.classes))
        )
        self.options: dict[str, Any] = {"batch_size": batch_size, "shuffle": True, "num_workers": workers}

    def train_dataloader(self) -> Any:
        # Made here and not in __init__: only now are the ranks known that it splits over. Lightning keeps the loader's
        # state in its checkpoints, and loads it from there.
        return s3dataset.DataLoader(self.dataset, **self.options)


class Classifier(pl.LightningModule):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, classes)
        )

    def training_step(self, batch: Any) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.model(images.float() / 255 - 0.5), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("run", help="where checkpoints go")
    parser.add_argument("--region")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
    parser.add_argument("--workers", type=int, default=2, help="of each rank")
    parser.add_argument("--devices", type=int, default=1, help="ranks on a machine")
    parser.add_argument("--nodes", type=int, default=1)
    arguments = parser.parse_args()

    pl.seed_everything(0)
    data = Images(arguments.images, arguments.region, arguments.batch_size, arguments.workers)
    checkpoint_io = S3LightningCheckpoint(arguments.region)
    trainer = pl.Trainer(
        max_steps=arguments.steps,
        devices=arguments.devices,
        num_nodes=arguments.nodes,
        use_distributed_sampler=False,  # the loader splits
        plugins=[checkpoint_io],
        callbacks=[
            ModelCheckpoint(
                dirpath=arguments.run,
                every_n_train_steps=arguments.save_every,
                save_top_k=2,
                monitor="step",
                mode="max",
            )
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    newest = checkpoint_io.latest(arguments.run)
    if newest is not None:
        print(f"goes on from {newest}")
    trainer.fit(Classifier(len(data.classes)), datamodule=data, ckpt_path=newest)
    loss = trainer.callback_metrics.get("loss")
    if not trainer.is_global_zero:
        return
    if loss is None:
        print(f"{arguments.run} has all {arguments.steps} steps")
    else:
        print(f"step {trainer.global_step}: loss {loss:.4f}; {trainer.train_dataloader.stats()}")


if __name__ == "__main__":
    main()
