"""`make faults`: every fault in every use, once and for good; prints the matrix. Rows run in processes of their own."""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from tests.faults.matrix.cells import Cell, run_cell
from tests.faults.matrix.plan import PLAN, applies
from tests.faults.matrix.uses import BUCKET, USES, World
from tqdm import tqdm

from s3dataset.testing import LocalS3

ROW_TIMEOUT_S = 1200
LASTING = ("once", "for good")


def run_row(number: int, lasting: str) -> None:
    row = PLAN[number]
    with LocalS3(BUCKET) as server:
        for use in USES:
            if applies(row, use):
                print(json.dumps(asdict(run_cell(World(server), row, use, lasting))), flush=True)  # type: ignore[arg-type]


def row_in_process(task: tuple[int, str]) -> list[Cell]:
    number, lasting = task
    command = [sys.executable, "-m", "tests.faults.matrix", "--row", str(number), "--lasting", lasting]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stdout, stderr = process.communicate(timeout=ROW_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        stderr += "\nHANGS"
    cells = [Cell(**json.loads(line)) for line in stdout.splitlines() if line.startswith("{")]
    if process.returncode:
        wanted = [use for use in USES if applies(PLAN[number], use)]
        title = wanted[len(cells)].title if len(cells) < len(wanted) else "at the end"
        last = (stderr.strip().splitlines() or [f"exit {process.returncode}"])[-1]
        cells.append(Cell(PLAN[number].title, title, lasting, "DIED", last, 0.0))  # type: ignore[arg-type]
    return cells


def table(cells: list[Cell], lasting: str) -> str:
    """Rows are faults, columns uses: · right, the exception's initials, ✗ wrong, blank where it makes no sense."""
    by_place = {(cell.row, cell.use): cell for cell in cells if cell.lasting == lasting}
    width = max(len(row.title) for row in PLAN)
    lines = [f"\nThe fault happens {lasting}"]
    lines += [f"{' ' * width}  {i + 1:>2} {use.title}" for i, use in enumerate(USES)]
    lines.append(" " * width + "".join(f"{i + 1:>5}" for i in range(len(USES))))
    for row in PLAN:
        marks = []
        for use in USES:
            cell = by_place.get((row.title, use.title))
            if cell is None:
                mark = ""
            elif cell.wrong:
                mark = "✗"
            elif cell.outcome == "right":
                mark = "·"
            else:
                mark = "".join(c for c in cell.outcome.removesuffix("Error") if c.isupper())
            marks.append(f"{mark:>5}")
        lines.append(f"{row.title:<{width}}{''.join(marks)}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--lasting", choices=LASTING, help="half of the matrix")
    parser.add_argument("--only", default="", help="rows whose title contains this")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.row is not None:
        run_row(arguments.row, arguments.lasting)
        return 0
    began = time.monotonic()
    halves = [arguments.lasting] if arguments.lasting else LASTING
    tasks = [(n, lasting) for lasting in halves for n, row in enumerate(PLAN) if arguments.only in row.title]
    cells: list[Cell] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for row in tqdm(pool.map(row_in_process, tasks), total=len(tasks), unit="row"):
            cells += row
    names = sorted({cell.outcome for cell in cells} - {"right", "wrong"})
    for lasting in halves:
        print(table(cells, lasting))
    print("\n· right; " + ", ".join(f"{''.join(c for c in n.removesuffix('Error') if c.isupper())} {n}" for n in names))
    wrong = [cell for cell in cells if cell.wrong]
    for cell in wrong:
        print(f"✗ {cell.row}, {cell.lasting}, {cell.use}: {cell.outcome}: {cell.wrong}")
    slowest = max(cells, key=lambda cell: cell.seconds)
    print(
        f"\n{len(cells)} cells in {time.monotonic() - began:.0f} s, {len(wrong)} wrong; "
        f"the slowest took {slowest.seconds:.1f} s ({slowest.row}, {slowest.lasting}, {slowest.use})"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
