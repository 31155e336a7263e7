"""The operators' page in Chromium, before a real proxy with traffic, faults and an outage."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import aiohttp
import pytest

from edgeproxy.sandbox import Faults
from tests.e2e.stage import HIGHTOUCH_KEY, KEY, Stage

pytestmark = pytest.mark.timeout(120)

VIEWS = ("overview", "live", "dead-letters", "try", "setup")
SCRIPT = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


class Screen:
    """The page, what its scripts complained of, and every answer that it got."""

    def __init__(self, page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        self.answers: list = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._hear)
        page.on("response", self._keep)

    def _keep(self, answer) -> None:
        self.answers.append(answer)

    def _hear(self, message) -> None:
        # Chromium reports each 4xx and each broken-off answer, which the page handles.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    async def open(self, view: str = "overview"):
        await self.page.goto(f"{self.url}/#{view}")
        await self.page.locator("h1").wait_for()
        return self.page

    def finding(self, text: str):
        return self.page.locator(".finding", has_text=text)

    async def told(self, title: str, *words: str) -> None:
        """Wait for what the overview says: a title, why in words, and what to do about it."""
        found = self.finding(title)
        await found.wait_for()
        text = await found.inner_text()
        assert "What to do" in text
        assert [each for each in words if each not in text] == [], text


@pytest.fixture
async def screen_of(browser):
    """Opens the page of a stage."""
    contexts = []

    async def show(stage: Stage, **options) -> Screen:
        context = await browser.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(20_000)
        return Screen(page, stage.admin_url)

    yield show
    for context in contexts:
        await context.close()


async def send(stage: Stage, *events: dict, key: str = KEY, **headers: str) -> int:
    """Send a batch as a client would; the status."""
    headers["Authorization"] = f"Basic {b64encode(f'{key}:'.encode()).decode()}"
    async with aiohttp.ClientSession() as session:
        body = {"batch": list(events), "sentAt": datetime.now(UTC).isoformat()}
        async with session.post(f"{stage.url}/v1/batch", json=body, headers=headers) as answer:
            return answer.status


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MB of a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def track(name: str | None = "Order Completed", **fields: object) -> dict:
    named = {} if name is None else {"event": name}
    return {"type": "track", "anonymousId": "visitor-1", **named, **fields}


# --- why do events not arrive? ---------------------------------------------------------------------


async def test_a_healthy_proxy_looks_calm(stage, screen_of):
    await send(stage, track(), track())
    screen = await screen_of(stage)
    page = await screen.open()
    await page.get_by_text("Every event is getting through").wait_for()
    await page.get_by_text("delivering").wait_for()
    assert await page.locator(".finding").count() == 0
    assert screen.problems == []


async def test_an_outage_of_hightouch_is_told_with_its_reason_and_ends_by_itself(stage, screen_of):
    stage.sandbox.faults = Faults(status=503)
    await send(stage, track())
    screen = await screen_of(stage)
    page = await screen.open()
    title = "Nothing gets through to Hightouch from site"
    await screen.told(
        title, "cannot take events", "http_503", "1 event", "tried again by themselves"
    )
    await page.get_by_role("link", name="Live").click()
    await page.get_by_role("link", name=f"{title}. Overview says why").click()
    stage.sandbox.faults = Faults()
    await page.get_by_text("Every event is getting through").wait_for()
    assert screen.problems == []


async def test_a_wrong_key_at_hightouch_is_told_with_the_setting_to_correct(
    stage_factory, screen_of
):
    stage = await stage_factory(hightouch={"write_key": "mistyped"})
    await send(stage, track())
    screen = await screen_of(stage)
    await screen.open()
    why = "Hightouch does not accept the write key"
    await screen.told(why, "http_401", "hightouch_write_key", "edgeproxy reload")
    assert "outage" in await screen.finding(why).get_attribute("class")


async def test_a_client_with_a_wrong_key_is_told_with_where_it_comes_from(stage, screen_of):
    assert await send(stage, track(), key="mistyped", Origin="https://shop.example") == 401
    screen = await screen_of(stage)
    page = await screen.open()
    title = "Somebody sends with a wrong write key"
    await screen.told(title, "1 request", "https://shop.example", "into the SDK", "[[sources]]")
    await screen.finding(title).get_by_role("link").click()
    await page.get_by_role("heading", name="SDK set-up").wait_for()


async def test_a_full_buffer_is_told_with_what_makes_room(stage_factory, screen_of):
    stage = await stage_factory(buffer={"max_size": 1_000_000})
    stage.sandbox.faults = Faults(status=503)
    large = [track(padding="x" * 9_000) for _ in range(20)]
    for _ in range(40):
        if await send(stage, *large) == 503:
            break
    else:
        pytest.fail("the buffer did not fill up")
    screen = await screen_of(stage)
    page = await screen.open()
    await screen.told("New events are turned away", "1000000 bytes", "answered 503", "max_size")
    # The cause of the cause is told, too.
    await screen.finding("Nothing gets through to Hightouch").wait_for()
    assert (await page.title()).startswith("●")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_a_full_disk_is_told_with_what_makes_room(small_disk, stage_factory, screen_of):
    stage = await stage_factory(buffer={"path": str(small_disk)})
    stage.sandbox.faults = Faults(status=503)
    await send(stage, track())
    filler = small_disk / "of-another-program"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 1_000_000))
    large = [track(padding="x" * 9_000) for _ in range(40)]
    for _ in range(40):
        if await send(stage, *large) == 503:
            break
    else:
        pytest.fail("the disk did not fill up")
    screen = await screen_of(stage)
    page = await screen.open()
    await screen.told("New events are turned away", "disk", "answered 503", "free disk space")
    await page.locator(".tile", has_text="Disk").get_by_text("full", exact=True).wait_for()
    filler.unlink()


async def test_a_site_that_sends_track_without_a_name_is_told_and_leads_to_the_events(
    stage, screen_of
):
    await send(stage, track(None), track(None), track())
    screen = await screen_of(stage)
    page = await screen.open()
    title = "2 events are set aside: missing_event"
    await screen.told(title, "site sent track events without event", "send a name with each track")
    await screen.finding(title).get_by_role("link", name="Show the dead letters").click()
    group = page.locator(".groups li", has_text="track without a name")
    await group.get_by_role("button", name="Look").click()
    await group.locator(".letters .link").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("At fault:").wait_for()
    assert "event is missing" in await dialog.locator(".missing").inner_text()
    assert "visitor-1" not in await dialog.inner_text()
    await dialog.get_by_role("switch", name="Show values").click()
    await dialog.get_by_text("visitor-1").wait_for()
    assert screen.problems == []


@pytest.mark.parametrize(("days", "way"), [(1, "ahead"), (-1, "behind")])
async def test_a_client_whose_clock_is_a_day_off_is_told(stage, screen_of, days, way):
    wrong = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    await send(stage, track(timestamp=wrong, sentAt=wrong))
    screen = await screen_of(stage)
    await screen.open()
    await screen.told(f"A clock of site is 1 day {way}", "devices whose clock is wrong", "NTP")
    await screen.finding("A clock of site").get_by_role("link", name="Watch the events").wait_for()


@pytest.mark.parametrize(
    ("fault", "words", "field"),
    [
        ({"timestamp": "2020-05-01T12:00:00Z"}, "the most is 7 days", "timestamp"),
        ({"padding": "x" * 100_000, "properties": {}}, "the most is 96000", "padding"),
        ({"type": "odd"}, "type", "type"),
    ],
)
async def test_a_dead_letter_is_marked_where_it_is_at_fault(stage, screen_of, fault, words, field):
    await send(stage, track(**fault))
    screen = await screen_of(stage)
    page = await screen.open("dead-letters")
    await page.get_by_role("button", name="Look").click()
    await page.locator(".letters .link").click()
    dialog = page.get_by_role("dialog")
    await dialog.locator(".why", has_text=words).wait_for()
    assert f'"{field}"' in await dialog.locator(".row.marked").inner_text()
    assert await dialog.locator(".missing").count() == 0


async def test_the_last_day_is_shown_beside_how_things_are_now(stage, screen_of):
    await send(stage, track())
    screen = await screen_of(stage)
    page = await screen.open()
    await page.get_by_role("img", name="Events a second over 15 min").wait_for()
    await page.get_by_role("button", name="24 h").click()
    await page.get_by_role("img", name="Events a second over 24 h").wait_for()
    for name in ("Accepted", "Delivered", "Set aside", "Waiting", "Disk"):
        assert await page.locator(".tile dt", has_text=name).count() == 1
    for name in ("Expired", "Version", "Mapping revision"):
        assert await page.locator(".rows dt", has_text=name).count() == 1
    assert screen.problems == []


# --- live ------------------------------------------------------------------------------------------


async def test_an_event_can_be_followed_from_its_receipt_to_hightouchs_answer(
    stage_factory, screen_of
):
    stage = await stage_factory(flush={"interval": "500ms"})
    screen = await screen_of(stage)
    page = await screen.open("live")
    await page.get_by_text("in the last second").wait_for()
    await send(stage, track("Paid", properties={"total": "not-for-everybody"}))
    row = page.locator(".feed tbody tr", has_text="Paid")
    await row.get_by_text("✓ 200").wait_for()
    await row.get_by_role("button", name="Paid").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Delivered").wait_for()
    await dialog.get_by_text("Hightouch: 200").wait_for()
    changed = dialog.locator(".changes tbody tr", has_text="originalTimestamp")
    await changed.wait_for()
    await dialog.get_by_role("button", name="Received").click()
    assert "not-for-everybody" not in await dialog.inner_text()
    await dialog.get_by_role("switch", name="Show values").click()
    await dialog.get_by_text("not-for-everybody").wait_for()
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="hidden")
    assert screen.problems == []


async def test_filters_and_pause_choose_what_is_shown(stage, screen_of):
    screen = await screen_of(stage)
    page = await screen.open("live")
    await page.get_by_label("Event name").fill("paid")
    await page.wait_for_timeout(600)  # what is typed is applied a moment later
    await page.get_by_text("in the last second").wait_for()
    await send(stage, track("Paid"), track("Viewed"))
    await page.locator(".feed tbody tr", has_text="Paid").wait_for()
    assert await page.locator(".feed tbody tr").count() == 1
    await page.get_by_role("button", name="Pause").click()
    await page.get_by_text("Paused.", exact=True).wait_for()
    await send(stage, track("Paid"))
    assert await page.locator(".feed tbody tr").count() == 1


async def test_what_is_shown_can_be_followed_while_paused_and_values_are_hidden_again(
    stage, screen_of
):
    screen = await screen_of(stage)
    page = await screen.open("live")
    await page.get_by_text("in the last second").wait_for()
    stage.sandbox.faults = Faults(status=503)
    await send(stage, track("Paid", properties={"total": "not-for-everybody"}))
    row = page.locator(".feed tbody tr", has_text="Paid")
    await row.get_by_text("http_503").wait_for()
    await page.get_by_role("button", name="Pause").click()
    stage.sandbox.faults = Faults()
    await row.get_by_text("✓ 200").wait_for()
    await row.get_by_role("button", name="Paid").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Hightouch: 200").wait_for()
    await dialog.get_by_role("button", name="Received").click()
    secret = dialog.get_by_text("not-for-everybody")
    for _ in range(2):
        await dialog.get_by_role("switch", name="Show values").click()
        await secret.wait_for()
        await page.wait_for_timeout(1500)  # the proxy notices feeds that ended within a second
        await dialog.get_by_role("switch", name="Show values").click()
        await secret.wait_for(state="detached")
    await dialog.get_by_text("Hightouch: 200").wait_for()
    assert screen.problems == []


async def test_an_event_name_that_is_a_script_is_only_text(stage, screen_of):
    screen = await screen_of(stage)
    page = await screen.open("live")
    await page.get_by_text("in the last second").wait_for()
    await send(stage, track(SCRIPT), track(SCRIPT, type="nonsense", messageId=SCRIPT))
    row = page.locator(".feed tbody tr").first
    await row.wait_for()
    assert SCRIPT in await page.locator(".feed").inner_text()
    await row.locator("button").click()
    await page.get_by_role("dialog").wait_for()
    await page.keyboard.press("Escape")
    await page.goto(f"{screen.url}/#dead-letters")
    group = page.locator(".groups li")
    await group.get_by_text(SCRIPT).wait_for()
    await group.get_by_role("button", name="Look").click()
    await group.locator(".letters .link").click()
    await page.get_by_role("dialog").locator("pre").wait_for()
    assert await page.evaluate("window.hacked") is None
    assert await page.locator("img, main script").count() == 0
    assert screen.problems == []


# --- dead letters, trials, set-up ------------------------------------------------------------------


async def test_a_group_of_dead_letters_is_purged_after_a_question_and_the_others_stay(
    stage, screen_of
):
    await send(stage, track("A", type="odd"), track("A", type="odd"), track("B", type="odd"))
    screen = await screen_of(stage)
    page = await screen.open("dead-letters")
    group = page.locator(".groups li", has=page.get_by_role("heading", name="A", exact=True))
    await group.get_by_role("button", name="Purge").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Purge 2 dead letters").wait_for()
    await dialog.get_by_role("button", name="Purge").click()
    await dialog.get_by_text("2 removed.").wait_for()
    await dialog.get_by_role("button", name="Done").click()
    await group.wait_for(state="detached")
    assert await page.locator(".groups li").count() == 1
    assert (await stage.status())["dead_letters"]["count"] == 1


async def test_a_selection_is_exported_and_purged_by_keyboard_and_the_rest_stays(stage, screen_of):
    ids = [f"letter-{number}" for number in range(4)]
    await send(stage, *(track("A", type="odd", messageId=id_) for id_ in ids))
    screen = await screen_of(stage)
    page = await screen.open("dead-letters")
    await page.get_by_role("button", name="Look").click()
    everything = page.get_by_label("Select all shown")
    purge = page.get_by_role("button", name="Purge selected")
    await page.get_by_label("Select letter-2").wait_for()
    assert await purge.is_disabled()
    await everything.focus()
    await page.keyboard.press("Space")
    await page.get_by_text("4 selected", exact=True).wait_for()
    await page.get_by_label("Select letter-2").focus()
    await page.keyboard.press("Space")
    await page.get_by_text("3 selected", exact=True).wait_for()
    assert await everything.evaluate("box => box.indeterminate")
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Export selected").press("Enter")
    path = await (await downloading.value).path()
    exported = {json.loads(line)["messageId"] for line in path.read_text().splitlines()}
    assert exported == set(ids) - {"letter-2"}
    await purge.press("Enter")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Purge 3 dead letters").wait_for()
    await dialog.get_by_role("button", name="Purge").press("Enter")
    await dialog.get_by_text("3 removed.").wait_for()
    await dialog.get_by_role("button", name="Done").press("Enter")
    await page.get_by_label("Select letter-0").wait_for(state="detached")
    assert await page.get_by_label("Select letter-2").count() == 1
    assert (await stage.status())["dead_letters"]["count"] == 1
    assert screen.problems == []


async def test_a_selection_is_counted_anew_before_it_is_replayed(stage, screen_of):
    await send(stage, *(track(None, messageId=f"letter-{number}") for number in range(3)))
    screen = await screen_of(stage)
    page = await screen.open("dead-letters")
    await page.get_by_role("button", name="Look").click()
    await page.get_by_label("Select all shown").check()
    other = f"{stage.admin_url}/api/deadletters/purge"
    async with (
        aiohttp.ClientSession() as session,
        session.post(other, json={"id": "letter-1"}) as answer,
    ):
        assert b'"moved":1' in await answer.read()
    await page.get_by_role("button", name="Replay selected").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Replay 2 dead letters").wait_for()
    await dialog.get_by_role("button", name="Replay").click()
    await dialog.get_by_text("2 refused again").wait_for()
    assert screen.problems == []


async def test_dead_letters_are_replayed_and_exported(stage, screen_of):
    await send(stage, track(None))
    screen = await screen_of(stage)
    page = await screen.open("dead-letters")
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Export all").click()
    path = await (await downloading.value).path()
    assert json.loads(path.read_text())["code"] == "missing_event"
    await page.locator(".groups li").get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Replay").click()
    await dialog.get_by_text("1 refused again").wait_for()


async def test_a_replay_shows_how_far_it_has_come(stage, screen_of):
    for _ in range(8):
        await send(stage, *[track(None)] * 500)
    screen = await screen_of(stage)
    page = await screen.open("dead-letters")
    await page.locator(".groups li").get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Replay 4,000 dead letters").wait_for()
    await page.evaluate(
        """() => {
            window.seen = new Set()
            const look = () => seen.add(document.querySelector('progress')?.value)
            new MutationObserver(look).observe(document.body, {
                subtree: true, childList: true, attributes: true,
            })
            // A slow line, lest all of it come at once.
            const pause = () => new Promise((done) => setTimeout(done, 20))
            const drip = () => new TransformStream({
                async transform(bytes, line) {
                    for (let at = 0; at < bytes.length; at += 200) {
                        line.enqueue(bytes.slice(at, at + 200))
                        await pause()
                    }
                },
            })
            const fetched = window.fetch
            window.fetch = async (...asked) => {
                const answer = await fetched(...asked)
                const { status, headers } = answer
                return new Response(answer.body.pipeThrough(drip()), { status, headers })
            }
        }"""
    )
    await dialog.get_by_role("button", name="Replay").click()
    await dialog.get_by_text("4,000 refused again").wait_for()
    values = await page.evaluate("[...seen].filter(Number.isFinite)")
    assert values == sorted(values)
    assert any(0 < value < 4000 for value in values), values
    assert values[-1] == 4000


async def test_an_event_is_tried_as_one_types_and_sent_as_a_test(stage, screen_of):
    screen = await screen_of(stage)
    page = await screen.open("try")
    await page.get_by_text("accepted", exact=True).wait_for()
    await page.locator("textarea").fill('{"type":"track","anonymousId":"a"}')
    await page.get_by_text("missing_event", exact=True).wait_for()
    assert (await stage.status())["totals"]["received"] == 0
    await page.locator("textarea").fill('{"type":"track","anonymousId":"a","event":"Tried"}')
    await page.get_by_text("accepted", exact=True).wait_for()
    await page.get_by_role("button", name="Send as test event").click()
    await page.get_by_text("on its way to Hightouch as test-").wait_for()
    await stage.until(lambda: bool(stage.arrivals), "the test event")
    assert next(iter(stage.arrivals)).startswith("test-")


async def test_the_set_up_has_this_proxys_address_and_ticks_when_the_first_event_comes(
    stage_factory, screen_of
):
    stage = await stage_factory(server={"public_url": "https://edge.example.com/collect"})
    screen = await screen_of(stage)
    async with screen.page.expect_response(lambda answer: "/api/live" in answer.url):
        page = await screen.open("setup")
    await page.get_by_label("Write key, to fill in").fill("typed-by-the-operator")
    for sdk in await page.locator(".sdks button").all():
        await sdk.click()
        lines = await page.locator("pre.code").inner_text()
        assert "edge.example.com" in lines
        assert "typed-by-the-operator" in lines
    asked = [answer.request for answer in screen.answers]
    assert [r.url for r in asked if "typed-by" in f"{r.url} {r.post_data}"] == []
    await page.get_by_role("button", name="Python").click()
    await page.get_by_text("Waiting for the first event of this SDK").wait_for()
    library = {"library": {"name": "events-sdk-python"}}
    await send(stage, track("First Event", context=library))
    await page.get_by_text("It works.").wait_for()
    assert screen.problems == []


async def test_no_answer_to_the_page_holds_a_write_key(stage, screen_of):
    await send(stage, track(), track(None))
    screen = await screen_of(stage)
    page = await screen.open()
    for view in VIEWS:
        await screen.open(view)
        await page.wait_for_timeout(500)
    whole = [a for a in screen.answers if "/api/live" not in a.url and a.status == 200]
    told = [await answer.text() for answer in whole]
    assert len(told) > len(VIEWS)
    assert [text for text in told if KEY in text or HIGHTOUCH_KEY in text] == []


# --- access and every screen -----------------------------------------------------------------------


async def test_with_a_token_the_page_asks_for_it_once(stage_factory, screen_of):
    stage = await stage_factory(admin={"token": "open-sesame-please"})
    screen = await screen_of(stage)
    await screen.page.goto(screen.url)
    await screen.page.get_by_label("Admin token").fill("wrong")
    await screen.page.get_by_role("button", name="Log in").click()
    await screen.page.get_by_text("That is not the token.").wait_for()
    await screen.page.get_by_label("Admin token").fill("open-sesame-please")
    await screen.page.get_by_role("button", name="Log in").click()
    await screen.page.get_by_role("heading", name="Overview").wait_for()
    (cookie,) = await screen.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert "open-sesame-please" not in cookie["value"]
    await screen.page.reload()
    await screen.page.get_by_text("Ready for the first event").wait_for()
    await screen.page.get_by_role("button", name="Log out").click()
    await screen.page.get_by_label("Admin token").wait_for()


async def test_no_view_has_barriers_or_runs_over_the_screens_edge(stage, screen_of, node_modules):
    axe = (node_modules / "axe-core" / "axe.min.js").read_text()
    stage.sandbox.faults = Faults(status=503)
    await send(stage, track(None), track())
    for scheme, width in product(("light", "dark"), (360, 1280, 2560)):
        viewport = {"width": width, "height": 900}
        screen = await screen_of(stage, color_scheme=scheme, viewport=viewport)
        page = await screen.open()
        await page.evaluate(axe)
        for view in VIEWS:
            await page.goto(f"{screen.url}/#{view}")
            await page.wait_for_timeout(400)  # each view asks its own questions
            if view == "dead-letters":
                await page.get_by_role("button", name="Look").click()
                await page.get_by_label("Select all shown").check()
            wide, room = await page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert wide <= room, (view, width)
            if width != 2560:
                found = await page.evaluate(
                    "axe.run().then(r => r.violations.map(v => "
                    "[v.id, v.nodes.map(n => n.html.slice(0, 150) + ' ' + n.failureSummary)]))"
                )
                assert found == [], (view, scheme, width)
        assert screen.problems == []


async def test_the_page_can_be_used_by_keyboard_alone(stage, screen_of):
    await send(stage, track(None))
    screen = await screen_of(stage)
    page = await screen.open()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in range(4):
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Dead letters").wait_for()
    await page.get_by_role("button", name="Look").focus()
    await page.keyboard.press("Enter")
    await page.locator(".letters .link").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("dialog").wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_role("dialog").wait_for(state="hidden")


async def test_the_page_says_when_it_has_lost_the_proxy(stage, screen_of):
    screen = await screen_of(stage)
    page = await screen.open()
    await page.get_by_text("Ready for the first event").wait_for()
    await page.route("**/api/**", lambda route: asyncio.ensure_future(route.abort()))
    await page.get_by_text("cannot reach the proxy").wait_for()
