"""Marks on checkpoints that keep them from being deleted: pins, which last, and those of restores, which do not.

A mark is written before the commit record is looked at, and whoever deletes looks for marks after the record is gone:
one of the two sees the other. A record that was deleted in between is written again.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from s3dataset._commits._catalog import Catalog
from s3dataset._commits._record import VERSION
from s3dataset.errors import ObjectNotFoundError, S3Exception

__all__ = ["Mark", "Marks"]

_LOGGER: Final = logging.getLogger("s3dataset")


class Mark(NamedTuple):
    """That somebody restores a step."""

    step: int
    key: str
    last_modified: int


class Marks:
    """The pins and marks of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._layout = catalog.layout

    # -- Pins --------------------------------------------------------------------------------------------------------

    def pinned(self) -> set[int]:
        """The steps that are pinned."""
        layout = self._layout
        pages = self._catalog.client.list_objects(self._catalog.bucket, layout.pins)
        steps = (layout.step_of_pin(info.key) for page in pages for info in page.object_info)
        return {step for step in steps if step is not None}

    def pin(self, step: int) -> None:
        """Keeps a checkpoint until `unpin`.

        Raises:
            ObjectNotFoundError: The step is not committed.
        """
        catalog, key = self._catalog, self._layout.pin(step)
        text = json.dumps({"version": VERSION, "step": step, "time": time.time()})
        catalog.client.put_many([(catalog.bucket, key, text.encode())], content_type="application/json")
        if catalog.find(step) is None:
            catalog.client.delete_object(catalog.bucket, key)
            raise ObjectNotFoundError(
                f"{self._layout} has no checkpoint of step {step}, which could be pinned: list() tells those there are",
                uri=self._layout.uri(self._layout.commit(step)),
            )

    def unpin(self, step: int) -> None:
        """Takes a pin away; nothing happens where there is none."""
        self._catalog.client.delete_object(self._catalog.bucket, self._layout.pin(step))

    # -- Restores ----------------------------------------------------------------------------------------------------

    def restoring(self) -> list[Mark]:
        """The marks of restores, stale ones too."""
        layout = self._layout
        pages = self._catalog.client.list_objects(self._catalog.bucket, layout.restores)
        infos = ((layout.step_of_mark(info.key), info) for page in pages for info in page.object_info)
        return [Mark(step, info.key, info.last_modified) for step, info in infos if step is not None]

    @contextmanager
    def restore(self, step: int) -> Iterator[None]:
        """Keeps a step's files from being deleted meanwhile, as far as this may write."""
        key = self.begin(step)
        try:
            yield
        finally:
            self.end(key)

    def begin(self, step: int) -> str | None:
        """Marks a step -> what to give to `end`; None where this may not write."""
        catalog, key = self._catalog, self._layout.new_mark(step)
        try:
            catalog.client.put_many([(catalog.bucket, key, b"")])
        except S3Exception as error:
            if not 400 <= error.status < 500:
                raise
            _LOGGER.debug("step %d of %s is restored without a mark: %s", step, self._layout, error)
            return None
        return key

    def end(self, key: str | None) -> None:
        """Takes the mark away. One that stays is ignored after a day."""
        if key is None:
            return
        try:
            self._catalog.client.delete_object(self._catalog.bucket, key)
        except S3Exception as error:
            _LOGGER.debug("the mark %s stays, and is removed after a day: %s", key, error)
