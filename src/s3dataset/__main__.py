"""`python -m s3dataset` is the command `s3dataset`."""

import sys

from s3dataset._cli import main

if __name__ == "__main__":
    sys.exit(main())
