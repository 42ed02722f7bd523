"""`make scale`: many processes under one limit, many shares of one dataset, very large objects; tables in Markdown."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

from benchmarks import manifest
from benchmarks.documents import table
from benchmarks.scale import picture, shares, throttling, uploads
from benchmarks.scale.shares import Epoch
from benchmarks.scale.throttling import Outcome, Setting
from s3dataset.testing import LocalS3

PARTS: Final = ("throttling", "shares", "uploads")
GB, TIB = 10**9, 1 << 40
LARGEST = 10_000 * (5 << 30)  # 48.8 TiB: parts of the largest size, as many as there may be

SLOW_DOWN: Final = Setting(limit=5500.0, slow_down_s=120.0, after_s=30.0)
SETTINGS: Final = (
    Setting(limit=5500.0),
    Setting(limit=5500.0, connections=256),
    Setting(limit=344.0),
    Setting(limit=43.0),
    Setting(limit=3500.0, kind="PUT"),
    SLOW_DOWN,
)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(table(list(head), [[str(cell) for cell in row] for row in rows]), end="\n\n", flush=True)


# -- Throttling -------------------------------------------------------------------------------------------------------


def smaller(setting: Setting) -> Setting:
    """The same with an eighth of processes and limit, and a few seconds."""
    after_s, slow_down_s = min(setting.after_s, 12.0), min(setting.slow_down_s, 5.0)
    return replace(
        setting,
        processes=8,
        limit=setting.limit / 8,
        warm_up_s=2.0,
        before_s=5.0,
        slow_down_s=slow_down_s,
        after_s=after_s,
    )


def throttled(*, small: bool, path: Path | None) -> None:
    outcomes = []
    for setting in map(smaller, SETTINGS) if small else SETTINGS:
        progress(f"throttling: {setting}")
        outcomes.append(throttling.run(setting))
    show(
        (
            "requests",
            "limit, 1/s",
            "processes x connections",
            "done, 1/s",
            "of the limit",
            "refused",
            "Jain's index",
            "slowest, fastest process",
            "retries",
            "errors",
            "CPU s",
        ),
        [row(outcome) for outcome in outcomes],
    )
    slow = next(outcome for outcome in outcomes if outcome.setting.slow_down_s)
    recovered = "not seen" if slow.recovered_s is None else f"after {slow.recovered_s:.1f} s"
    print(
        f"{slow.setting.slow_down_s:.0f} s of SlowDown: {slow.refused_in_phase:,} requests refused in it, "
        f"{len(slow.errors)} errors, 90 % of the throughput again {recovered}\n",
        flush=True,
    )
    if path:
        picture.draw(slow, path)


def row(outcome: Outcome) -> Sequence[object]:
    setting = outcome.setting
    return (
        setting.kind,
        f"{setting.limit:,.0f}",
        f"{setting.processes} x {setting.connections}",
        f"{outcome.rate:,.0f}",
        f"{outcome.share_of_limit:.0%}",
        f"{outcome.refused_share:.0%}",
        f"{outcome.jain:.3f}",
        f"{min(outcome.done):,}, {max(outcome.done):,}",
        f"{outcome.retries:,}",
        len(outcome.errors),
        f"{outcome.cpu_s:.0f}",
    )


# -- Shares -----------------------------------------------------------------------------------------------------------


def shared(*, small: bool) -> None:
    samples = 100_003 if small else 10_000_003  # no multiple of ranks x batch, so that there is a tail
    rows = []
    for kind in get_args(shares.Kind):
        for tail in get_args(shares.Tail):
            progress(f"shares: {kind}, {tail}")
            found = shares.cover(Epoch(kind=kind, samples=samples, tail=tail))
            found.check()
            rows.append(
                (
                    kind,
                    tail,
                    f"{found.once:,}",
                    f"{found.never:,}",
                    f"{found.repeats:,}",
                    f"{found.shortest:,} to {found.longest:,}",
                    f"{found.seconds:.1f}",
                )
            )
    show(("dataset", "tail", "samples once", "never", "repeats", "samples of a rank", "s"), rows)
    count = samples // 100_000 * 100_000
    print("| | | s | CPU s | own memory, MB |\n|---|---|---|---|---|")
    with LocalS3("bucket") as server, tempfile.TemporaryDirectory() as folder:
        server.add_synthetic("bucket", "images/{}.jpg", count=count, size_bytes=100_000)
        path = str(Path(folder) / "manifest")
        for name, step in {"list the prefix, save the manifest": manifest.listed, **shares.STEPS}.items():
            progress(f"shares: {name}")
            manifest.tell(name, step, path)
    print(flush=True)


# -- Uploads ----------------------------------------------------------------------------------------------------------

MIB, GIB, TB = uploads.MIB, uploads.GIB, uploads.TB
# Size, known, part size, memory limit.
PLANS: Final = (
    (5 * TB, False, 8 * MIB, GIB),
    (5 * TB, False, 8 * MIB, 256 * MIB),
    (5 * TB, False, 64 * MIB, 4 * GIB),
    (50 * TB, True, 8 * MIB, GIB),
    (50 * TB, True, 8 * MIB, 16 * GIB),
    (50 * TB, True, 5 * GIB, 16 * GIB),
    (LARGEST, True, 8 * MIB, GIB),
    (LARGEST + 1, True, 8 * MIB, GIB),
    (LARGEST, False, 5 * GIB, GIB),
    (LARGEST + 1, False, 5 * GIB, GIB),
)


def largest_unknown(part_size: int) -> int:
    """The most that a writer takes that was not told the size."""
    from s3dataset._io._part_sizes import PartSizes

    sizes = PartSizes(part_size)
    return sum(sizes.of(number) for number in range(1, uploads.MAX_PARTS + 1))


def uploaded(*, small: bool) -> None:
    rows = []
    most = largest_unknown(8 * MIB)
    for size, known, part_size, limit in (*PLANS, (most, False, 8 * MIB, GIB), (most + 1, False, 8 * MIB, GIB)):
        progress(f"uploads: {size:,} bytes, part size {part_size:,}")
        head = (f"{size:,}", "known" if known else "unknown", f"{part_size // MIB:,}", f"{limit // MIB:,}")
        planned = uploads.plan(size, known=known, part_size=part_size, memory_limit_bytes=limit)
        if planned.completed:
            planned.check()
        ending = "completed" if planned.completed else f"{'aborted' if planned.aborted else 'refused'}: {planned.error}"
        sizes = sorted(planned.parts[:-1] or [0])  # the last one may be smaller
        sent = (
            f"{len(planned.parts):,} of {sizes[0] / MIB:,.0f} to {sizes[-1] / MIB:,.0f} MiB" if planned.parts else "–"
        )
        rows.append((*head, sent, planned.in_flight, f"{planned.memory / MIB:,.0f}", ending))
    show(
        (
            "bytes",
            "size",
            "part size, MiB",
            "memory limit, MiB",
            "parts",
            "in flight",
            "memory of parts, MiB",
            "ending",
        ),
        rows,
    )
    real = []
    for size, known in ((GB, False), (2 * GB, True)) if small else ((40 * GB, False), (40 * GB, True)):
        progress(f"uploads: {size:,} bytes for real")
        sent_all = uploads.send(size, known=known)
        steps = ", ".join(f"{count:,} x {nbytes:,}" for count, nbytes in sent_all.steps)
        rate = size / sent_all.seconds / GB
        real.append(
            (
                f"{size / GB:,.0f} GB, {'known' if known else 'unknown'}",
                steps,
                f"{sent_all.seconds:.1f}",
                f"{rate:.2f}",
                f"{sent_all.complete_s:.2f}",
                sent_all.memory_mb,
            )
        )
    show(("written", "parts x bytes", "s", "GB/s", "of it in close, s", "own memory, MB"), real)
    progress("uploads: reading")
    done = uploads.read(50 * TB, reads=100 if small else 2000)
    print(
        f"{done.reads:,} reads of {done.nbytes:,} bytes at random places of the last TB of an object of 50 TB, one "
        f"after the other, and of its end: all bytes right, {done.seconds / done.reads * 1000:.2f} ms each\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="smaller and shorter, to see that it works")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="draws the run with the SlowDown phase")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    if "throttling" in parts:
        throttled(small=arguments.small, path=arguments.picture)
    if "shares" in parts:
        shared(small=arguments.small)
    if "uploads" in parts:
        uploaded(small=arguments.small)


if __name__ == "__main__":
    main()
