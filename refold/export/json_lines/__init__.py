"""A whole log as JSON Lines: one event per line, and back to an equal log.

>>> from refold import RfDb
>>> from refold.export import json_lines
>>> with RfDb("example.db") as db, open("log.jsonl", "wb") as file:
...     experiment_id = db.create_experiment("digits")
...     json_lines.write(db, file)
1
>>> with open("log.jsonl", "rb") as file:
...     json_lines.read(file, "other.db")
1
>>> with RfDb("other.db") as db:
...     db.get_experiment(experiment_id)["experiment_name"]
'digits'
"""

from refold.eventstore.errors import InvalidFile
from refold.export.json_lines.reading import read
from refold.export.json_lines.writing import write

__all__ = ["InvalidFile", "read", "write"]
