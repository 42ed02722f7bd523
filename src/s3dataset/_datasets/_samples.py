"""From an object to a sample: opens the reader, calls the transform, names the object when that fails."""

import io
import os
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

import torch.utils.data

from s3dataset._client import Client, ClientRef, configure_process, end_with_parent
from s3dataset._datasets._sample_rng import BARE, MAKING, Draws
from s3dataset._datasets._stack import stack_by_writing
from s3dataset._datasets._trace import TRANSFORM, ranged
from s3dataset._io import ReaderConstructor, S3Reader, check_constructor, open_reader

__all__ = ["Ledger", "Row", "SampleMaker", "check_pickles", "client_of_process", "enter_process", "identity"]

T_co = TypeVar("T_co", covariant=True)

Row: TypeAlias = tuple[str, str, int | None, str | None]
"""(bucket, key, size, ETag), the latter two None where no listing told them."""


def identity(reader: S3Reader) -> S3Reader:
    """The transform of a dataset that was given none: the sample is the reader."""
    return reader


class Ledger:
    """What became of the readers that a dataset delivered; readers write in it.

    Attributes:
        read: How many were read.
        unread: How many were dropped without being read since the last one that was.
    """

    __slots__ = ("read", "unread")

    def __init__(self) -> None:
        self.read = 0
        self.unread = 0


class _Process:
    """The process that this module last prepared."""

    pid: int | None = None


def enter_process() -> None:
    """A DataLoader worker takes its share of the machine before its first request, and ends with its parent."""
    if _Process.pid == os.getpid():
        return
    _Process.pid = os.getpid()
    info = torch.utils.data.get_worker_info()
    if info is not None and getattr(info, "worker_method", None) in {None, "multiprocessing"}:
        configure_process(lanes=1, share=info.num_workers)
        stack_by_writing()
        end_with_parent()


def client_of_process(client_ref: ClientRef) -> Client:
    """The client in this process, which takes its share of the machine first if it is a worker."""
    if _Process.pid != os.getpid():
        enter_process()
    return client_ref.get()


class SampleMaker(Generic[T_co]):
    """Makes samples of one dataset. Immutable and picklable, as long as the transform is.

    Args:
        client_ref: Whose connections are used.
        transform: Makes the sample of a reader.
        reader_constructor: Chooses the reader; None: the default.
    """

    __slots__ = ("_constructor", "_draws", "_ref", "_transform")

    def __init__(self, client_ref: ClientRef, transform: Callable[[S3Reader], T_co], reader_constructor: Any) -> None:
        if not callable(transform):
            raise TypeError(f"transform must be callable, taking an S3Reader; got {transform!r}")
        check_constructor(reader_constructor)
        self._ref = client_ref
        self._transform = transform
        self._constructor = reader_constructor
        self._draws = BARE

    def drawing(self, draws: Draws) -> Self:
        """The same, where `sample_rng` gives other numbers."""
        twin = type(self)(self._ref, self._transform, self._constructor)
        twin._draws = draws  # noqa: SLF001 - its own kind
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        check_pickles(self._transform, "transform")
        check_pickles(self._constructor, "reader_constructor")
        return SampleMaker, (self._ref, self._transform, self._constructor)

    @property
    def client(self) -> Client:
        """The client in this process."""
        return client_of_process(self._ref)

    @property
    def transform(self) -> Callable[[Any], T_co]:
        """What makes the sample."""
        return self._transform

    @property
    def reader_constructor(self) -> Any:
        """What chooses the reader; None: the default."""
        return self._constructor

    @property
    def delivers_readers(self) -> bool:
        """Whether samples are the readers themselves, so that it shows only later whether they are read."""
        return self._transform is identity

    @property
    def reads_ahead(self) -> bool:
        """Whether fetching before the first read fits the reader: not if it was chosen for sparse access."""
        constructor = self._constructor
        return constructor is None or (
            isinstance(constructor, ReaderConstructor) and constructor.policy.window_bytes > 0
        )

    def make(self, client: Client, row: Row, body: Any = None, ledger: Ledger | None = None) -> T_co:
        """Makes the sample of an object.

        Args:
            client: This process's client.
            row: The object.
            body: Its beginning, or all of it, if it was fetched ahead.
            ledger: Where the reader notes whether it was read.
        """
        bucket, key, size, etag = row
        reader = open_reader(
            client, bucket, key, reader_constructor=self._constructor, size=size, etag=etag, body=body, ledger=ledger
        )
        before = MAKING.of
        MAKING.begin([self._draws, row, None])
        try:
            return ranged(TRANSFORM, self._transform, reader)
        except Exception as error:
            uri = f"s3://{bucket}/{key}"
            if uri not in str(error):
                # A note shows in the traceback that a worker sends to the main process, and leaves the class as it is.
                error.add_note(f"This happened in the transform of {uri}")
            raise
        finally:
            MAKING.of = before


class _Nowhere(io.RawIOBase):
    """Takes bytes and keeps none."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return len(data)


class _Checking:
    """What is being checked, so that a transform which refers to its dataset does not recur for ever."""

    now: Final[set[int]] = set()


def check_pickles(value: object, role: str) -> None:
    """Names a transform that does not pickle; the error of pickle itself names only a piece of it.

    Raises:
        pickle.PicklingError: It does not.
    """
    if value is None or id(value) in _Checking.now:
        return
    if isinstance(value, FunctionType) and value.__closure__ is None and "<" not in value.__qualname__:
        return  # pickles as its name
    _Checking.now.add(id(value))
    try:
        ForkingPickler(_Nowhere()).dump(value)
    except Exception as error:
        raise pickle.PicklingError(
            f"{role}={_named(value)} cannot be pickled, which workers started by spawn or forkserver need "
            f"({error}): define it at the top level of a module (functools.partial binds arguments), or use "
            "multiprocessing_context='fork'"
        ) from error
    finally:
        _Checking.now.discard(id(value))


def _named(value: object) -> str:
    """A name by which its author finds it."""
    code = getattr(value, "__code__", None)
    if code is None:
        return repr(value)
    return f"{getattr(value, '__qualname__', value)} ({code.co_filename}:{code.co_firstlineno})"
