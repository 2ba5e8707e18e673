"""The page in a real Chromium: whatever people do to it, it shows the truth and never turns back."""

import os
import re
import shutil
from collections import Counter
from functools import partial

import pytest

from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from tests.support.gunicorn import gunicorn
from tests.support.reporting import reporting
from tests.support.writer import WriterProcess

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true", reason="no Chromium here: apt install chromium"
    ),
    # Playwright leaves its event loop to the interpreter when a test has failed: not what is tested here.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
HARMLESS = ("Failed to load resource",)
"""Said by Chromium of each 404 and 503, which the page itself tells in better words."""


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        # Playwright switches it off; people's browsers have it, and pages come back out of it as they were left.
        kept = ["--disable-back-forward-cache"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options, ignore_default_args=kept)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """One directory's writer; a test that kills it starts it again."""
    writer = WriterProcess(tmp_path_factory.mktemp("page") / "jobs").start()
    yield writer
    writer.kill()


@pytest.fixture
def client(writer):
    """A client of a directory with the one job import-42, as it is at its beginning."""
    with connect(writer.directory, autostart=False, settings=ClientSettings(timeout_s=30.0)) as client:
        for state in client.jobs():
            client.delete(state.id)
        client.create("import-42", total=100_000, kind="orders")
        yield client


@pytest.fixture(scope="module", params=["polling", pytest.param("events", marks=pytest.mark.nightly)])
def site(request, writer, tmp_path_factory):
    """The address of the page, under real gunicorn: threads that are polled, and asyncio with event streams."""
    app, kind = (
        ("controlled", ("-k", "gthread", "--threads", "16")) if request.param == "polling" else ("live", ("-k", "asgi"))
    )
    folder = tmp_path_factory.mktemp("site")
    accesses = folder / "accesses.log"
    options = ("--access-logfile", str(accesses), "--access-logformat", "%(s)s %(U)s")
    with gunicorn(writer.directory, folder / "web.log", *kind, *options, app=f"tests.support.webapp:{app}") as server:
        server.accesses, server.kind = accesses, request.param
        server.url = f"http://127.0.0.1:{server.port}/"
        yield server


@pytest.fixture
def tab(chromium, site):
    """Opens tabs; at the end none of them may have had anything to complain about."""
    complaints, contexts = [], []

    def note(message):
        if message.type == "error" and not message.text.startswith(HARMLESS):
            complaints.append(message.text)

    def open_tab(context=None, **options):
        if context is None:
            context = chromium.new_context(**options)
            contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_tab
    for context in contexts:
        context.close()
    assert not complaints


def processed(page):
    """Rows that the page says are done, in the job's own view."""
    page.wait_for_selector(".big")
    return int(re.sub(r"\D", "", page.inner_text(".big span").split(" of ")[0]))


def status(page, word):
    """Waits until the page says so."""
    expect(page.locator(".heading .badge").first).to_have_text(word, timeout=30_000)


def test_the_older_notes_manual_procedure(site, client, tab):
    """Reload, close and open again, go away and come back, a second tab, another browser."""
    with reporting(site_directory(client), "import-42", 2):
        page = tab()
        page.goto(site.url)
        page.click("text=import-42")
        seen = processed(page)
        back, forward = (partial(go, wait_until="commit") for go in (page.go_back, page.go_forward))
        for again in (page.reload, lambda: page.goto("about:blank"), back, back, forward):
            again()
            if page.url != "about:blank" and "job=" in page.url:
                now = processed(page)
                assert now >= seen
                seen = now
        second = tab(page.context)
        second.goto(page.url)
        other_browser = tab()
        other_browser.goto(page.url)
        for one in (second, other_browser):
            assert processed(one) >= seen
        page.close()
        again = tab(second.context)
        again.goto(second.url)
        assert processed(again) >= seen
        expect(again.locator("#line")).to_have_text("Live")


def site_directory(client):
    return client.transport.location.directory


def test_a_reload_without_news_costs_no_body(site, client, tab):
    page = tab()
    page.goto(site.url + "?job=import-42")
    processed(page)
    before = site.accesses.read_text().splitlines()
    page.reload()
    processed(page)
    expect(page.locator("#line")).to_have_text("Live")
    after = Counter(
        line.split()[0]
        for line in site.accesses.read_text().splitlines()[len(before) :]
        if "/about" not in line and "/events" not in line
    )
    assert after["304"] >= 7, after
    assert after["200"] == 0, after


def test_a_killed_writer_is_told_and_its_return_too(site, client, tab, writer):
    page = tab()
    page.goto(site.url + "?job=import-42")
    processed(page)
    listed = tab()
    listed.goto(site.url)
    listed.wait_for_selector("text=import-42")
    writer.kill()
    for one in (page, listed):
        expect(one.locator("#line")).to_contain_text("last known state", timeout=30_000)
    assert processed(page) == 0, "the state was taken away with the writer"
    expect(listed.locator("main")).to_contain_text("import-42")
    listed.goto(site.url + "?job=import-43")
    expect(listed.locator("main")).to_contain_text("The writer does not answer; trying again")
    writer.start()
    client.pause("import-42")
    status(page, "paused")
    expect(page.locator("#line")).to_have_text("Live", timeout=30_000)


def test_a_damaged_job_is_said_to_be_damaged(site, client, tab):
    page = tab()
    broken = {"detail": "the state of job import-42 does not match its digest", "code": "corrupt_job"}
    page.route("**/api/jobs/import-42", lambda route: route.fulfill(status=500, json=broken))
    page.goto(site.url + "?job=import-42")
    expect(page.locator("main")).to_contain_text("does not match its digest")
    expect(page.locator("#line")).to_contain_text("does not match its digest")


def test_a_damaged_job_is_missing_in_the_list(site, client, tab):
    page = tab()

    def with_damage(route):
        answer = route.fetch()
        more = {"json": {**answer.json(), "damaged": ["lost-7"]}} if answer.status == 200 else {}
        route.fulfill(response=answer, **more)

    page.route("**/api/jobs?*", with_damage)
    page.goto(site.url)
    expect(page.locator("tr.damaged")).to_contain_text("lost-7")
    expect(page.locator("tr.damaged .badge")).to_have_text("damaged")
    expect(page.locator("tr.damaged")).to_contain_text("actorstate verify")
    expect(page.locator("main")).to_contain_text("import-42")


def test_a_laptop_that_slept_shows_the_present_at_once(site, client, tab):
    """What was under way when the lid was closed is never answered: its connection is gone."""
    page = tab()
    page.clock.install()
    page.goto(site.url + "?job=import-42")
    processed(page)
    lost = []
    with page.expect_request("**/api/jobs/import-42"):
        page.route("**/api/jobs/import-42", lambda one: one.continue_() if lost else lost.append(one))
    client.pause("import-42")
    page.clock.fast_forward(10_000)
    expect(page.locator(".heading .badge").first).to_have_text("paused", timeout=10_000)


@pytest.mark.nightly
def test_a_tab_that_was_frozen_goes_on(site, client, tab):
    page = tab()
    page.goto(site.url + "?job=import-42")
    processed(page)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    client.pause("import-42")
    devtools.send("Page.setWebLifecycleState", {"state": "active"})
    status(page, "paused")


def test_back_is_the_present_not_the_past(site, client, tab):
    """Out of the browser's own cache the page comes as it was left, its script stopped where it stood."""
    page = tab()
    page.goto(site.url + "?job=import-42")
    processed(page)
    page.evaluate("window.left = true")
    page.goto(site.url + "healthz")
    client.pause("import-42")
    page.go_back(wait_until="commit")
    status(page, "paused")
    if site.kind == "polling":
        assert page.evaluate("window.left"), "it was loaded anew: this test shows nothing"


def test_an_answer_that_was_overtaken_does_not_turn_the_page_back(site, client, tab):
    old = site.get("/api/jobs/import-42")[2]
    with client.attach("import-42") as job:
        job.progress(succeeded=50)
    page = tab()
    page.goto(site.url + "?job=import-42")
    assert processed(page) == 50
    with page.expect_response("**/api/jobs/import-42") as answered:
        page.route("**/api/jobs/import-42", lambda route: route.fulfill(body=old, content_type="application/json"))
    answered.value.finished()
    page.evaluate("new Promise(requestAnimationFrame)")
    assert processed(page) == 50, "an older state has replaced a newer one"


@pytest.mark.nightly
def test_a_machine_without_a_network_is_told_and_goes_on_when_it_has_one_again(site, client, tab):
    page = tab()
    page.goto(site.url + "?job=import-42")
    processed(page)
    page.context.set_offline(True)
    expect(page.locator("#line")).to_contain_text("No connection", timeout=30_000)
    assert processed(page) == 0
    page.context.set_offline(False)
    client.pause("import-42")
    status(page, "paused")
    expect(page.locator("#line")).to_have_text("Live")


def test_the_buttons_do_what_they_say_and_ask_before_the_worst(site, client, tab):
    page = tab()
    page.goto(site.url + "?job=import-42")
    page.get_by_role("button", name="Pause").click()
    status(page, "paused")
    assert client.get("import-42").control.by == "anna"
    page.get_by_role("button", name="Resume").click()
    status(page, "pending")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go back").click()
    assert client.get("import-42").status == "pending"
    page.get_by_role("button", name="Cancel").click()
    page.keyboard.press("Escape")
    assert client.get("import-42").status == "pending"
    page.get_by_role("button", name="Cancel").click()
    page.locator("#sure-yes").click()
    status(page, "cancelled")
    page.get_by_role("button", name="Retry").click()
    page.locator("#sure-yes").click()
    status(page, "pending")
    assert page.get_by_role("heading", name="Attempts").is_visible()


def test_a_refusal_is_told_in_words(site, client, tab):
    page = tab()
    page.goto(site.url + "?job=import-42")
    button = page.get_by_role("button", name="Pause")
    button.wait_for()
    page.route(
        "**/pause",
        lambda route: route.continue_(
            headers={name: value for name, value in route.request.headers.items() if name != "x-actorstate"}
        ),
    )
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("from this server's own page only")
    assert client.get("import-42").status == "pending"


@pytest.mark.nightly
def test_after_a_control_the_keyboard_is_where_it_was(site, client, tab):
    page = tab()
    page.goto(site.url + "?job=import-42")
    for button, word, next_button in (("Pause", "paused", "Resume"), ("Resume", "pending", "Pause")):
        page.get_by_role("button", name=button, exact=True).focus()
        page.keyboard.press("Enter")
        status(page, word)
        expect(page.get_by_role("button", name=next_button, exact=True)).to_be_focused()
    page.get_by_role("button", name="Cancel", exact=True).click()
    client.cancel("import-42")
    expect(page.locator("#sure")).to_be_hidden()


def test_back_from_a_job_the_list_is_as_long_and_as_far_down_as_before(site, client, tab):
    for number in range(60):
        client.create(f"import-{100 + number}")
    page = tab()
    page.goto(site.url)
    page.get_by_role("button", name="Show more").click()
    page.locator("[data-go=import-42]").click()
    processed(page)
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(61)
    page.wait_for_function("scrollY > 500")


def test_a_question_is_answered_with_the_text_that_was_read(site, client, tab):
    client.create("ask-1", needs_approval="delete 12 duplicate groups?")
    page = tab()
    page.goto(site.url)
    page.click("text=ask-1")
    expect(page.locator(".question")).to_contain_text("delete 12 duplicate groups?")
    page.get_by_role("button", name="Approve").click()
    status(page, "pending")
    assert client.get("ask-1").approval.approved_by == "anna"


def test_what_users_wrote_is_shown_as_text(site, client, tab):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202egnp"
    client.create("evil-1", kind=evil[:120], labels={evil[:100]: evil})
    with client.attach("evil-1", worker=evil[:100]) as job:
        job.phase(evil)
        job.step(evil[:100], "running")
        job.failed(evil, ValueError(evil), category=evil[:100])
    client.fail("evil-1", evil)
    page = tab()
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(site.url)
    page.wait_for_selector("text=evil-1")
    page.goto(site.url + "?job=evil-1")
    status(page, "failed")
    assert evil.replace("\u202e", "\ufffd") in page.inner_text(".reason"), "nothing may be read in another order"
    assert "\u202e" not in page.inner_text("main")
    assert page.locator("main img, main script").count() == 0


def test_keyboard_and_screen_reader_find_their_way(site, client, tab):
    page = tab()
    page.goto(site.url)
    page.wait_for_selector("text=import-42")
    page.get_by_role("link", name="import-42").focus()
    page.keyboard.press("Enter")
    status(page, "pending")
    assert page.evaluate("document.activeElement.tagName") == "H1", "the reader is not told where he is"
    bar = page.get_by_role("progressbar", name="Progress of import-42")
    assert bar.get_attribute("aria-valuetext") == "0.0 %, 0 rows processed"
    assert page.title() == "0 % import-42"
    button = page.get_by_role("button", name="Pause")
    button.focus()
    with reporting(site_directory(client), "import-42", 1):
        status(page, "running")
        expect(page.locator(".big span").first).not_to_contain_text(re.compile("^0 of"))
        assert page.evaluate("document.activeElement.dataset.act") == "pause", "news took the focus away"


def test_a_list_that_was_opened_stays_open_under_news(site, client, tab):
    page = tab()
    with reporting(site_directory(client), "import-42", 1):
        page.goto(site.url + "?job=import-42")
        page.locator("summary", has_text="Failed items").click()
        page.locator("summary", has_text="History").click()
        expect(page.locator("[data-list=items] li code").first).to_contain_text("loader-0-10", timeout=30_000)
        expect(page.locator("[data-list=history] li").first).to_be_visible()
        before = processed(page)
        expect(page.locator(".big span").first).not_to_contain_text(re.compile(f"^{before:,} of"))
        assert page.locator("details[open]").count() == 2, "news has closed what the reader had opened"


@pytest.mark.parametrize("width", [320, pytest.param(390, marks=pytest.mark.nightly)])
def test_nothing_runs_off_a_phone(site, client, tab, width):
    long = "import-" + "x" * 121
    client.create(long, kind="k" * 128)
    with client.attach(long, worker="w" * 128) as job:
        job.phase("p" * 200)
        job.step("s" * 128, "running")
        job.failed("r" * 256, ValueError("m" * 400), category="c" * 64)
        page = tab(viewport={"width": width, "height": 800})
        for path in ("", f"?job={long}"):
            page.goto(site.url + path)
            page.wait_for_selector(f"text={long}")
            page.wait_for_selector(".bar")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path or "the list"


def test_a_job_that_is_not_there_is_told_and_appears_when_it_is(site, client, tab):
    page = tab()
    page.goto(site.url + "?job=later-1")
    expect(page.locator("main")).to_contain_text("There is no such job")
    client.create("later-1")
    page.reload()
    status(page, "pending")


@pytest.mark.parametrize(("tabs", "reloads"), [(3, 4), pytest.param(8, 20, marks=pytest.mark.nightly)])
def test_reloads_of_many_tabs_while_four_workers_report_and_the_writer_is_killed(
    site, client, tab, writer, tabs, reloads
):
    first = tab()
    pages = [first, *(tab(first.context) for _ in range(tabs - 1))]
    for page in pages:
        page.goto(site.url + "?job=import-42")
    seen = [0] * tabs
    with reporting(site_directory(client), "import-42", 4):
        for turn in range(reloads):
            if turn == reloads // 2:
                writer.kill()
                writer.start()
            for number, page in enumerate(pages):
                page.reload(wait_until="commit")
                now = processed(page)
                assert now >= seen[number], f"tab {number} turned back from {seen[number]} to {now}"
                seen[number] = now
    state = client.get("import-42")
    assert state.progress.processed > 0
    for page in pages:
        expect(page.locator(".big span").first).to_contain_text(f"{state.progress.processed:,} of", timeout=30_000)
