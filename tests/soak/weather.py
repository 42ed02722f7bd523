"""Faults that come and go while the work goes on. None of them may be seen by it: all are shorter than its patience."""

import random
import threading
import time
from typing import Final, NamedTuple, Self

from tests.soak.world import World

from s3dataset.testing import Fault

__all__ = ["Spell", "Weather"]

# Of requests, those that may be repeated without a trace. An upload whose creation was not heard of stays, empty.
PLANS: Final[dict[str, tuple[Fault, ...]]] = {
    "resets": (
        Fault.reset(probability=0.08, times=None),
        Fault.reset(at=4000, operation="GetObject", probability=0.1, times=None),
    ),
    "closes": (Fault.close(probability=0.1, times=None), Fault.close_after(probability=0.3, times=None)),
    "stalls": (
        Fault.stall(at=None, probability=0.02, times=None),
        Fault.stall(at=3000, operation="GetObject", probability=0.02, times=None),
    ),
    "slow down": (Fault.status(503, probability=0.2, times=None),),
    "errors": (
        Fault.status(500, probability=0.1, times=None),
        Fault.status(503, code="InternalError", probability=0.05, times=None),
    ),
    "truncations": (Fault.truncate(at=2000, operation="GetObject", probability=0.2, times=None),),
    "wrong bytes": (Fault.corrupt(at=500, operation="GetObject", key="images/*", probability=0.1, times=None),),
    "late": (Fault.delay(0.4, probability=0.1, times=None), Fault.slow(2e6, probability=0.05, times=None)),
    "cut heads": (Fault.cut_head(at=40, probability=0.08, times=None),),
}
OUTAGES: Final = ("outage", "silence")
EXPIRY: Final = "expired keys"


class Spell(NamedTuple):
    """A fault, and when it was, in seconds since the start."""

    title: str
    began_s: float
    ended_s: float


class Weather:
    """A thread that makes it, until it is left."""

    def __init__(self, world: World, began: float, seed: int) -> None:
        self._world = world
        self._began = began
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weather", daemon=True)
        self._error: BaseException | None = None
        self._spells: list[tuple[str, float, float]] = []  # plain ones, which the collector of garbage need not follow

    @property
    def spells(self) -> list[Spell]:
        return [Spell(*spell) for spell in self._spells]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._world.server.clear_faults()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            titles: list[str] = []
            while not self._over.wait(self._random.uniform(0.3, 2.5)):
                if not titles:
                    titles = [*PLANS, *OUTAGES, EXPIRY]
                    self._random.shuffle(titles)
                self._spell(titles.pop())
        except BaseException as error:  # noqa: BLE001 - raised where the thread is joined
            self._error = error

    def _spell(self, title: str) -> None:
        server = self._world.server
        began = time.monotonic()
        numbers: list[int] = []
        if title == EXPIRY:
            self._world.renew_keys()
        elif title in OUTAGES:
            server.outage(self._random.uniform(0.2, 1.2), silent=title == "silence")
            self._over.wait(1.2)
        else:
            numbers = server.add_fault(*PLANS[title])
            self._over.wait(self._random.uniform(0.5, 4.0))
        if numbers:
            server.clear_faults(*numbers)
        self._spells.append((title, began - self._began, time.monotonic() - self._began))
