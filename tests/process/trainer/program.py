"""What a process of a training does; the module that takes long to import.

Everything in it follows from seeds and the number of the step, so that a training that was interrupted and resumed ends
with the very weights of one that was not.
"""

import json
from typing import Any

import lightning.pytorch
import pytorch_lightning
import torch
from tests.process.trainer.training import EVERY, STEPS, Training
from torch.utils.data import DataLoader

import s3dataset.fsspec
from s3dataset.lightning import S3LightningCheckpoint

DATA = torch.randn(STEPS, 4, 8, generator=torch.Generator().manual_seed(3))


def train(training: Training) -> None:
    torch.set_num_threads(1)
    s3dataset.fsspec.register()
    pl: Any = {"lightning": lightning.pytorch, "pytorch_lightning": pytorch_lightning}[training.framework]
    checkpoint_io = S3LightningCheckpoint("us-east-1")
    plugins = [] if training.by_fsspec else [checkpoint_io]
    if training.asynchronous:
        plugins = [pl.plugins.io.AsyncCheckpointIO(checkpoint_io)]
    keep = {"save_top_k": 2, "monitor": "step", "mode": "max", "every_n_train_steps": EVERY, "save_last": True}
    start = _start_of(pl)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=training.ranks,
        strategy="auto" if training.ranks == 1 else "ddp",
        max_steps=STEPS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[pl.callbacks.ModelCheckpoint(dirpath=training.directory, **keep), start],
        plugins=plugins,
    )
    model = _model_of(pl, training.width)
    resumed_from = checkpoint_io.latest(training.directory)
    trainer.fit(model, DataLoader(range(2 * STEPS)), ckpt_path=resumed_from)
    if training.ranks > 1:
        trainer.save_checkpoint(f"{training.directory}/by-hand.ckpt")  # all of them have to call it
    answer = {"from": resumed_from, "at": start.at, "to": trainer.global_step, "weights": _digest(model)}
    if trainer.is_global_zero:
        training.answer.write_text(json.dumps(answer))


def _model_of(pl: Any, width: int) -> Any:
    class Model(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.layers = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

        def training_step(self, batch: Any, index: int) -> Any:
            x = DATA[self.trainer.global_step]  # Lightning's loops resume in the middle of an epoch, its loaders do not
            return (self.layers(x) - x.sum(1, keepdim=True)).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    return Model()


def _start_of(pl: Any) -> Any:
    class Start(pl.Callback):  # type: ignore[misc]
        at = -1

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.at = trainer.global_step

    return Start()


def _digest(model: Any) -> list[float]:
    return [value for tensor in model.state_dict().values() for value in tensor.double().flatten().tolist()][:50]
