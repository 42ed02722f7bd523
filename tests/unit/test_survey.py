"""What kind of objects there are, and what a dataset should do with them."""

import pytest

from s3dataset._survey import survey


def surveyed(sizes, suffix=".jpg"):
    return survey(sizes, [f"folder/{number:05d}{suffix}" for number in range(min(len(sizes), 1000))])


def test_bands_count_every_object_and_byte_once():
    sizes = [0, 0, 1, 3, 4, 15, 16, 1023, 1024, 4095, 4096]
    found = surveyed(sizes)
    assert sum(band.objects for band in found.bands) == len(sizes)
    assert sum(band.bytes for band in found.bands) == sum(sizes) == found.bytes
    for band in found.bands:
        inside = [size for size in sizes if band.low <= size < band.high]
        assert (band.objects, band.bytes) == (len(inside), sum(inside))
    assert [(band.low, band.high) for band in found.bands[:3]] == [(0, 1), (1, 4), (4, 16)]
    assert all(before.high == band.low for before, band in zip(found.bands, found.bands[1:], strict=False))


def test_nothing_has_no_bands_and_no_advice():
    found = survey([], [])
    assert (found.objects, found.bytes, found.bands, found.advice("s3://b/")) == (0, 0, (), [])


def test_many_small_objects_are_to_be_packed():
    (said,) = surveyed([400] * 1797).advice("s3://bucket/digits/")
    assert said.startswith("1,797 objects of 400 bytes: pack them into 1 shard (s3dataset pack s3://bucket/digits/ ")


def test_millions_of_small_objects_cost_money():
    (said,) = surveyed([100_000] * 200_000).advice("s3://b/")
    assert "pack them into 75 shards" in said
    assert "$0.08 an epoch" in said


def test_few_objects_are_samples_whatever_their_size():
    (said,) = surveyed([400] * 20).advice("s3://b/")
    assert 'S3MapDataset.from_prefix("s3://b/")' in said


@pytest.mark.parametrize(("size", "small"), [(200 << 20, False), (2 << 20, True)])
def test_shards_are_told_by_suffix_and_size(size, small):
    found = surveyed([size] * 64, ".tar")
    assert found.format == "tar"
    said = found.advice("s3://b/")
    assert "look like shards of tar: s3dataset index s3://b/" in said[0]
    assert (len(said) == 2) is small
    if small:
        assert "--source-format tar" in said[1]


def test_small_files_with_a_shards_suffix_are_no_shards():
    assert surveyed([3000] * 1000, ".txt").are_small


def test_a_few_huge_ones_and_empty_ones_are_pointed_out():
    said = surveyed([1_000_000] * 600 + [0, 0] + [900_000_000]).advice("s3://b/")
    assert any("2 of them are empty" in sentence for sentence in said)
    assert any("the largest has 900.0 MB" in sentence for sentence in said)
