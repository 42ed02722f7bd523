"""Reads objects without PyTorch: many at once, parts of them, and into memory of one's own.

python examples/read_many.py s3://bucket/prefix/ --region us-west-2
"""

import argparse

import s3dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix")
    parser.add_argument("--region")
    arguments = parser.parse_args()

    listing = s3dataset.Manifest.from_prefix(arguments.prefix, region=arguments.region)
    if not len(listing):
        raise SystemExit(f"There are no objects below {arguments.prefix}.")
    client = s3dataset.S3Client(arguments.region)

    # Many at once, as they arrive; each body is a buffer whose memory is used again when it is dropped.
    total_bytes = 0
    for index, body in client.get_many(listing.uri(i) for i in range(len(listing))):
        total_bytes += len(body)
        if index == 0:
            print(f"{listing.uri(0)} begins with {bytes(memoryview(body)[:16])!r}")
    print(f"{len(listing):,} objects, {total_bytes:,} bytes")

    # One object into memory that is there already: large ones come as parallel ranges.
    largest = max(range(len(listing)), key=listing.size)
    memory = bytearray(listing.size(largest))
    client.read_into([(listing.bucket(largest), listing.key(largest), None, memory)])
    print(f"{listing.uri(largest)}: {len(memory):,} bytes into one's own memory")


if __name__ == "__main__":
    main()
