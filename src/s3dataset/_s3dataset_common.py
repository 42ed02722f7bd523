"""Drop-in import path: what takes a URI apart."""

from s3dataset._uri import parse_s3_uri

__all__ = ["parse_s3_uri"]
