"""A window on a store: a page that shows everything as of any moment, and why it is so.

`refold ui` serves it, `app` lets you mount it elsewhere. Needs `refold[ui]`.
"""

from refold.eventstore.errors import needed_for

with needed_for("the window", "ui"):
    from refold.ui.server import app

__all__ = ["app"]
