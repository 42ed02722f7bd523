"""Whatever keys there are, and in whatever order answers come, a listing has each key once, in order."""

from bisect import bisect_left, bisect_right

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.manifest.fake_service import BUCKET, FakeClient, FakeService

from s3dataset._manifest import list_prefix
from s3dataset._manifest._plan import CUTS_PER_PAGE, FREE_CUTS, ListingPlan, PageRequest

CHARACTERS = st.one_of(
    st.sampled_from(list("0123456789abcdef/-.Zz")),
    st.sampled_from(["\x01", "\x7f", "\x80", "é", "߿", "ࠀ", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]),
    st.characters(exclude_categories=["Cs"]),
)
ODD_KEYS = st.text(CHARACTERS, min_size=1, max_size=8)
STRUCTURED_KEYS = st.one_of(
    st.integers(0, 400).map("n{:06d}".format),
    st.integers(0, 400).map("n{}".format),
    st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 40)).map(lambda t: f"{t[0]}/{t[1]:02d}/{t[2]:03d}"),
    st.tuples(st.sampled_from(["cat", "dog", "dogs"]), st.integers(0, 200)).map(lambda t: f"{t[0]}/{t[1]}.jpg"),
    st.tuples(st.sampled_from(["cat", "dog", "dogs"]), st.integers(0, 200)).map(lambda t: f"{t[0]}_{t[1]}.jpg"),
    st.integers(1, 60).map(lambda n: "a" * n),
    st.integers(0, 2**32).map("{:08x}".format),
)
KEYS = st.lists(st.one_of(ODD_KEYS, STRUCTURED_KEYS, STRUCTURED_KEYS), max_size=300, unique=True)


@given(
    keys=KEYS,
    runs=st.lists(st.tuples(st.sampled_from(["", "x/", "y/z/", "2024/01/"]), st.integers(0, 600)), max_size=3),
    page_keys=st.integers(1, 12),
    max_in_flight=st.integers(1, 40),
    source=st.randoms(use_true_random=False),
)
def test_plan_is_complete_in_order_and_within_its_bound(
    keys: list[str], runs: list[tuple[str, int]], page_keys: int, max_in_flight: int, source: object
) -> None:
    for folder, count in runs:
        keys += [f"{folder}{number:05d}" for number in range(count)]
    expected = sorted({key.encode() for key in keys})
    plan = ListingPlan(max_in_flight=max_in_flight)
    under_way = []
    pieces: list[tuple[bytes, list[bytes]]] = []
    requests = 0
    while not plan.done:
        sent = plan.requests()
        requests += len(sent)
        for request in sent:
            request.start_after.decode()  # it goes into a URL
        under_way += sent
        assert under_way, "nothing is under way, and the listing is not done"
        request = under_way.pop(source.randrange(len(under_way)))  # type: ignore[attr-defined]
        if request.directory is not None:
            names, more = names_in(expected, request, page_keys)
            plan.directory(request.number, request.directory, names, is_truncated=more)
            continue
        start = bisect_right(expected, request.start_after) if request.start_after else 0
        page = expected[start : start + page_keys]
        token = "more" if start + page_keys < len(expected) else None
        found = plan.page(request.number, page, token=token)
        pieces.extend((piece.position, page[piece.start : piece.stop]) for piece in found)
    pieces.sort(key=lambda piece: piece[0])
    assert [key for _, piece in pieces for key in piece] == expected
    assert requests <= (1 + CUTS_PER_PAGE) * max(-(-len(expected) // page_keys), 1) + FREE_CUTS + 1
    assert plan.keys == len(expected)


def names_in(keys: list[bytes], request: PageRequest, page_keys: int) -> tuple[list[bytes], bool]:
    """What a page with a delimiter holds."""
    directory, delimiter = request.directory or b"", request.delimiter.encode()
    at = max(bisect_left(keys, directory), bisect_right(keys, request.start_after) if request.start_after else 0)
    names: list[bytes] = []
    while at < len(keys) and keys[at].startswith(directory):
        if len(names) == page_keys:
            return names, True
        end = keys[at].find(delimiter, len(directory))
        name = keys[at][: end + 1] if end >= 0 else keys[at]
        if name != directory:
            names.append(name)
        at = bisect_left(keys, name + b"\xff" if end >= 0 else name + b"\0")
    return names, False


@given(
    keys=KEYS,
    prefix=st.sampled_from(["", "n", "n0", "1/", "dog", "dog/", "é"]),
    page_keys=st.integers(1, 40),
    quirks=st.fixed_dictionaries(
        {},
        optional={
            "unordered": st.booleans(),
            "ignore_start_after": st.booleans(),
            "empty_pages": st.booleans(),
            "refuse_start_after": st.sampled_from([0, 400, 501]),
            "refuse_delimiter": st.sampled_from([0, 403]),
        },
    ),
    seed=st.integers(0, 5),
)
def test_every_service_is_listed_completely(
    keys: list[str], prefix: str, page_keys: int, quirks: dict[str, object], seed: int
) -> None:
    keys.append(prefix + "!")  # else there is a warning
    service = FakeService({key.encode() for key in keys}, page_keys=page_keys, **quirks)  # type: ignore[arg-type]
    client = FakeClient(service, seed=seed)
    manifest = list_prefix(client, f"s3://{BUCKET}/{prefix}")  # type: ignore[arg-type]
    expected = [key for key in sorted(service.objects) if key.startswith(prefix.encode())]
    assert [entry.key.encode() for entry in manifest.objects] == expected
    for entry in manifest.objects:
        size, mtime, etag = service.objects[entry.key.encode()]
        assert (entry.size, entry.last_modified, entry.etag) == (size, mtime, f'"{etag.decode()}"')
