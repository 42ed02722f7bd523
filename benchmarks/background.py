"""What `S3Checkpoint.save_async` costs a loop that keeps a Python thread busy: `python -m benchmarks.background`.

The loop counts in Python, and saves 2 GiB once in `INTERVAL_S`: the call's stall beside what copying the state and
computing its CRC take by themselves, how long the save goes on in the background, and how much of the loop's time it
costs, stall included, by the loop's rate just before and after.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks import servers
from benchmarks.data import GIB
from benchmarks.results import machine

SIZE, TENSORS = 2 * GIB, 200
INTERVAL_S = 20.0
ROUNDS = 5


def state_dict(torch: Any) -> Any:
    return {f"layers.{i}": torch.full((SIZE // TENSORS // 4,), float(i)) for i in range(TENSORS)}


def loop(until: Callable[[], bool]) -> tuple[int, float]:
    """A loop that never waits -> its rounds, and how long they took."""
    rounds, began = 0, time.perf_counter()
    while not until():
        for _ in range(200):
            sum(range(200))
        rounds += 200
    return rounds, time.perf_counter() - began


def loop_for(seconds: float) -> tuple[int, float]:
    end = time.perf_counter() + seconds
    return loop(lambda: time.perf_counter() >= end)


def copy_and_checksum_s(state: Any, torch: Any) -> tuple[float, float]:
    import binascii

    targets = [torch.empty_like(tensor).fill_(1) for tensor in state.values()]
    began = time.perf_counter()
    for target, tensor in zip(targets, state.values(), strict=True):
        target.copy_(tensor)
    copied = time.perf_counter() - began
    began = time.perf_counter()
    for tensor in state.values():
        binascii.crc32(tensor.numpy())
    return copied, time.perf_counter() - began


def main() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(servers.local_s3(None))
        os.environ |= server.environment
        import torch

        import s3dataset

        checkpoint = s3dataset.S3Checkpoint(servers.REGION, endpoint=server.endpoint)
        state = state_dict(torch)
        checkpoint.save_async(state, "s3://sink/warm-up").result()  # later ones have the memory of its snapshot
        rows = []
        for _ in range(ROUNDS):
            copied, crc = copy_and_checksum_s(state, torch)
            before = loop_for(INTERVAL_S / 2)
            began = time.perf_counter()
            future = checkpoint.save_async(state, "s3://sink/model")
            stall = time.perf_counter() - began
            beside = loop(future.done)
            saved = time.perf_counter() - began
            after = loop_for(INTERVAL_S / 2)
            rate = (before[0] + after[0]) / (before[1] + after[1])
            lost = saved - beside[0] / rate
            row = {"copy_s": copied, "crc_s": crc, "stall_s": stall, "saved_s": saved, "lost_s": lost}
            rows.append({**row, "slowed": lost / (before[1] + saved + after[1])})
        medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        print(json.dumps({"machine": machine(), "interval_s": INTERVAL_S, "rounds": rows}), file=sys.stderr)
        print(
            f"{SIZE / GIB:.0f} GiB: the call takes {medians['stall_s']:.2f} s (copying {medians['copy_s']:.2f} s, CRC "
            f"{medians['crc_s']:.2f} s), the save {medians['saved_s']:.2f} s; a busy loop that saves every "
            f"{INTERVAL_S:.0f} s loses {medians['lost_s']:.2f} s of them, {medians['slowed']:.1%}"
        )


if __name__ == "__main__":
    main()
