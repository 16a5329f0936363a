"""The processes of one contender, which live on between the rounds."""

from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from typing import Self, cast

from benchmarks.peers.crud_tasks import CrudTasks
from benchmarks.workloads.processes.roles import (
    WORKERS,
    Controller,
    Dashboard,
    Done,
    Follower,
    Order,
    Role,
    Worker,
)
from refold import RfDb

_spawn = get_context("spawn")


class Crew:
    """Eight workers, a controller, a dashboard and a follower, told over pipes what to do."""

    def __init__(self, contender: type[RfDb] | type[CrudTasks], place: str) -> None:
        self._afterwards = ExitStack()
        self._workers = [self._begin(contender, place, Worker, n) for n in range(WORKERS)]
        self._others = [
            self._begin(contender, place, role, 0) for role in (Controller, Dashboard, Follower)
        ]
        for pipe in (*self._workers, *self._others):
            pipe.recv()

    def _begin(
        self,
        contender: type[RfDb] | type[CrudTasks],
        place: str,
        role: type[Role],
        number: int,
    ) -> Connection:
        pipe, far_end = Pipe()
        process = _spawn.Process(
            target=_live, args=(far_end, contender, place, role, number), daemon=True
        )
        process.start()
        far_end.close()
        self._afterwards.callback(process.join)
        self._afterwards.callback(pipe.close)
        return cast("Connection", pipe)  # of another type on Windows

    def alone(self, order: Order) -> list[Done]:
        """Have one worker do its work."""
        return _told(order, self._workers[:1])

    def together(self, order: Order) -> list[Done]:
        """Have all do their work: first the workers, then controller, dashboard, follower."""
        return _told(order, [*self._workers, *self._others])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._afterwards.close()


def _told(order: Order, pipes: Sequence[Connection]) -> list[Done]:
    for pipe in pipes:
        pipe.send(order)
    return [pipe.recv() for pipe in pipes]


def _live(
    pipe: Connection,
    contender: type[RfDb] | type[CrudTasks],
    place: str,
    role: type[Role],
    number: int,
) -> None:
    with contender(place) as layer:
        part = role(layer, number)
        pipe.send("ready")
        while True:
            try:
                order = pipe.recv()
            except EOFError:
                return
            pipe.send(part.do(order))
