"""Patterns: which keys they choose, and how they are refused."""

import pytest

from s3dataset._manifest import Pattern, check_pattern
from s3dataset.errors import InvalidConfigError


@pytest.mark.parametrize(
    ("pattern", "chosen", "left"),
    [
        ("*.jpg", ["a.jpg", "x/y/a.jpg", ".jpg", "._a.jpg"], ["a.jpeg", "a.JPG", "a.jpg/b", ".DS_Store", "a.jpg "]),
        ("*", ["a", "x/a", ".DS_Store", "folder/"], []),
        ("?.png", ["a.png", "x/é.png"], [".png", "ab.png"]),
        ("*/*.png", ["0/1.png"], ["1.png", "a/b/1.png"]),
        ("{train,val}/**/*.png", ["train/1.png", "val/a/b/1.png"], ["test/1.png", "trainx/1.png", "train/1.jpg"]),
        ("**/*.png", ["1.png", "a/1.png", "a/b/1.png"], ["1.jpg"]),
        ("a/**", ["a/", "a/b", "a/b/c"], ["b/a/c", "ab"]),
        ("a**/z", ["a/z", "ab/c/z"], ["z"]),
        (
            "shard-{000..099}.tar",
            ["shard-000.tar", "x/shard-042.tar"],
            ["shard-100.tar", "shard-42.tar", "shard-0000.tar"],
        ),
        ("{8..12}", ["8", "9", "10", "12"], ["7", "08", "13", "1"]),
        ("{12..8}", ["8", "10", "12"], ["7"]),
        ("{01..3}", ["01", "02", "03"], ["1", "3"]),
        ("{0..20..10}", ["0", "10", "20"], ["5", "1"]),
        ("{-2..1}", ["-2", "-1", "0", "1"], ["2"]),
        ("{a..c}{x,y}", ["ax", "cy"], ["dx", "a"]),
        ("{c..a}", ["a", "b", "c"], ["d"]),
        ("*.{jpg,jp{e,2}g,}", ["a.jpg", "a.jpeg", "a.jp2g", "a."], ["a.png"]),
        ("[a-c]?[!0-9]", ["abx", "c1-"], ["dbx", "ab1"]),
        ("[]]", ["]"], ["["]),
        ("[!]]", ["["], ["]"]),
        (r"[\]a]", ["]", "a"], ["\\"]),
        ("a[!b]c", ["axc"], ["abc", "a/c"]),
        (r"\*\{a\}", ["*{a}"], ["b{a}"]),
        ("a,b", ["a,b"], ["a"]),
        ("a.b+(c)$", ["a.b+(c)$"], ["aXb+(c)$"]),
        ("line\nbreak*", ["line\nbreak\n"], ["line"]),
        ("{00000000..99999999}", ["01234567"], ["1234567"]),
    ],
)
def test_chooses(pattern: str, chosen: list[str], left: list[str]) -> None:
    compiled = Pattern(pattern)
    assert [key for key in chosen if not compiled.matches(key)] == []
    assert [key for key in left if compiled.matches(key)] == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "empty"),
        ("{a,b", "has no '}'"),
        ("a}", "without its '{'"),
        ("{a}", "one alternative"),
        ("{}", "one alternative"),
        ("[abc", "has no ']'"),
        ("[z-a]", "comes after"),
        ("{1..x}", "no range"),
        ("{1..9..0}", "step of 0"),
        ("{0..99999..3}x{-99999..0}", "at most"),
        ("a\\", "backslash"),
    ],
)
def test_refuses_and_quotes(pattern: str, why: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        check_pattern(pattern)
    assert why in str(caught.value)
    assert not pattern or repr(pattern) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_takes_text_only() -> None:
    with pytest.raises(TypeError, match="must be a str"):
        check_pattern(["*.jpg"])  # type: ignore[arg-type]
