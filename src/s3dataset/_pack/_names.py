"""What a sample made of an object is called, and what is left out."""

from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["Name", "Names", "unsafe_reason"]

_NO_SUFFIX: Final = "bin"
"""The field of an object without a suffix; webdataset hands such fields over as bytes."""


class Name(NamedTuple):
    """What an object becomes: a field of the sample `key`."""

    key: str
    field: str


@dataclass(frozen=True, slots=True)
class Names:
    """Names samples after objects.

    Attributes:
        folder: What the keys of the source begin with and those of samples do not.
        grouped: By webdataset's rule "a/1.jpg" and "a/1.cls" are two fields of the sample "a/1". Else each object is a
            sample of its own, called by its whole name, with the field "data".
    """

    folder: str = ""
    grouped: bool = True

    def of(self, key: str) -> Name | None:
        """The name of an object's part; None: it is left out, as readers of archives would.

        Left out are "folders" (keys that end in a slash), hidden files and what lies below a first folder like
        "__meta__".
        """
        name = key.removeprefix(self.folder)
        slash = name.rfind("/")
        last = name[slash + 1 :]
        if not last or last.startswith(".") or _is_meta(name):
            return None
        if not self.grouped:
            return Name(name, "data")
        dot = name.find(".", slash + 1)
        if dot < 0:
            return Name(name, _NO_SUFFIX)
        return Name(name[:dot], name[dot + 1 :].lower() or _NO_SUFFIX)


def _is_meta(name: str) -> bool:
    if not name.startswith("__"):
        return False
    first, slash, _ = name.partition("/")
    return first.endswith("__") and (len(first) >= 4 or not slash)


def unsafe_reason(key: str) -> str:
    """Why a key must not be the name of an archive's member; "" where it may."""
    parts = key.split("/")
    if key.startswith("/"):
        return "it begins with a slash, and would be unpacked at the root of a disk"
    if ".." in parts:
        return 'it has a part "..", and would be unpacked outside of its folder'
    if "\0" in key:
        return "it holds a NUL"
    return ""
