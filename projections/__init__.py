"""Floor 2, what that makes true: events are folded into the rows of views."""

# A checkout has this folder at its top. Under that name everything would be loaded twice.
if __name__ == "projections":
    raise ImportError("import refold.projections instead of projections")

from refold.projections.entities import ALL
from refold.projections.unit_of_work import Rows, UnitOfWork
from refold.projections.verify import Difference, Findings
from refold.projections.view import Row, View
from refold.projections.views import Views

__all__ = ["ALL", "Difference", "Findings", "Row", "Rows", "UnitOfWork", "View", "Views"]
