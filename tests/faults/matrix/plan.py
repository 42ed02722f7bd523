"""The faults, and what may come of each where it passes."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

from tests.faults.matrix.uses import Use

from s3dataset import errors
from s3dataset.testing import Fault

__all__ = ["PLAN", "Row", "applies"]

KIB: Final = 1 << 10

_REGIONS: Final = cycle(("eu-west-1", "eu-west-3", "ap-south-1", "sa-east-1"))
"""Each time another one, since a client remembers where it was sent."""

Errors = tuple[type[errors.S3Exception], ...]
ANY: Final[Errors] = (errors.S3Exception,)
NONE: Final[Errors] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A fault.

    Attributes:
        title: Its name.
        make: Makes the rule, from the fields that pick requests.
        may_raise: What may come of it even when it happens once; else the use must not notice.
        only: Uses that it makes sense for.
        unreachable: Nothing else reaches the server either, so that an upload cannot be aborted.
    """

    title: str
    make: Callable[..., Fault]
    may_raise: Errors = NONE
    only: Callable[[Use], bool] = lambda use: True
    unreachable: bool = False


def _fetches(use: Use) -> bool:
    return use.fetches


def _writes(use: Use) -> bool:
    return use.writes


def _sends_data(use: Use) -> bool:
    """Bytes with a checksum; what is told in XML has none, and a refusal is right."""
    return use.operation in {"PutObject", "UploadPart"}


def _lists(use: Use) -> bool:
    return use.operation == "ListObjectsV2"


def _has_body(use: Use) -> bool:
    """The length in a HEAD's answer is all that it says: nothing tells that it is wrong."""
    return use.operation != "HeadObject"


def _completes(use: Use) -> bool:
    return use.operation in {"CopyObject", "CompleteMultipartUpload"}


def _answers_soon(use: Use) -> bool:
    """The service may take ten minutes over the others, and so does our patience."""
    return not _completes(use)


def _changes(use: Use) -> bool:
    return use.fetches and use.operation == "GetObject"


def _row(title: str, make: Callable[..., Fault], may_raise: Errors = NONE, **more: Any) -> Row:
    return Row(title, make, may_raise, **more)


PLAN: Final = (
    _row("500", lambda **w: Fault.status(500, **w)),
    _row("503 SlowDown", lambda **w: Fault.status(503, **w)),
    _row("503 with Retry-After", lambda **w: Fault.status(503, retry_after_s=0.2, **w)),
    _row("429", lambda **w: Fault.status(429, empty=True, **w)),
    _row("403", lambda **w: Fault.status(403, code="AccessDenied", **w), (errors.AccessDeniedError,)),
    _row("403 without a body", lambda **w: Fault.status(403, empty=True, **w), ANY),
    _row("expired token", Fault.expired_token, (errors.CredentialsError,)),
    _row("wrong region, 400", lambda **w: Fault.wrong_region(next(_REGIONS), **w)),
    _row("wrong region, 301", lambda **w: Fault.wrong_region(next(_REGIONS), status=301, **w)),
    _row("wrong region, 307", lambda **w: Fault.wrong_region(next(_REGIONS), status=307, **w)),
    _row("clock an hour ahead", lambda **w: Fault.clock_skew(3600, **w)),
    _row("clock an hour behind", lambda **w: Fault.clock_skew(-3600, **w)),
    _row("error in 200", Fault.error_in_200, only=_completes),
    _row("slow result", lambda **w: Fault.slow_result(1.5, **w), only=_completes),
    _row("early 500", lambda **w: Fault.early(500, at=64, **w), only=_writes),
    _row("early 403", lambda **w: Fault.early(403, at=64, **w), ANY, only=_writes),
    _row("no HTTP", lambda **w: Fault.raw("SSH-2.0-OpenSSH\r\n\r\n", **w)),
    _row("reset", Fault.reset),
    _row("reset in the body", lambda **w: Fault.reset(at=1000, **w)),
    _row("close", Fault.close),
    _row("close after the answer", Fault.close_after),
    _row("truncated", lambda **w: Fault.truncate(at=1000, **w)),
    _row("no answer", lambda **w: Fault.stall(at=None, **w), only=_answers_soon),
    _row("stall in the body", lambda **w: Fault.stall(at=1000, **w), only=_answers_soon),
    _row("late", lambda **w: Fault.delay(0.4, **w)),
    _row("slow", lambda **w: Fault.slow(5e6, **w)),
    _row("head byte by byte", Fault.split_head),
    _row("head cut", lambda **w: Fault.cut_head(at=30, **w)),
    _row("head without end", Fault.endless_head),
    _row("interim answer", Fault.interim),
    _row("no ETag", lambda **w: Fault.headers({"ETag": None}, **w)),
    _row("chunked", lambda **w: Fault.chunked(chunk_bytes=700, extensions=True, trailers=True, **w)),
    _row("compressed", Fault.compressed, ANY, only=_has_body),
    _row("length too long", lambda **w: Fault.wrong_length(7, **w), only=lambda u: _has_body(u) and _answers_soon(u)),
    _row("length too short", lambda **w: Fault.wrong_length(-7, **w), ANY, only=_has_body),
    _row("other range", lambda **w: Fault.shift_range(5, **w), only=_fetches),
    _row("range ignored", Fault.ignore_range, ANY, only=_fetches),
    _row("conditions ignored", Fault.ignore_conditions),
    _row("checksums refused", Fault.refuse_checksums),
    _row("upload corrupted", lambda **w: Fault.corrupt(at=77, of="upload", **w), only=_sends_data),
    _row("replaced", Fault.replace, (errors.ObjectChangedError,), only=_changes),
    _row("replaced before", lambda **w: Fault.replace(before=True, **w), (errors.ObjectChangedError,), only=_changes),
    _row(
        "replaced by a shorter one",
        lambda **w: Fault.replace(size_bytes=500, before=True, **w),
        (errors.ObjectChangedError, errors.S3Exception),
        only=_changes,
    ),
    _row("deleted", Fault.delete, (errors.ObjectNotFoundError,), only=_changes),
    _row("deleted before", lambda **w: Fault.delete(before=True, **w), (errors.ObjectNotFoundError,), only=_changes),
    _row("done, answer lost", Fault.lost_answer),
    _row("done, 500 said", lambda **w: Fault.lost_status(500, **w)),
    _row("keys not deleted", Fault.failed_deletes, ANY, only=lambda u: u.operation == "DeleteObjects"),
    _row("listing unordered", lambda **w: Fault.listing("unordered", **w), only=_lists),
    _row("listing with a key twice", lambda **w: Fault.listing("duplicate", **w), only=_lists),
    _row("empty page", lambda **w: Fault.listing("empty", **w), only=_lists),
    _row("endless listing", lambda **w: Fault.listing("endless", **w), ANY, only=_lists),
    _row("page that leads to itself", lambda **w: Fault.listing("stuck", **w), ANY, only=_lists),
    _row("page without a token", lambda **w: Fault.listing("tokenless", **w), ANY, only=_lists),
    _row("outage of a second", lambda **w: Fault.outage(1.0, **w), ANY, unreachable=True),
)


def applies(row: Row, use: Use) -> bool:
    return row.only(use)
