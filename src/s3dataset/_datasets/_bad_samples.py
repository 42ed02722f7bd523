"""What becomes of samples whose content is broken."""

import json
import logging
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from s3dataset._order import BadSample, BadSamples, replacement
from s3dataset._page import Page
from s3dataset.errors import DecodeError, ObjectNotFoundError, S3Exception

__all__ = ["SKIPPED", "BadLedger", "BadPolicy", "OnError", "Verdict", "checked_on_error", "mark_frame"]

T = TypeVar("T")

Verdict: TypeAlias = Literal["raise", "skip", "replace"]

OnError: TypeAlias = Verdict | Callable[[Exception, str, int], Verdict]
"""A word, or a function that says it of (error, URI of the object or shard, number of the sample in it)."""

_WORDS: Final = ("raise", "skip", "replace")

_IN_A_ROW: Final = 100
"""So many bad samples one after the other are no accident: wrong credentials for a key, a wrong format, a wrong
transform."""

_LEDGER_BYTES: Final = 1 << 20

SKIPPED: Final = object()
"""Stands for a sample that was left out, on its way to the loader's collate function in the same process."""

_log = logging.getLogger("s3dataset.bad_samples")


def checked_on_error(on_error: Any) -> OnError:
    """Refuses what is none.

    Raises:
        ValueError: It is a word that is none of the three.
        TypeError: It is something else.
    """
    if isinstance(on_error, str) and on_error not in _WORDS:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, _WORDS))}, or a function; got {on_error!r}")
    if not (isinstance(on_error, str) or callable(on_error)):
        raise TypeError(f"on_error must be one of {', '.join(map(repr, _WORDS))}, or a function; got {on_error!r}")
    checked: OnError = on_error
    return checked


class BadLedger:
    """The bad samples that all processes of a dataset met, in a file beside their page, and those of a state.

    Args:
        page: Gives the page.
    """

    def __init__(self, page: Callable[[], Page]) -> None:
        self._page = page
        self._read: tuple[tuple[int, int], BadSamples] = ((0, 0), BadSamples())

    def note(self, sample: BadSample, *, log: bool = True) -> None:
        """Adds one, and logs it."""
        page = self._page()
        if log:
            _log.warning("bad sample %d of %s is left out: %s", sample.offset, sample.uri, sample.reason)
        with page.locked(), self._path(page, "bad").open("a") as file:
            if file.tell() < _LEDGER_BYTES:
                file.write(json.dumps(sample) + "\n")
                file.flush()
            page.add("bad_samples", 1)

    def knows(self, samples: BadSamples, *, alone: bool) -> None:
        """Takes what a state says, which a run that goes on from it counts on from.

        Args:
            samples: The state's ledger.
            alone: Nothing else was loaded; else another worker of the same loader may have loaded as much.
        """
        page = self._page()
        if not samples.count and not page.get("bad_loaded"):
            return
        with page.locked():
            known = self._loaded(page)
            if not alone and known.count:
                merged = known.merged([samples])
                beyond = max(one.count - len(one.entries) for one in (known, samples))
                samples = BadSamples(merged.entries, len(merged.entries) + beyond)
                if samples == known:
                    return
            self._path(page, "bad_loaded").write_text(json.dumps(samples.to_dict()))
            page.add("bad_loaded", 1)

    def read(self) -> BadSamples:
        """What was noted so far."""
        page = self._page()
        now = page.get("bad_samples"), page.get("bad_loaded")
        if now == self._read[0]:
            return self._read[1]
        with page.locked():
            now = page.get("bad_samples"), page.get("bad_loaded")
            loaded = self._loaded(page)
            lines = self._path(page, "bad").read_text().splitlines() if now[0] else []
        entries = [BadSample(*json.loads(line)) for line in lines]
        met = BadSamples().merged(BadSamples((entry,), 1) for entry in entries)
        # What is met again after a resume counts once.
        ledger = loaded.merged([BadSamples(met.entries, max(met.count, met.count + now[0] - len(entries)))])
        self._read = now, ledger
        return ledger

    def _loaded(self, page: Page) -> BadSamples:
        if not page.get("bad_loaded"):
            return BadSamples()
        return BadSamples.from_dict(json.loads(self._path(page, "bad_loaded").read_text()))

    @staticmethod
    def _path(page: Page, name: str) -> Path:
        return Path(f"{page.path}.{name}")


Frame: TypeAlias = tuple[int, int]
"""(shard, where it begins)."""


def mark_frame(error: DecodeError, frame: Frame) -> None:
    """Says of an error that it is one of all samples of a frame."""
    error.__dict__["frame"] = frame


class _Known(Container[int]):
    """Positions of samples that are known to be bad: by themselves, or by their frames."""

    def __init__(self, positions: set[int], frames: set[Frame], frame_of: "FrameOf") -> None:
        self._positions = positions
        self._frames = frames
        self._frame_of = frame_of

    def __contains__(self, position: object) -> bool:
        if position in self._positions:
            return True
        return bool(self._frames) and self._frame_of(cast("int", position)) in self._frames


FrameOf: TypeAlias = Callable[[int], Frame | None]


class BadPolicy(Generic[T]):
    """Decides about bad samples of one iteration. Belongs to one thread.

    Only what is wrong with the content is skipped or replaced: a `DecodeError` of a format or transform, or an object
    that is not there any more. A function that decides is asked about other errors of a transform too. What the
    network, the credentials or the memory failed at always raises. A frame that is broken (a row group of Parquet) is
    one bad thing, however many samples are in it: it counts once among those in a row, and is logged once.

    Attributes:
        marks_skipped: Hand out `SKIPPED` for what is left out, so that places keep their batches; the loader drops it.
        skipped: How many were left out without that.

    Args:
        on_error: The user's word.
        ledger: Where they are noted.
        remake: Makes the sample of a slot, for replacing.
        neighbours: Of a slot: those whose samples may stand in for its own.
        frame_of: The frame that the sample of a slot lies in, None where there are no frames.
        slot_of: Which slot a place of the iteration is; default: that of the same number.
        seed: Names the choice among them, with the epoch.
        epoch: See `seed`.
    """

    def __init__(
        self,
        on_error: OnError,
        ledger: BadLedger,
        remake: Callable[[int], T],
        neighbours: Callable[[int], range],
        frame_of: FrameOf = lambda _: None,
        *,
        slot_of: Callable[[int], int] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        self._on_error = on_error
        self._ledger = ledger
        self._remake = remake
        self._neighbours = neighbours
        self._slot_of = slot_of
        self._seed = seed
        self._epoch = epoch
        self.marks_skipped = False
        self.skipped = 0
        self._in_a_row = 0
        self._bad: set[int] = set()
        self._bad_frames: set[Frame] = set()
        self._known = _Known(self._bad, self._bad_frames, frame_of)

    def good(self) -> None:
        """A sample was made."""
        self._in_a_row = 0

    def verdict(self, error: Exception, uri: str, number: int) -> Verdict:
        """Says what becomes of a bad sample, and notes it unless it raises.

        Raises:
            ValueError: The user's function gave something else.
        """
        content = isinstance(error, DecodeError | ObjectNotFoundError)
        if callable(self._on_error):
            asked = content or not isinstance(error, S3Exception | MemoryError)
            word: Any = self._on_error(error, uri, number) if asked else "raise"
            if word not in _WORDS:
                raise ValueError(f"on_error must return one of {', '.join(map(repr, _WORDS))}; it returned {word!r}")
        else:
            word = self._on_error if content else "raise"
        if word == "raise":
            return "raise"
        frame = error.__dict__.get("frame")
        is_new = frame is None or frame not in self._bad_frames
        if frame is not None:
            self._bad_frames.add(frame)
        self._in_a_row += is_new
        if self._in_a_row > _IN_A_ROW:
            error.add_note(
                f"{_IN_A_ROW} samples in a row were bad, which is no accident: nothing more is left out. Look at "
                "format= and transform="
            )
            return "raise"
        self._ledger.note(BadSample(uri, number, f"{type(error).__name__}: {error}"), log=is_new)
        checked: Verdict = word
        return checked

    def settle(self, error: Exception, uri: str, number: int, place: int) -> list[T]:
        """What is handed out instead of a bad sample: nothing, or another one.

        Raises:
            Exception: The error, if it is to be raised; or that of the replacement.
        """
        word = self.verdict(error, uri, number)
        if word == "raise":
            raise error
        if word == "skip":
            if self.marks_skipped:
                return [cast("T", SKIPPED)]
            self.skipped += 1
            return []
        slot = place if self._slot_of is None else self._slot_of(place)
        self._bad.add(slot)
        while True:
            try:
                other = replacement(self._seed, self._epoch, slot, self._neighbours(slot), self._known)
            except LookupError:
                error.add_note("There is no sample to replace it with: all its neighbours are bad")
                raise error from None
            try:
                return [self._remake(other)]
            except Exception as e:
                self._bad.add(other)
                if self.verdict(e, uri, number) == "raise":
                    raise
