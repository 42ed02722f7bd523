"""Transforms that worker processes import."""

import os
import time
from typing import Any

__all__ = ["both", "drop_odd", "end", "fail_at_seven", "kill", "shout", "slowly"]


def shout(sample: dict[str, Any]) -> dict[str, Any]:
    print("a transform that prints")  # noqa: T201
    return {**sample, "txt": sample["txt"].upper()}


def drop_odd(sample: dict[str, Any]) -> dict[str, Any] | None:
    return None if int(sample["__key__"][-1]) % 2 else sample


def both(sample: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**sample, "__key__": f"{sample['__key__']}-{side}"} for side in "ab"]


def fail_at_seven(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["__key__"].endswith("7"):
        raise KeyError("no seven")
    return sample


def end(sample: dict[str, Any]) -> dict[str, Any]:
    os.kill(os.getpid(), 15)
    return sample


def kill(sample: dict[str, Any]) -> dict[str, Any]:
    os.kill(os.getpid(), 9)
    return sample


def slowly(sample: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.02)
    return sample
