"""docs/permissions.md: the requests of each feature, and the actions that they need, are those that are sent."""

import inspect
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from tests.documents import features

from s3dataset.testing import LocalS3

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "permissions.md").read_text()
ROWS = {
    cells[0].replace(" ", "_"): cells
    for line in PAGE.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
    and re.fullmatch(r"(\w+ (≤ )?[\d,]+(, )?)+", cells[2])
}
ACTIONS = {
    "AbortMultipartUpload": {"s3:AbortMultipartUpload"},
    "CompleteMultipartUpload": {"s3:PutObject"},
    "CopyObject": {"s3:GetObject", "s3:PutObject"},
    "CreateMultipartUpload": {"s3:PutObject"},
    "CreateSession": {"s3express:CreateSession"},
    "DeleteObject": {"s3:DeleteObject"},
    "DeleteObjects": {"s3:DeleteObject"},
    "GetObject": {"s3:GetObject"},
    "HeadObject": {"s3:GetObject"},
    "ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
    "ListObjectsV2": {"s3:ListBucket"},
    "PutObject": {"s3:PutObject"},
    "UploadPart": {"s3:PutObject"},
}
READS = {"GetObject", "HeadObject", "ListObjectsV2"}  # which may be sent again when an answer is late
FEATURES = [
    name
    for name, value in vars(features).items()
    if inspect.isfunction(value) and value.__module__ == features.__name__ and name not in ("fill", "loaded", "tar_of")
]


@pytest.fixture(scope="module")
def server():
    with LocalS3("my-bucket") as running:
        features.fill(running)
        yield running


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FEATURES)
def test_a_row(server, name, tmp_path):
    _, _, counts, actions = ROWS[name]
    server.reset_stats()
    feature = getattr(features, name)
    feature(*[tmp_path] if inspect.signature(feature).parameters else [])
    records = server.requests()
    sent = Counter(record.operation for record in records if record.operation not in READS)
    once = {(record.operation, record.key, record.query, record.range) for record in records}
    sent += Counter(operation for operation, *_ in once if operation in READS)
    told = dict(re.findall(r"(\w+) (≤? ?[\d,]+)", counts))
    assert set(sent) <= set(told)
    for operation, count in told.items():
        number = int(re.sub(r"\D", "", count))
        assert sent[operation] <= number if "≤" in count else sent[operation] == number, (operation, sent[operation])
    needed = set().union(*(ACTIONS[operation] for operation in sent))
    if "CreateSession" in sent:
        needed = {"s3express:CreateSession"}
    assert set(re.findall(r"`(\w+:\w+)`", actions)) == needed


def test_every_row_is_a_feature():
    assert set(ROWS) == set(FEATURES)


def test_policies_are_json_and_allow_what_the_table_needs():
    policies = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    assert len(policies) >= 2
    allowed = {action for policy in policies for statement in policy["Statement"] for action in statement["Action"]}
    assert allowed >= {action for *_, cell in ROWS.values() for action in re.findall(r"`(\w+:\w+)`", cell)}
