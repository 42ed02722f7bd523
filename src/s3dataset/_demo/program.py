"""The demo from its first line to its summary."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

import s3dataset
from s3dataset._demo import images
from s3dataset._demo.data import split_images
from s3dataset._demo.evaluate import Evaluation, evaluate_in_fresh_process
from s3dataset._demo.figures import draw_samples, draw_training
from s3dataset._demo.model import use_one_thread
from s3dataset._demo.place import DeclinedError, Place, local_place, own_place
from s3dataset._demo.summary import print_summary
from s3dataset._demo.training import Clock, Settings, Trained, Training
from s3dataset._uri import S3Uri

WANTED_ACCURACY = 0.97
FULL_EPOCHS = 8  # fewer, asked for on the command line, may stay below it


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    uri: str | None
    region: str | None
    endpoint: str | None
    profile: str | None
    yes: bool
    keep: bool
    epochs: int
    workers: int
    output: Path

    def place(self) -> AbstractContextManager[Place]:
        if self.uri is None:
            return local_place()
        return own_place(
            self.uri,
            region=self.region,
            endpoint=self.endpoint,
            profile=self.profile,
            yes=self.yes,
            keep=self.keep,
        )


def run_demo(options: Options) -> int:
    """Runs the demo; -> 0, or 1 when the accuracy is not what it should be, 2 when the user declined."""
    print(f"s3dataset {s3dataset.__version__}: a training run from S3 and back\n")
    try:
        with options.place() as place:
            return train_and_show(place, options)
    except DeclinedError as reason:
        print(reason)
        return 2


def train_and_show(place: Place, options: Options) -> int:
    settings = Settings(epochs=options.epochs, workers=options.workers)
    torch.manual_seed(settings.seed)
    use_one_thread()
    clock = Clock()
    with clock.phase("upload"):
        objects, uploaded_bytes = images.upload(place)
    print(f"uploaded {objects:,} pictures, {uploaded_bytes / 1e6:.1f} MB, below {place.uri}")
    with clock.phase("listing"):
        manifests = split_images(place)
    train_size, valid_size = len(manifests["train"]), len(manifests["val"])
    print(f"listed them: {train_size:,} digits to train on, {valid_size} to validate with\n")

    training = Training(place, manifests, settings, clock)
    trained = training.run(print)
    with clock.phase("fresh process"):
        evaluation = evaluate_in_fresh_process(place, trained.checkpoint_uri)
    print(f"\na fresh process loaded {trained.checkpoint_uri}: {verdict(trained, evaluation)}")
    with clock.phase("figures"):
        pictures = draw(place, trained, options.output)
    print_summary(training, trained, clock, pictures)
    return status(trained, evaluation)


def verdict(trained: Trained, evaluation: Evaluation) -> str:
    found = (
        f"{evaluation.correct} of {evaluation.samples} right ({evaluation.correct / max(evaluation.samples, 1):.2%})"
    )
    if evaluation.correct == trained.validation.correct:
        return f"{found}, the very result of the training"
    return f"{found}, but the training had {trained.validation.correct}: something is wrong"


def status(trained: Trained, evaluation: Evaluation) -> int:
    same = (evaluation.correct, evaluation.samples) == (trained.validation.correct, trained.validation.samples)
    return 0 if same and (trained.validation.accuracy >= WANTED_ACCURACY or len(trained.epochs) < FULL_EPOCHS) else 1


def draw(place: Place, trained: Trained, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    samples, curves = folder / "samples.png", folder / "training.png"
    source = f"s3dataset {s3dataset.__version__}, {place.images}"
    draw_samples(samples, trained.validation, read_photographs(place), source)
    draw_training(curves, trained.epochs, source)
    return [samples, curves]


def read_photographs(place: Place) -> list[tuple[str, Image.Image]]:
    """The photographs, back from S3."""
    client, prefix = place.client(), S3Uri.parse_prefix(place.uri)
    keys = [picture.key for picture in images.photographs()]
    bodies = client.get_many(((prefix.bucket, prefix.key + key) for key in keys), ordered=True)
    return [(key, images.decode(bytes(body))) for key, (_, body) in zip(keys, bodies, strict=True)]
