"""Page: a small file, mapped into memory, that the processes of one dataset share.

It carries what must be the same in the main process, its forked and its spawned workers: where the listing is, the
epoch, and counters. A file in the temporary folder, since containers limit /dev/shm to 64 MB. Its record locks are on
another file, "<path>.lock": on some systems they and the `flock` that holds the page exclude each other.

Layout, native byte order: 1,024 records of 64 bytes, each a name of 56 bytes and an int64; then 4 records of 4,160
bytes, each a name of 56 bytes, a length as int64, and 4,096 bytes. Records are claimed in order and never given back.
"""

import contextlib
import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from s3dataset._shared_files import create, hold, remove_own

__all__ = ["Page"]

_NAME_BYTES: Final = 56
_INTEGERS: Final = 1024
_INTEGER_BYTES: Final = _NAME_BYTES + 8
_TEXTS: Final = 4
_TEXT_BYTES: Final = 4096
_TEXT_RECORD_BYTES: Final = _NAME_BYTES + 8 + _TEXT_BYTES
_TEXTS_START: Final = _INTEGERS * _INTEGER_BYTES
_SIZE: Final = _TEXTS_START + _TEXTS * _TEXT_RECORD_BYTES

_OPEN: Final = os.O_RDWR | os.O_CLOEXEC

_VALUES_LOCK: Final = 0  # each lock is a byte of the file
_WORK_LOCK: Final = 1


class _Pages:
    """The pages of this process, by path.

    Record locks belong to a process and a file, so there must be one mapping of each.
    """

    by_path: ClassVar["weakref.WeakValueDictionary[str, Page]"] = weakref.WeakValueDictionary()
    lock: ClassVar = threading.Lock()

    @classmethod
    def renew_locks(cls) -> None:
        cls.lock = threading.Lock()
        for page in list(cls.by_path.values()):
            page._renew_locks()  # noqa: SLF001 - of the same module


os.register_at_fork(after_in_child=_Pages.renew_locks)


class _Descriptor:
    """The file of the record locks.

    When the garbage collector takes a page together with what still counts on it, the page's finalizer comes first:
    that counts for nobody any more, and the number of the closed descriptor may be another file's by then.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def lock(self, byte: int, operation: int) -> None:
        if self._descriptor >= 0:
            fcntl.lockf(self._descriptor, operation, 1, byte)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


class Page:
    """Named integers and short texts, shared between processes. Make one with `create`.

    Safe between threads and processes: additions are atomic, reads see whole values. A forked child goes on with its
    parent's page; a pickle carries the path, and whoever finds no file there begins an empty page of its own. The
    process that created the file removes it, and whatever lies beside it as "<path>.<anything>", when it lets go of the
    page or ends; where it was killed, a later process does so once nobody has the page any more.

    Attributes:
        path: Of the file.
    """

    def __init__(self, path: str, descriptor: int, lock_descriptor: int) -> None:
        """Maps an open file; private. The descriptors are its own from now on."""
        self.path = path
        self._map = mmap.mmap(descriptor, _SIZE)
        os.close(descriptor)  # the map has a copy, which holds the file as well
        self._locks = _Descriptor(lock_descriptor)
        self._integers = memoryview(self._map)[:_TEXTS_START].cast("q")
        self._places: dict[str, int] = {}
        self._renew_locks()
        closing = weakref.finalize(self, self._locks.close)
        closing.atexit = False  # other finalizers may still count

    @classmethod
    def create(cls) -> "Page":
        """Makes an empty page.

        Raises:
            OSError: The temporary folder has no room.
        """
        descriptor, path = create("page")
        try:
            # Zeros that were written have room on the disk; a hole in a full file system would be a SIGBUS later.
            os.write(descriptor, bytes(_SIZE))
            lock_descriptor = os.open(f"{path}.lock", _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
        except BaseException:
            os.close(descriptor)
            remove_own(path, os.getpid())
            raise
        page = cls(path, descriptor, lock_descriptor)
        weakref.finalize(page, remove_own, path, os.getpid())
        with _Pages.lock:
            _Pages.by_path[path] = page
        return page

    @classmethod
    def attach(cls, path: str) -> "Page":
        """Maps the page of another process, or begins one of its own if that is gone."""
        with _Pages.lock:
            page = _Pages.by_path.get(path)
            if page is not None:
                return page
            if (descriptors := _open(path)) is not None:
                page = _Pages.by_path[path] = cls(path, *descriptors)
                return page
        return cls.create()

    def __reduce__(self) -> tuple[Any, ...]:
        return Page.attach, (self.path,)

    def __repr__(self) -> str:
        return f"Page({self.path!r})"

    # -- Integers ---------------------------------------------------------------------------------------------------

    def get(self, name: str) -> int:
        """Returns the integer of that name, 0 if nobody set it."""
        place = self._places.get(name)
        if place is None:
            place = self._find(name)
            if place < 0:
                return 0
        return self._integers[place]

    def set(self, name: str, value: int) -> None:
        """Sets it."""
        with self._values_locked():
            self._integers[self._claim(name)] = value

    def add(self, name: str, delta: int) -> int:
        """Adds to it, and returns the sum."""
        with self._values_locked():
            place = self._claim(name)
            self._integers[place] += delta
            return self._integers[place]

    def add_many(self, deltas: Mapping[str, int]) -> None:
        """Adds to several at once.

        So do iterators that end; the garbage collector may end one in the midst of another change by the same thread,
        which then adds these at its end.
        """
        with self._values:
            if self._changing:
                self._later.append(deltas)
                return
            with self._values_locked():
                self._add_all(deltas)

    def _add_all(self, deltas: Mapping[str, int]) -> None:
        for name, delta in deltas.items():
            self._integers[self._claim(name)] += delta

    def items(self) -> dict[str, int]:
        """Returns all integers by name."""
        found = {}
        with self._values_locked():
            for number in range(_INTEGERS):
                name = self._name_at(number * _INTEGER_BYTES)
                if not name:
                    break
                found[name] = self._integers[_place(number)]
        return found

    # -- Texts ------------------------------------------------------------------------------------------------------

    def get_bytes(self, name: str) -> bytes:
        """Returns the text of that name, b"" if nobody set it."""
        with self._values_locked():
            start = self._text_record(name, claim=False)
            if start is None:
                return b""
            length = int.from_bytes(self._map[start + _NAME_BYTES : start + _NAME_BYTES + 8], "little")
            return self._map[start + _NAME_BYTES + 8 : start + _NAME_BYTES + 8 + length]

    def set_bytes(self, name: str, data: bytes) -> None:
        """Sets it.

        Raises:
            ValueError: It is longer than 4,096 bytes.
        """
        if len(data) > _TEXT_BYTES:
            raise ValueError(f"{name} has {len(data)} bytes, and a page holds {_TEXT_BYTES} at most")
        with self._values_locked():
            start = self._text_record(name, claim=True)
            if start is None:
                raise ValueError(f"a page holds {_TEXTS} texts at most")
            self._map[start + _NAME_BYTES + 8 : start + _NAME_BYTES + 8 + len(data)] = data
            self._map[start + _NAME_BYTES : start + _NAME_BYTES + 8] = len(data).to_bytes(8, "little")

    # -- Locks ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other threads and processes out of a longer piece of work; the end of the process gives it up."""
        with self._work, self._file_locked(_WORK_LOCK):
            yield

    @contextlib.contextmanager
    def _values_locked(self) -> Iterator[None]:
        with self._values:
            self._changing = True
            try:
                with self._file_locked(_VALUES_LOCK):
                    yield
                    while self._later:
                        self._add_all(self._later.pop())
            finally:
                self._changing = False

    @contextlib.contextmanager
    def _file_locked(self, byte: int) -> Iterator[None]:
        # Record locks belong to the process: unlike flock's, a forked child does not hold its parent's.
        self._locks.lock(byte, fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._locks.lock(byte, fcntl.LOCK_UN)

    def _renew_locks(self) -> None:
        self._values = threading.RLock()
        self._changing = False  # by the thread that has the lock
        self._later: list[Mapping[str, int]] = []
        self._work = threading.Lock()

    # -- Records ----------------------------------------------------------------------------------------------------

    def _name_at(self, start: int) -> str:
        return self._map[start : start + _NAME_BYTES].rstrip(b"\0").decode()

    def _find(self, name: str) -> int:
        """The place of an integer, negative if it has none: then ~number of the first free record."""
        for number in range(_INTEGERS):
            known = self._name_at(number * _INTEGER_BYTES)
            if known == name:
                self._places[name] = _place(number)
                return _place(number)
            if not known:
                return ~number
        raise ValueError(f"a page holds {_INTEGERS} integers at most, and has no room for {name}")

    def _claim(self, name: str) -> int:
        place = self._places.get(name)
        if place is None:
            place = self._find(name)
            if place < 0:
                number = ~place
                start = number * _INTEGER_BYTES
                self._map[start : start + _NAME_BYTES] = _name_bytes(name)
                place = self._places[name] = _place(number)
        return place

    def _text_record(self, name: str, *, claim: bool) -> int | None:
        for number in range(_TEXTS):
            start = _TEXTS_START + number * _TEXT_RECORD_BYTES
            known = self._name_at(start)
            if known == name:
                return start
            if not known:
                if not claim:
                    return None
                self._map[start : start + _NAME_BYTES] = _name_bytes(name)
                return start
        return None


def _place(number: int) -> int:
    """Where the integer of a record is, counted in integers."""
    return number * (_INTEGER_BYTES // 8) + _NAME_BYTES // 8


def _name_bytes(name: str) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= _NAME_BYTES:
        raise ValueError(f"a name in a page has 1 to {_NAME_BYTES} bytes, not {name!r}")
    return encoded.ljust(_NAME_BYTES, b"\0")


def _open(path: str) -> tuple[int, int] | None:
    """The descriptors of a page's file, held, and of its locks; None where there is none any more."""
    descriptor = -1
    try:
        descriptor = os.open(path, _OPEN)
        if hold(descriptor, path):
            return descriptor, os.open(f"{path}.lock", _OPEN)
    except FileNotFoundError:
        pass
    if descriptor >= 0:
        os.close(descriptor)
    return None
