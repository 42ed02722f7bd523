"""A sample of the fault matrix; `make faults` runs all of it."""

from collections.abc import Iterator

import pytest
from tests.faults.matrix.cells import Lasting, run_cell
from tests.faults.matrix.plan import PLAN, Row, applies
from tests.faults.matrix.uses import BUCKET, USES, World

from s3dataset.testing import LocalS3

SAMPLE = [
    (row, lasting) for i, row in enumerate(PLAN) for lasting in ("once", "for good") if lasting == "once" or i % 4 == 0
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with LocalS3(BUCKET) as server:
        yield World(server)


@pytest.mark.parametrize(("row", "lasting"), SAMPLE, ids=[f"{row.title}, {lasting}" for row, lasting in SAMPLE])
def test_two_uses_of_each_fault(world: World, row: Row, lasting: Lasting) -> None:
    fitting = [use for use in USES if applies(row, use)]
    first = PLAN.index(row)
    for use in {fitting[first % len(fitting)], fitting[(3 * first + 7) % len(fitting)]}:
        cell = run_cell(world, row, use, lasting)
        assert not cell.wrong, cell
