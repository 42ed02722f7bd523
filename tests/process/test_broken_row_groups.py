"""Row groups of Parquet that are broken: what `on_error` makes of their rows."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import s3dataset
from s3dataset.errors import DecodeError
from s3dataset.formats import Parquet
from s3dataset.testing import LocalS3

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS, GROUPS, BROKEN = 300, 4, 1
EVERYTHING = range(ROWS * GROUPS)
GOOD = [n for n in EVERYTHING if n // ROWS != BROKEN]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def damaged() -> bytes:
    file = io.BytesIO()
    table = pyarrow.table({"n": list(EVERYTHING), "text": [f"{n:08}" for n in EVERYTHING]})
    parquet.write_table(table, file, row_group_size=ROWS)
    data = bytearray(file.getvalue())
    chunk = parquet.read_metadata(io.BytesIO(data)).row_group(BROKEN).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 20] = bytes(20)
    return bytes(data)


@pytest.fixture(scope="module")
def manifests() -> Iterator[dict[str, s3dataset.Manifest]]:
    with LocalS3("bucket"):
        s3dataset.S3Client().put_many([("bucket", "rows/0.parquet", damaged())])
        listed = s3dataset.Manifest.from_prefix("s3://bucket/rows/")
        yield {"unindexed": listed, "indexed": listed.index("parquet")}


def stream(manifest: s3dataset.Manifest, **options: Any) -> s3dataset.S3IterableDataset[Any]:
    settings: dict[str, Any] = {"format": "parquet", "transform": lambda sample: int(sample["n"]), **options}
    return s3dataset.S3IterableDataset.from_manifest(manifest, **settings)


@pytest.mark.parametrize("kind", ["unindexed", "indexed"])
def test_unless_told_otherwise_it_raises(manifests: Any, kind: str) -> None:
    with pytest.raises(DecodeError, match="row group 1 cannot be decoded"):
        list(stream(manifests[kind]))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["unindexed", "indexed"])
def test_skipping_leaves_out_its_rows(manifests: Any, kind: str, shuffle: bool, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    dataset = stream(manifests[kind], on_error="skip", shuffle=shuffle)
    assert sorted(dataset) == GOOD
    # A row group that was read as a whole is one bad thing; rows that have numbers are counted.
    assert dataset.bad_samples().count == (1 if kind == "unindexed" else ROWS)
    assert len([record for record in caplog.records if "is left out" in record.message]) == 1


def test_rows_keep_their_numbers(manifests: Any) -> None:
    dataset = stream(manifests["unindexed"], on_error="skip", transform=lambda sample: sample)
    assert [int(sample["__key__"]) for sample in dataset] == GOOD


def test_replacing_takes_rows_of_other_groups(manifests: Any) -> None:
    made = list(stream(manifests["indexed"], on_error="replace", shuffle=True))
    assert len(made) == len(EVERYTHING)
    assert set(made) == set(GOOD)
    dataset = s3dataset.S3MapDataset.from_manifest(
        manifests["indexed"], format="parquet", transform=lambda sample: int(sample["n"]), on_error="replace"
    )
    batch = dataset.__getitems__(list(EVERYTHING))
    assert [n for n in batch if n in GOOD] == batch
    assert [batch[n] for n in GOOD] == GOOD


@pytest.mark.parametrize("taken", [1, 2])
def test_going_on_around_it(manifests: Any, taken: int) -> None:
    def loader() -> Any:
        return s3dataset.DataLoader(stream(manifests["unindexed"], on_error="skip"), batch_size=ROWS, num_workers=0)

    first = loader()
    batches = iter(first)
    before = [int(n) for _ in range(taken) for n in next(batches)]
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    assert before + [int(n) for batch in second for n in batch] == GOOD


def test_with_a_filter(manifests: Any) -> None:
    wanted = Parquet(filters=[("n", ">=", 100)])
    dataset = stream(manifests["unindexed"], format=wanted, on_error="skip")
    assert list(dataset) == [n for n in GOOD if n >= 100]


def test_a_function_may_decide(manifests: Any) -> None:
    told: list[tuple[str, int]] = []

    def decide(error: Exception, uri: str, number: int) -> Any:
        told.append((uri, number))
        return "skip" if "row group 1 " in str(error) else "raise"

    assert list(stream(manifests["unindexed"], on_error=decide)) == GOOD
    assert told == [("s3://bucket/rows/0.parquet", ROWS)]
