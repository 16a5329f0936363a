"""Floor 2, what that makes true: events are folded into the rows of views."""

from projections.unit_of_work import Rows, UnitOfWork
from projections.verify import Difference
from projections.view import Row, View
from projections.views import ALL, Views

__all__ = ["ALL", "Difference", "Row", "Rows", "UnitOfWork", "View", "Views"]
