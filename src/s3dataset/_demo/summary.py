"""The few lines at the end: how much was read, how fast, and where the time went."""

from collections.abc import Sequence
from pathlib import Path

from s3dataset._demo.training import Clock, Trained, Training

BAR_WIDTH = 32
READING = ("training: waiting for data", "training: computing", "validation")


def print_summary(training: Training, trained: Trained, clock: Clock, pictures: Sequence[Path]) -> None:
    """Prints it; figures of the workers are summed over them."""
    reading = training.dataset.stats(), training.validation_dataset.stats()
    samples, num_bytes, requests, retries, throttles = (
        sum(getattr(stats, name) for stats in reading)
        for name in ("samples", "bytes", "requests", "retries", "throttles")
    )
    seconds = sum(clock.seconds.get(name, 0.0) for name in READING)
    network_s = sum(stats.network_wait_s for stats in reading)
    transform_s = sum(stats.transform_s for stats in reading)

    print("\nSummary")
    line("model", f"{trained.parameters:,} parameters, {trained.validation.accuracy:.2%} right in validation")
    rate = f"{samples / seconds:,.0f} samples/s, {num_bytes / seconds / 1e6:.2f} MB/s"
    line("read", f"{samples:,} samples in {seconds:.1f} s: {rate}")
    each = f"{requests / max(samples, 1):.2f} a sample"
    line("requests", f"{requests:,} by the datasets ({each}), {retries} retries, {throttles} throttles")
    line("workers", f"{network_s:.1f} s waiting for the network, {transform_s:.1f} s decoding, summed over them")
    total = sum(clock.seconds.values())
    print("\n  where the time went")
    for name, spent in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        bar = "█" * round(BAR_WIDTH * spent / total) or "▏"
        print(f"    {name:27} {spent:6.2f} s  {bar}")
    print()
    for path in pictures:
        print(f"  drawn: {path}")


def line(name: str, text: str) -> None:
    print(f"  {name:10} {text}")
