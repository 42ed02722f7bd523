"""What the figures say, in words. Pure."""

from typing import Final, Literal, TypeAlias

from s3dataset._bench._result import Result, Step

__all__ = ["Bottleneck", "advise", "binary", "bottleneck_of", "enough"]

Bottleneck: TypeAlias = Literal["network", "CPU", "request rate", "latency", "unknown"]

_MIB: Final = 1 << 20
_ENOUGH: Final = 0.95
_STILL_GROWS: Final = 1.15
_THROTTLED: Final = 0.005
_BUSY: Final = 0.8
_FAR_S: Final = 0.05
_DEFAULT_LARGE: Final = 32
"""Large ranges at once by default: 3.2 for each of 10 Gb/s."""
_SMALL_BYTES: Final = 256 << 10

_WHY: Final[dict[Bottleneck, str]] = {
    "network": "The network is what limits: more requests at once, and larger ones, bring no more bytes.",
    "CPU": "This machine's CPU is what limits: the process uses all that its engine threads can.",
    "request rate": "The rate of requests is what limits, not the bytes: larger requests would bring more.",
    "latency": "Latency is what limits: throughput still grows with the requests at once.",
    "unknown": "Too little was measured to say what limits.",
}


def enough(steps: list[Step]) -> Step:
    """The first step, in order, that is about as good as the best."""
    best = max(step.bytes_per_s for step in steps)
    return next(step for step in steps if step.bytes_per_s >= _ENOUGH * best)


def bottleneck_of(result: Result) -> Bottleneck:
    """What limits the fastest step."""
    best = result.best
    if best is None or len(result.curve) < 2:
        return "unknown"
    if any(step.throttled > _THROTTLED * step.requests for step in result.curve):
        return "request rate"
    # With one engine thread for two cores and more, one core's worth is all that reading can take.
    if best.cpu_seconds / best.seconds >= _BUSY * max(1, min(result.cores, result.engine_threads)):
        return "CPU"
    last, before = result.curve[-1], max(result.curve[:-1], key=lambda step: step.bytes_per_s)
    if best is last and last.bytes_per_s > _STILL_GROWS * before.bytes_per_s:
        return "latency"
    larger = [step for step in result.sizes if step.request_bytes > 2 * best.request_bytes]
    if any(step.bytes_per_s > 1.5 * best.bytes_per_s for step in larger):
        return "request rate"
    if best.request_bytes < _SMALL_BYTES and not larger:
        return "request rate"
    return "network"


def advise(result: Result, uri: str, part_size: int, connections: int) -> tuple[Bottleneck, list[str]]:
    """-> what limits, and what to do, in sentences.

    Args:
        result: What was measured.
        uri: Of the prefix.
        part_size: Of a client as the user would make one.
        connections: Likewise.
    """
    limit = bottleneck_of(result)
    said = [*_about_ceiling(result, limit), *_about_concurrency(result, connections), *_about_parts(result, part_size)]
    said += [*_about_packing(result, uri), *_about_workers(result), *_about_latency(result)]
    return limit, said


def _about_ceiling(result: Result, limit: Bottleneck) -> list[str]:
    best = result.best
    if best is None:
        return []
    at_once = f"{best.concurrency} request{'s' * (best.concurrency > 1)} at once"
    said = [
        (
            f"The most that came is {_rate(best.bytes_per_s)}, {best.requests_per_s:,.0f} requests/s, with {at_once}. "
            f"{_WHY[limit]}"
        )
    ]
    throttled = sum(step.throttled for step in result.curve)
    if throttled:
        said.append(
            f"The service asked for fewer requests {throttled:,} times: S3 gives a prefix 5,500 reads a second at "
            "first, and more after minutes of load. Spread keys over prefixes, or pack them into shards."
        )
    if limit == "CPU":
        said.append("More cores, or several processes (ranks, DataLoader workers) share the work.")
    return said


def _about_concurrency(result: Result, connections: int) -> list[str]:
    if len(result.curve) < 2:
        return []
    step = enough(result.curve)
    share = f"{100 * step.bytes_per_s / max(s.bytes_per_s for s in result.curve):.0f} % of that"
    said = (
        f"{step.concurrency} at once give {share}" if step.concurrency > 1 else f"One request at a time gives {share}"
    )
    if step.request_bytes >= _MIB and step.concurrency > _DEFAULT_LARGE:
        target = -(-step.concurrency * 10 // 32)
        return [
            (
                f"{said}; of large ranges {_DEFAULT_LARGE} are in flight by default: "
                f"S3ClientConfig(throughput_target_gbps={target}) allows more."
            )
        ]
    if step.concurrency > connections:
        return [
            (
                f"{said}; by default the client has {connections} connections: "
                f"S3ClientConfig(max_connections={step.concurrency}) gives it as many."
            )
        ]
    if step.concurrency == connections:
        more = 2 * connections
        return [
            (
                f"{said}, which is all that the client has by default. Whether S3ClientConfig(max_connections={more}) "
                f"brings more, --concurrency {connections},{more} measures."
            )
        ]
    return [f"{said}; the default of {connections} connections has room for that."]


def _about_parts(result: Result, part_size: int) -> list[str]:
    large = [step for step in result.sizes if step.request_bytes >= _MIB and step.requests >= 2 * step.concurrency]
    if len(large) < 2:
        return []
    step = enough(large)
    current = min(large, key=lambda one: abs(one.request_bytes - part_size))
    if current.bytes_per_s >= _ENOUGH * step.bytes_per_s:
        return [f"Ranges of {binary(current.request_bytes)}, the part_size in use, are as fast as any here: keep it."]
    return [
        (
            f"Ranges of {binary(step.request_bytes)} bring {step.bytes_per_s / current.bytes_per_s:.1f} times as much "
            f"as those of {binary(current.request_bytes)}: S3ClientConfig(part_size={step.request_bytes})."
        )
    ]


def _about_packing(result: Result, uri: str) -> list[str]:
    best = result.best
    if best is None or result.mean_bytes >= _SMALL_BYTES or result.objects < 2:
        return []
    command = f"s3dataset pack {uri} s3://BUCKET/FOLDER/"
    large = [step for step in result.sizes if step.request_bytes >= _MIB]
    if not large:
        return [
            (
                f"Objects of {_readable(result.mean_bytes)} cost a request each. Shards of them would be read at "
                f"the rate of large ranges, which --write measures: {command}"
            )
        ]
    fastest = max(large, key=lambda step: step.bytes_per_s)
    gain = fastest.bytes_per_s / best.bytes_per_s
    if gain < 1.5:
        return [
            f"As shards the bytes would come no faster ({_rate(fastest.bytes_per_s)}), but with fewer requests to pay."
        ]
    return [
        (
            f"Pack them: large ranges come at {_rate(fastest.bytes_per_s)}, {gain:,.0f} times what objects of "
            f"{_readable(result.mean_bytes)} do. {command}"
        )
    ]


def _about_workers(result: Result) -> list[str]:
    steps = result.workers
    if not steps:
        return []
    best = max(step.samples_per_s for step in steps)
    step = next(step for step in steps if step.samples_per_s >= _ENOUGH * best)
    if len(steps) == 1:
        why = "no other number was tried"
    elif step.workers == 0 and result.transformed:
        why = "for this transform workers bring no more"
    elif step.workers == 0:
        why = "reading needs no process of its own: workers pay off once a transform uses the CPU"
    elif step is steps[-1]:
        why = f"more may give more: {steps[-1].workers} were the most that was tried"
    else:
        why = "more bring no more"
    return [f"num_workers={step.workers} gives {step.samples_per_s:,.0f} samples/s; {why}."]


def _about_latency(result: Result) -> list[str]:
    first = result.first_byte
    if first is None:
        return []
    if first.p50 > _FAR_S:
        return [
            (
                f"A request takes {1e3 * first.p50:.0f} ms before its first byte comes. Is this machine in the "
                "bucket's region? From afar only many requests at once help, as datasets send them."
            )
        ]
    return []


def _rate(bytes_per_s: float) -> str:
    return f"{_readable(bytes_per_s)}/s"


def _readable(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def binary(count: int) -> str:
    """The count in MiB or, below one, in KiB."""
    return f"{count / _MIB:g} MiB" if count >= _MIB else f"{count / 1024:g} KiB"
