"""Keys that clients and stores get wrong."""

ODD_KEYS = (
    "with space",
    "plus+plus",
    "100%",
    "%41",
    "%2F",
    "accents-é",
    "combined-e\u0301",
    "日本語/キー",
    "emoji-\U0001f600",
    "quotes\"'and<angles>&ampersands",
    "question?mark=1&x",
    "hash#tag",
    "semi;colon:at@comma,equals=dollar$",
    "!*'()~-_.",
    "[brackets]{braces}|^`",
    "back\\slash",
    "trailing/",
    "double//slash",
    "dots/./and/../more",
    "..",
    "ends-in-space ",
    "long/" + "x" * 900,
)
"""Each below a prefix is a valid key of S3: UTF-8, no control characters, at most 1,024 bytes with it."""
