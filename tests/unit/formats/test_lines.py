"""JSONL, text and CSV: what lines may look like."""

import csv
import io

import pytest
from tests.shards import parsed, read, recorded

from s3dataset.errors import DecodeError
from s3dataset.formats import CSV, JSONL, Format, Text


def fields(form: Format, data: bytes) -> list[dict[str, object]]:
    samples = read(form, data)
    index = form.scan(io.BytesIO(data))
    assert recorded(form, data) == index
    assert [parsed(form, data, index, number) for number in range(len(index))] == samples
    return [{name: value for name, value in one.items() if not name.startswith("__")} for one in samples]


def test_jsonl() -> None:
    data = b'\xef\xbb\xbf\n{"a": 1}\r\n\n  \n[1, 2]\n"x"\n\n{"__key__": "k", "__url__": "u", "\xc3\xbc": null}'
    assert fields(JSONL(), data) == [{"a": 1}, {"json": [1, 2]}, {"json": "x"}, {"ü": None}]
    samples = read(JSONL(), data)
    assert [one.key for one in samples] == ["00000000", "00000001", "00000002", "k"]
    assert {one.url for one in samples} == {"s3://b/shard"}


def test_jsonl_with_broken_lines() -> None:
    data = b'{"a": 1}\n{"a": \n{"a": 3}\n\xff\n' + b"[" * 100_000 + b"\n{}\n"
    with pytest.raises(DecodeError, match=r"line 1 .*is no JSON"):
        read(JSONL(), data)
    bad: list[DecodeError] = []
    samples = list(JSONL().read(io.BytesIO(data), on_bad=bad.append))
    assert [one.key for one in samples] == ["00000000", "00000002", "00000005"]
    assert len(bad) == 3
    assert len(JSONL().scan(io.BytesIO(data))) == 6


def test_lines_that_are_too_long() -> None:
    for form in (JSONL(max_sample_bytes=100), Text(max_sample_bytes=100), CSV(max_sample_bytes=100)):
        ok = b'"' + b"x" * 97 + b'"\n'
        assert len(read(form, ok * 2)) == (2 if form.name != "csv" else 1)
        for long in (b'"' + b"x" * 98 + b'"\n', b'"' + b"x" * 3_000_000):
            with pytest.raises(DecodeError, match="longer than 100 bytes"):
                read(form, ok + long)
            with pytest.raises(DecodeError, match="longer than 100 bytes"):
                form.scan(io.BytesIO(ok + long))


def test_what_json_cannot_hold() -> None:
    import numpy as np
    import torch

    out = io.BytesIO()
    with JSONL().writer(out) as writer:
        with pytest.raises(ValueError, match=r"'image' \(bytes\)"):
            writer.write({"a": 1, "image": b"x"})
        with pytest.raises(ValueError, match="JSON cannot hold"):
            writer.write({"json": object()})
        writer.write({"a": np.arange(3), "b": np.float32(0.5), "c": torch.ones(2), "d": "\ud800"})
        writer.write({"__key__": "k", "json": [1]})
        writer.write({"json": {"x": 1}})
    assert fields(JSONL(), out.getvalue())[0] == {"a": [0, 1, 2], "b": 0.5, "c": [1.0, 1.0], "d": "\ud800"}
    assert fields(JSONL(), out.getvalue())[1:] == [{"json": [1]}, {"json": {"x": 1}}]


def test_text() -> None:
    assert fields(Text(), b"\xef\xbb\xbfa\r\n\nb\r\r\nlast") == [
        {"text": "a"},
        {"text": ""},
        {"text": "b\r"},
        {"text": "last"},
    ]
    bad: list[DecodeError] = []
    assert [one.key for one in Text().read(io.BytesIO(b"\xff\nb\n"), on_bad=bad.append)] == ["00000001"]
    assert "no UTF-8" in str(bad[0])
    with pytest.raises(DecodeError, match="UTF-16"):
        read(Text(), "text".encode("utf-16"))
    with Text().writer(io.BytesIO()) as writer:
        for text in ("a\nb", "a\r", "\ufeffa", 3):
            with pytest.raises(ValueError, match=r"text"):
                writer.write({"text": text})


def test_csv() -> None:
    data = b'\xef\xbb\xbfname,note\r\n\r\na,"x, ""y""\r\nz"\r\n\nb,5" disk\n"c",\n__,"d"e\n'
    expected = [
        {"name": "a", "note": 'x, "y"\r\nz'},
        {"name": "b", "note": '5" disk'},
        {"name": "c", "note": ""},
        {"name": "__", "note": "de"},
    ]
    assert fields(CSV(), data) == expected
    assert list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))) == expected
    assert fields(CSV(delimiter=";", fieldnames=["a", "b"]), b"1;2\n3;4\n") == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": "4"},
    ]
    assert read(CSV(), b"__key__,a\nk,1\n")[0].key == "k"
    assert fields(CSV(), b"") == []
    assert fields(CSV(), b"a,b\n") == []


def test_csv_fields_of_any_length() -> None:
    value = 'long "text", ' * 100_000
    out = io.BytesIO()
    with CSV().writer(out) as writer:
        writer.write({"a": value, "b": None, "c": 1.5})
        with pytest.raises(ValueError, match="every sample needs the same"):
            writer.write({"a": 1})
    assert fields(CSV(), out.getvalue()) == [{"a": value, "b": "", "c": "1.5"}]
    assert csv.field_size_limit() == 131_072


def test_csv_with_broken_records() -> None:
    data = b'a,b\n1,2\n3\n4,5,6\n7,\xff\n"8,9'
    bad: list[DecodeError] = []
    assert [one["a"] for one in CSV().read(io.BytesIO(data), on_bad=bad.append)] == ["1"]
    assert [str(error).split(": ")[1][:22] for error in bad] == [
        "record 1 has 1 fields,",
        "record 2 has 3 fields,",
        "record 3 is no UTF-8",
        "record 4 has a quote t",
    ]
    with pytest.raises(DecodeError, match="'a' more than once"):
        read(CSV(), b"a,a\n1,2\n")
    for options in ({"delimiter": "ab"}, {"delimiter": '"'}, {"fieldnames": "ab"}, {"fieldnames": ["a", "a"]}):
        with pytest.raises(ValueError, match="CSV"):
            CSV(**options)  # type: ignore[arg-type]
