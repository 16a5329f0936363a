"""Digests in the data of events: which payloads come along with them."""

import re
from collections.abc import Iterator


def digests_in(text: str) -> Iterator[str]:
    """Iterate over what can be a digest in the data of an event, whatever its type."""
    for digits in _DIGITS.findall(text):
        for start in range(len(digits) - 63):
            yield digits[start : start + 64]


_DIGITS = re.compile("[0-9a-f]{64,}")
