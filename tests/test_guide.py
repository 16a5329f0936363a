"""The guide's controller and workers as they are on its page: one is killed, a run is stopped."""

import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from command_line import environment, refold

from refold import RfDb
from refold.eventstore.events import TaskStarted, WorkerLost

GUIDE = Path(__file__).parent.parent / "docs" / "guide.md"


def test_the_guide(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", GUIDE.read_text(), re.M | re.S)
    for name, block in blocks:
        (tmp_path / name).write_text(block)
    assert [name for name, _ in blocks] == ["controller.py", "worker.py"]

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=environment())

    place = str(tmp_path / "guide.db")
    RfDb(place).close()
    with RfDb(place) as db, db.subscribe() as events, ExitStack() as stack:
        processes = [start("controller.py"), start("worker.py", "0"), start("worker.py", "1")]
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        seen = (one for one in events if isinstance(one.event, TaskStarted))
        claimed = next(one for one in seen if one.metadata.actor == "worker-1")
        processes[2].kill()
        lost = next(one.event for one in events if isinstance(one.event, WorkerLost))
        assert lost.name == "worker-1"
        assert claimed.event.task_id in [offered.task_id for offered in lost.offered_tasks]
        assert refold("stop", "3", "--store", place, "--yes").code == 0
        ended = [process.wait(120) for process in processes]
        assert ended == [0, 0, -signal.SIGKILL]
        assert [run["status"] for run in db.get_all_runs()] == ["COMPLETED", "COMPLETED", "STOPPED"]
        assert "StopRequested" in refold("why", "run", "3", "status", "--store", place).out
        assert db.verify(log=True) == []
