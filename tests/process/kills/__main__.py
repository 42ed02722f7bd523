"""`make kills`: every wait, every ending, a server that is silent and one that is slow; prints the matrix."""

import argparse
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.process.kills.cells import Cell, Manner, applies, fill, run_cell
from tests.process.kills.endings import ENDINGS, Ending
from tests.process.kills.waits import BUCKET, WAITS, Wait
from tqdm import tqdm

from s3dataset.testing import LocalS3

MANNERS: tuple[Manner, ...] = ("silent", "slow")


def run_row(wait: Wait, manners: tuple[Manner, ...], endings: list[Ending]) -> list[Cell]:
    with LocalS3(BUCKET, activate=False) as server:
        fill(server)
        fitting = [ending for ending in endings if applies(wait, ending)]
        return [run_cell(server, wait, ending, manner) for manner in manners for ending in fitting]


def table(cells: list[Cell], manner: Manner, waits: list[Wait], endings: list[Ending]) -> str:
    """Rows are waits, columns endings; seconds to the end of the last process, ✗ where something is wrong."""
    width = max(len(wait.title) for wait in waits)
    lines = [f"\nThe server is {manner}"]
    lines += [f"{' ' * width}  {i + 1} {ending.title}" for i, ending in enumerate(endings)]
    lines.append(" " * width + "".join(f"{i + 1:>7}" for i in range(len(endings))))
    for wait in waits:
        row = {cell.ending: cell for cell in cells if cell.wait == wait.title and cell.manner == manner}
        marks = [row.get(ending.title) for ending in endings]
        texts = ["" if cell is None else "✗" if cell.wrong else f"{cell.seconds:.1f}" for cell in marks]
        lines.append(f"{wait.title:<{width}}" + "".join(f"{text:>7}" for text in texts))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make kills", description=__doc__)
    parser.add_argument("--manner", choices=MANNERS, help="half of the matrix")
    parser.add_argument("--wait", default="", help="waits whose title contains this")
    parser.add_argument("--ending", default="", help="endings whose title contains this")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; programs inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    manners: tuple[Manner, ...] = (arguments.manner,) if arguments.manner else MANNERS
    waits = [wait for wait in WAITS if arguments.wait in wait.title]
    endings = [ending for ending in ENDINGS if arguments.ending in ending.title]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = pool.map(lambda wait: run_row(wait, manners, endings), waits)
        cells = [cell for row in tqdm(rows, total=len(waits), unit="row") for cell in row]
    for manner in manners:
        print(table(cells, manner, waits, endings))
    wrong = [cell for cell in cells if cell.wrong]
    for cell in wrong:
        print(f"✗ {cell.wait}, {cell.manner}, {cell.ending}: {cell.wrong}")
    print(f"\n{len(cells)} cells in {time.monotonic() - began:.0f} s, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
