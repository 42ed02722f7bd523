"""The options by which every command finds the service."""

import argparse


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", help="the bucket's region; found from the environment or the bucket when left out")
    parser.add_argument("--endpoint", metavar="URL", help="another service than Amazon's, as https://host:port")
