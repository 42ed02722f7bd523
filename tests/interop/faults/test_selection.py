"""Which requests a rule picks."""

from tests.interop.wire import Wire

from s3dataset.testing import Fault, LocalS3

from . import get


def test_by_operation_and_key(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.status(503, operation="Get*", key="k?/*", times=None))
    server.put("bucket", "k1/a/b", b"")
    assert get(wire).status == 200
    assert wire.request("HEAD", "/bucket/k1/a/b").status == 200
    assert wire.request("GET", "/bucket/k1/a/b").status == 503


def test_by_number(server: LocalS3, wire: Wire) -> None:
    (number,) = server.add_fault(Fault.status(500, after=1, every=2, times=2))
    assert [get(wire).status for _ in range(7)] == [200, 500, 200, 500, 200, 200, 200]
    assert server.fault_counts() == {number: 2}
    assert server.stats()["faults"] == 2
    assert server.requests()[1].faults == ["status"]


def test_by_chance(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.status(500, probability=0.5, seed=1, times=None))
    statuses = [get(wire).status for _ in range(100)]
    assert 30 < statuses.count(500) < 70


def test_first_attempts_only(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.status(503, scope="request"))
    statuses = [get(wire, Range=f"bytes={start}-").status for start in (0, 0, 5, 5, 0)]
    assert statuses == [503, 206, 503, 206, 206]


def test_rules_add_up_and_go(server: LocalS3, wire: Wire) -> None:
    first, _ = server.add_fault(Fault.delay(0.2, times=None), Fault.status(503, times=None))
    assert get(wire).status == 503
    assert server.requests()[0].duration_s >= 0.2
    server.clear_faults(first)
    assert get(wire).status == 503
    server.clear_faults()
    assert get(wire).status == 200


def test_from_the_start() -> None:
    with (
        LocalS3("bucket", public=True, faults=[Fault.status(429, code="Slow")], activate=False) as server,
        Wire(server) as wire,
    ):
        answer = get(wire)
        assert (answer.status, b"<Code>Slow</Code>" in answer.body) == (429, True)
