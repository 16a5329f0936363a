"""A progress bar, for what may take long."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(what: str, total: int, shown: bool | None, *, unit: str = "event") -> "tqdm[Any]":
    """Return a bar that appears when it has taken half a second, and goes when all is done.

    Args:
        what: is done, such as `copying events`.
        total: how many units of it there are.
        shown: whether to show it at all; None: only on a terminal.
        unit: what is counted.
    """
    from tqdm import tqdm  # takes long to import

    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        unit_scale=True,
        delay=0.5,
        leave=False,
        disable=None if shown is None else not shown,
    )
