"""The fresh process: loads a checkpoint from S3, validates, and prints one line of JSON.

`python -m s3dataset._demo.evaluate --uri s3://bucket/prefix/ --checkpoint s3://... [--region R] [--endpoint URL]`
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import IO, cast

import torch

import s3dataset
from s3dataset._demo.data import split_images, validation_batches
from s3dataset._demo.model import DigitNet, use_one_thread, validate
from s3dataset._demo.place import Place

TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a fresh process found."""

    epoch: int
    correct: int
    samples: int


def evaluate_in_fresh_process(place: Place, checkpoint_uri: str) -> Evaluation:
    """Starts a Python that knows nothing of this one but the URI.

    Raises:
        RuntimeError: It failed; its own words went to standard error.
    """
    command = [sys.executable, "-m", "s3dataset._demo.evaluate", "--uri", place.uri, "--checkpoint", checkpoint_uri]
    for option, value in (("--region", place.region), ("--endpoint", place.endpoint), ("--profile", place.profile)):
        command += [option, value] if value else []
    # In a session of its own, so that Ctrl-C comes to one process only, which then ends this one.
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False, start_new_session=True
    )
    if done.returncode:
        raise RuntimeError(f"the fresh process that loads {checkpoint_uri} failed (exit {done.returncode})")
    return Evaluation(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Loads the demo's checkpoint from S3 and validates it.")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--region")
    parser.add_argument("--endpoint")
    parser.add_argument("--profile")
    arguments = parser.parse_args()
    place = Place(arguments.uri, arguments.region, arguments.endpoint, arguments.profile)
    with s3dataset.S3Checkpoint(**place.connection).reader(arguments.checkpoint) as reader:
        state = torch.load(cast("IO[bytes]", reader), weights_only=True)
    use_one_thread()
    model = DigitNet()
    model.load_state_dict(state["model"])
    _, batches = validation_batches(place, split_images(place)["val"], workers=0)
    result = validate(model, batches)
    print(json.dumps({"epoch": state["epoch"], "correct": result.correct, "samples": result.samples}))


if __name__ == "__main__":
    main()
