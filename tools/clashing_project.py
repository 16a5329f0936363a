"""Use refold in a project that has folders named like its rooms; run in an empty folder."""

import sys
from importlib import import_module
from pathlib import Path

import refold
from refold.commands import RequestStop
from refold.eventstore import open_store

HERE = Path.cwd()
ROOMS = ("eventstore", "projections", "commands")


def main() -> None:
    """Make the folders, import them, and use a store beside them."""
    sys.path.insert(0, str(HERE))
    for room in ROOMS:
        (HERE / room).mkdir()
        (HERE / room / "__init__.py").write_text(f"OWNER = 'the project, {room}'\n")
        assert f"the project, {room}" == import_module(room).OWNER
    with refold.RfDb("project.db") as db:
        run_id = db.create_run(db.create_experiment("digits"), config_leaf=RequestStop)
        db.send(RequestStop(run_id))
        assert db.get_run(run_id)["config_leaf"] is RequestStop
    with open_store("project.db") as store:
        assert store.head() == 3
    for room in ROOMS:
        assert HERE not in Path(str(import_module(f"refold.{room}").__file__)).parents
    print(f"refold {refold.__version__} beside the project's own {', '.join(ROOMS)}")


if __name__ == "__main__":
    main()
