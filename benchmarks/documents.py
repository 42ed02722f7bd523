"""README's table and docs/performance.md, from the newest complete results: `make bench-docs`."""

from pathlib import Path

from benchmarks import chart
from benchmarks.cases import Case
from benchmarks.results import DROP_IN, OURS, ROOT, Figure, Results, newest

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
LEVEL = 1.1  # less than that is called level


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def times(ours: Figure, other: Figure | None) -> str:
    if other is None:
        return "–"
    ratio = ours.rate / other.rate
    if ratio >= 20:
        return f"{ratio:,.0f} ×"
    return f"{ratio:.1f} ×" if ratio >= LEVEL else f"{ratio:.2f} ×"


def cpu_share(ours: Figure, other: Figure | None) -> str:
    if other is None or not ours.cpu or not other.cpu:
        return "–"
    return f"{ours.cpu / other.cpu:.2f} ×"


def conditions(results: Results) -> str:
    machine, versions = results.content["machine"], results.content["versions"]
    peers = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"{results.date}, {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}; {peers}. Client and server share the machine "
        f"({results.content['servers']}), so absolute figures say less than ratios."
        + (f" {note}" if (note := results.content.get("note")) else "")
    )


def readme_table(results: Results) -> str:
    rows = []
    for case in results.cases():
        ours, best = results.ours(case), results.best_peer(case)
        if ours is not None and best is not None:
            drop_in = times(ours, results.of(case, DROP_IN))
            beside_best = f"{times(ours, best)} ({best.client})"
            rows.append([case.title, f"{ours.rate:,.0f} {case.unit}", drop_in, beside_best, cpu_share(ours, best)])
    head = ["", "s3dataset", f"beside {DROP_IN}", "beside the best peer", "CPU beside the best peer"]
    return "\n\n".join(
        [
            table(head, rows),
            conditions(results)
            + " Everything, with CPU, memory and requests: [docs/performance.md](docs/performance.md). "
            "`make bench` measures it on your machine.",
        ]
    )


def case_section(results: Results, case: Case) -> str:
    figures = results.figures(case)
    rows = []
    for figure in figures:
        name = f"**{figure.client}**" if figure.client in OURS else figure.client
        per_item = figure.row["requests"] / figure.row["items"]
        requests = f"{figure.row['requests']:,}" + (
            f" ({per_item:.2f} each)" if figure.row["items"] > 1 and not case.name.startswith("list") else ""
        )
        rows.append([name, f"{figure.rate:,.0f}", figure.cpu_text, f"{figure.peak_mb:,.0f}", requests])
    head = ["client", case.unit, figures[0].cpu_unit, "peak memory over the start, MB", "requests a round"]
    text = f"### {case.title[0].upper()}{case.title[1:]}\n\n{table(head, rows)}"
    missing = [row for row in results.content["results"] if row["case"] == case.name and "wall_s" not in row]
    for row in missing:
        why = "cannot" if row.get("unsupported") else f"failed: {row['error']}"
        text += f"\n\n{row['client']}: {why}"
    return text


def level_or_slower(results: Results) -> str:
    lines = []
    for case in results.cases():
        ours, best = results.ours(case), results.best_peer(case)
        if ours is not None and best is not None and ours.rate < LEVEL * best.rate:
            lines.append(f"- {case.title}: {ours.rate / best.rate:.2f} × {best.client}")
    return "\n".join(lines) or "In this run, in no case."


def performance_page(results: Results) -> str:
    sections = "\n\n".join(case_section(results, case) for case in results.cases())
    return f"""# Performance

This page is made by `make bench-docs` from `benchmarks/results/`; how the figures come about stands in
[benchmarks/README.md](../benchmarks/README.md).

{conditions(results)}

Medians of up to {results.content["rounds"]} rounds; each body read is compared with what was written, in a round
that is not timed. "25 ms away" means a server that waits 25 ms before the first byte and paces each connection to
90 MB/s, about what a client sees of S3 within Amazon's network.

![Throughput of each client in each case](performance.png)

## Where it is level or slower

{level_or_slower(results)}

## Case by case

{sections}
"""


def fill_readme(results: Results) -> None:
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{readme_table(results)}\n{END}{after}")


def main() -> None:
    results = newest()
    fill_readme(results)
    (ROOT / "docs" / "performance.md").write_text(performance_page(results))
    chart.draw(results, ROOT / "docs" / "performance.png")
    for path in ("README.md", "docs/performance.md", "docs/performance.png"):
        print(f"written: {Path(path)}")


if __name__ == "__main__":
    main()
