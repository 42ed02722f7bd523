"""From objects to samples, and to what a format holds."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from s3dataset._client import Body
from s3dataset._pack._options import GROUPED, PackSpec, Transform
from s3dataset._pack._plan import ShardTask
from s3dataset.errors import DecodeError, S3Exception
from s3dataset.formats import Sample
from s3dataset.formats._streamed import StreamedField

__all__ = ["name_of_callable", "samples_of_objects", "shaped", "transformed"]

_LINES: Final = (".jsonl", ".ndjson")


def samples_of_objects(
    spec: PackSpec, task: ShardTask, bodies: Iterator[Body | StreamedField], passed: Callable[[int], None]
) -> Iterator[Sample]:
    """The samples of a task, from the bodies of its objects that make one.

    Args:
        spec: What was asked for.
        task: The task.
        bodies: Of the objects that are not left out, in order.
        passed: Told the bytes of each object.
    """
    plain = spec.transform is None and spec.format.name == "tar"  # what the writer takes as it is
    sample: Sample | None = None
    for at, (bucket, key, _, _) in enumerate(task.rows):
        name = spec.names.of(key)
        if name is None:
            continue
        body = next(bodies)
        data: bytes | memoryview | StreamedField
        if isinstance(body, StreamedField):
            data = body
        else:
            data = memoryview(body) if plain else bytes(body)
        del body
        passed(len(data))
        if sample is None or sample["__key__"] != name.key:
            if sample is not None:
                yield sample
            sample = Sample(__key__=name.key, __url__=f"s3://{bucket}/{key}")
        sample[name.field] = data
        if task.labels is not None:
            _set_label(spec, sample, task.labels[at])
    if sample is not None:
        yield sample


def _set_label(spec: PackSpec, sample: Sample, label: str | int) -> None:
    field = "cls" if spec.format.name == "tar" else "label"
    known = sample.get(field)
    if known is not None and known != label:
        raise DecodeError(
            f"the sample {sample.key!r} ({sample.url}) gets the label {label!r}, and has the field {field!r} already. "
            "Leave out label=, or those objects",
            uri=sample.url,
        )
    sample[field] = label


def transformed(samples: Iterable[Sample], transform: Transform | None) -> Iterator[Sample]:
    """What the caller's transform makes of samples: one, none or several of each.

    Raises:
        S3Exception: It failed, or returned something else; the message names the sample.
    """
    if transform is None:
        yield from samples
        return
    for sample in samples:
        key, url = str(sample.get("__key__", "")), str(sample.get("__url__", ""))
        try:
            made = transform(sample)
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise S3Exception(
                f"the transform {name_of_callable(transform)} failed on the sample {key!r} of {url}: {text}. To leave "
                "such samples out, let it return None for them",
                uri=url,
            ) from error
        for one in () if made is None else (made,) if isinstance(made, dict) else made:
            if not isinstance(one, dict):
                raise S3Exception(
                    f"the transform {name_of_callable(transform)} returned a {type(one).__name__} for the sample "
                    f"{key!r} of {url}: it must return a sample (a dict), None, or a list of samples",
                    uri=url,
                )
            sample = one if isinstance(one, Sample) else Sample(one)  # noqa: PLW2901
            sample.setdefault("__key__", key)
            sample.setdefault("__url__", url)
            yield sample


def name_of_callable(function: Any) -> str:
    """module:name, or what stands for it."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}:{name}" if name is not None else repr(function)


def shaped(sample: Sample, format_name: str) -> Iterator[dict[str, Any]]:
    """What is written of a sample: the field "data" of objects becomes what lines and columns hold.

    Raises:
        DecodeError: The object is no text, or no JSON.
    """
    data = sample.get("data")
    if format_name in GROUPED or format_name == "parquet" or not isinstance(data, bytes | bytearray | memoryview):
        yield sample
        return
    rest = {name: value for name, value in sample.items() if name != "data"}
    if format_name == "npy":
        yield {**rest, "npy": _array(sample, bytes(data))}
        return
    text = _text(sample, bytes(data))
    if format_name == "text":
        for line in text.removesuffix("\n").split("\n"):
            yield {**rest, "text": line.removesuffix("\r")}
        return
    name = sample.key.lower()
    if format_name == "jsonl" and name.endswith(_LINES):
        for number, line in enumerate(line for line in text.split("\n") if line.strip()):
            yield _document(sample, {**rest, "__key__": f"{sample.key}/{number:08d}"}, line)
    elif format_name == "jsonl" and name.endswith(".json"):
        yield _document(sample, rest, text)
    else:
        yield {**rest, "text": text}


def _text(sample: Sample, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"{sample.url} is no text in UTF-8 ({error}), and this format holds text: decode it in transform=, read "
            "compressed files of lines with source_format=, or pack to tar, tfrecord or parquet",
            uri=sample.url,
        ) from error


def _document(sample: Sample, rest: dict[str, Any], text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{sample.url} holds what is no JSON ({sample.key!r}): {error}", uri=sample.url) from error
    if not isinstance(value, dict):
        return {**rest, "json": value}
    if "label" in rest and "label" in value:
        raise DecodeError(f'{sample.url} has a "label" of its own ({sample.key!r}): leave out label=', uri=sample.url)
    return {**rest, **value}


def _array(sample: Sample, data: bytes) -> Any:
    import numpy as np  # noqa: PLC0415 - an optional one

    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DecodeError(f"{sample.url} is no .npy file: {error}", uri=sample.url) from error
