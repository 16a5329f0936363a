"""Tables that are laid out anew while readers go on with the old ones."""

import hashlib
from collections.abc import Sequence

from refold.eventstore.engines.engine import Definition, Writer
from refold.eventstore.engines.postgres import dialect


class Renewal:
    """Lays out tables and SQL views anew; between `begin` and `end` they are filled.

    One whose definition is still the same is emptied. To drop one that has changed would have
    readers wait, so a temporary one is filled first, and takes its place at the end.

    Args:
        writer: the transaction.
        schema: the store's.
        tables: what is laid out.
    """

    def __init__(self, writer: Writer, schema: str, tables: Sequence[Definition]) -> None:
        self._writer = writer
        self._schema = (schema,)
        self._tables = tables
        self._changed: list[Definition] = []
        self._kinds: dict[str, str] = {}
        self._filled: dict[str, str] = {}

    def begin(self) -> None:
        """Create, empty, or put a temporary one in front of each."""
        run = self._writer.run
        self._kinds, marks = self._there(self._tables)
        for table in self._tables:
            found = [name for name in table.objects if name in self._kinds]
            if not found:
                self._create(table)
            elif len(found) == len(table.objects) and marks[found[0]] == _mark(table):
                for name in found:
                    if self._kinds[name] == "TABLE":
                        run(f"DELETE FROM {name}")
            else:
                self._changed.append(table)
        if self._changed:
            path = "SELECT set_config('search_path', 'pg_temp, ' || quote_ident(?), true)"
            run(path, self._schema)
            for table in self._changed:
                self._define(table)
            self._filled, _ = self._there(self._changed)

    def end(self) -> None:
        """Put the temporary ones in the place of the old ones."""
        if not self._changed:
            return
        run = self._writer.run
        path = "SELECT set_config('search_path', quote_ident(?) || ', pg_temp', true)"
        run(path, self._schema)
        for table in self._changed:
            for name in reversed(table.objects):
                if name in self._kinds:
                    run(f"DROP {self._kinds[name]} {name}")
            self._create(table)
            for name in reversed(table.objects):
                if self._filled[name] == "TABLE":
                    run(f"INSERT INTO {name} SELECT * FROM pg_temp.{name}")
                run(f"DROP {self._filled[name]} pg_temp.{name}")

    def _there(self, tables: Sequence[Definition]) -> tuple[dict[str, str], dict[str, str | None]]:
        """Return which objects of these are there: what each is, and the mark it bears."""
        names = [name for table in tables for name in table.objects]
        found = self._writer.execute(
            "SELECT name, CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, "
            "obj_description(c.oid, 'pg_class') "
            "FROM unnest(?::text[]) AS name JOIN pg_class c ON c.oid = to_regclass(name)",
            (names,),
        )
        kinds = {name: kind for name, kind, _ in found}
        return kinds, {name: mark for name, _, mark in found}

    def _define(self, table: Definition) -> None:
        for statement in table.schema:
            for definition in dialect.definition(statement):
                self._writer.run(definition)

    def _create(self, table: Definition) -> None:
        self._define(table)
        self._writer.run(f"COMMENT ON TABLE {table.objects[0]} IS '{_mark(table)}'")


def _mark(table: Definition) -> str:
    return f"refold, {hashlib.sha256(' '.join(table.schema).encode()).hexdigest()}"
