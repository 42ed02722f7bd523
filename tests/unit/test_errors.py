"""The exceptions: what programs catch, what they read from them, and how they cross processes."""

import builtins
import copy
import errno
import inspect
import pickle

import pytest

from s3dataset import errors
from s3dataset.errors import S3Exception

PUBLIC = [value for name, value in sorted(vars(errors).items()) if name in errors.__all__ and isinstance(value, type)]
ALL = [cls for cls in PUBLIC if issubclass(cls, S3Exception)]

FIELDS = {
    "operation": "GetObject",
    "uri": "s3://bucket/key",
    "status": 404,
    "code": "NoSuchKey",
    "request_id": "4442587FB7D0A2F9",
    "attempts": 3,
    "elapsed_s": 1.5,
}


@pytest.mark.parametrize("cls", ALL)
def test_pickling_keeps_class_message_fields_and_notes(cls: type[S3Exception]) -> None:
    exception = cls("what happened", **FIELDS)
    exception.add_note("a note")
    for restored in (pickle.loads(pickle.dumps(exception)), copy.copy(exception)):
        assert type(restored) is cls
        assert str(restored) == "what happened"
        assert {name: getattr(restored, name) for name in FIELDS} == FIELDS
        assert restored.__notes__ == ["a note"]


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("args", [("what", 7), ("what", {"shard": 3})])
def test_more_arguments_are_kept(cls: type[S3Exception], args: tuple[object, ...]) -> None:
    exception = cls(*args, status=404)
    for one in (exception, pickle.loads(pickle.dumps(exception)), copy.copy(exception)):
        assert type(one) is cls
        assert one.args == args
        assert one.status == 404


@pytest.mark.parametrize("cls", ALL)
def test_a_message_alone_makes_one(cls: type[S3Exception]) -> None:
    assert str(cls("Caught in worker 3")) == "Caught in worker 3"
    assert not getattr(cls, "message", None), "PyTorch calls cls(message=...) for classes with this attribute"


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ObjectNotFoundError", "FileNotFoundError"),
        ("BucketNotFoundError", "FileNotFoundError"),
        ("AccessDeniedError", "PermissionError"),
        ("TransportError", "ConnectionError"),
        ("ConnectTimeoutError", "TimeoutError"),
        ("FirstByteTimeoutError", "TimeoutError"),
        ("StallTimeoutError", "TimeoutError"),
        ("InvalidUriError", "ValueError"),
        ("InvalidConfigError", "ValueError"),
    ],
)
def test_standard_handlers_catch_them(name: str, base: str) -> None:
    assert issubclass(getattr(errors, name), getattr(builtins, base))


def test_errno_is_set_and_does_not_show() -> None:
    missing = errors.ObjectNotFoundError("no such object")
    assert (missing.errno, str(missing)) == (errno.ENOENT, "no such object")
    assert errors.AccessDeniedError("x").errno == errno.EACCES
    assert errors.StallTimeoutError("x").errno == errno.ETIMEDOUT


def test_both_names_of_the_base_are_one_class() -> None:
    assert errors.S3DatasetException is errors.S3Exception


def test_the_docstring_draws_the_whole_tree() -> None:
    """Every class stands in the drawing, as deep as its bases say."""
    drawn = {}
    for line in (inspect.getdoc(errors) or "").splitlines():
        head, branch, tail = line.partition("─ ")
        if branch:
            drawn[tail.split()[0]] = len(head) // 4
    for cls in ALL:
        if cls is not S3Exception:
            assert drawn.pop(cls.__name__) == len([base for base in cls.__mro__ if base in ALL]) - 1
    assert not drawn


def test_what_is_no_exception_is_a_warning_that_the_docstring_names() -> None:
    warnings = [cls for cls in PUBLIC if cls not in ALL]
    assert warnings
    assert all(issubclass(cls, UserWarning) for cls in warnings)
    assert all(cls.__name__ in (inspect.getdoc(errors) or "") for cls in warnings)


def test_all_is_sorted() -> None:
    assert errors.__all__ == sorted(errors.__all__)
