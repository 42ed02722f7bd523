"""ObjectInfo out of a listing's columns and out of headers."""

import pickle
from array import array
from types import SimpleNamespace

from s3dataset._client._object_info import ObjectInfo, RestoreStatus, info_of_reply, infos_of_page


class Page(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.sizes) // 8


def test_columns_become_rows() -> None:
    keys = ["a", "ключ", "z/鍵.jpg"]
    blob = "".join(keys).encode()
    page = Page(
        key_blob=blob,
        key_ends=array("I", [1, 9, len(blob)]).tobytes(),
        etag_blob=b"e1e3e3",
        etag_ends=array("I", [2, 2, 6]).tobytes(),
        sizes=array("Q", [0, 5, 1 << 43]).tobytes(),
        mtimes=array("q", [1, 2, 3]).tobytes(),
        storage_class_index=bytes([0, 1, 255]),
        storage_class_names=["STANDARD", "GLACIER"],
        restore_status=[(1, False, 1700000000.0)],
    )
    assert infos_of_page(page) == [
        ObjectInfo("a", '"e1"', 0, 1, "STANDARD", None),
        ObjectInfo("ключ", "", 5, 2, "GLACIER", RestoreStatus(in_progress=False, expiry=1700000000.0)),
        ObjectInfo("z/鍵.jpg", '"e3e3"', 1 << 43, 3, None, None),
    ]


def test_headers_tell_class_and_restore() -> None:
    headers = [
        ("X-Amz-Storage-Class", "GLACIER"),
        ("x-amz-restore", 'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"'),
    ]
    reply = SimpleNamespace(etag='"e"', object_size=7, last_modified=12.0, headers=lambda: headers)
    info = info_of_reply("k", reply)
    assert info == ObjectInfo("k", '"e"', 7, 12, "GLACIER", RestoreStatus(in_progress=False, expiry=1356048000.0))
    assert pickle.loads(pickle.dumps(info)) == info


def test_a_restore_under_way_has_no_expiry() -> None:
    headers = [("x-amz-restore", 'ongoing-request="true"')]
    reply = SimpleNamespace(etag="", object_size=0, last_modified=None, headers=lambda: headers)
    assert info_of_reply("k", reply, size=3) == ObjectInfo(
        "k", "", 3, 0, None, RestoreStatus(in_progress=True, expiry=None)
    )
