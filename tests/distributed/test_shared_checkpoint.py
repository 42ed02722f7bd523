"""S3Checkpoint.load by ranks that read the object once between them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from s3dataset import S3Checkpoint
from s3dataset.testing import Fault, LocalS3

MIB = 1 << 20
FAILING = ["failing-share", "failing-place", "failing-last-place"]
CASES = ["plain", "keys", "group-of-two", *FAILING, "missing", "wrong", "old", "meta-on-one", "other-keys", "no-memory"]

pytestmark = [pytest.mark.timeout(170)]


def test_loads_by_three_ranks(server: LocalS3, ranks: Callable[..., list[Any]]) -> None:
    """44 MiB each, one case after the other: launching ranks takes longer than all of them."""
    state = {"a": torch.randn(8 * MIB), "b": torch.randn(2 * MIB), "nested": {"c": torch.randn(MIB)}}
    checkpoint = S3Checkpoint("us-east-1")
    for case in CASES:
        if case == "old":
            with checkpoint.writer(f"s3://bucket/{case}") as writer:
                torch.save(state, writer, _use_new_zipfile_serialization=False)  # type: ignore[arg-type]
        elif case != "missing":
            checkpoint.save(state, f"s3://bucket/{case}")
    server.add_fault(Fault.corrupt(at=20 * MIB, of="object", operation="GetObject", key="wrong", times=None))
    try:
        by_rank = ranks("shared_checkpoint", *CASES, world_size=3)
    finally:
        server.clear_faults()
    answers = {case: [answer[case] for answer in by_rank] for case in CASES}
    part = [float(tensor.double().sum()) for tensor in (state["b"], state["nested"]["c"])]
    whole = [*part, float(state["a"].double().sum())]

    def fetched_bytes(case: str) -> int:
        return sum(record.bytes_out for record in server.requests("GetObject") if record.key == case)

    assert answers["plain"] == [[whole, [0]]] * 3
    assert fetched_bytes("plain") < 45 * MIB
    assert answers["keys"] == [[part, [0]]] * 3
    assert fetched_bytes("keys") < 13 * MIB
    assert answers["group-of-two"] == [[whole, [0]], "not in it", [whole, [0]]]
    assert fetched_bytes("group-of-two") < 45 * MIB
    assert [answer[0] for answer in answers["old"]] == [whole] * 3
    assert [kind for kind, _ in answers["missing"]] == ["ObjectNotFoundError"] * 3
    assert [kind for kind, _ in answers["wrong"]] == ["ChecksumMismatchError"] * 3
    for case, own, said in (
        ("failing-share", "TransportError", "127.0.0.1:9"),
        ("failing-place", "LookupError", "no place here"),
        ("failing-last-place", "LookupError", "no place here"),
    ):
        kind, text = answers[case][1]
        assert kind == own
        assert said in text
        for kind, text in (answers[case][0], answers[case][2]):
            assert kind == "PeerFailedError"
            assert text.startswith("rank 1")
            assert said in text
    assert answers["meta-on-one"] == [[whole, [0]], "meta", [whole, [0]]]
    for kind, text in answers["other-keys"]:
        assert kind == "ValueError"
        assert "s3://bucket/other-keys: the ranks of the group ask for different parts" in text
    assert [kind for kind, _ in answers["no-memory"]] == ["PeerFailedError", "MemoryError", "PeerFailedError"]
