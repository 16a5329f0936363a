"""What a command decides, without a database: `given(*events).when(command).then(*events)`."""

from typing import Self

import pytest

from refold.commands import Command, Decision
from refold.eventstore.codec import encode
from refold.eventstore.errors import DBException
from refold.eventstore.event import Event
from refold.eventstore.log.recorded import NO_METADATA, Recorded
from refold.projections import ALL, UnitOfWork


class Given:
    """What has happened, folded into rows in memory."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self.rows = UnitOfWork(ALL)
        for position, event in enumerate(events, 1):
            recorded = Recorded(position, event.stream, position, event, NO_METADATA, position)
            self.rows.fold(recorded)

    def when(self, command: Command) -> "When":
        """Let a command decide on it, as `execute` does."""
        return When(self.rows, command)


class When:
    """A command that is sent to those rows."""

    def __init__(self, rows: UnitOfWork, command: Command) -> None:
        self._rows = rows
        self._command = command

    def _decide(self) -> Decision:
        command = self._command.validated()
        before = [self._rows.rows(view) for view in ALL]
        decision = command.decide(self._rows)
        assert command.decide(self._rows) == decision, "decide is not pure: asked again it differs"
        assert [self._rows.rows(view) for view in ALL] == before, "decide changed the rows"
        return decision

    def then(self, *events: Event) -> Self:
        """These events follow, none if there are none; the log can keep them."""
        decided = list(self._decide().events)
        assert decided == list(events), f"{decided} follow"
        assert [encode(event)[1] for event in decided] == decided, "the log cannot keep them"
        return self

    def result(self, expected: object) -> Self:
        """The caller gets this."""
        decided = self._decide().result
        assert decided == expected, f"the result is {decided!r}"
        return self

    def payloads(self, *expected: bytes) -> Self:
        """These bytes are stored."""
        assert list(self._decide().payloads) == list(expected)
        return self

    def refused(self, kind: type[DBException], *fragments: str) -> None:
        """The command is refused by an error of exactly this kind, whose text holds these."""
        with pytest.raises(kind) as caught:
            self._decide()
        assert caught.type is kind
        missing = [part for part in fragments if part not in str(caught.value)]
        assert not missing, f"{missing} is not in {str(caught.value)!r}"


def given(*events: Event) -> Given:
    """Begin a test with what has happened."""
    return Given(events)
