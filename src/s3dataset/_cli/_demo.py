"""`s3dataset demo`."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from s3dataset._cli._options import add_connection_options, place, whole_number
from s3dataset._cli._output import EXIT_STATUS, HelpLayout, tell

NEEDED = {"matplotlib": "matplotlib", "PIL": "pillow", "sklearn": "scikit-learn", "tqdm": "tqdm"}


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "demo",
        help="train a small model on images that stream from S3",
        description="Uploads 1,797 handwritten digits, trains a small network on them as they stream back, saves a "
        "checkpoint to S3 every epoch, loads the last one in a fresh process, and draws what came of it.",
        epilog="examples:\n"
        "  s3dataset demo                                        with a local S3: no account, nothing to clean up\n"
        "  s3dataset demo --uri s3://bucket --region us-west-2   in a bucket of yours: asks first, cleans up\n"
        "  s3dataset demo --uri s3://bucket --keep               and leaves its objects there to look at\n\n"
        f"{EXIT_STATUS}",
        formatter_class=HelpLayout,
    )
    parser.add_argument(
        "--uri",
        type=place,
        metavar="s3://BUCKET[/PREFIX]",
        help="use this bucket instead of a local S3; writes only below a new prefix s3dataset-demo-<id>/, after asking",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before writing to the bucket")
    parser.add_argument("--keep", action="store_true", help="leave the demo's objects in the bucket")
    parser.add_argument("--epochs", type=whole_number(1), default=8, metavar="N", help="default: 8")
    parser.add_argument(
        "--workers", type=whole_number(0), default=2, metavar="N", help="DataLoader workers, default: 2"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), metavar="FOLDER", help="default: demo-output"
    )
    add_connection_options(parser, unsigned=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        tell(f"the demo needs {', '.join(missing)}: pip install 's3dataset[demo]'")
        return 1
    from s3dataset._demo.program import Options, run_demo  # noqa: PLC0415 - loads torch

    options = Options(
        uri=arguments.uri,
        region=arguments.region,
        endpoint=arguments.endpoint,
        profile=arguments.profile,
        yes=arguments.yes,
        keep=arguments.keep,
        epochs=arguments.epochs,
        workers=arguments.workers,
        output=arguments.output,
    )
    return run_demo(options)
