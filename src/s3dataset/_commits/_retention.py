"""Which checkpoints are kept. Pure."""

from collections.abc import Collection, Iterable

__all__ = ["check_retention", "expendable"]


def check_retention(keep_last: int | None, keep_every: int | None) -> None:
    """Raises ValueError or TypeError for numbers that cannot be meant."""
    for name, value in (("keep_last", keep_last), ("keep_every", keep_every)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number or None, not {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, or None, not {value}")


def expendable(
    steps: Iterable[int],
    *,
    keep_last: int | None,
    keep_every: int | None,
    keep: Collection[int] = (),
    damaged: Collection[int] = (),
) -> list[int]:
    """The committed steps that nobody wants any more, oldest first; never the newest one.

    Args:
        steps: All that are committed.
        keep_last: So many of the newest stay; None: all.
        keep_every: Steps that it divides stay.
        keep: Stay whatever else is said.
        damaged: Cannot be restored: they do not count among the last ones, and go once a newer one is whole.
    """
    newest_first = sorted(steps, reverse=True)
    whole = [step for step in newest_first if step not in damaged]
    if keep_last is None or not whole:
        return []
    last = set(whole[:keep_last])
    return [
        step
        for step in reversed(newest_first)
        if step < whole[0]
        and step not in last
        and step not in keep
        and (step in damaged or keep_every is None or step % keep_every)
    ]
