"""Numbers that JSON lacks: a word stands for each, beside the numbers."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias, cast, get_args

from refold.eventstore.event import plain_scalar, to_json

NotANumber: TypeAlias = Literal["nan", "inf", "-inf"]
"""What `float()` reads."""

WORDS = frozenset(get_args(NotANumber))


def take_words(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, NotANumber]]:
    """Part the numbers that JSON has from those that it lacks.

    Args:
        values: numbers and text, lists and named groups of them; NumPy's and torch's, too.

    Returns:
        the values without NaN and infinities (in lists None stands for them), and a word for each
        of these by its path, such as `loss` or `validation/losses/2` (a `/` in a name is `~1`, a
        `~` is `~0`, as in https://www.rfc-editor.org/rfc/rfc6901).

    >>> take_words({"loss": float("nan"), "rate": 0.1})
    ({'rate': 0.1}, {'loss': 'nan'})
    """
    words: dict[str, NotANumber] = {}

    def taken(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            group = cast("Mapping[Any, Any]", value)
            return {
                name: kept
                for name, part in group.items()
                if (kept := taken(part, f"{path}{path_of(name)}/")) is not _GONE
            }
        if isinstance(value, list | tuple):
            several = enumerate(cast("Sequence[Any]", value))
            parts = [taken(part, f"{path}{n}/") for n, part in several]
            return [None if part is _GONE else part for part in parts]
        number = value if isinstance(value, float) else _plain(value)
        if isinstance(number, float) and not math.isfinite(number):
            words[path[:-1]] = "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
            return _GONE
        return value

    numbers = taken(values, "")
    return numbers, dict(sorted(words.items()))


def give_words(values: dict[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """Put numbers that JSON lacks back among the others, in place; see `take_words`."""
    for path, word in words.items():
        *groups, last = path.split("/")
        group: Any = values
        # Somebody may have written what leads nowhere.
        with suppress(LookupError, ValueError, TypeError):
            for step in groups:
                group = group[_key(group, step)]
            group[_key(group, last)] = float(word)
    return values


def words_text(words: Mapping[str, str]) -> str | None:
    """Return the JSON of words; None if there are none."""
    return to_json(words) if words else None


def _key(group: object, step: str) -> int | str:
    return int(step) if isinstance(group, list) else name_of(step)


_GONE = object()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    try:
        return plain_scalar(value)
    except TypeError:
        return value  # which is refused when it is written as JSON


def path_of(name: object) -> str:
    """Return a name as a step of a path."""
    return str(name).replace("~", "~0").replace("/", "~1")


def name_of(step: str) -> str:
    """Return the name that a step of a path stands for."""
    return step.replace("~1", "/").replace("~0", "~")
