"""`s3dataset bench`: how fast a bucket can be read from this machine, and what limits it."""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from s3dataset._cli._options import add_connection_options, connection, imported, pattern, place, size, whole_number
from s3dataset._cli._output import (
    EXIT_STATUS,
    HelpLayout,
    Paint,
    bar,
    binary_bytes,
    columns,
    counted,
    failed,
    paragraph,
    print_json,
    readable_bytes,
    tell,
)

if TYPE_CHECKING:
    from s3dataset._bench import Bench, Latencies, Options, Result, Step, WorkerStep, WriteStep

_BAR_WIDTH: Final = 32
_LEAST_BAR_WIDTH: Final = 8
_LABEL_WIDTH: Final = 10

_Row: TypeAlias = tuple[float, str, list[str]]
"""A figure for the bar, or -1; a label; figures with what stands between them."""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "bench",
        help="measure how fast a bucket can be read from here, with how many requests and workers",
        description="Finds the ceiling of a bucket and this machine: the time of a single request, throughput with 1 "
        "to 256 requests at once, with requests of several sizes, and samples/s of a real DataLoader with 0 to N "
        "workers; then says what limits, and which num_workers, part_size and layout to choose. It reads your own "
        "objects, some of them at random, and writes nothing without --write. What it may read and cost at most is "
        "printed first.",
        epilog="examples:\n"
        "  s3dataset bench s3://bucket/train/                                half a minute, at most 4 GB\n"
        "  s3dataset bench s3://bucket/train/ --seconds 10 --max-bytes 500MB\n"
        "  s3dataset bench s3://bucket/train/ --transform mypackage.data:decode --workers 0,2,4,8\n"
        "  s3dataset bench s3://bucket/scratch/ --write                      with temporary objects of 16KiB to 64MiB\n"
        "  s3dataset bench s3://bucket/train/ --plot bench.png --json > bench.json\n\n"
        f"{EXIT_STATUS}",
        formatter_class=HelpLayout,
    )
    parser.add_argument("uri", type=place, metavar="s3://BUCKET[/PREFIX]")
    parser.add_argument(
        "--pattern", type=pattern, help='which objects: a glob on the key after the prefix, as "**/*.jpg"'
    )
    parser.add_argument("--seconds", type=_seconds, default=30.0, metavar="S", help="of measuring; default: 30")
    parser.add_argument(
        "--max-bytes", type=size, default=4 * 10**9, metavar="SIZE", help="read at most so much; default: 4GB"
    )
    parser.add_argument(
        "--max-requests", type=whole_number(100), default=200_000, metavar="N", help="default: 200000, 8 cents"
    )
    parser.add_argument(
        "--concurrency", type=_numbers(1, 1024), metavar="N,N,...", help="requests at once; default: 1,2,4,...,256"
    )
    parser.add_argument(
        "--workers",
        type=_numbers(0, 256),
        metavar="N,N,...",
        help="num_workers to try, '' for none; default: 0,1,2,4,... up to the cores, at most 16",
    )
    parser.add_argument("--batch-size", type=whole_number(1), default=32, metavar="N", help="default: 32")
    parser.add_argument(
        "--transform", metavar="MODULE:NAME", help="your own, for the DataLoader; default: bytes are read and dropped"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write temporary objects below a new prefix, after asking; then delete them",
    )
    parser.add_argument(
        "--sizes", type=_sizes_of, metavar="SIZE,...", help="of these; default: 16KiB,128KiB,1MiB,8MiB,64MiB"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before writing")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the measurement (needs the extra 'demo')")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_connection_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.sizes and not arguments.write:
        arguments.parser.error("--sizes are those of temporary objects: it needs --write")
    if arguments.plot is not None and importlib.util.find_spec("matplotlib") is None:
        return failed(arguments, "--plot needs matplotlib: pip install 's3dataset[demo]'")
    if arguments.plot is not None and not arguments.plot.parent.is_dir():
        arguments.parser.error(f"argument --plot: there is no folder {arguments.plot.parent}")
    from s3dataset._bench import Bench, TransformFailedError  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._uri import S3Uri  # noqa: PLC0415

    options = options_of(arguments)
    place = S3Uri.parse_prefix(arguments.uri)
    quiet = arguments.json
    print_plan(options, str(place), sys.stderr if quiet else sys.stdout)
    if options.sizes and not arguments.yes and not may_write(str(place)):
        return 1 if sys.stdin.isatty() else 2
    bench = Bench(place, options, **connection(arguments))
    printer = Printer(bench, quiet=quiet)
    try:
        result = bench.run(printer)
    except TransformFailedError as error:
        printer.finish()
        for note in getattr(error.__cause__, "__notes__", ()):
            error.add_note(note)
        return failed(arguments, error)
    finally:
        printer.finish()
    if bench.temporary is not None:
        tell(f"removed {counted(bench.temporary.removed, 'temporary object')} below {bench.temporary.place}")
        if bench.temporary.kept_versions:
            tell(
                f"{counted(bench.temporary.kept_versions, 'version')} of them stay there, with delete markers: this "
                "bucket keeps versions, and deleting them needs s3:DeleteObjectVersion. Somebody who has it, or a "
                "lifecycle rule for noncurrent versions, may remove them"
            )
    if quiet:
        print_json(result.to_dict())
    else:
        print_advice(result)
    if arguments.plot is not None:
        try:
            draw(result, arguments.plot)
        except (OSError, ValueError) as error:  # ValueError: a suffix that names no kind of picture
            tell(f"the picture could not be drawn: {error}")
            return 1
    return 0


def options_of(arguments: argparse.Namespace) -> "Options":
    from s3dataset._bench import (  # noqa: PLC0415 - `--help` need not load them
        CONCURRENCIES,
        SIZES,
        WORKERS,
        Options,
        usable_cores,
    )

    usual = tuple(number for number in WORKERS if number <= min(16, max(2, usable_cores())))
    return Options(
        seconds=arguments.seconds,
        max_bytes=arguments.max_bytes,
        max_requests=arguments.max_requests,
        concurrencies=arguments.concurrency or CONCURRENCIES,
        workers=usual if arguments.workers is None else arguments.workers,
        sizes=(arguments.sizes or SIZES) if arguments.write else (),
        pattern=arguments.pattern,
        transform=None if arguments.transform is None else imported(arguments.parser, arguments.transform),
        batch_size=arguments.batch_size,
    )


def may_write(uri: str) -> bool:
    """Asks."""
    print(f"It writes below a new prefix s3dataset-bench-<id>/ of {uri} and nowhere else, and removes all at the end.")
    if not sys.stdin.isatty():
        print("There is no terminal to ask on: say --yes to agree.")
        return False
    try:
        answer = input("Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in {"y", "yes"}:
        return True
    print("Nothing was written.")
    return False


# -- What is printed ---------------------------------------------------------------------------------------------------


def print_plan(options: "Options", uri: str, stream: Any) -> None:
    from s3dataset._bench import Plan  # noqa: PLC0415 - `--help` need not load it

    plan = Plan.of(options)
    lines = [
        (
            f"reads objects below {uri}: {options.seconds:g} s of measuring, beside PyTorch's start; at most "
            f"{readable_bytes(plan.read_bytes)} and {plan.gets:,} requests"
        )
    ]
    if plan.write_bytes:
        lines.append(f"writes {readable_bytes(plan.write_bytes)} in {plan.puts:,} requests, and deletes them again")
    lines.append(
        f"at Amazon's list price (us-east-1) at most ${plan.dollars:.2f} for requests; the bytes are free within the "
        f"region, and at most ${plan.transfer_dollars:.2f} to somewhere else"
    )
    for line in lines:
        print(paragraph(line), file=stream, flush=True)


class Printer:
    """Prints a phase when it is over, so that its bars share a scale; meanwhile, on a terminal, what is measured."""

    def __init__(self, bench: "Bench", *, quiet: bool) -> None:
        self._bench = bench
        self._quiet = quiet
        self._phase = ""
        self._rows: list[_Row] = []
        self._paint = Paint(sys.stdout)
        self._transient = not quiet and sys.stderr.isatty()

    def __call__(self, phase: str, told: Any) -> None:
        if self._quiet:
            return
        if phase == "waiting":
            self._show(told)
            return
        if phase != self._phase:
            self.finish()
            self._phase = phase
        if phase == "objects":
            result = self._bench.result
            more = "" if result.complete else " (the first of more)"
            each = " each on average" * (result.objects > 1)
            print(f"{counted(result.objects, 'object')}{more} of {readable_bytes(result.mean_bytes)}{each}")
        elif phase == "single":
            self._rows += [(-1.0, *row) for row in _single(self._bench.result)]
        else:
            self._rows.append(_ROWS[phase](told))
        self._show(f"measuring: {self._rows[-1][1].strip()} done" if self._rows else "measuring")

    def finish(self) -> None:
        """Prints the phase so far."""
        self._show("")
        if not self._rows:
            return
        most = max(value for value, _, _ in self._rows)
        kind = self._bench.result.format
        title = _TITLES[self._phase] + (f", samples of {kind} streamed" if kind and self._phase == "workers" else "")
        print(f"\n{self._paint(title, 'strong')}")
        figures, width = _fitted([figures for _, _, figures in self._rows])
        for (value, label, _), text in zip(self._rows, figures, strict=True):
            drawn = "" if value < 0 else f"{self._paint(bar(value / most, width), 'good')}  "
            print(f"  {label}  {drawn}{text}", flush=True)
        self._rows = []

    def _show(self, text: str) -> None:
        if self._transient:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _fitted(rows: list[list[str]]) -> tuple[list[str], int]:
    """The figures of each row, and how wide a bar beside them is. What has no room on the terminal is left out."""
    room = columns(200) - _LABEL_WIDTH - len("      ")
    most = max(map(len, rows))
    while most > 1 and max(len("".join(row[:most])) for row in rows) > room - _LEAST_BAR_WIDTH:
        most -= 1
    texts = ["".join(row[:most]) for row in rows]
    return texts, max(_LEAST_BAR_WIDTH, min(_BAR_WIDTH, room - max(map(len, texts))))


def _single(result: "Result") -> list[tuple[str, list[str]]]:
    rows = []
    if result.first_byte is not None:
        rows.append((f"{'first byte':>{_LABEL_WIDTH}}", _times(result.first_byte)))
    if result.single is not None:
        step = result.single
        rows.append(
            (
                f"{readable_bytes(step.request_bytes):>{_LABEL_WIDTH}}",
                [*_times(step.latencies), f"   {_rate(step.bytes_per_s)}"],
            )
        )
    return rows


def _curve(step: "Step") -> _Row:
    times = _times(step.latencies)
    return step.bytes_per_s, f"{step.concurrency:>{_LABEL_WIDTH}}", [*_rates(step), f"  {times[0]}", *times[1:]]


def _sizes(step: "Step") -> _Row:
    label = f"{binary_bytes(step.request_bytes):>{_LABEL_WIDTH}}"
    return step.bytes_per_s, label, [*_rates(step), f"  {step.concurrency} at once"]


def _workers(step: "WorkerStep") -> _Row:
    cpu = 100 * step.cpu_seconds / (step.seconds + step.first_batch_s)
    figures = [
        f"{step.samples_per_s:>9,.0f} samples/s",
        f"  {_rate(step.bytes / step.seconds):>10}",
        f"  CPU {cpu:.0f} %",
        f", first batch after {step.first_batch_s:.2f} s",
    ]
    return step.samples_per_s, f"{step.workers:>{_LABEL_WIDTH}}", figures


def _writes(step: "WriteStep") -> _Row:
    figures = [f"{_rate(step.bytes_per_s):>10}", f"  {counted(step.objects, 'object')}"]
    return step.bytes_per_s, f"{binary_bytes(step.size):>{_LABEL_WIDTH}}", figures


_ROWS: Final[dict[str, Callable[[Any], _Row]]] = {
    "curve": _curve,
    "sizes": _sizes,
    "workers": _workers,
    "write": _writes,
}
_TITLES: Final = {
    "single": "one request at a time",
    "curve": "requests at once",
    "sizes": "size of a request",
    "workers": "num_workers of a DataLoader",
    "write": "temporary objects, written",
}


def print_advice(result: "Result") -> None:
    mark = "→ " if bar(1, 1) != "#" else "> "
    print(f"\n{Paint(sys.stdout)('what it means', 'strong')}")
    for sentence in result.advice:
        print(paragraph(sentence, mark))
    for why in result.skipped:
        print(paragraph(f"not measured: {why}"))
    print()
    print(
        paragraph(
            f"{readable_bytes(result.bytes)} read in {result.requests:,} requests, {result.seconds:.1f} s; limited by: "
            f"{result.bottleneck}"
        )
    )


def draw(result: "Result", path: Path) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415 - `--help` need not load them

    import s3dataset  # noqa: PLC0415
    from s3dataset._bench import figure  # noqa: PLC0415

    today = datetime.now(UTC).strftime("%Y-%m-%d")
    figure.draw(path, result, f"s3dataset {s3dataset.__version__} bench, {today}, {result.cores} cores")
    tell(f"drawn: {path}")


# -- Figures -----------------------------------------------------------------------------------------------------------


def _rate(bytes_per_s: float) -> str:
    return f"{readable_bytes(bytes_per_s)}/s"


def _rates(step: "Step") -> list[str]:
    return [f"{_rate(step.bytes_per_s):>10}", f"  {step.requests_per_s:>8,.0f} requests/s"]


def _times(told: "Latencies") -> list[str]:
    return [f"p50 {_ms(told.p50)}", f", p90 {_ms(told.p90)}", f", p99 {_ms(told.p99)}"]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms" if seconds < 0.01 else f"{1e3 * seconds:,.0f} ms"


# -- Options -----------------------------------------------------------------------------------------------------------


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"write a number of seconds, not {text!r}") from None
    if not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be from 1 to 3600, not {text}")
    return value


def _numbers(least: int, most: int) -> Callable[[str], tuple[int, ...]]:
    one = whole_number(least, most)

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(sorted({one(part) for part in text.split(",") if part.strip()}))

    return numbers


def _sizes_of(text: str) -> tuple[int, ...]:
    return tuple(sorted({size(part) for part in text.split(",") if part.strip()}))
