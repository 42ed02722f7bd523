"""One object between S3 and a file or pipe, whole or not at all; what `s3dataset cat` and `cp` do.

::

    Span        a range as HTTP writes it. Pure
    receive     an object's bytes in their order, fetched in parallel, compared with the checksum stored
    download    the same to a file, which appears whole
    upload      a file or a pipe to an object, which appears whole
    copy        within the service
"""

from s3dataset._transfer._files import download, upload
from s3dataset._transfer._receive import Received, receive
from s3dataset._transfer._span import Span
from s3dataset._transfer._within import copy

__all__ = ["Received", "Span", "copy", "download", "receive", "upload"]
