"""`s3dataset pack`: many small objects into shards."""

import argparse
import importlib
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from s3dataset._cli._ls import readable_bytes
from s3dataset._cli._options import add_connection_options, whole_number

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", re.IGNORECASE)


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "pack",
        help="pack many small objects into indexed shards, from S3 to S3",
        description="Packs the objects below a prefix into shards (shard-000000.tar and on) with an index, without a "
        "disk. The same source always makes the same shards. When it is stopped, the same command goes on with what is "
        "finished. In tar and tfrecord, a/1.jpg and a/1.cls are fields of one sample; in the other formats each object "
        "is a sample.",
        epilog="examples:\n"
        "  s3dataset pack s3://bucket/images/ s3://bucket/packed/ --label folder\n"
        "  s3dataset pack s3://bucket/raw/ s3://bucket/small/ --transform mypackage.resize:to_256 --workers 8\n"
        "  s3dataset pack s3://bucket/text/ s3://bucket/lines/ --format jsonl --compression zst\n"
        "  s3dataset pack s3://bucket/old/ s3://bucket/new/ --source-format tar --compression zst\n"
        "      shards packed anew, as those in plain gzip, which cannot be read at random\n\n"
        "exit status: 0: all shards are there; 1: it failed, and the same command goes on; 2: wrong usage; "
        "130: Ctrl-C",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="s3://BUCKET[/PREFIX]", help="the objects")
    parser.add_argument("dest", metavar="s3://BUCKET[/FOLDER]", help="where the shards go: an empty folder")
    parser.add_argument("--pattern", help='which objects: a glob on the key after the prefix, as "**/*.jpg"')
    parser.add_argument("--format", default="tar", metavar="NAME", help="tar (default), tfrecord, jsonl, parquet, ...")
    parser.add_argument(
        "--shard-size", type=_size, default=256 << 20, metavar="SIZE", help="of a shard's source; default: 256MiB"
    )
    parser.add_argument(
        "--transform", metavar="MODULE:NAME", help="makes of each sample another, a list of several, or None"
    )
    parser.add_argument(
        "--label", metavar="folder|FILE.csv", help="labels from key folders, or a table with the columns key and label"
    )
    parser.add_argument("--compression", choices=["zst", "gz"], help="in frames that stay readable at random")
    parser.add_argument("--storage-class", metavar="CLASS", help="of the shards, as STANDARD_IA")
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        metavar="N",
        help="processes; 0: this one; default: one a core for more than a little",
    )
    parser.add_argument("--source-format", metavar="NAME", help="the objects are shards of this format: pack them anew")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where another pack, or shards, are")
    verifying = parser.add_mutually_exclusive_group()
    verifying.add_argument(
        "--no-verify", action="store_true", help="do not compare shards with the checksums that the service keeps"
    )
    verifying.add_argument(
        "--read-back", action="store_true", help="read each shard again, also where the service keeps a checksum"
    )
    parser.add_argument("--ray", action="store_true", help="make the shards on a Ray cluster (RAY_ADDRESS)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_connection_options(parser)
    signing = parser.add_mutually_exclusive_group()
    signing.add_argument("--profile", help="whose credentials and settings to use, from ~/.aws; default: AWS_PROFILE")
    signing.add_argument("--unsigned", action="store_true", help="use no credentials: for public buckets")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._config import S3ClientConfig  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._pack import left_out_text, pack_with_summary  # noqa: PLC0415

    begin = time.perf_counter()
    transform = None if arguments.transform is None else _imported(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            done = pack_with_summary(
                arguments.source,
                arguments.dest,
                format=arguments.format,
                shard_size=arguments.shard_size,
                transform=transform,
                label=arguments.label,
                compression=arguments.compression,
                storage_class=arguments.storage_class,
                workers=arguments.workers,
                verify="read" if arguments.read_back else not arguments.no_verify,
                pattern=arguments.pattern,
                source_format=arguments.source_format,
                overwrite=arguments.overwrite,
                ray=arguments.ray,
                region=arguments.region,
                endpoint=arguments.endpoint,
                s3client_config=S3ClientConfig(profile=arguments.profile, unsigned=arguments.unsigned),
            )
        except KeyboardInterrupt as interrupt:
            for note in getattr(interrupt, "__notes__", ()):
                print(f"s3dataset: {note}", file=sys.stderr)
            raise
        except ImportError as error:
            print(f"s3dataset: {error}", file=sys.stderr)
            return 1
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            arguments.parser.error(str(error))
    for warning in caught:
        print(f"s3dataset: {warning.message}", file=sys.stderr)
    if done.left_out:
        print(f"s3dataset: {left_out_text(done)}", file=sys.stderr)
    manifest = done.manifest
    seconds = time.perf_counter() - begin
    if arguments.json:
        facts = {
            "index": done.index,
            "format": arguments.format,
            "shards": len(manifest),
            "samples": manifest.num_samples,
            "bytes": manifest.num_bytes,
            "made": done.made,
            "kept": done.kept,
            "source_bytes": done.source_bytes,
            "left_out": done.left_out,
            "fingerprint": manifest.fingerprint,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(facts))
        return 0
    print(
        f"{manifest.num_samples:,} samples in {len(manifest):,} shards of {arguments.format}, "
        f"{readable_bytes(manifest.num_bytes)}: {done.made:,} made of {readable_bytes(done.source_bytes)}, "
        f"{done.kept:,} kept, in {seconds:.2f} s"
    )
    print(f"index: {done.index}")
    return 0


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    value = int(float(match[1]) * _UNITS[match[2].upper()]) if match and match[2].upper() in _UNITS else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 256MB or 256MiB")
    return value


def _imported(arguments: argparse.Namespace) -> Callable[[Any], Any]:
    """The function that MODULE:NAME names; modules of the current folder count."""
    module, colon, name = arguments.transform.partition(":")
    if not (module and colon and name):
        arguments.parser.error(f"argument --transform: write MODULE:NAME, not {arguments.transform!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        arguments.parser.error(f"argument --transform: {error}")
    if not callable(found):
        arguments.parser.error(f"argument --transform: {arguments.transform} is no function")
    return found  # type: ignore[no-any-return]
