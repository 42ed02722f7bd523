"""What a mistyped command line is told."""

import pytest

from s3dataset._cli import build_parser


@pytest.mark.parametrize(
    ("line", "said", "help_of"),
    [
        ("lss s3://b/", "did you mean ls?", "s3dataset"),
        ("ls --sumary s3://b/", "unrecognized arguments: --sumary - did you mean --summary?", "s3dataset ls"),
        ("ls s3://b/ --endpoint-url=http://x", "did you mean --endpoint?", "s3dataset ls"),
        ("checkpoint prnue s3://b/run", "did you mean prune?", "s3dataset checkpoint"),
        ("checkpoint prune s3://b/run --kep-last 3", "did you mean --keep-last?", "s3dataset checkpoint prune"),
        ("ls --sum s3://b/", "did you mean --summary?", "s3dataset ls"),
        ("bench --max s3://b/", "did you mean --max-bytes or --max-requests?", "s3dataset bench"),
        ("checkpoint verify --al s3://b/run", "did you mean --all?", "s3dataset checkpoint verify"),
        ("completion zhs", "did you mean zsh?", "s3dataset completion"),
        ("cp a b c", "unrecognized arguments: c\n", "s3dataset cp"),
        ("ls s3://b/ --xyzzy", "unrecognized arguments: --xyzzy\n", "s3dataset ls"),
    ],
)
def test_it_names_what_was_meant_and_where_help_is(
    capsys: pytest.CaptureFixture[str], line: str, said: str, help_of: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(line.split())
    assert ended.value.code == 2
    _, errors = capsys.readouterr()
    assert said in errors
    assert errors.startswith(f"usage: {help_of} ")
    assert errors.endswith(f"See '{help_of} --help'.\n")
