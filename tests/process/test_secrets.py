"""No secret is in what a program prints, logs, raises, counts, saves or leaves, but in the memory of its processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3dataset.testing import LocalS3

KEYS = ("AKIDEXAMPLE", "The+Secret/Key0123456789", "The+Session/Token9876543210")
PROGRAM = Path(__file__).with_name("secret_program.py")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket", access_key=KEYS[0], secret_key=KEYS[1], session_token=KEYS[2], activate=False) as server:
        yield server


def environment(server: LocalS3, folder: Path, way: str) -> dict[str, str]:
    (folder / "temporary").mkdir()
    (folder / "home").mkdir()
    chosen = {
        **os.environ,
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_REGION": server.region,
        "S3DATASET_LOG": f"debug:{folder}/log-%p.jsonl",
        "TMPDIR": str(folder / "temporary"),
        "PYTHONUNBUFFERED": "1",
    }
    if way == "environment":
        return {
            **chosen,
            "AWS_ACCESS_KEY_ID": KEYS[0],
            "AWS_SECRET_ACCESS_KEY": KEYS[1],
            "AWS_SESSION_TOKEN": KEYS[2],
        }
    answer = {"Version": 1, "AccessKeyId": KEYS[0], "SecretAccessKey": KEYS[1], "SessionToken": KEYS[2]}
    answer["Expiration"] = "2099-01-01T00:00:00Z"
    (folder / "home" / "answer").write_text(json.dumps(answer))
    (folder / "home" / "config").write_text(f"[default]\ncredential_process = cat {folder}/home/answer\n")
    return {**chosen, "AWS_CONFIG_FILE": str(folder / "home" / "config")}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["environment", "process"])
def test_secrets_are_nowhere(server: LocalS3, tmp_path: Path, way: str) -> None:
    expired: dict[str, Any] = {"access_key": KEYS[0], "secret_key": KEYS[1], "session_token": KEYS[2], "expired": False}
    server.configure(credentials=[expired])
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps({"keys": KEYS})],
        env=environment(server, tmp_path, way),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    printed = []
    with process:
        for line in process.stdout:
            printed.append(line)
            if line == "EXPIRE\n":
                server.configure(credentials=[{**expired, "expired": True}])
                process.stdin.write("\n")
                process.stdin.flush()
    assert process.returncode == 0, "".join(printed[-40:])
    places = {"printed": "".join(printed).encode()}
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.parent.name != "home":
            places[path.name] = path.read_bytes()
    for name in server.keys("bucket"):
        places[f"s3://bucket/{name}"] = server.get("bucket", name)
    for expected in (b"InvalidAccessKeyId", b"SignatureDoesNotMatch", b"ExpiredToken", b"InvalidToken", b"masked"):
        assert expected in places["printed"]
    logs = [name for name in places if name.startswith("log-")]
    assert len(logs) >= 3, "workers log too"
    assert any(b"GetObject" in places[name] for name in logs)
    for name, content in places.items():
        for secret in KEYS[1:]:
            for form in (secret, secret.replace("+", "%2B").replace("/", "%2F"), secret[4:-4]):
                at = content.find(form.encode())
                assert at < 0, f"a secret is in {name}: {content[max(at - 200, 0) : at + 60]!r}"
