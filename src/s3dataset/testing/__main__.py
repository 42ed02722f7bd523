"""`python -m s3dataset.testing '<configuration as JSON>'`: the server process that `LocalS3` starts."""

import signal
import sys

from s3dataset import _native


def main() -> None:
    # The server runs outside of Python, where Python's handlers would never be called.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        _native.run_local_s3(sys.argv[1] if len(sys.argv) > 1 else "{}")
    except (OSError, ValueError) as error:
        sys.exit(f"the local S3 did not start: {error}")


if __name__ == "__main__":
    main()
