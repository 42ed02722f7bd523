"""The peers' own environment, `.bench-venv`, made once."""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench-venv"
PACKAGES = (
    "s3torchconnector>=1.5",
    "obstore>=0.8",
    "boto3>=1.40",
    "awscrt>=0.28",
    "litdata>=0.2.50",
    "webdataset>=0.2.100",
    "runai-model-streamer[s3]",
    "s3fs",
    "safetensors",
    "zstd",
)


def python_of_peers() -> Path:
    """Installs the peers where they are missing; -> the interpreter that has them."""
    python = FOLDER / "bin" / "python"
    wanted = [*PACKAGES, f"torch=={importlib.metadata.version('torch').partition('+')[0]}"]
    stamp, digest = FOLDER / ".packages", hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"installing the peers into {FOLDER.name}: {', '.join(PACKAGES)}", flush=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        run([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, FOLDER])
        run([uv, "pip", "install", "-q", "--python", python, *wanted])
    else:
        run([sys.executable, "-m", "venv", FOLDER])
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted])
    stamp.write_text(digest)
    return python


def run(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, cwd=ROOT)
