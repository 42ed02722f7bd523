"""Each fault of the local S3, as a client meets it on the wire."""

from tests.interop.wire import Answer, Wire

#: The object that is there.
DATA = bytes(range(256)) * 40


def get(wire: Wire, **headers: str) -> Answer:
    return wire.request("GET", "/bucket/k", **headers)
