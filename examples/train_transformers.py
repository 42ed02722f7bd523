r"""Trains a language model with Hugging Face's Trainer, or with Accelerate, on JSONL shards; checkpoints go to S3.

python examples/train_transformers.py s3://bucket/jsonl/ s3://bucket/run-5 --region us-west-2
accelerate launch --num_processes 8 examples/train_transformers.py s3://bucket/jsonl/ s3://bucket/run-5 --accelerate

With Slurm:
    #SBATCH --nodes 4 --ntasks-per-node 1 --gpus-per-node 8 --requeue
    srun torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID \
        --rdzv-endpoint $(scontrol show hostnames $SLURM_JOB_NODELIST | head -1):29500 \
        examples/train_transformers.py s3://bucket/jsonl/ s3://bucket/run-5

Started again, it goes on from the newest checkpoint in S3, in mid-epoch. Needs transformers and accelerate.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import accelerate
import torch
import transformers
from torch import nn

import s3dataset

END = 256  # the token behind a document; the others are bytes
IGNORED = -100  # as a label


class Tokens:
    """A transform: so many tokens of a document, and what the model is to say. Put your tokenizer here."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        tokens = torch.tensor([*sample["text"].encode(), END][: self.length])
        rest = (0, self.length - len(tokens))
        return {
            "input_ids": nn.functional.pad(tokens, rest, value=END),
            "labels": nn.functional.pad(tokens, rest, value=IGNORED),  # the model shifts them by itself
        }


def make_loader(arguments: argparse.Namespace) -> Any:
    """Documents, split over the ranks. The last step of an epoch is filled up, so that all ranks take as many."""
    documents = s3dataset.S3IterableDataset.from_prefix(
        arguments.shards,
        pattern="*.jsonl*",
        format="jsonl",
        transform=Tokens(arguments.length),
        shuffle=s3dataset.Shuffle(seed=0),
        enable_sharding=s3dataset.Split(tail="pad"),
        region=arguments.region,
    )
    return s3dataset.DataLoader(documents, arguments.batch_size, num_workers=arguments.workers)


def make_model(length: int) -> Any:
    config = transformers.GPT2Config(
        vocab_size=END + 1, n_positions=length, n_embd=64, n_layer=2, n_head=4, bos_token_id=END, eos_token_id=END
    )
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config)


class Checkpoints(transformers.TrainerCallback):
    """Saves model, optimizer, schedule and the loader's place to S3, instead of Trainer's folders."""

    def __init__(self, arguments: argparse.Namespace, manager: s3dataset.CheckpointManager, loader: Any) -> None:
        self.every = arguments.save_every
        self.manager = manager
        self.loader = loader
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:  # noqa: ARG002 - Trainer's
        state.global_step = self.first_step

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:  # noqa: ARG002 - Trainer's
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            parts = {name: objects[name].state_dict() for name in ("model", "optimizer", "lr_scheduler")}
            self.manager.save_async(state.global_step, parts, dataset_state=s3dataset.gather_state(self.loader))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **objects: Any) -> None:  # noqa: ARG002 - Trainer's
        if state.is_world_process_zero and "loss" in logs:
            print(f"step {state.global_step}: loss {float(logs['loss']):.3f}")


class Batches:
    """The loader's batches alone: its epochs go on behind a state, where Trainer would set them to count from 0."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter(self.loader)


class Trainer(transformers.Trainer):
    """Takes the batches as they come: they are split over the ranks already."""

    def __init__(self, batches: Batches, **options: Any) -> None:
        super().__init__(**options)
        self.batches = batches
        self.first_step = 0

    def get_train_dataloader(self) -> Any:
        return self.batches

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs, without the steps before a restart, which Trainer counts in its mean losses."""
        taken = self.state.global_step - self.first_step
        for name in ("loss", "train_loss"):
            if name in logs and (name == "train_loss" or taken <= self.args.logging_steps):
                logs[name] *= self.state.global_step / taken
        super().log(logs, start_time)


def with_trainer(arguments: argparse.Namespace, manager: s3dataset.CheckpointManager) -> None:
    options = transformers.TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.batch_size,
        logging_steps=5,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),  # or ranks without GPUs would not know of each other
    )
    loader, model = make_loader(arguments), make_model(arguments.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, arguments.steps)
    checkpoints = Checkpoints(arguments, manager, loader)
    trainer = Trainer(
        Batches(loader), model=model, args=options, optimizers=(optimizer, schedule), callbacks=[checkpoints]
    )
    restored = manager.restore(map_location=options.device)
    if restored is not None:
        if options.process_index == 0:
            print(f"goes on behind step {restored.step}")
        model.load_state_dict(restored.state["model"])
        optimizer.load_state_dict(restored.state["optimizer"])
        schedule.load_state_dict(restored.state["lr_scheduler"])
        loader.load_state_dict(restored.dataset_state)
        checkpoints.first_step = trainer.first_step = restored.step
        if restored.step >= arguments.steps:
            return  # Trainer would take another step before it looks
    trainer.train()


def with_accelerate(arguments: argparse.Namespace, manager: s3dataset.CheckpointManager) -> None:
    accelerator = accelerate.Accelerator(cpu=not torch.cuda.is_available())
    loader, model = make_loader(arguments), make_model(arguments.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step = 0
    restored = manager.restore()
    if restored is not None:
        model.load_state_dict(restored.state["model"])
        optimizer.load_state_dict(restored.state["optimizer"])
        loader.load_state_dict(restored.dataset_state)
        step = restored.step
        accelerator.print(f"goes on behind step {step}")
    # Not the loader: it splits over the ranks by itself.
    model, optimizer = accelerator.prepare(model, optimizer)
    while step < arguments.steps:
        begun = step
        for batch in loader:
            loss = model(**{name: tokens.to(accelerator.device) for name, tokens in batch.items()}).loss
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            step += 1
            if step % arguments.save_every == 0 or step == arguments.steps:
                state = {
                    "model": accelerator.unwrap_model(model).state_dict(),
                    "optimizer": optimizer.state_dict(),
                }
                manager.save_async(step, state, dataset_state=s3dataset.gather_state(loader))
                accelerator.print(f"step {step}: loss {loss.item():.3f}")
            if step == arguments.steps:
                break
        if step == begun:
            raise SystemExit(f"{arguments.shards} holds no documents.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="where the JSONL shards lie, with an index (s3dataset index)")
    parser.add_argument("run", help="where checkpoints go")
    parser.add_argument("--region")
    parser.add_argument("--accelerate", action="store_true", help="a loop of one's own instead of Trainer")
    parser.add_argument("--length", type=int, default=256, help="tokens of a document (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="of each rank (%(default)s)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()

    train = with_accelerate if arguments.accelerate else with_trainer
    with s3dataset.CheckpointManager(arguments.run, region=arguments.region) as manager:
        train(arguments, manager)


if __name__ == "__main__":
    main()
