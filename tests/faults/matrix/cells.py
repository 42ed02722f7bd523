"""One cell of the matrix: a fault in a use, once or for good."""

import gc
import time
import warnings
from dataclasses import dataclass
from typing import Final, Literal

from tests.faults.matrix.plan import Row
from tests.faults.matrix.uses import BUCKET, OLD, Use, World

from s3dataset import errors

__all__ = ["DEADLINE_S", "Cell", "run_cell"]

DEADLINE_S: Final = 45.0
"""Far longer than any cell takes by itself with the patience of `CONFIG`."""

Lasting = Literal["once", "for good"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of it.

    Attributes:
        row: The fault's title.
        use: The use's title.
        lasting: Whether the fault stayed.
        outcome: "right", or the exception's name.
        wrong: What must not be, "" when all is well.
        seconds: How long it took.
    """

    row: str
    use: str
    lasting: Lasting
    outcome: str
    wrong: str
    seconds: float


def run_cell(world: World, row: Row, use: Use, lasting: Lasting) -> Cell:
    world.restore()
    once = lasting == "once"
    before = max((record.number for record in world.server.requests()), default=0)
    world.server.add_fault(row.make(operation=use.operation, times=1 if once else None))
    started = time.monotonic()
    outcome, wrong = "right", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use.run(world)
    except errors.S3Exception as error:
        outcome = type(error).__name__
        if once and not isinstance(error, row.may_raise):
            wrong = f"a fault that passed was not survived: {error}"
        elif f"s3://{BUCKET}" not in str(error) and not error.uri:
            wrong = f"the error names no URI: {error}"
    except AssertionError as error:
        outcome, wrong = "wrong", str(error)[:300] or "what came is wrong"
    except Exception as error:  # noqa: BLE001 - whatever a user would meet instead of an S3Exception
        outcome, wrong = type(error).__name__, f"not an S3Exception: {error!r}"[:300]
    seconds = time.monotonic() - started
    gc.collect()
    world.server.clear_faults()
    creations = len(world.server.requests("CreateMultipartUpload", after=before))
    unheard = min(creations, 1) if once else creations
    return Cell(row.title, use.title, lasting, outcome, wrong or _left(world, row, use, seconds, unheard), seconds)


def _left(world: World, row: Row, use: Use, seconds: float, unheard: int) -> str:
    """What must not be left, whatever happened; `unheard` answers to the creation of an upload may have been lost."""
    if seconds > DEADLINE_S:
        return f"it took {seconds:.0f} s"
    if use.written is not None:
        target = world.server.get(BUCKET, "target")
        if target not in (OLD, use.written):
            return f"{len(target)} bytes were published that are neither the old object nor the new one"
    uploads = world.server.uploads(BUCKET)
    if use.operation in {"CreateMultipartUpload", "*"} and 0 < len(uploads) <= unheard:
        return ""  # their creation may have been done though the answer was lost; that is reported (decision 0011)
    if row.unreachable:
        return ""
    until = time.monotonic() + 15
    while uploads and time.monotonic() < until:  # an abort may still be under way
        time.sleep(0.1)
        uploads = world.server.uploads(BUCKET)
    return f"{len(uploads)} uploads were left behind" if uploads else ""
