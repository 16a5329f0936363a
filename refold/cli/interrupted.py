"""What became of a change that Ctrl-C interrupted: all of it is there, or nothing."""

from collections.abc import Generator
from contextlib import contextmanager

from refold.cli.output import note
from refold.face import Face


@contextmanager
def tell_if_interrupted(db: Face, command_id: str) -> Generator[None, None, None]:
    """Have the block send a command with this id, and if it is interrupted, look and say so."""
    try:
        yield
    except KeyboardInterrupt:
        with db.store.reading() as connection:
            done = connection.execute("SELECT 1 FROM commands WHERE command_id = ?", (command_id,))
        note(f"interrupted: {'but it had been done already' if done else 'nothing was changed'}")
        raise


@contextmanager
def note_if_interrupted(message: str) -> Generator[None, None, None]:
    """Say how things are if the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted: {message}")
        raise
