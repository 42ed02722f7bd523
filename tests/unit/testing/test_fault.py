"""Rules of the fault plan as values."""

import pickle

import pytest

from s3dataset.testing import Fault


def test_a_rule_is_what_the_server_reads() -> None:
    fault = Fault.status(503, operation="GetObject", key="train/*", times=2, scope="key")
    assert fault.as_json() == {
        "operation": "GetObject",
        "bucket": "*",
        "key": "train/*",
        "after": 0,
        "every": 1,
        "times": 2,
        "probability": 1.0,
        "seed": 0,
        "scope": "key",
        "action": {
            "kind": "status",
            "status": 503,
            "retry_after_date": False,
            "empty": False,
            "body_bytes": 0,
            "close": False,
        },
    }


def test_rules_hit_once_unless_told() -> None:
    assert Fault.reset().times == 1
    assert Fault.reset(times=None).times is None


def test_rules_are_values() -> None:
    fault = Fault.truncate(at=7, key="a", times=3)
    assert fault == Fault.truncate(at=7, key="a", times=3)
    assert fault != Fault.truncate(at=8, key="a", times=3)
    assert len({fault, Fault.truncate(at=7, key="a", times=3)}) == 1
    assert pickle.loads(pickle.dumps(fault)) == fault
    headers = Fault.headers({"ETag": None, "Server": "x"})
    assert headers.as_json()["action"] == {"kind": "headers", "headers": {"ETag": None, "Server": "x"}}
    assert pickle.loads(pickle.dumps(headers)) == headers
    with pytest.raises(AttributeError):
        fault.times = 4  # type: ignore[misc]
    with pytest.raises(TypeError):
        fault.parameters["at"] = 4  # type: ignore[index]


@pytest.mark.parametrize("bad", [{"every": 0}, {"after": -1}, {"probability": 1.5}])
def test_selections_that_make_no_sense_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="every >= 1"):
        Fault.reset(**bad)  # type: ignore[arg-type]
