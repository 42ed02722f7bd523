"""Executes the notebook of `examples/`: `python tools/notebook.py [--start-method METHOD] [--check]`.

Workers are started by forkserver, in another run by fork, unless one method is named. The output of the last run is
written back; with `--check` the file stays as it is. The output must not tell which machine it came from, so that is
checked too. Needs the extra `notebook`.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "getting_started.ipynb"
MACHINE = re.compile(r"(?:/home|/root|/tmp|/work|/Users|/usr|/opt|/var)/[\w.-]+|127\.0\.0\.1:\d+|\.venv")
BEFORE = """
import multiprocessing
multiprocessing.set_start_method({method!r}, force=True)
multiprocessing.set_forkserver_preload(["torch"])
%config InlineBackend.figure_formats = ["png"]
%config InlineBackend.rc = {{"figure.dpi": 80}}
"""


class Client(NotebookClient):
    """Runs a piece of code that is no cell of the notebook before its first."""

    before = ""

    async def async_execute_cell(self, cell, cell_index, **rest):
        if cell_index == self.first_code:
            await self.kc.execute_interactive(self.before, store_history=False, silent=True)
        return await super().async_execute_cell(cell, cell_index, **rest)

    @property
    def first_code(self):
        return next(index for index, cell in enumerate(self.nb.cells) if cell.cell_type == "code")


def execute(notebook, method):
    client = Client(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.before = BEFORE.format(method=method)
    client.execute()


def tidy(notebook):
    """Leaves out what changes from run to run and says nothing."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            output.get("metadata", {}).clear()
            data = output.get("data", {})
            if "image/png" in data:
                data["text/plain"] = "<a figure>"


def told(notebook):
    """What the output tells of the machine: (number of the cell, text)."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            for text in (output.get("text", ""), output.get("data", {}).get("text/plain", "")):
                yield from ((number, found) for found in MACHINE.findall(text))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--start-method", choices=["fork", "forkserver", "spawn"], help="default: forkserver, then fork"
    )
    parser.add_argument("--check", action="store_true", help="run it, and leave the file as it is")
    arguments = parser.parse_args()
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[variable]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as settings:
        os.environ["IPYTHONDIR"] = os.environ["JUPYTER_CONFIG_DIR"] = settings
        for method in [arguments.start_method] if arguments.start_method else ["forkserver", "fork"]:
            notebook = run(method)
    if not arguments.check:
        nbformat.write(notebook, NOTEBOOK)


def run(method):
    """-> the notebook with its output, which says nothing that it should not."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    start = time.perf_counter()
    try:
        execute(notebook, method)
    except CellExecutionError as error:
        sys.exit(f"{NOTEBOOK.name}, workers by {method}:\n{error}")
    tidy(notebook)
    noise = [
        f"cell {number}: {output.text}"
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", ())
        if output.get("name") == "stderr"
    ]
    traces = [f"cell {number} tells of this machine: {text}" for number, text in told(notebook)]
    if noise or traces:
        sys.exit("\n".join([*noise, *traces]))
    print(f"{NOTEBOOK.relative_to(ROOT)}: ran in {time.perf_counter() - start:.0f} s, workers by {method}", flush=True)
    return notebook


if __name__ == "__main__":
    main()
