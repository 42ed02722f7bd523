"""`s3dataset doctor`: what stands between this machine and a bucket."""

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

from s3dataset._cli._options import add_connection_options, connection, place
from s3dataset._cli._output import HelpLayout, Paint, counted, paragraph, print_json

if TYPE_CHECKING:
    from s3dataset._doctor import Check

_WORDS: Final = {"ok": ("OK", "good"), "warn": ("WARN", "warn"), "fail": ("FAIL", "bad"), "info": ("", "quiet")}
_NAME_WIDTH: Final = 18


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "doctor",
        help="look at credentials, network, permissions and this machine, and say what to do",
        description="Looks at everything that stands between this machine and a bucket: versions, memory, open files; "
        "credentials and where they come from; region and endpoint, and why these; DNS, TCP, TLS and the clock; and, "
        "with a URI, what may be done there. Each line is OK, WARN or FAIL, with what to do. Nothing is written "
        "without --write. Secrets are never printed.",
        epilog="examples:\n"
        "  s3dataset doctor                                  this machine and its credentials\n"
        "  s3dataset doctor s3://bucket/prefix/              and that place: may I list and read?\n"
        "  s3dataset doctor s3://bucket/prefix/ --write      and write: an object of a new name, deleted at once\n"
        "  s3dataset doctor s3://bucket/prefix/ --json       for a bug report; secrets are masked\n\n"
        "exit status: 0: nothing FAILs; 1: something does; 2: wrong usage; 130: Ctrl-C",
        formatter_class=HelpLayout,
    )
    parser.add_argument("uri", type=place, nargs="?", metavar="s3://BUCKET[/PREFIX]")
    parser.add_argument("--write", action="store_true", help="also write and delete an object of a new name there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_connection_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._doctor import examine  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._uri import S3Uri  # noqa: PLC0415

    if arguments.write and arguments.uri is None:
        arguments.parser.error("--write needs a place: s3://BUCKET/PREFIX/")
    place = None if arguments.uri is None else S3Uri.parse_prefix(arguments.uri)
    checks = []
    section = ""
    for check in examine(place, write=arguments.write, **connection(arguments)):
        checks.append(check)
        if not arguments.json:
            if check.section != section:
                section = check.section
                print(f"{'' if len(checks) == 1 else chr(10)}{Paint(sys.stdout)(section, 'strong')}")
            print_check(check)
    counts = {status: sum(check.status == status for check in checks) for status in _WORDS}
    if arguments.json:
        print_json({"ok": not counts["fail"], "uri": arguments.uri, "checks": [facts_of(check) for check in checks]})
    else:
        print(f"\n{counts['ok']} OK, {counted(counts['warn'], 'warning')}, {counted(counts['fail'], 'failure')}")
    return 1 if counts["fail"] else 0


def print_check(check: "Check") -> None:
    word, colour = _WORDS[check.status]
    paint = Paint(sys.stdout)
    print(f"  {paint(f'{word:<4}', colour)}  {check.name:<{_NAME_WIDTH}} {check.said}", flush=True)
    if check.advice:
        indent = 9 + _NAME_WIDTH
        print(textwrap.indent(paint(paragraph(check.advice, "→ ", indent=indent), colour), " " * indent))


def facts_of(check: "Check") -> dict[str, Any]:
    facts = {name: value for name, value in check.facts.items() if name != "hopeless"}
    return {
        "section": check.section,
        "name": check.name,
        "status": check.status,
        "said": check.said,
        "advice": check.advice,
        "facts": facts,
    }
