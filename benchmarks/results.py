"""The dated results, as JSON files in `results/`, and what is read out of them."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "results"
OURS = ("s3dataset", "s3dataset.DataLoader")
DROP_IN = "s3torchconnector"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else ""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Figure:
    """What one client did in one case."""

    client: str
    row: dict[str, Any]
    case: Case

    @property
    def rate(self) -> float:
        """MB/s, or items a second, as the case's unit says."""
        amount = self.row["bytes"] / 1e6 if self.case.unit == "MB/s" else self.row["items"]
        return float(amount / self.row["wall_s"])

    @property
    def cpu(self) -> float | None:
        """CPU seconds a GB for large bodies, CPU microseconds an item otherwise."""
        if "cpu_s" not in self.row:
            return None
        if self.case.unit == "MB/s":
            return float(self.row["cpu_s"] / self.row["bytes"] * 1e9)
        return float(self.row["cpu_s"] / self.row["items"] * 1e6)

    @property
    def cpu_text(self) -> str:
        if self.cpu is None:
            return "–"
        return f"{self.cpu:.2f}" if self.cpu < 10 else f"{self.cpu:,.0f}"

    @property
    def cpu_unit(self) -> str:
        return "CPU s/GB" if self.case.unit == "MB/s" else f"CPU µs/{self.case.unit.removesuffix('s/s')}"

    @property
    def peak_mb(self) -> float:
        return float(self.row["peak_over_base_bytes"] / 1e6)


@dataclass(frozen=True, slots=True)
class Results:
    """One run of the benchmarks."""

    content: dict[str, Any]

    @property
    def date(self) -> str:
        return str(self.content["date"])[:10]

    def figures(self, case: Case) -> list[Figure]:
        """Those who took part, fastest first."""
        rows = [row for row in self.content["results"] if row["case"] == case.name and "wall_s" in row]
        return sorted((Figure(row["client"], row, case) for row in rows), key=lambda figure: -figure.rate)

    def ours(self, case: Case) -> Figure | None:
        return next((figure for figure in self.figures(case) if figure.client in OURS), None)

    def best_peer(self, case: Case) -> Figure | None:
        return next((figure for figure in self.figures(case) if figure.client not in OURS), None)

    def of(self, case: Case, client: str) -> Figure | None:
        return next((figure for figure in self.figures(case) if figure.client == client), None)

    def cases(self) -> list[Case]:
        return [case for case in CASES if self.figures(case)]

    def save(self) -> Path:
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{datetime.now(UTC):%Y-%m-%d-%H%M}.json"
        path.write_text(json.dumps(self.content, indent=1) + "\n")
        return path


def newest() -> Results:
    """The newest run of all cases.

    Raises:
        FileNotFoundError: There is none.
    """
    for path in sorted(FOLDER.glob("*.json"), reverse=True):
        content = json.loads(path.read_text())
        if content["complete"]:
            return Results(content)
    raise FileNotFoundError(f"no complete results in {FOLDER}: run `make bench`")
