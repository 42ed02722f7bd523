"""Completion scripts, which are made from the parser."""

import shutil
import subprocess

import pytest

from s3dataset._cli import build_parser
from s3dataset._cli._completion import bash, described, fish, walk, zsh

ROOT = described(build_parser())

DRIVER = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
_s3dataset
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_every_command_and_option_is_there():
    found = {" ".join(command.words): command for command in walk(ROOT)}
    assert {"ls", "cat", "cp", "bench", "doctor", "checkpoint", "checkpoint prune", "completion"} <= set(found)
    assert {"--summary", "--histogram", "--endpoint"} <= {n for option in found["ls"].options for n in option.names}
    assert found["completion"].choices == ("bash", "fish", "zsh")
    assert "--recursive" not in {name for option in found["cp"].options for name in option.names}  # only refused


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "s3dataset.bash"
    path.write_text(bash(ROOT))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ch"], {"checkpoint"}),
        (["checkpoint", ""], {"ls", "verify", "prune"}),
        (["checkpoint", "verify", "--s"], {"--step"}),
        (["ls", "--region", "us-east-1", "--prof"], {"--profile"}),
        (["pack", "s3://a/", "s3://b/", "--compression", ""], {"zst", "gz"}),
        (["completion", ""], {"bash", "fish", "zsh"}),
        (["cp", "model.pt", "--no"], {"--no-clobber", "--no-progress"}),
        (["ls", "--prune"], set()),
    ],
)
def test_in_bash(script, words, expected):
    done = subprocess.run(
        ["bash", "-c", DRIVER, "bash", script, "s3dataset", *words], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == expected


def test_in_bash_files_complete_arguments(script, tmp_path):
    (tmp_path / "model.pt").touch()
    done = subprocess.run(
        ["bash", "-c", DRIVER, "bash", script, "s3dataset", "cp", "mod"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["model.pt"]


def test_in_bash_names_with_spaces_are_one_word(script, tmp_path):
    (tmp_path / "my model.pt").touch()
    done = subprocess.run(
        ["bash", "-c", DRIVER, "bash", script, "s3dataset", "cp", "my"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.stdout == "my model.pt\n"


def test_zsh_has_a_function_for_each_command():
    text = zsh(ROOT)
    assert text.startswith("#compdef s3dataset\n")
    for command in walk(ROOT):
        assert f"{'_'.join(('_s3dataset', *command.words))}() {{" in text
    if shutil.which("zsh"):
        assert subprocess.run(["zsh", "-n"], input=text, text=True).returncode == 0


def test_fish_tells_a_command_from_an_action_of_the_same_name():
    lines = fish(ROOT).splitlines()
    summary = next(line for line in lines if "-l summary" in line)
    assert "__fish_seen_subcommand_from ls; and not __fish_seen_subcommand_from checkpoint" in summary
    metadata = next(line for line in lines if "-l metadata" in line)
    assert "__fish_seen_subcommand_from checkpoint; and __fish_seen_subcommand_from ls" in metadata
    if shutil.which("fish"):
        assert subprocess.run(["fish", "-n"], input="\n".join(lines), text=True).returncode == 0
