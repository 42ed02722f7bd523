"""The fault plan's rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Self, TypedDict, Unpack

Ending = Literal["reset", "close", "stall"]
Disorder = Literal["unordered", "duplicate", "empty", "endless", "stuck", "tokenless"]


class Selection(TypedDict, total=False):
    """Which requests a rule picks; the fields of `Fault` but for `kind` and `parameters`."""

    operation: str
    bucket: str
    key: str
    after: int
    every: int
    times: int | None
    probability: float
    seed: int
    scope: Literal["all", "key", "request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A rule of the server's fault plan: some requests, and what goes wrong with them.

    Made by the class methods, each of which takes the fields below as keywords. Several rules may pick one request;
    their effects add up. Immutable and picklable.

    Attributes:
        kind: The name of the action; the class methods set it.
        parameters: The action's own arguments.
        operation: Glob over S3's operation names: `GetObject`, `*Object`, `UploadPart`, `ListObjectsV2` and so on.
            `Connect` itself picks connections as they are made, before TLS: for `reset`, `close`, `stall`, `delay`,
            `raw` and `outage`.
        bucket: Glob over the bucket.
        key: Glob over the key; `*` matches slashes too.
        after: Let so many matching requests pass first.
        every: Then pick every so manieth.
        times: Stop after so many; None goes on for good. 1 by default: a client that retries gets through.
        probability: Of the requests that would be picked, the share that is, drawn from `seed`.
        seed: Makes the draws repeatable.
        scope: What `after`, `every` and `times` count: all matching requests together, those of each key, or those of
            each request (same operation, key, range and part; so that `times=1` hits first attempts only).
    """

    kind: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    operation: str = "*"
    bucket: str = "*"
    key: str = "*"
    after: int = 0
    every: int = 1
    times: int | None = 1
    probability: float = 1.0
    seed: int = 0
    scope: Literal["all", "key", "request"] = "all"

    def __post_init__(self) -> None:
        if self.every < 1 or self.after < 0 or not 0 <= self.probability <= 1:
            raise ValueError(f"every >= 1, after >= 0 and 0 <= probability <= 1 are needed, not {self!r}")

    def __hash__(self) -> int:
        return hash((self.kind, self.operation, self.bucket, self.key, self.after, self.times))

    def as_json(self) -> dict[str, object]:
        """The rule as the server reads it."""
        names = ("operation", "bucket", "key", "after", "every", "times", "probability", "seed", "scope")
        given = {name: _plain(value) for name, value in self.parameters.items() if value is not None}
        return {name: getattr(self, name) for name in names} | {"action": {"kind": self.kind} | given}

    @classmethod
    def _make(cls, kind: str, parameters: Mapping[str, object], where: Selection) -> Self:
        return cls(kind=kind, parameters=MappingProxyType(dict(parameters)), **where)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.as_json(),)

    # -- Answers -------------------------------------------------------------------------------------------------------

    @classmethod
    def status(
        cls,
        status: int,
        *,
        code: str | None = None,
        message: str | None = None,
        retry_after_s: float | None = None,
        retry_after_date: bool = False,
        empty: bool = False,
        body_bytes: int = 0,
        close: bool = False,
        **where: Unpack[Selection],
    ) -> Self:
        """Refuses with an error, after the request's body was read.

        Args:
            status: HTTP's status: 503, 500, 429, 403 and so on.
            code: S3's error code; by default the usual one of the status (503: SlowDown).
            message: The text of the error.
            retry_after_s: Sent as Retry-After.
            retry_after_date: Send it as a date.
            empty: Send no XML.
            body_bytes: Send so many bytes that are no XML instead.
            close: Close the connection afterwards.
            **where: Which requests: the fields of `Fault`.
        """
        parameters = {"status": status, "code": code, "message": message, "retry_after_s": retry_after_s}
        parameters |= {"retry_after_date": retry_after_date, "empty": empty, "body_bytes": body_bytes, "close": close}
        return cls._make("status", parameters, where)

    @classmethod
    def expired_token(cls, **where: Unpack[Selection]) -> Self:
        """Says that the session's token has expired."""
        return cls.status(400, code="ExpiredToken", **where)

    @classmethod
    def early(cls, status: int, *, at: int = 0, code: str | None = None, **where: Unpack[Selection]) -> Self:
        """Refuses when `at` bytes of the request's body have come, and closes without reading on."""
        return cls._make("early", {"status": status, "code": code, "at": at}, where)

    @classmethod
    def wrong_region(
        cls,
        region: str,
        *,
        status: Literal[301, 307, 400] = 400,
        location: str | None = None,
        **where: Unpack[Selection],
    ) -> Self:
        """Says that the bucket is in another region."""
        return cls._make("region", {"status": status, "region": region, "location": location}, where)

    @classmethod
    def clock_skew(cls, seconds: int, **where: Unpack[Selection]) -> Self:
        """The server's clock is off by so much; beyond 15 minutes it refuses signatures."""
        return cls._make("skew", {"seconds": seconds}, where)

    @classmethod
    def error_in_200(cls, *, code: str = "InternalError", after_s: float = 0.0, **where: Unpack[Selection]) -> Self:
        """Copies and completions: status 200, white space for `after_s`, then an error. Nothing is done."""
        return cls._make("error_in_200", {"code": code, "after_s": after_s}, where)

    @classmethod
    def slow_result(cls, delay_s: float, **where: Unpack[Selection]) -> Self:
        """Copies and completions: status 200, white space for `delay_s`, then the result."""
        return cls._make("slow_result", {"delay_s": delay_s}, where)

    @classmethod
    def raw(cls, data: str, **where: Unpack[Selection]) -> Self:
        """Answers with these characters, head and all, and closes."""
        return cls._make("raw", {"data": data}, where)

    # -- The connection ------------------------------------------------------------------------------------------------

    @classmethod
    def reset(cls, *, at: int | None = None, **where: Unpack[Selection]) -> Self:
        """RST: at once, or at byte `at` of the body, the request's if it has one, else the answer's."""
        return cls._make("reset", {"at": at}, where)

    @classmethod
    def close(cls, **where: Unpack[Selection]) -> Self:
        """Closes the connection without an answer."""
        return cls._make("close", {}, where)

    @classmethod
    def close_after(cls, *, announced: bool = False, **where: Unpack[Selection]) -> Self:
        """Answers, and closes; `announced` says so in the answer."""
        return cls._make("close_after", {"announced": announced}, where)

    @classmethod
    def truncate(cls, *, at: int, **where: Unpack[Selection]) -> Self:
        """The body ends, with the connection, after `at` bytes."""
        return cls._make("truncate", {"at": at}, where)

    @classmethod
    def stall(cls, *, at: int | None = None, duration_s: float | None = None, **where: Unpack[Selection]) -> Self:
        """Nothing more comes from byte `at` of the body on (None: no answer), for `duration_s` or for good."""
        return cls._make("stall", {"at": at, "duration_s": duration_s}, where)

    @classmethod
    def delay(cls, delay_s: float, **where: Unpack[Selection]) -> Self:
        """The first byte of the answer comes so much later."""
        return cls._make("delay", {"delay_s": delay_s}, where)

    @classmethod
    def slow(cls, bytes_per_s: float, **where: Unpack[Selection]) -> Self:
        """The body flows at this rate."""
        return cls._make("slow", {"bytes_per_s": bytes_per_s}, where)

    @classmethod
    def split_head(cls, **where: Unpack[Selection]) -> Self:
        """The head of the answer comes one byte at a time."""
        return cls._make("split_head", {}, where)

    @classmethod
    def cut_head(
        cls, *, at: int, ending: Ending = "close", duration_s: float | None = None, **where: Unpack[Selection]
    ) -> Self:
        """The head of the answer ends after `at` bytes; a stall goes on after `duration_s`, if that is given."""
        return cls._make("cut_head", {"at": at, "ending": ending, "duration_s": duration_s}, where)

    @classmethod
    def interim(cls, status: int = 103, **where: Unpack[Selection]) -> Self:
        """An interim answer comes before the real one."""
        return cls._make("interim", {"status": status}, where)

    @classmethod
    def headers(cls, headers: Mapping[str, str | None], **where: Unpack[Selection]) -> Self:
        """Headers of the answer have other values, or (None) are missing: `{"ETag": None}`."""
        return cls._make("headers", {"headers": MappingProxyType(dict(headers))}, where)

    @classmethod
    def endless_head(cls, **where: Unpack[Selection]) -> Self:
        """Headers without end."""
        return cls._make("endless_head", {}, where)

    @classmethod
    def outage(cls, duration_s: float, *, silent: bool = False, **where: Unpack[Selection]) -> Self:
        """Every connection is reset and none accepted for so long; or (`silent`) all stay, and nothing comes."""
        return cls._make("outage", {"duration_s": duration_s, "silent": silent}, where)

    # -- The bytes -----------------------------------------------------------------------------------------------------

    @classmethod
    def corrupt(
        cls,
        *,
        at: int,
        xor: int = 0xFF,
        of: Literal["answer", "object", "upload"] = "answer",
        **where: Unpack[Selection],
    ) -> Self:
        """One byte is changed on its way.

        Args:
            at: Its place in the body.
            xor: The bits to change.
            of: Whose body: the answer's (of a range, byte 0 is the first of the range), the object's (whichever range
                it is read by), or that of the request, as it was sent.
            **where: Which requests.
        """
        return cls._make("corrupt", {"at": at, "xor": xor, "of": of}, where)

    @classmethod
    def chunked(
        cls,
        *,
        chunk_bytes: int | None = None,
        extensions: bool = False,
        trailers: bool = False,
        **where: Unpack[Selection],
    ) -> Self:
        """The body comes in HTTP's chunks, without a Content-Length.

        Args:
            chunk_bytes: Of the longest chunk; by default as the server has the bytes at hand.
            extensions: Each chunk has one.
            trailers: Headers follow the last chunk.
            **where: Which requests.
        """
        parameters = {"chunk_bytes": chunk_bytes, "extensions": extensions, "trailers": trailers}
        return cls._make("chunked", parameters, where)

    @classmethod
    def compressed(cls, **where: Unpack[Selection]) -> Self:
        """The body comes as gzip, with the header that says so, asked for or not."""
        return cls._make("compressed", {}, where)

    @classmethod
    def wrong_length(cls, delta: int, **where: Unpack[Selection]) -> Self:
        """Content-Length is wrong by `delta`."""
        return cls._make("wrong_length", {"delta": delta}, where)

    # -- The store -----------------------------------------------------------------------------------------------------

    @classmethod
    def replace(cls, *, size_bytes: int | None = None, before: bool = False, **where: Unpack[Selection]) -> Self:
        """The object gets other bytes and another ETag: after this answer, or before it.

        Args:
            size_bytes: Of the new version; by default that of the old.
            before: The answer is of the new version already, if its conditions still hold.
            **where: Which requests: the fields of `Fault`.
        """
        return cls._make("replace", {"size_bytes": size_bytes, "before": before}, where)

    @classmethod
    def delete(cls, *, before: bool = False, **where: Unpack[Selection]) -> Self:
        """The object is gone: after this answer, or before it."""
        return cls._make("delete", {"before": before}, where)

    @classmethod
    def lost_answer(cls, *, ending: Ending = "reset", **where: Unpack[Selection]) -> Self:
        """The operation is done, and its answer never comes."""
        return cls._make("lost", {"ending": ending}, where)

    @classmethod
    def lost_status(cls, status: int, *, code: str | None = None, **where: Unpack[Selection]) -> Self:
        """The operation is done, and the answer is an error."""
        return cls._make("lost_status", {"status": status, "code": code}, where)

    @classmethod
    def ignore_conditions(cls, **where: Unpack[Selection]) -> Self:
        """If-Match and its kin have no effect."""
        return cls._make("ignore_conditions", {}, where)

    @classmethod
    def ignore_range(cls, **where: Unpack[Selection]) -> Self:
        """GET answers 200 with the whole object."""
        return cls._make("ignore_range", {}, where)

    @classmethod
    def shift_range(cls, delta: int, **where: Unpack[Selection]) -> Self:
        """GET answers with other bytes than those asked for, `delta` behind them, and says so in Content-Range."""
        return cls._make("shift_range", {"delta": delta}, where)

    @classmethod
    def failed_deletes(cls, *, keys: str = "*", code: str = "InternalError", **where: Unpack[Selection]) -> Self:
        """DeleteObjects answers 200 and reports that keys that match a glob could not be deleted."""
        return cls._make("failed_deletes", {"keys": keys, "code": code}, where)

    @classmethod
    def refuse_checksums(cls, **where: Unpack[Selection]) -> Self:
        """Checksum headers are refused, as stores do that do not know them."""
        return cls._make("refuse_checksums", {}, where)

    @classmethod
    def listing(cls, disorder: Disorder, **where: Unpack[Selection]) -> Self:
        """A page of a listing that is not as it should be.

        Args:
            disorder: "unordered"; "duplicate": the last key of the page before once more; "empty": no keys, though
                more follow; "endless": the last page says that it is not; "stuck": every page leads to itself;
                "tokenless": there is more, and nothing says where.
            **where: Which requests.
        """
        return cls._make(f"{disorder}_listing", {}, where)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _rebuild(rule: dict[str, object]) -> Fault:
    action = dict(rule.pop("action"))  # type: ignore[call-overload]
    kind = action.pop("kind")
    return Fault(kind=kind, parameters=MappingProxyType(action), **rule)  # type: ignore[arg-type]
