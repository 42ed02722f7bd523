"""Asks for the pages of a listing step by step, without idling between the steps."""

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from s3dataset._client import ListPage, RequestQueue
from s3dataset._manifest._plan import PageRequest
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from array import array

_ENOUGH: Final = 0.8
_PATIENCE: Final = 1.0
_LEAST_PATIENCE_S: Final = 0.02
"""When four fifths of a step's pages are there, the rest has as long again to come, else it belongs to a later step:
one answer in a hundred of S3's takes several times as long as the others."""


class Page(NamedTuple):
    """A page as it was read.

    Attributes:
        content: The engine's page.
        keys: Its keys without the listing's prefix, ascending.
        ends: Where each ends in the page's blob.
        token: What stands for the next page; None: there is none.
    """

    content: ListPage
    keys: list[bytes]
    ends: "array[int]"
    token: str | None


_Answer: TypeAlias = Page | S3Exception


class Steps:
    """The requests of a listing that are under way.

    Args:
        queue: Where they go.
        send: Sends one -> its index in the queue.
        most: How many may be under way at once.
    """

    def __init__(self, queue: RequestQueue, send: Callable[[RequestQueue, PageRequest], int], most: int) -> None:
        self._queue = queue
        self._send = send
        self._most = most
        self._sent: dict[int, PageRequest] = {}
        self._ahead: dict[tuple[bytes, str], int] = {}  # pages asked for before the plan did: behind which key
        self._early: dict[int, _Answer] = {}  # those that came before the plan asked
        self._answers: list[tuple[PageRequest, _Answer]] = []

    def ask(self, requests: Iterable[PageRequest]) -> None:
        """Sends the requests of the next step."""
        for request in requests:
            index = self._ahead.pop((request.start_after, request.token), None) if request.token is not None else None
            if index is None:
                index = self._send(self._queue, request)
            self._sent[index] = request
        for index in [index for index in self._early if index in self._sent]:
            self._take(index, self._early.pop(index))

    def answers(self, read: Callable[[ListPage], Page]) -> list[tuple[PageRequest, _Answer]]:
        """Waits until the answers of this step are there, or most of them are and the others take long.

        Args:
            read: Reads a page; what it raises is raised.

        Returns:
            Requests and answers, in the order of the requests.
        """
        begin = time.monotonic()
        wanted = sum(request.directory is None for request in self._sent.values())
        enough = wanted - math.ceil(wanted * _ENOUGH)
        deadline: float | None = None
        while self._sent:
            if deadline is None and sum(request.directory is None for request in self._sent.values()) <= enough:
                now = time.monotonic()
                deadline = now + max((now - begin) * _PATIENCE, _LEAST_PATIENCE_S)
            timeout_s = None
            if deadline is not None and self._answers:
                timeout_s = deadline - time.monotonic()
                if timeout_s <= 0:
                    break
            results = self._queue.next(1, 4096, timeout_s)
            if not results:
                break
            for index, result in results:
                answer = result if isinstance(result, S3Exception) else read(cast(ListPage, result))
                if index in self._sent:
                    self._take(index, answer)
                else:
                    self._early[index] = answer
        answers, self._answers = self._answers, []
        return sorted(answers, key=lambda answer: answer[0].number)

    def _take(self, index: int, answer: _Answer) -> None:
        request = self._sent.pop(index)
        self._answers.append((request, answer))
        if request.directory is None and isinstance(answer, Page) and answer.token is not None and answer.keys:
            last = answer.keys[-1]
            room = len(self._sent) + len(self._ahead) < self._most
            if room and last > request.start_after and (request.until is None or last < request.until):
                following = PageRequest(-1, last, answer.token, request.until)
                self._ahead[last, answer.token] = self._send(self._queue, following)
