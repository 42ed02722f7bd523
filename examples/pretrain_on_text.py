"""Trains a small language model on text that lies in S3 as JSONL shards, one document with a field "text" a line.

python examples/pretrain_on_text.py s3://bucket/jsonl/ s3://bucket/run-1 --region us-west-2

Documents are shuffled, made into tokens, joined end to end and cut to one length. Checkpoints hold the model, the
optimizer and where the loader is; started again with as many workers, the program goes on from the newest (between two
epochs with any number). `s3dataset pack --format jsonl` makes such shards of single text files.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import s3dataset

END = 256  # the token between documents; the others are bytes
VOCABULARY = 257


@dataclass(frozen=True)
class Tokens:
    """A transform: the UTF-8 bytes of one field, and a token for the end. Put your tokenizer here."""

    field: str = "text"

    def __call__(self, sample: Mapping[str, Any]) -> torch.Tensor:
        return torch.tensor([*sample[self.field].encode(), END])


class LanguageModel(nn.Module):
    """A decoder-only transformer."""

    def __init__(self, length: int, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.tokens(tokens) + self.places(torch.arange(length, device=tokens.device))
        logits: torch.Tensor = self.head(self.layers(hidden, mask=mask, is_causal=True))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="where the JSONL shards lie, with an index (s3dataset index) or without")
    parser.add_argument("run", help="where checkpoints go")
    parser.add_argument("--region")
    parser.add_argument("--length", type=int, default=256, help="tokens in a sequence (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()

    documents = s3dataset.S3IterableDataset.from_prefix(
        arguments.shards, pattern="*.jsonl*", format="jsonl", transform=Tokens(), shuffle=True, region=arguments.region
    )
    # One token more than the model sees: the target of the last.
    sequences = documents.pack_sequences(arguments.length + 1, tail="drop")
    loader = s3dataset.DataLoader(sequences, batch_size=arguments.batch_size, num_workers=arguments.workers)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = LanguageModel(arguments.length).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step = 0
    with s3dataset.CheckpointManager(arguments.run, region=arguments.region) as manager:
        restored = manager.restore(map_location=device)
        if restored is not None:
            model.load_state_dict(restored.state["model"])
            optimizer.load_state_dict(restored.state["optimizer"])
            loader.load_state_dict(restored.dataset_state)
            step = restored.step
            print(f"goes on behind step {step}")
        while step < arguments.steps:
            begun = step
            for tokens in loader:
                on_device = tokens.to(device, non_blocking=True)
                logits = model(on_device[:, :-1])
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), on_device[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % arguments.save_every == 0 or step == arguments.steps:
                    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                    manager.save_async(step, state, dataset_state=loader.state_dict())
                    print(f"step {step}: loss {loss.item():.3f}")
                if step == arguments.steps:
                    break
            if step == begun:
                raise SystemExit(f"{arguments.shards} holds less than one sequence of {arguments.length + 1} tokens.")


if __name__ == "__main__":
    main()
