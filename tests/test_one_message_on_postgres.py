"""Commands decided from memory and written by one message: right whatever others do meanwhile."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg
import pytest
from proxy import Held, Proxy
from test_order_on_postgres import until
from test_roles_on_postgres import WRITER, as_role

from refold import (
    CommandIdReused,
    IllegalTransition,
    OutcomeUnknown,
    RfDb,
    StoreBusy,
    StoreUnreachable,
)
from refold.commands import Command, Decision
from refold.eventstore import Event, times
from refold.eventstore.digests import KEY_VARIABLE
from refold.eventstore.engines.postgres.server import address_of
from refold.eventstore.events import RunProgressed
from refold.projections import Row, View
from refold.projections.unit_of_work import Rows

__all__ = ["as_role"]

FUNCTION = "one_message_1_"


class NoteKept(Event):
    key: str
    text: str
    number: int
    fraction: float | None
    flag: bool
    raw: str

    @property
    def stream(self) -> str:
        return f"note-{self.key}"


class Note(Row, frozen=True, kw_only=False):
    key: str
    text: str
    number: int
    fraction: float | None
    flag: bool
    raw: bytes


notes = View("notes", Note, version=1)


def kept(_: Note | None, event: NoteKept) -> Note:
    raw = event.raw.encode()
    return Note(event.key, event.text, event.number, event.fraction, event.flag, raw)


notes.put_by(NoteKept, kept, key=lambda event: event.key)


class KeepNote(Command, frozen=True):
    event: NoteKept

    def decide(self, rows: Rows) -> Decision:
        row = rows.get(notes, self.event.key)
        same = row is not None and kept(None, self.event) == Note(
            row.key, row.text, row.number, row.fraction, row.flag, row.raw
        )
        return Decision() if same else Decision([self.event])


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    server = urlsplit(postgres_url)
    assert server.hostname is not None
    with Proxy(server.hostname, server.port or 5432) as proxy:
        yield proxy


@pytest.fixture
def far(db: RfDb, place: str, proxy: Proxy) -> Iterator[RfDb]:
    """The store of `db`, by way of the proxy; it has a run that it remembers."""
    db.create_run(db.create_experiment("digits"))
    with RfDb(proxy.url(place)) as far:
        far.set_run_progress(1, 1, 0)
        far.set_run_progress(1, 2, 0)  # which makes the function
        proxy.messages.clear()
        far.set_run_progress(1, 3, 0)
        [message] = proxy.messages
        assert FUNCTION in message
        proxy.messages.clear()
        yield far


TEXTS = [
    "",
    "a",
    'a "quoted" \\ {word}',
    "NULL",
    "{}",
    "Ünï¢ödé 🦉",
    "line\nline\ttab",
    "\\x00",
    "'",
]


def test_it_writes_what_a_transaction_would_have_written(place: str) -> None:
    now = [0]
    moments = [datetime(year, 1, 2, 3, 4, 5, 6, tzinfo=UTC) for year in (1, 1969, 2000, 9999)]
    with RfDb(place, projections=[notes], clock=lambda: now[0], actor='an "actor" ¢') as db:
        db.send(KeepNote(NoteKept("x", "", 0, None, False, "")))
        for n, text in enumerate(TEXTS):
            now[0] = times.from_datetime(moments[n * len(moments) // len(TEXTS)])
            for number in (n, -(2**63), 2**63 - 1):
                for fraction in (None, 0.1, -1e308, 5e-324, 1e16):
                    note = NoteKept("x", text, number, fraction, n % 2 == 0, text)
                    db.send(KeepNote(note))
        events = [recorded for recorded in db.store.read() if recorded.type == "NoteKept"]
        assert len(events) == 1 + len(TEXTS) * 3 * 5
        assert FUNCTION in functions(place)
        # Each digest and each row is made anew, in Python, and compared.
        assert db.verify(log=True) == []
        assert db.rebuild() == db.store.head()


def functions(place: str) -> str:
    address = address_of(place)
    with psycopg.connect(address.conninfo) as raw:
        return str(
            raw.execute(
                "SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = "
                "to_regnamespace(%s)",
                (address.schema,),
            ).fetchone()
        )


def test_what_is_decided_on_a_row_that_has_moved_is_decided_again(db: RfDb, far: RfDb) -> None:
    db.set_run_progress(1, 9, 0)
    far.set_run_progress(1, 3, 0)  # as far as it remembers, it is there
    assert db.get_run(1)["current_chunk"] == 3
    db.set_run_progress(1, 9, 0)
    head = db.store.head()
    far.set_run_progress(1, 9, 0)  # as far as it remembers, it is not
    assert db.store.head() == head
    db.set_run_status(1, "KILLED")
    with pytest.raises(IllegalTransition) as caught:
        far.set_run_status(1, "ONGOING")
    assert caught.value.__context__ is None
    assert db.verify(log=True) == []


def test_a_row_that_others_change_is_not_slower_than_a_transaction(
    db: RfDb, far: RfDb, proxy: Proxy
) -> None:
    counts: list[int] = []
    for n in range(10, 14):
        db.set_run_progress(1, n, 1)
        proxy.messages.clear()
        far.set_run_progress(1, n, 2)
        counts.append(len(proxy.messages))
    assert counts == [4, 3, 3, 3]
    far.set_run_progress(1, 20, 2)  # nobody else has
    proxy.messages.clear()
    far.set_run_progress(1, 21, 2)
    assert len(proxy.messages) == 1


def test_an_id_is_applied_once(db: RfDb, far: RfDb, proxy: Proxy) -> None:
    head = db.store.head()
    for _ in range(2):
        far.set_run_progress(1, 4, 0, command_id="four")
        db.set_run_progress(1, 4, 0, command_id="four")
    far.set_run_progress(1, 5, 0)
    proxy.messages.clear()
    far.set_run_progress(1, 6, 0, command_id="six")
    assert len(proxy.messages) == 1
    far.set_run_progress(1, 6, 0, command_id="six")
    db.set_run_progress(1, 6, 0, command_id="six")
    with pytest.raises(CommandIdReused):
        far.set_run_progress(1, 7, 0, command_id="six")
    with pytest.raises(CommandIdReused):
        far.set_run_status(1, "ONGOING", command_id="four")
    chunks = [recorded.event.current_chunk for recorded in db.store.read(head)]  # pyright: ignore[reportAttributeAccessIssue]
    assert chunks == [4, 5, 6]
    [sent] = db.db.execute("SELECT first, last FROM commands WHERE command_id = 'six'")
    assert sent == {"first": head + 3, "last": head + 3}


# --- answers that get lost ------------------------------------------------------------------


def before_it_arrives(proxy: Proxy) -> Held:
    return proxy.hold(FUNCTION)


def before_the_commit(proxy: Proxy) -> Held:
    return proxy.hold(r"^COMMIT$")


def behind_the_commit(proxy: Proxy) -> Held:
    return proxy.hold_answer("^COMMIT$")


@pytest.mark.parametrize("hold", [before_it_arrives, before_the_commit, behind_the_commit])
@pytest.mark.parametrize("command_id", [None, "once"])
def test_one_whose_answer_gets_lost_happens_once(
    db: RfDb, far: RfDb, proxy: Proxy, hold: Callable[[Proxy], Held], command_id: str | None
) -> None:
    head = db.store.head()
    about = {} if command_id is None else {"command_id": command_id}
    with ThreadPoolExecutor(1) as pool:
        held = hold(proxy)
        called = pool.submit(far.set_run_progress, 1, 4, 0, **about)
        held.cut()
        called.result()
    assert [recorded.type for recorded in db.store.read(head)] == ["RunProgressed"]
    far.set_run_progress(1, 5, 0)
    assert db.get_run(1)["current_chunk"] == 5
    assert db.verify(log=True) == []


@pytest.mark.parametrize("goes_on", [True, False])
def test_one_that_is_still_on_its_way_happens_once(
    db: RfDb, far: RfDb, proxy: Proxy, goes_on: bool
) -> None:
    """The client is cut off, asks, and waits for what it has sent itself: it holds the row."""
    head = db.store.head()
    with ThreadPoolExecutor(1) as pool:
        held, again = before_the_commit(proxy), proxy.hold("SET version = s.version")
        called = pool.submit(far.set_run_progress, 1, 4, 0)
        held.cut_client()
        again.wait()
        again.go_on()
        held.go_on() if goes_on else held.cut()
        called.result()
    assert [recorded.type for recorded in db.store.read(head)] == ["RunProgressed"]


def test_one_that_arrives_when_it_was_done_again_is_void(db: RfDb, far: RfDb, proxy: Proxy) -> None:
    head = db.store.head()
    with ThreadPoolExecutor(1) as pool:
        held = before_it_arrives(proxy)
        called = pool.submit(far.set_run_progress, 1, 4, 0)
        held.cut_client()
        called.result()
        held.go_on()
    with db.batch():  # waits for all who write
        pass
    assert [recorded.type for recorded in db.store.read(head)] == ["RunProgressed"]


def test_another_has_said_the_same_before_it_was_lost(db: RfDb, far: RfDb, proxy: Proxy) -> None:
    with ThreadPoolExecutor(1) as pool:
        held = before_it_arrives(proxy)
        called = pool.submit(far.set_run_progress, 1, 4, 0)
        held.wait()
        db.set_run_progress(1, 4, 0)
        head = db.store.head()
        held.cut()
        called.result()
    assert db.store.head() == head


@pytest.mark.parametrize("command_id", [None, "once"])
def test_another_has_said_the_same_and_gone_on(
    db: RfDb, far: RfDb, proxy: Proxy, command_id: str | None
) -> None:
    """It may have been before, or what was sent: only an id tells."""
    db.set_run_progress(1, 4, 0)
    db.set_run_progress(1, 5, 0)
    with ThreadPoolExecutor(1) as pool:
        held = before_it_arrives(proxy)
        about = {} if command_id is None else {"command_id": command_id}
        called = pool.submit(far.set_run_progress, 1, 4, 0, **about)
        held.cut()
        if command_id is None:
            with pytest.raises(OutcomeUnknown, match="event 6 says the same, and more"):
                called.result()
        else:
            called.result()
    assert db.get_run(1)["current_chunk"] == (5 if command_id is None else 4)


def test_nobody_can_be_asked(db: RfDb, place: str, postgres_url: str) -> None:
    server = urlsplit(postgres_url)
    assert server.hostname is not None
    db.create_run(db.create_experiment("digits"))
    proxy = Proxy(server.hostname, server.port or 5432)
    with RfDb(proxy.url(place), timeout=0.1) as far, ThreadPoolExecutor(2) as pool:
        far.set_run_progress(1, 1, 0)
        far.set_run_progress(1, 2, 0)
        held = behind_the_commit(proxy)
        called = pool.submit(far.set_run_progress, 1, 3, 0)
        held.wait()
        closing = pool.submit(proxy.close)
        proxy.stopped()
        held.cut()
        closing.result()
        with pytest.raises(OutcomeUnknown, match="RunProgressed of run-1"):
            called.result()


def test_what_was_not_sent_is_in_no_doubt(place: str, postgres_url: str) -> None:
    server = urlsplit(postgres_url)
    assert server.hostname is not None
    proxy = Proxy(server.hostname, server.port or 5432)
    with RfDb(proxy.url(place), timeout=0.1) as far:
        far.create_run(far.create_experiment("digits"))
        far.set_run_progress(1, 1, 0)
        far.set_run_progress(1, 2, 0)
        proxy.cut()
        far.set_run_progress(1, 3, 0)
        assert len(proxy.messages) > 1
        assert FUNCTION in proxy.messages[-1]
        proxy.close()
        with pytest.raises(StoreUnreachable):
            far.set_run_progress(1, 4, 0)


# --- who else is there ----------------------------------------------------------------------


def test_it_waits_for_a_batch(db: RfDb, far: RfDb, place: str) -> None:
    with RfDb(place, timeout=0.2) as other:
        other.set_run_progress(1, 4, 0)
        other.set_run_progress(1, 5, 0)
        with db.batch():
            db.create_run(1)
            with ThreadPoolExecutor(1) as pool, pytest.raises(StoreBusy, match=r"0\.2 s"):
                pool.submit(other.set_run_progress, 1, 6, 0).result()
        other.set_run_progress(1, 7, 0)
    assert db.verify() == []


def test_each_that_is_acknowledged_stands_there_once(db: RfDb, far: RfDb) -> None:
    """Whether rows are one's own, or others change them all the time."""
    runs = {face: [face.create_run(1) for _ in range(2)] for face in (db, far)}
    head = db.store.head()

    def work(face: RfDb, thread: int) -> None:
        for n in range(40):
            own, shared = runs[face][thread], 1
            face.set_run_progress(shared if n % 4 == 0 else own, n, thread)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, face, thread) for face in runs for thread in range(2)]:
            done.result()
    said = Counter(recorded.event for recorded in db.store.read(head))
    for ids in runs.values():
        for thread, run_id in enumerate(ids):
            steps = [RunProgressed(run_id, n, thread) for n in range(40) if n % 4]
            assert [said[step] for step in steps] == [1] * len(steps)
    assert db.verify(log=True) == []


def last_drawn(place: str) -> int:
    address = address_of(place)
    with psycopg.connect(address.conninfo) as raw:
        raw.execute(f"SET search_path = {address.schema}".encode())
        found = raw.execute("SELECT last_value FROM event_positions").fetchone()
    assert found is not None
    return found[0]


def test_a_reader_does_not_skip_one_that_commits_late(
    place: str, db: RfDb, far: RfDb, proxy: Proxy
) -> None:
    other = db.create_run(1)
    head = db.store.head()
    with ThreadPoolExecutor(1) as pool:
        held = before_the_commit(proxy)
        called = pool.submit(far.set_run_progress, 1, 4, 0)
        until(lambda: last_drawn(place) > head)
        with db.subscribe(after=head) as events:
            with RfDb(place) as third:
                third.set_run_status(other, "ONGOING")
            assert [recorded.position for recorded in db.store.read(head)] == []
            held.go_on()
            called.result()
            positions = [next(events).position for _ in range(2)]
    assert positions == [head + 1, head + 2]


def test_its_row_is_written_under_a_later_id_than_the_transaction_s(
    place: str, db: RfDb, far: RfDb, proxy: Proxy
) -> None:
    """Without that its position may be passed: see docs/order.md."""
    address = address_of(place)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(address.conninfo, autocommit=True) as raw:
        held = before_the_commit(proxy)
        called = pool.submit(far.set_run_progress, 1, 4, 0)
        head = db.store.head()
        until(lambda: last_drawn(place) > head)
        ids = raw.execute(
            "SELECT transactionid::text::bigint FROM pg_locks "
            "WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock'"
        ).fetchall()
        held.go_on()
        called.result()
        raw.execute(f"SET search_path = {address.schema}".encode())
        found = raw.execute(
            "SELECT xmin::text::bigint FROM events ORDER BY position DESC LIMIT 1"
        ).fetchone()
    assert found is not None
    assert found[0] > min(number for (number,) in ids)


def test_views_that_it_does_not_know_fall_behind(place: str, db: RfDb, far: RfDb) -> None:
    with RfDb(place, projections=[notes]) as other:
        other.send(KeepNote(NoteKept("x", "", 0, None, False, "")))
        far.set_run_progress(1, 4, 0)
        [behind] = db.db.execute("SELECT position FROM projections WHERE name = 'notes'")
        assert behind["position"] is not None
        assert other.verify() == []
    assert db.verify() == []


def test_a_log_that_is_signed_takes_no_messages(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a key of the log")
    with RfDb(place) as db:
        db.create_run(db.create_experiment("digits"))
        for n in range(1, 4):
            db.set_run_progress(1, n, 0)
        assert FUNCTION not in functions(place)
        assert db.verify(log=True) == []


def test_a_role_that_may_not_make_it_writes_in_transactions(
    as_role: Callable[[str], str], place: str
) -> None:
    with RfDb(as_role(WRITER)) as db:
        for n in range(1, 4):
            db.set_run_progress(1, n, 0)
        assert FUNCTION not in functions(place)
        assert db.get_run(1)["current_chunk"] == 3
        with RfDb(place) as owner:
            for n in range(4, 7):
                owner.set_run_progress(1, n, 0)
        assert FUNCTION in functions(place)
    with RfDb(as_role(WRITER)) as db:
        for n in range(7, 10):
            db.set_run_progress(1, n, 0)
        assert db.verify(log=True) == []


def test_it_is_made_again_if_somebody_drops_it(place: str, db: RfDb, far: RfDb) -> None:
    address = address_of(place)
    with psycopg.connect(address.conninfo, autocommit=True) as raw:
        raw.execute(
            f"DO $$ BEGIN EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc "
            f"WHERE pronamespace = '{address.schema}'::regnamespace AND proname LIKE 'one%'); "
            f"END $$".encode()
        )
    far.set_run_progress(1, 4, 0)
    far.set_run_progress(1, 5, 0)
    assert FUNCTION in functions(place)
    assert db.verify(log=True) == []
