"""Runs libFuzzer over each of the engine's trials (rust/engine/src/trials.rs), with AddressSanitizer.

Needs a C++ compiler. Inputs that reach something new are kept in `target/fuzz/corpus`, those that break something in
`target/fuzz/found`: `make fuzz-guided INPUT=target/fuzz/found/NAME-crash-...` runs one again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "target" / "fuzz"
COVERAGE = (
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
)
# Memory beyond this is a finding; so is an input that takes longer. (AddressSanitizer's own memory counts, too.)
MEMORY_MB = 1024
TIMEOUT_S = 10
LONGEST_INPUT = 4096


def host() -> str:
    """The target of this machine, named to cargo so that flags hold for the program and not for build scripts."""
    told = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return re.search(r"^host: (\S+)$", told, re.MULTILINE)[1]


def environment(flags: tuple[str, ...]) -> dict[str, str]:
    # The flags are those of nightly compilers; this has a stable one take them.
    return {**os.environ, "RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": " ".join(flags)}


def build() -> Path:
    """-> the program."""
    if not (shutil.which("c++") or shutil.which("clang++") or "CXX" in os.environ):
        sys.exit("libFuzzer needs a C++ compiler: apt-get install g++, or name one in CXX")
    target = host()
    flags = ("--cfg=fuzzing", "-Zsanitizer=address", *COVERAGE)
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "fuzz" / "build"
    command = ["cargo", "build", "--quiet", "--release", "--target", target, "--target-dir", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT / "rust" / "fuzz", env=environment(flags))
    return folder / target / "release" / "s3dataset-fuzz"


def fuzz(program: Path, name: str, seconds: int) -> bool:
    """-> whether nothing was found."""
    found = KEPT / "found"
    found.mkdir(parents=True, exist_ok=True)
    command = [
        str(program),
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={TIMEOUT_S}",
        f"-max_len={LONGEST_INPUT}",
        f"-dict={KEPT / 'corpus' / name}.dict",
        f"-artifact_prefix={found / name}-",
        "-print_final_stats=1",
        str(KEPT / "corpus" / name),
    ]
    told = subprocess.run(
        command, env={**os.environ, "S3DATASET_FUZZ_TRIAL": name}, stderr=subprocess.PIPE, check=False
    )
    text = told.stderr.decode(errors="replace")
    (KEPT / f"{name}.log").write_text(text)
    if told.returncode:
        print(
            "\n".join(line for line in text.splitlines() if re.search(r"panicked at|ERROR:|SUMMARY:|written to", line))
        )
        print(f"{name}: FOUND something, of which {KEPT / name}.log tells more", flush=True)
        return False
    executed = re.search(r"number_of_executed_units: *(\d+)", text)[1]
    covered = re.findall(r"cov: (\d+)", text)[-1]
    peak = re.search(r"peak_rss_mb: *(\d+)", text)[1]
    print(f"{name}: {executed} inputs, {covered} edges reached, at most {peak} MiB", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each trial (60)")
    parser.add_argument("--input", type=Path, help="run this input once: its name begins with its trial's")
    parser.add_argument("trials", nargs="*", help="names of trials (all)")
    arguments = parser.parse_args()
    program = build()
    corpus = KEPT / "corpus"
    subprocess.run([program], check=True, env={**os.environ, "S3DATASET_FUZZ_SEEDS": str(corpus)})
    names = sorted(path.stem for path in corpus.glob("*.dict"))
    if arguments.input:
        name = next(n for n in names if arguments.input.name.startswith(n))
        one = subprocess.run([program, arguments.input], check=False, env={**os.environ, "S3DATASET_FUZZ_TRIAL": name})
        sys.exit(one.returncode)
    quiet = [fuzz(program, name, arguments.seconds) for name in arguments.trials or names]
    sys.exit(0 if all(quiet) else 1)


if __name__ == "__main__":
    main()
