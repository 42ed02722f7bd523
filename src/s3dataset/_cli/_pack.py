"""`s3dataset pack`: many small objects into shards."""

import argparse
import logging
import time
from typing import Any

from s3dataset._cli._options import add_connection_options, connection, imported, pattern, place, size, whole_number
from s3dataset._cli._output import HelpLayout, counted, failed, noted_warnings, print_json, readable_bytes, tell


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
        "exit status: 0: all shards are there; 1: it failed, and the same command goes on, or there is "
        "nothing to pack; 2: wrong usage; "
        "130: Ctrl-C",
        formatter_class=HelpLayout,
    )
    parser.add_argument("source", type=place, metavar="s3://BUCKET[/PREFIX]", help="the objects")
    parser.add_argument("dest", type=place, metavar="s3://BUCKET[/FOLDER]", help="where the shards go: an empty folder")
    parser.add_argument(
        "--pattern", type=pattern, help='which objects: a glob on the key after the prefix, as "**/*.jpg"'
    )
    parser.add_argument("--format", default="tar", metavar="NAME", help="tar (default), tfrecord, jsonl, parquet, ...")
    parser.add_argument(
        "--shard-size", type=size, default=256 << 20, metavar="SIZE", help="of a shard's source; default: 256MiB"
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
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._pack import left_out_text, pack_with_summary  # noqa: PLC0415 - `--help` need not load them

    # What a writer would log is what the exception says.
    logging.getLogger("s3dataset").addHandler(logging.NullHandler())
    begin = time.perf_counter()
    transform = None if arguments.transform is None else imported(arguments.parser, arguments.transform)
    with noted_warnings():
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
                need_samples=True,
                **connection(arguments),
            )
        except ImportError as error:
            return failed(arguments, error)
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            arguments.parser.error(str(error))
    if done.left_out:
        tell(left_out_text(done.left_out, done.first_left_out))
    manifest = done.manifest
    is_nothing = not len(manifest)
    if is_nothing:
        tell(f"the transform made no sample of anything below {arguments.source}")
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
        print_json(facts)
        return 1 if is_nothing else 0
    print(
        f"{counted(manifest.num_samples, 'sample')} in {counted(len(manifest), 'shard')} of {arguments.format}, "
        f"{readable_bytes(manifest.num_bytes)}: {done.made:,} made of {readable_bytes(done.source_bytes)}, "
        f"{done.kept:,} kept, in {seconds:.2f} s"
    )
    print(f"index: {done.index}")
    return 1 if is_nothing else 0
