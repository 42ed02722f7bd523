"""Names in pickled metadata; what counts as an object of a checkpoint."""

import pickle

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

from s3dataset._uri import S3Uri
from s3dataset.dcp._publishing import Leftovers, names_in, new_suffix


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_names_are_found_without_running_the_pickle(protocol):
    names = {f"__{rank}_0.distcp" for rank in range(300)} | {"é/x.distcp", "d/" * 150 + "__0_0-0123456789ab.distcp"}
    data = {
        MetadataIndex(f"layer.distcp.{number}", torch.Size([0])): _StorageInfo(name, 5, 6)
        for number, name in enumerate(sorted(names))
    }
    found = names_in(memoryview(pickle.dumps(Metadata({}, storage_data=data), protocol=protocol)))
    assert names <= found
    assert found - names <= {f"layer.distcp.{number}" for number in range(400)}


def test_nothing_is_found_in_nonsense():
    assert names_in(memoryview(b"")) == set()
    assert names_in(memoryview(b".distcp")) == set()
    assert names_in(memoryview(b"\x00" * 10 + b"abc.distcp")) == set()


def test_suffixes_differ():
    assert len({new_suffix() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("name", "alone", "ours"),
    [
        ("__0_0.distcp", False, True),
        ("__17_3-0123456789ab.distcp", False, True),
        ("p/epoch_3/__1_0.distcp", False, True),
        ("mine-1-0.distcp", False, True),
        ("__3.metadata", False, True),
        (".metadata", False, False),
        ("p/__3.metadata", False, False),
        ("notes.txt", False, False),
        ("model.distcp", False, False),
        ("__0_0-xyz.distcp", False, False),
        ("__0_0.distcp.bak", False, False),
        ("__1_0.distcp", True, False),
        ("mine-1-0.distcp", True, True),
        ("mine-11-0.distcp", True, False),
        ("__3.metadata", True, False),
    ],
)
def test_what_is_ours(name, alone, ours):
    leftovers = Leftovers(None, S3Uri("bucket", "root/"), ["mine-1-"], alone=alone)
    assert leftovers._is_ours(name) == ours
