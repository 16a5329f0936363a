"""What happens to the store as a whole."""

from refold.eventstore.events.event import Event, Id


class StoreEvent(Event, frozen=True):
    """Something happened to the store."""

    @property
    def stream(self) -> str:
        """`store`: there is one."""
        return "store"


class TablesReset(StoreEvent, frozen=True):
    """All views were emptied, the experiments only if it says so. The history stays."""

    experiments: bool


class ExperimentStatesReset(StoreEvent, frozen=True):
    """After a crash, what was in progress was declared failed: the compensating event.

    It names every row that it fails, so that a replay needs no rule of its own.
    """

    worker_tasks: tuple[Id, ...] = ()
    actor_tasks: tuple[Id, ...] = ()
    contexts: tuple[Id, ...] = ()
    workers: tuple[Id, ...] = ()
    controller: bool = False
    runs: tuple[Id, ...] = ()
    pipelines: tuple[Id, ...] = ()
