"""Names of parametrised tests."""

import re


def told(value: object) -> str:
    """Return a value's repr, which must be the same in every process that collects the tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
