"""Stateless operations on S3, over the engine.

::

    Client          one method an operation; made late, anew after a fork
    ├── get_client, ClientRef   one client a process for the same settings; what pickles instead
    ├── RequestQueue            requests in by the hundred, results out as they are done
    ├── _routes                 where a bucket is reached (botocore's rules)
    ├── _credentials            who signs: keys renewed by a thread, from _providers (botocore's), in _shared_keys
    ├── _failures               the engine's failures as exceptions
    ├── _lost_answers           whether a write that failed was carried out all the same
    └── _process                shares of the machine, forks, exit
"""

from s3dataset._client._client import Client
from s3dataset._client._core import ClientCore
from s3dataset._client._get import GetRequest, GetRequestLike, ReadIntoRequest
from s3dataset._client._list import ListingGuard, ListObjectResult
from s3dataset._client._lost_answers import Nonce
from s3dataset._client._object_info import ObjectInfo, RestoreStatus, info_of_reply, infos_of_page
from s3dataset._client._process import configure_process, end_with_parent, limits
from s3dataset._client._providers import load as load_credentials
from s3dataset._client._put import PutRequest
from s3dataset._client._queue import Get, GetInto, Headers, Pieces, Put, RequestQueue, Result
from s3dataset._client._registry import ClientRef, get_client
from s3dataset._client._routes import Address, address_of, check_endpoint
from s3dataset._client._stored_checksum import CHECKSUM_MODE, StoredChecksum, stored_checksum, take_head
from s3dataset._client._uploads import UnfinishedUpload
from s3dataset._client._user_agent import UserAgent
from s3dataset._native import (
    Body,
    Buffer,
    ForeignProcessError,
    ListPage,
    Reply,
    checksum,
    combine_checksums,
    prefer_huge_pages,
    received_by_thread,
)

__all__ = [
    "CHECKSUM_MODE",
    "Address",
    "Body",
    "Buffer",
    "Client",
    "ClientCore",
    "ClientRef",
    "ForeignProcessError",
    "Get",
    "GetInto",
    "GetRequest",
    "GetRequestLike",
    "Headers",
    "ListObjectResult",
    "ListPage",
    "ListingGuard",
    "Nonce",
    "ObjectInfo",
    "Pieces",
    "Put",
    "PutRequest",
    "ReadIntoRequest",
    "Reply",
    "RequestQueue",
    "RestoreStatus",
    "Result",
    "StoredChecksum",
    "UnfinishedUpload",
    "UserAgent",
    "address_of",
    "check_endpoint",
    "checksum",
    "combine_checksums",
    "configure_process",
    "end_with_parent",
    "get_client",
    "info_of_reply",
    "infos_of_page",
    "limits",
    "load_credentials",
    "prefer_huge_pages",
    "received_by_thread",
    "stored_checksum",
    "take_head",
]
