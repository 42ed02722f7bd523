"""What releases before have written is read for ever; the other files of ours have such tests beside their readers."""

import copy
import json
from pathlib import Path

import pytest
from tests.stability.worlds import WORLDS, fill, pack_objects

from s3dataset.errors import ManifestMismatchError
from s3dataset.testing import LocalS3

FILES = Path(__file__).parent / "files"
STATES = json.loads((FILES / "states-version-1.json").read_text())


@pytest.fixture(scope="module")
def server():
    with LocalS3("my-bucket") as running:
        fill(running)
        yield running


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("kind", WORLDS)
def test_a_state_of_version_1_is_gone_on_with_batch_by_batch(kind):
    loader = WORLDS[kind]()
    loader.load_state_dict(copy.deepcopy(STATES[kind]["state"]))
    assert [list(batch) for batch in loader] == STATES[kind]["rest"]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("kind", WORLDS)
def test_a_state_of_a_newer_version_is_refused_with_what_to_do(kind):
    loader = WORLDS[kind]()
    with pytest.raises(ValueError, match="newer release"):
        loader.load_state_dict({**STATES[kind]["state"], "version": 2})
        list(loader)


def test_a_pack_of_version_1_is_known_to_be_done(server):
    pack_objects()
    ours = server.get("my-bucket", "packed/.s3dataset/pack.json")
    theirs = (FILES / "pack-version-1.json").read_bytes()
    assert json.loads(ours)["fingerprint"] == json.loads(theirs)["fingerprint"]
    server.put("my-bucket", "packed/.s3dataset/pack.json", theirs)
    server.reset_stats()
    assert pack_objects().num_samples == 40
    assert server.requests("PutObject") == []


def test_a_pack_of_a_newer_version_is_refused_with_what_to_do(server):
    pack_objects()
    state = json.loads((FILES / "pack-version-1.json").read_bytes())
    server.put("my-bucket", "packed/.s3dataset/pack.json", json.dumps({**state, "version": 2}).encode())
    with pytest.raises(ManifestMismatchError, match="newer release"):
        pack_objects()
    server.put("my-bucket", "packed/.s3dataset/pack.json", json.dumps(state).encode())
