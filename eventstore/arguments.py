"""What is passed to a call: checked against its type, told in a few words."""

NAME_LENGTH = 500
"""Characters that a name, such as of a stream, a command or a row, has at most.

An index of PostgreSQL takes 2,704 bytes, and a character up to four.
"""


def is_utf8(text: str) -> bool:
    """Return whether a database can hold a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_name(what: str, name: object) -> None:
    """Refuse what not every engine can look up: the one rule for names and ids that are text.

    Args:
        what: it names, for the message.
        name: the name.

    Raises:
        ValueError: it is no text, or is empty; or see `check_text`.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{name!r:.100} is no {what}: pass text")
    check_text(what, name)


def check_text(what: str, name: str) -> None:
    """Refuse text that not every engine can look up.

    Args:
        what: it names, for the message.
        name: the text.

    Raises:
        ValueError: it is too long, or holds a NUL or a lone surrogate.
    """
    if len(name) > NAME_LENGTH:
        raise ValueError(
            f"{name[:40]!r}… is no {what}: it has {len(name):,} characters, {NAME_LENGTH} are the "
            f"most; pass a digest of it"
        )
    if "\0" in name or not is_utf8(name):
        raise ValueError(
            f"{name!r:.100} is no {what}: it holds a NUL or a lone surrogate, which SQL "
            f"text cannot keep"
        )
