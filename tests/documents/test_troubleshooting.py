"""docs/troubleshooting.md: every public class has its section, and each message is one that is really produced."""

import re
from pathlib import Path

import pytest
from tests.documents.messages import Producer, message_of

from s3dataset import errors
from s3dataset.testing import LocalS3

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text()
CLASSES = sorted(
    name for name in set(errors.__all__) - {"S3DatasetException"} if not issubclass(getattr(errors, name), Warning)
)
WARNINGS = sorted(name for name in errors.__all__ if issubclass(getattr(errors, name), Warning))
QUOTED = [" ".join(block.split()) for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)]
UNDER = dict(re.findall(r"^### (\w+)\n\n```text\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def server():
    with LocalS3("my-bucket") as running:
        yield running


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_its_section_with_a_message_of_its_own(name, server, monkeypatch):
    kind, message = message_of(name, server, monkeypatch)
    assert kind == name
    assert " ".join(UNDER[name].split()) == " ".join(message.split())


@pytest.mark.parametrize("name", WARNINGS)
def test_every_warning_has_its_section(name):
    assert re.search(rf"^### {name}\n\n```text\n{name}: ", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(Producer.names()) - set(CLASSES)))
def test_messages_of_symptoms(name, server, monkeypatch):
    kind, message = message_of(name, server, monkeypatch)
    assert f"{kind}: {' '.join(message.split())}" in QUOTED


def test_no_message_is_quoted_that_nothing_produces():
    assert len(QUOTED) == len(Producer.names())


def test_links_within_the_page_lead_somewhere():
    titles = re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors
