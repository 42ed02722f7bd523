"""The listing of a dataset: made once, by the first process that needs it, for all that share the page."""

import contextlib
import os
import threading
import weakref
from typing import Any, ClassVar

from s3dataset._client import ClientRef
from s3dataset._datasets._origin import Given, Origin, Saved
from s3dataset._datasets._rank import is_spawning
from s3dataset._datasets._samples import enter_process
from s3dataset._manifest import Manifest
from s3dataset._page import Page
from s3dataset.errors import S3Exception

__all__ = ["Listing"]

_PLACE = "manifest"


class _Forks:
    """Gives every listing its page before a fork, so that parent and children share one."""

    listings: ClassVar["weakref.WeakSet[Listing]"] = weakref.WeakSet()
    registered = False

    @classmethod
    def watch(cls, listing: "Listing") -> None:
        cls.listings.add(listing)
        if not cls.registered:
            cls.registered = True
            os.register_at_fork(before=cls._before, after_in_child=cls._after_in_child)

    @classmethod
    def _before(cls) -> None:
        for listing in list(cls.listings):
            # A worker that has to do this by itself spends the better part of a second on it, each epoch.
            with contextlib.suppress(S3Exception):  # it shows at the first request
                listing.client_ref.get().settle()
            listing.share()

    @classmethod
    def _after_in_child(cls) -> None:
        for listing in list(cls.listings):
            listing.renew_lock()


class Listing:
    """What a dataset consists of, and the page that its processes share.

    Safe between threads. After a fork, parent and child go on with the same page; a process that is being spawned gets
    the page and the listing with it; any other pickle carries neither, and the other side lists by itself.

    Args:
        origin: Where the objects come from.
        client_ref: Whose connections list.
    """

    def __init__(self, origin: Origin, client_ref: ClientRef) -> None:
        self.origin = origin
        self.client_ref = client_ref
        self._manifest: Manifest | None = origin.manifest if isinstance(origin, Given) else None
        self._twin: Listing | None = None
        self._page: Page | None = None
        self._lock = threading.RLock()
        _Forks.watch(self)

    @property
    def known(self) -> Manifest | None:
        """The manifest, if this process has it already."""
        return self._manifest

    @property
    def has_page(self) -> bool:
        """Whether there is one yet."""
        return self._page is not None

    @property
    def page(self) -> Page:
        """The page; made at first use."""
        page = self._page
        if page is None:
            with self._lock:
                if self._page is None:
                    self._page = Page.create()
                page = self._page
        return page

    def manifest(self) -> Manifest:
        """The manifest; lists when no process that shares the page did so before.

        Raises:
            S3Exception: Listing failed; the next call tries again.
        """
        manifest = self._manifest
        if manifest is not None:
            return manifest
        with self._lock:
            if self._manifest is None:
                self._manifest = self._published() or self._find()
            return self._manifest

    def copy(self) -> "Listing":
        """A listing with a page of its own, for a copy of the dataset: what either finds is found for both."""
        copied = Listing(self.origin, self.client_ref)
        copied._manifest, copied._twin = self._manifest, self
        return copied

    def is_first(self, name: str) -> bool:
        """Whether neither this nor the one that it is a copy of was asked for that name, in any of their processes."""
        return self.page.add(name, 1) == 1 if self._twin is None else self._twin.is_first(name)

    def adopt(self, manifest: Manifest) -> None:
        """Takes what another rank listed."""
        with self._lock:
            self._manifest = manifest
            if self._page is not None:
                self._publish()

    def share(self) -> None:
        """Sees to it that a process that comes from this one shares the page, and the listing if there is one."""
        with self._lock:
            page = self.page
            # A forked child has a given manifest in its memory, as its parent; only a spawned one wants it in a file.
            given = isinstance(self.origin, Given) and not is_spawning()
            if self._manifest is not None and not given and not page.get_bytes(_PLACE):
                self._publish()

    def published_path(self) -> str:
        """Where the listing lies for other processes, "" if nowhere."""
        return os.fsdecode(self.page.get_bytes(_PLACE))

    def renew_lock(self) -> None:
        """In a forked child: a thread that does not exist here may have held the lock."""
        self._lock = threading.RLock()

    def _published(self) -> Manifest | None:
        if self._page is None:
            return None
        place = self._page.get_bytes(_PLACE)
        if not place:
            return None
        try:
            return Manifest.open(os.fsdecode(place), ref=self.client_ref)
        except FileNotFoundError:
            return None

    def _find(self) -> Manifest:
        if self._twin is not None:
            return self._twin.manifest()
        enter_process()
        if self._page is None:  # nobody shares it yet
            return self.origin.find(self.client_ref)
        with self._page.locked():
            published = self._published()
            if published is not None:
                return published
            self._manifest = self.origin.find(self.client_ref)
            self._publish()
            return self._manifest

    def _publish(self) -> None:
        """Writes the listing beside the page, so that it lives as long, whichever process listed."""
        if self._page is not None and self._manifest is not None:
            place = self._place
            self._manifest.publish(place)
            self._page.set_bytes(_PLACE, os.fsencode(place))

    @property
    def _place(self) -> str:
        return f"{self.page.path}.manifest"

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"origin": self.origin, "client_ref": self.client_ref, "page": None}
        if is_spawning():
            self.manifest()
            self.share()
            state["page"] = self.page
            if isinstance(self.origin, Given):
                state["origin"] = Saved(self._place)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["origin"], state["client_ref"])  # type: ignore[misc]
        self._page = state["page"]
