"""The window's page, in a real Chromium: it shows what the faces tell, and nothing else runs."""

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import record
from places import ENGINES, new_places
from windows import Served

from refold import RfDb

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

Page = Any
ON_SQLITE = pytest.mark.parametrize("recorded", ["sqlite"], indirect=True)
"""For what is the same on every engine."""


@pytest.fixture(scope="module", params=ENGINES)
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Served]]:
    """The fixed log, and one server of it."""
    files = tmp_path_factory.mktemp("page") / "store"
    with new_places(request.param, request, files) as new_place:
        place = new_place()
        record(place)
        with Served(place) as served:
            yield place, served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A browser of its own, in which every complaint counts: also each of the policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    complaints: list[str] = []
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    yield context
    context.close()
    # A refusal by the server, or its end, is told by the page itself.
    assert [text for text in complaints if "Failed to load resource" not in text] == []


@pytest.fixture
def page(context: Any) -> Page:
    return context.new_page()


def cell(page: Page, entity: str, key: object, column: str) -> Any:
    table = page.locator(f'section[aria-labelledby="title-{entity}"]')
    return table.locator(f'tr[data-key="{key}"] td[data-column="{column}"]')


def wait_for(page: Page, position: int) -> None:
    page.wait_for_selector(f'#moment[data-position="{position}"][data-late="no"]')


def move_to(page: Page, position: int) -> None:
    page.fill("#slider", str(position))
    wait_for(page, position)


def statuses(page: Page) -> dict[int, str]:
    """Return the status of each run that the page shows."""
    rows = page.locator('section[aria-labelledby="title-run"] tbody tr').all()
    return {
        int(row.get_attribute("data-key")): re.sub(
            r"^\W+", "", row.locator('[data-column="status"]').inner_text()
        )
        for row in rows
    }


def test_every_view_shows_what_the_face_tells(recorded: tuple[str, Served], page: Page) -> None:
    place, served = recorded
    with RfDb(place) as db:
        page.goto(served.address)
        wait_for(page, db.store.head())
        assert served.token not in page.url
        assert served.token not in page.evaluate("document.documentElement.outerHTML")
        assert page.inner_text("#connection") == "live"
        assert page.locator("h2:visible").first.inner_text().startswith("Experiments")

        # Everything is as of the slider's moment.
        head = db.store.head()
        for position in range(0, head, 10):
            move_to(page, position)
            runs = db.as_of(position).get_all_runs(config=False)
            assert statuses(page) == {run["run_id"]: run["status"] for run in runs}
        assert cell(page, "run", 1, "params.learning_rate").inner_text() == "0.1"
        assert page.locator(".ask").first.is_disabled()
        page.get_by_role("button", name="live").click()
        wait_for(page, head)

        # Another process changes something.
        db.set_run_progress(1, current_chunk=2, current_epoch=1)
        wait_for(page, head + 1)
        assert cell(page, "run", 1, "current_chunk").inner_text() == "2/4"

        # Any cell tells why.
        cells = [("run", run, name) for run in (1, 2, 4) for name in ("status", "current_epoch")]
        cells += [("request", 1, "status"), ("task", 3, "error"), ("worker", 0, "status")]
        for entity, key, column in [*cells, ("pipeline", 1, "shards_completed")]:
            cell(page, entity, key, column).click()
            page.wait_for_selector(f'.why h2:text("Why is {column} of {entity} {key} so?")')
            page.wait_for_selector(".chain li")
            reason = db.why(entity, key, column)
            links = page.locator(".chain > li").all()
            assert len(links) == len(reason.links)
            for shown, link in zip(links, reason.links, strict=True):
                text = shown.inner_text()
                assert str(link.recorded.position) in text
                assert link.recorded.type in text
        page.keyboard.press("Escape")
        assert page.locator(".why").count() == 0

        page.get_by_role("link", name="Curves").click()
        page.wait_for_selector(".u-wrap")
        for told in ("loss: run 1 0.5, run 2 0.3333", "accuracy: run 1 0.5, run 2 0.5"):
            page.wait_for_selector(f'.chart[aria-label="{told}"] canvas')

        page.get_by_role("link", name="Log").click()
        page.wait_for_selector(".log li")
        assert page.locator(".log li").count() == db.store.head()
        page.select_option("select", "RunStopped")
        page.wait_for_selector(".log li >> nth=0 >> text=RunStopped")
        page.wait_for_function("document.querySelectorAll('.log li').length === 1")
        page.locator(".log summary").click()
        assert '"cause": 23' in page.inner_text(".log pre")
        assert "refold log --backwards --limit 200 --type RunStopped" in page.inner_text(".line")

        page.get_by_role("link", name="Changes").click()
        page.locator('input[type="number"]').fill(str(head - 1))
        page.keyboard.press("Enter")
        page.wait_for_selector('.change:has-text("run 1 changed")')


@ON_SQLITE
def test_a_request_arrives_in_the_store(recorded: tuple[str, Served], page: Page) -> None:
    place, served = recorded
    with RfDb(place) as db:
        page.goto(served.address)
        page.wait_for_selector('#connection:text("live")')
        page.get_by_label("ask something of run 4").click()
        page.get_by_label("clone").check()
        page.get_by_label("learning_rate").fill("0.75")
        page.get_by_label("Your name").fill("grace")
        before = len(db.get_ic_ops_request())
        # Its status changes while somebody thinks: the run is shown again, and nothing is asked.
        db.set_run_status(4, "STOPPED")
        page.get_by_role("button", name="ask to clone run 4").click()
        page.wait_for_selector('dialog .wrong:has-text("run 4 is STOPPED since event")')
        page.wait_for_selector('dialog h2:has-text("STOPPED")')
        assert len(db.get_ic_ops_request()) == before
        page.get_by_role("button", name="ask to clone run 4").click()
        page.wait_for_selector("dialog .done")
        *_, request = db.get_ic_ops_request()
        assert (request["run_id"], request["operation"]) == (4, "CLONE_MODIFY")
        assert request["config_leaf"] == {"learning_rate": 0.75, "layers": (64, 32)}
        [event] = db.store.read(limit=1, backwards=True)
        assert event.metadata.actor == "grace"
        page.locator("dialog").get_by_role("button", name="close").click()
        assert "PENDING" in cell(page, "request", request["ic_id"], "status").inner_text()


@ON_SQLITE
def test_the_address_holds_where_one_is(recorded: tuple[str, Served], context: Any) -> None:
    place, served = recorded
    page = context.new_page()
    page.goto(served.address)
    page.wait_for_selector('#connection:text("live")')
    page.get_by_role("button", name="learning_rate").click()
    page.get_by_role("button", name="learning_rate").click()
    page.get_by_label("Search").fill("run_")
    page.get_by_label("show the curves of run 2").check()
    page.keyboard.press("Escape")
    move_to(page, 30)
    page.get_by_role("link", name="Log").click()
    page.wait_for_selector(".log li")
    page.go_back()
    page.wait_for_selector("#title-run")
    assert page.input_value("#slider") == "30"

    # Whoever was let in follows a link to the same place, also in another tab.
    link = page.url
    other = context.new_page()
    other.goto(link)
    wait_for(other, 30)
    with RfDb(place) as db:
        runs = db.as_of(30).get_all_runs()
    runs.sort(key=lambda run: -run["config_leaf"]["learning_rate"])
    assert list(statuses(other)) == [run["run_id"] for run in runs]
    assert other.get_by_label("Search").input_value() == "run_"
    assert other.get_by_label("show the curves of run 2").is_checked()
    # Both tabs stay live on one stream.
    for tab in (page, other):
        tab.keyboard.press("End")
    with RfDb(place) as db:
        db.set_run_progress(2, current_chunk=4, current_epoch=0)
        for tab in (page, other):
            wait_for(tab, db.store.head())
    assert {tab.inner_text("#connection") for tab in (page, other)} == {"live"}


@ON_SQLITE
def test_keys_move_in_time_and_between_views(recorded: tuple[str, Served], page: Page) -> None:
    place, served = recorded
    with RfDb(place) as db:
        head = db.store.head()
    page.goto(served.address)
    wait_for(page, head)
    page.keyboard.press("ArrowLeft")
    wait_for(page, head - 1)
    page.keyboard.press("Home")
    wait_for(page, 0)
    page.keyboard.press("ArrowRight")
    wait_for(page, 1)
    page.keyboard.press("End")
    wait_for(page, head)
    page.keyboard.press("3")
    page.wait_for_selector(".log li")
    page.keyboard.press("1")
    page.keyboard.press("/")
    page.keyboard.type("run_2")
    page.wait_for_function("document.querySelectorAll('[aria-labelledby=title-run] tr').length==2")
    cell(page, "run", 2, "run_id").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector('.why h2:text("Why is run_name of run 2 so?")')
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector('dialog[aria-label="keys"]')


HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>"\'&\u202e'


def test_hostile_names_stay_text(page: Page, tmp_path: Path) -> None:
    place = str(tmp_path / "hostile.db")
    with RfDb(place, actor=HOSTILE) as db:
        experiment_id = db.create_experiment(HOSTILE)
        for rate in (1, 2):
            config = {HOSTILE: rate, "text": HOSTILE + str(rate), "__proto__": rate}
            run_id = db.create_run(experiment_id, run_name=HOSTILE, config_leaf=config)
            db.log_metrics(run_id, {HOSTILE: 0.5, "constructor": 1.0})
        with Served(place) as served:
            page.goto(served.address)
            wait_for(page, db.store.head())
            title = page.title()
            name = cell(page, "run", 1, "run_name")
            assert name.get_attribute("title") == HOSTILE
            assert cell(page, "run", 1, "metrics.constructor").inner_text() == "1"
            name.click()
            page.wait_for_selector(".chain li")
            assert "<img" in page.inner_text(".chain")
            for view in ("Curves", "Log", "Changes"):
                page.get_by_role("link", name=view).click()
                page.wait_for_selector({"Curves": ".u-wrap"}.get(view, ".log li"))
            page.get_by_role("link", name="Now").click()
            page.get_by_label("ask something of run 1").click()
            page.get_by_label("clone").check()
            assert page.locator("dialog input:not([type])").count() == 4
            assert page.locator("img, body script").count() == 0
            assert page.title() == title


def test_without_the_token_nothing_is_shown(browser: Any, tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")
    record(place)
    with Served(place, "--read-only") as served:
        page = browser.new_page()
        page.goto(served.origin)
        page.wait_for_selector(".alone .wrong:has-text('the page has no access')")
        assert "digits" not in page.content()
        page.goto(f"{served.origin}/#token=guess")
        page.reload()  # another fragment is no other page
        page.wait_for_selector(".alone .wrong:has-text('the token is not')")
        page.goto(served.address)
        page.reload()
        page.wait_for_selector("#title-run")
        assert page.locator(".ask").count() == 0
        assert page.evaluate("document.cookie") == ""
        # What the other tests rely on: text that would become HTML is refused by the browser.
        attempt = "() => { try { document.body.innerHTML = '<b>x'; } catch (e) { return e.name; } }"
        assert page.evaluate(attempt) == "TypeError"
        page.close()


def test_it_works_below_a_path(page: Page, tmp_path: Path) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from refold.ui import app

    place = str(tmp_path / "store.db")
    record(place)
    window = app(place)
    config = uvicorn.Config(Starlette(routes=[Mount("/a/b", window)]), log_level="error")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            token = window.state.access.token
            page.goto(f"http://localhost:{port}/a/b#token={token}")
            wait_for(page, 54)
            page.wait_for_selector('#connection:text("live")')
            assert page.url == f"http://localhost:{port}/a/b/"
        finally:
            window.state.close()
            server.should_exit = True
            thread.join()
