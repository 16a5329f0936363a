"""What can be said about any command: `db.request_stop(5, actor="dispatcher")`."""

from typing import TypedDict


class About(TypedDict, total=False):
    """Keywords that every method takes that changes something."""

    command_id: str
    """An id of your own: the command is carried out once, however often it is sent."""
    actor: str
    """Who acts; it defaults to the `actor` of the face."""
    correlation: str
    """What it belongs to, such as the id of a web request."""
    cause: int
    """The position of the event that led to it, such as `row["position"]` of a request."""
