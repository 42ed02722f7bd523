"""The commit record: what later versions must read, and what cannot be one."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3dataset._commits import CommitRecord, StoredObject, check_json
from s3dataset.errors import DecodeError, S3Exception

GOLDEN = Path(__file__).with_name("commit_record_v1.json")
URI = "s3://bucket/run/commits/999999987999.json"


def test_a_record_of_version_1_is_read_for_ever() -> None:
    record = CommitRecord.from_json(GOLDEN.read_bytes(), URI)
    assert record == CommitRecord(
        step=12000,
        attempt="610248e50867ac06",
        format="dcp",
        world_size=2,
        time=1795706812.905,
        objects=(
            StoredObject(".metadata", 1021, '"ac19f51aaef27179593ba8d012498f51"', ("CRC64NVME", "3ZW1ZXc/ouQ=")),
            StoredObject("__0_0.distcp", 40213, '"9dd4e461268c8034f5c8564e155c67a6-2"', ("CRC32C", "yZRlqg==")),
            StoredObject("__1_0.distcp", 0, "", None),
        ),
        dataset_state={"epoch": 3, "cursors": [17, 4.5, None, True], "naïve": "ключ"},
        metadata=["any", {"JSON": "value"}],
        libraries={"s3dataset": "1.1.0", "torch": "2.15.0", "python": "3.11.7"},
    )
    assert record.nbytes == 41234


def test_the_same_record_is_written_byte_for_byte() -> None:
    data = GOLDEN.read_bytes()
    assert CommitRecord.from_json(data, URI).to_json() == data


def test_fields_that_are_not_known_are_no_error() -> None:
    document = json.loads(GOLDEN.read_text())
    document["added_later"] = {"x": 1}
    document["objects"][0]["added_later"] = 1
    assert CommitRecord.from_json(json.dumps(document).encode(), URI) == CommitRecord.from_json(
        GOLDEN.read_bytes(), URI
    )


def test_a_newer_version_is_an_error_that_says_to_upgrade() -> None:
    document = {"version": 2, "everything": "different"}
    with pytest.raises(S3Exception, match=r"999999987999\.json has version 2, .* reads up to 1: .*upgrade") as caught:
        CommitRecord.from_json(json.dumps(document).encode(), URI)
    assert not isinstance(caught.value, DecodeError)  # which would be skipped as damaged


@pytest.mark.parametrize(
    "change",
    [
        {"version": None},
        {"version": 0},
        {"version": True},
        {"version": "1"},
        {"step": -1},
        {"step": "7"},
        {"attempt": 7},
        {"time": "yesterday"},
        {"objects": None},
        {"objects": [{}]},
        {"objects": [{"name": "", "size": 1, "etag": "", "checksum": None}]},
        {"objects": [{"name": "a", "size": 1.5, "etag": "", "checksum": None}]},
        {"objects": [{"name": "a", "size": 1, "etag": "", "checksum": {}}]},
        {"objects": [{"name": "a", "size": 1, "etag": "", "checksum": {"CRC32": 7}}]},
        {"libraries": []},
    ],
)
def test_what_is_no_record_is_said_to_be_none(change: dict[str, Any]) -> None:
    document = json.loads(GOLDEN.read_text()) | change
    with pytest.raises(DecodeError, match="is no commit record of s3dataset, or it is damaged"):
        CommitRecord.from_json(json.dumps(document).encode(), URI)


@pytest.mark.parametrize("missing", sorted(set(json.loads(GOLDEN.read_text()))))
def test_nothing_may_be_missing(missing: str) -> None:
    document = json.loads(GOLDEN.read_text())
    del document[missing]
    with pytest.raises(DecodeError):
        CommitRecord.from_json(json.dumps(document).encode(), URI)


@given(st.binary(max_size=60) | st.integers(0, GOLDEN.stat().st_size - 3).map(lambda end: GOLDEN.read_bytes()[:end]))
def test_any_other_bytes(data: bytes) -> None:
    with pytest.raises(DecodeError):
        CommitRecord.from_json(data, URI)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, JSON)
def test_any_json_value_comes_back(dataset_state: Any, metadata: Any) -> None:
    check_json(dataset_state, "dataset_state")
    record = CommitRecord(
        step=1, attempt="a", format="torch", world_size=1, time=0.0, objects=(),
        dataset_state=dataset_state, metadata=metadata,
    )  # fmt: skip
    again = CommitRecord.from_json(record.to_json(), URI)
    assert (again.dataset_state, again.metadata) == (dataset_state, metadata)


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ({"a": [1, {"b": {1, 2}}]}, TypeError, r"state\['a'\]\[1\]\['b'\] is a set"),
        ({1: "a"}, TypeError, r"state has the key 1, and keys of JSON are text"),
        ({"loss": math.nan}, ValueError, r"state\['loss'\] is nan"),
        ([math.inf], ValueError, r"state\[0\] is inf"),
        ("\ud800", ValueError, "no UTF-8"),
        (b"bytes", TypeError, "state is a bytes"),
        (cycle(), ValueError, "refers to itself"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check_json(value, "state")
