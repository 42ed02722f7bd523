"""The import paths of s3torchconnector: re-exports of the public names, and nothing else."""

import ast
import importlib
from pathlib import Path

import pytest

import s3dataset

PATHS = {
    "s3dataset": [
        "S3Checkpoint",
        "S3ClientConfig",
        "S3Exception",
        "S3IterableDataset",
        "S3MapDataset",
        "S3Reader",
        "S3ReaderConstructor",
        "S3Writer",
        "__version__",
    ],
    "s3dataset._s3client": ["S3Client", "S3ClientConfig"],
    "s3dataset._s3client._s3client": ["S3Client"],
    "s3dataset._s3client.s3client_config": ["S3ClientConfig"],
    "s3dataset._s3dataset_common": ["parse_s3_uri"],
    "s3dataset._user_agent": ["UserAgent"],
    "s3dataset._version": ["__version__"],
    "s3dataset.dcp.s3_file_system": ["S3FileSystem", "S3StorageReader", "S3StorageWriter"],
    "s3dataset.dcp.s3_prefix_strategy": [
        "BinaryPrefixStrategy",
        "DefaultPrefixStrategy",
        "HexPrefixStrategy",
        "NumericPrefixStrategy",
        "RoundRobinPrefixStrategy",
        "S3PrefixStrategyBase",
    ],
    "s3dataset.lightning.s3_lightning_checkpoint": ["S3LightningCheckpoint"],
    "s3dataset.s3checkpoint": ["S3Checkpoint"],
    "s3dataset.s3iterable_dataset": ["S3IterableDataset"],
    "s3dataset.s3map_dataset": ["S3MapDataset"],
    "s3dataset.s3reader": [
        "DCPOptimizedConstructor",
        "DCPOptimizedS3Reader",
        "DCPS3ReaderConstructorProtocol",
        "GetStreamCallable",
        "ItemRange",
        "RangedS3Reader",
        "S3Reader",
        "S3ReaderConstructor",
        "S3ReaderConstructorProtocol",
        "SequentialS3Reader",
    ],
    "s3dataset.s3reader.constructor": ["DCPOptimizedConstructor", "S3ReaderConstructor"],
    "s3dataset.s3reader.dcp_optimized": ["DEFAULT_MAX_GAP_SIZE", "DCPOptimizedS3Reader", "ItemRange"],
    "s3dataset.s3reader.protocol": [
        "DCPS3ReaderConstructorProtocol",
        "GetStreamCallable",
        "S3ReaderConstructorProtocol",
    ],
    "s3dataset.s3reader.ranged": ["DEFAULT_BUFFER_SIZE", "RangedS3Reader"],
    "s3dataset.s3reader.s3reader": ["S3Reader"],
    "s3dataset.s3reader.sequential": ["SequentialS3Reader"],
    "s3dataset.s3writer": ["S3Writer"],
}


def _module(path):
    if "lightning" in path:
        pytest.importorskip("lightning")
    return importlib.import_module(path)


@pytest.mark.parametrize("path", PATHS)
def test_names_are_the_public_ones(path):
    module = _module(path)
    for name in PATHS[path]:
        value = getattr(module, name)
        if hasattr(s3dataset, name):
            assert value is getattr(s3dataset, name)
        assert name in module.__all__


@pytest.mark.parametrize("path", [path for path in PATHS if path != "s3dataset"])
def test_paths_hold_re_exports_only(path):
    module = _module(path)
    assert sorted(module.__all__) == sorted(PATHS[path])
    body = ast.parse(Path(module.__file__).read_text()).body
    kinds = {type(statement) for statement in body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}


def test_every_path_is_in_the_table():
    root = Path(s3dataset.__file__).parent
    files = [
        *root.glob("s3*.py"),
        *root.glob("_s3*.py"),
        root / "_user_agent.py",
        root / "_version.py",
        *root.glob("s3reader/*.py"),
        *root.glob("_s3client/*.py"),
        *root.glob("dcp/s3*.py"),
        *root.glob("lightning/s3*.py"),
    ]
    found = {".".join(["s3dataset", *file.relative_to(root).with_suffix("").parts]) for file in files}
    assert {name.removesuffix(".__init__") for name in found} == set(PATHS) - {"s3dataset"}
