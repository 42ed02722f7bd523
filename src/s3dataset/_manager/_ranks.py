"""Ranks that agree: all of them do a step, rank 0 decides, and it fails on all of them when it fails on one."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar

import torch
import torch.distributed

from s3dataset.errors import S3Exception

__all__ = ["LostRanksError", "Ranks"]

_LOGGER: Final = logging.getLogger("s3dataset")

_LETTING_GO_S: Final = 0.2
_PATIENCE: Final = timedelta(hours=2)
"""With ranks that write or read meanwhile. One that dies closes its sockets, and is noticed at once."""

Mine = TypeVar("Mine")
Answer = TypeVar("Answer")


class LostRanksError(S3Exception):
    """The ranks cannot reach one another any more. What the others do is not known."""


class _Failed(NamedTuple):
    """What a rank tells of its exception."""

    text: str


class _Decided(NamedTuple, Generic[Answer]):
    """What rank 0 tells the others."""

    answer: Answer | None
    error: BaseException | None


class Ranks:
    """The ranks of a process group, which nobody else uses.

    The collectives of a training must come in the same order on all ranks. A thread that saves in the background has
    no place in that order, so its collectives go over a gloo group of their own, made when it is first needed. For some
    of the ranks it must be given: torch makes a group without the others' help only at the price that their next
    new_group hangs (its names of groups are numbers that all ranks count).

    Args:
        process_group: Whose ranks, which talk over it; None: those of the default group, or this process alone.
    """

    def __init__(self, process_group: Any = None) -> None:
        self._given = process_group
        self._group: Any = None
        self._made: Any = None
        self._members: list[int] | None = None
        self._rank = 0

    @property
    def group(self) -> Any:
        """By which these ranks talk; None for a process alone."""
        self._open()
        return self._group

    @property
    def rank(self) -> int:
        """This rank, among these."""
        self._open()
        return self._rank

    @property
    def world_size(self) -> int:
        """How many they are."""
        return len(self._open())

    def _open(self) -> list[int]:
        """-> the ranks' numbers in the default group. The first call is collective."""
        if self._members is None:
            self._members = members = self._find()
            self._rank = members.index(torch.distributed.get_rank()) if len(members) > 1 else 0
        return self._members

    def _find(self) -> list[int]:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            if self._given is not None:
                raise ValueError("process_group was given, and torch.distributed is not initialized")
            return [0]
        group = self._given
        if group is None or group is torch.distributed.group.WORLD:
            members = list(range(torch.distributed.get_world_size()))
            if len(members) > 1:
                group = self._made = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
        else:
            if torch.distributed.get_rank() not in (members := _ranks_of(group)):
                raise ValueError("this rank is not in process_group: only its ranks take part in saving and restoring")
            if "cpu" not in torch.distributed.get_backend_config(group):
                raise ValueError(
                    "process_group must have a backend for the CPU, and be used by nobody else: make one with "
                    'torch.distributed.new_group(ranks, backend="gloo")'
                )
        self._group = group if len(members) > 1 else None
        return members

    def close(self) -> None:
        """Ends the group of one's own. Idempotent."""
        made, self._made, self._group, self._members = self._made, None, None, None
        if made is not None and torch.distributed.is_initialized():
            # torch 2.4 waits for the group's threads while it holds Python's lock, which one of them needs to let go of
            # the tensors of the last collective.
            time.sleep(_LETTING_GO_S)
            torch.distributed.destroy_process_group(made)

    def together(self, mine: Callable[[], Mine], lead: Callable[[list[Mine]], Answer], what: str) -> Answer:
        """Every rank does `mine`; rank 0 makes of all results what all ranks get.

        When either fails, every rank raises: the one that failed its own exception, the others one that says which.

        Args:
            mine: Done on every rank.
            lead: Done on rank 0 once all have succeeded.
            what: For the errors: "step 7 of s3://bucket/run was not saved".

        Raises:
            S3Exception: Another rank failed, or the ranks have lost one another.
        """
        result: Mine | None = None
        error: Exception | None = None
        try:
            result = mine()
        except Exception as own:
            if self.world_size == 1:
                raise
            error = own
        if self.world_size == 1:
            return lead([result])  # type: ignore[list-item]
        try:
            reports = self.gather(_Failed(f"{type(error).__name__}: {error}") if error is not None else result)
        except LostRanksError as lost:
            if error is not None:
                lost.add_note(f"On this rank: {type(error).__name__}: {error}")
            raise
        failed = [(rank, report) for rank, report in enumerate(reports or []) if isinstance(report, _Failed)]

        def decide() -> Answer:
            if failed:
                raise S3Exception(f"{what}: {'; '.join(f'rank {rank}: {report.text}' for rank, report in failed)}")
            return lead(reports)  # type: ignore[arg-type]

        try:
            return self.lead(decide)
        except LostRanksError:
            raise
        except Exception:
            if error is not None:
                raise error from None
            raise

    def lead(self, decide: Callable[[], Answer]) -> Answer:
        """Rank 0 decides; all ranks get its answer, or raise its exception."""
        if self.world_size == 1:
            return decide()
        if self.rank != 0:
            decided: _Decided[Answer] = self._broadcast(None)
            if decided.error is not None:
                raise decided.error
            return decided.answer  # type: ignore[return-value]
        try:
            answer = decide()
        except Exception as error:
            self._tell(_portable(error))
            raise
        except BaseException as error:
            self._tell(S3Exception(f"rank 0 was interrupted: {type(error).__name__}"))
            raise
        self._broadcast(_Decided(answer, None))
        return answer

    def _tell(self, error: Exception) -> None:
        """Of an error, which counts for more than that it cannot be told."""
        try:
            self._broadcast(_Decided(None, error))
        except LostRanksError as lost:
            _LOGGER.debug("%s", lost)

    def gather(self, value: Any) -> list[Any] | None:
        """-> the values of all ranks on rank 0, None elsewhere.

        Raises:
            LostRanksError: The ranks have lost one another.
        """
        members = self._open()
        if len(members) == 1:
            return [value]
        values: list[Any] | None = [None] * len(members) if self.rank == 0 else None
        try:
            torch.distributed.gather_object(value, values, dst=members[0], group=self._group)
        except (RuntimeError, ValueError) as error:
            raise _lost(error) from error
        return values

    def _broadcast(self, value: Any) -> Any:
        box = [value]
        try:
            torch.distributed.broadcast_object_list(
                box, src=self._open()[0], group=self._group, device=torch.device("cpu")
            )
        except (RuntimeError, ValueError) as error:
            raise _lost(error) from error
        return box[0]


def _ranks_of(group: Any) -> list[int]:
    """The members' numbers in the default group; [] for who is none of them."""
    if group is torch.distributed.GroupMember.NON_GROUP_MEMBER:
        return []
    return torch.distributed.get_process_group_ranks(group)


def _lost(error: Exception) -> LostRanksError:
    return LostRanksError(
        "the ranks that save and restore together have lost one another: one of them has ended, was late by more "
        f"than the time limit of their group, or has destroyed it before CheckpointManager.close(). {error}"
    )


def _portable(error: Exception) -> Exception:
    """What is raised on other ranks: the same where it can be sent."""
    if isinstance(error, S3Exception):
        return error
    if type(error) in (TypeError, ValueError, KeyError):
        return type(error)(*map(str, error.args))
    return S3Exception(f"rank 0 failed: {type(error).__name__}: {error}")
