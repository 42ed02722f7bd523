"""A process that saves checkpoints until it is killed: `python checkpoint_program.py URI ROUNDS`.

It forks a child for each round, so that torch is loaded once. A round: the child saves three checkpoints, says so, and
is killed by the test at some moment; then the parent says what can be restored.
"""

import json
import logging
import os
import sys

import torch

from s3dataset import CheckpointManager, S3ClientConfig

MIB = 1 << 20
CONFIG = S3ClientConfig(part_size=5 * MIB)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def save(uri: str, number: int) -> None:
    with CheckpointManager(uri, keep_last=2, s3client_config=CONFIG) as manager:
        newest = manager.latest() or 0
        for step in range(newest + 1, newest + 4):
            state = {"weights": torch.full((3 * MIB,), float(step)), "step": step}
            if number % 2:
                manager.save_async(step, state, dataset_state={"step": step}).result()
            else:
                manager.save(step, state, dataset_state={"step": step})
            say(json.dumps({"committed": step}))


def look(uri: str) -> dict[str, object]:
    with CheckpointManager(uri, s3client_config=CONFIG) as manager:
        restored = manager.restore()
        if restored is None:
            return {"restored": None, "latest": manager.latest()}
        step = restored.state["step"]
        return {
            "restored": restored.step,
            "latest": manager.latest(),
            "whole": bool((restored.state["weights"] == step).all()) and restored.dataset_state == {"step": step},
            "skipped": len(restored.skipped),
            "kept": [info.step for info in manager.list()],
        }


def main(uri: str, rounds: int) -> None:
    logging.disable(logging.CRITICAL)
    for number in range(rounds):
        pid = os.fork()
        if not pid:
            save(uri, number)
            os._exit(0)
        say(json.dumps({"pid": pid}))
        os.waitpid(pid, 0)
        # In a process of its own, so that the next child inherits no threads.
        reader, writer = os.pipe()
        looker = os.fork()
        if not looker:
            os.write(writer, json.dumps(look(uri)).encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(looker, 0)
        say(os.read(reader, 1 << 16).decode())
        os.close(reader)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
