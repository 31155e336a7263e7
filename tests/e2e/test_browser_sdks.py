"""Browser SDKs in Debian's Chromium, on a site with another port than the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from edgeproxy.sandbox import Faults
from tests.e2e.oracle import sent_events
from tests.e2e.processes import finish
from tests.e2e.site import Site

pytestmark = pytest.mark.timeout(240)  # the first test installs the SDKs

HERE = Path(__file__).parent
ALL_TYPES = {"identify", "track", "page", "screen", "group", "alias"}
EVERY_CALL = """sdk => Promise.all([
  sdk.page('Docs', 'Start', {n: 1}),
  sdk.identify('user-1', {email: 'zoe@example.com', logins: 7}),
  sdk.track('Order Completed', {total: 12.5, tax: 1e-7, name: 'Zoë’s “Café” ☕ 東京',
    products: [{sku: 'A-1', price: 9.9}], coupon: null}),
  sdk.group('group-1', {employees: 42}),
  sdk.screen('Settings', 'Main', {x: 1}),
  sdk.alias('user-2', 'user-1'),
]).then(() => null)"""


@pytest.fixture
async def site():
    async with Site().serve() as site:
        yield site


class Visit:
    """A page in Chromium that notes where its requests went."""

    def __init__(self, page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.errors: list[str] = []
        page.context.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def asked_only(self, *urls: str) -> None:
        """No request went anywhere else, and no script failed."""
        known = {urlsplit(url).netloc for url in urls}
        assert {urlsplit(url).netloc for url in self.asked} <= known
        assert self.errors == []


@pytest.fixture
async def visit(browser):
    context = await browser.new_context()
    yield Visit(await context.new_page())
    await context.close()


async def _open(visit, address) -> None:
    await visit.page.goto(address)
    await visit.page.wait_for_function("window.htevents && window.htevents.initialized")


async def _arrives(stage, count: int) -> None:
    """Everything that the page sent (`count` events) arrives."""
    await stage.until(lambda: len(stage.arrivals) >= count, f"{count} events of the page")
    sent = sent_events(stage.relay.requests)
    assert len(sent) == count
    await stage.everything_arrives(sent)


@pytest.mark.parametrize("batching", [False, True])
@pytest.mark.parametrize("prefix", ["", "/some/prefix"])
async def test_every_event_of_the_hightouch_sdk_arrives(stage, site, visit, batching, prefix):
    proxy = stage.relay.url + prefix
    await _open(visit, site.add_hightouch("/", proxy, stage.key, batching=batching))
    await visit.page.evaluate(f"({EVERY_CALL})(htevents)")
    await _arrives(stage, 6)
    assert {arrival.type for arrival in stage.sandbox.events} == ALL_TYPES
    paths = {request.path for request in stage.relay.requests if request.method == "POST"}
    kinds = {"batch"} if batching else ALL_TYPES
    assert paths == {f"{prefix}/v1/{kind}" for kind in kinds}
    visit.asked_only(site.url, stage.relay.url)


async def test_the_browser_asks_first_and_may_send(stage, site, visit):
    await _open(visit, site.add_hightouch("/", stage.relay.url, stage.key))
    await visit.page.evaluate("htevents.track('Clicked')")
    await _arrives(stage, 1)
    methods = [r.method for r in stage.relay.requests if r.path == "/v1/track"]
    assert methods == ["OPTIONS", "POST"]


async def test_the_address_and_the_browser_are_noted_on_the_event(stage, site, visit):
    await _open(visit, site.add_hightouch("/", stage.relay.url, stage.key))
    await visit.page.evaluate("htevents.track('Clicked')")
    await _arrives(stage, 1)
    context = json.loads(stage.sandbox.events[0].event)["context"]
    assert context["ip"] == "127.0.0.1"
    assert "Chrome" in context["userAgent"]


async def test_calls_made_before_the_script_has_loaded_are_sent(stage, site, visit):
    address = site.add_hightouch("/", stage.relay.url, stage.key)
    early = "<script>htevents.track('Early'); htevents.page()</script>"
    site.pages["/"] = site.pages["/"].replace("<script async", early + "<script async")
    await _open(visit, address)
    await _arrives(stage, 2)


async def test_events_of_a_page_that_is_left_arrive(stage, site, visit):
    await _open(visit, site.add_hightouch("/", stage.relay.url, stage.key, batching=True))
    site.pages["/next"] = "<!doctype html><title>Next</title>"
    await visit.page.evaluate(
        """next => {
          for (let n = 0; n < 5; n++) htevents.track('Left', {n})
          setTimeout(() => { location.href = next }, 50)
        }""",
        f"{site.url}/next",
    )
    await _arrives(stage, 5)


async def test_lazy_parts_of_the_sdk_come_with_the_script(stage, site, visit):
    # Parts that the CDN's build fetches from the CDN: the query string API and middleware.
    address = site.add_hightouch("/", stage.relay.url, stage.key)
    await _open(visit, f"{address}?ajs_event=From+a+link&ajs_prop_n=1")
    await visit.page.evaluate(
        """async () => {
          await htevents.addSourceMiddleware(({payload, next}) => {
            payload.obj.properties = {...payload.obj.properties, added: true}
            next(payload)
          })
          await htevents.track('Clicked')
        }"""
    )
    await _arrives(stage, 2)
    events = {json.loads(a.event)["event"]: json.loads(a.event) for a in stage.sandbox.events}
    assert events["Clicked"]["properties"] == {"added": True}
    assert "From a link" in events
    visit.asked_only(site.url, stage.relay.url)


async def test_a_browser_that_met_a_full_buffer_sends_again(stage_factory, site, visit):
    stage = await stage_factory(buffer={"max_size": "1MB"})
    stage.sandbox.faults = Faults(status=503)
    await _open(visit, site.add_hightouch("/", stage.relay.url, stage.key))
    refused = asyncio.Event()
    visit.page.on("requestfailed", lambda _: refused.set())
    taken = clicks = 0
    # A checkpoint in a quiet moment makes room again: then it is filled once more.
    while not refused.is_set():
        taken += await _fill(stage)
        clicks += 1
        stage.relay.requests.clear()
        await visit.page.evaluate(f"htevents.track('Clicked while full {clicks}')")
        await _wait_at_most(refused, 2)
    # Not the preflight, which is answered as ever, but the event itself was refused.
    methods = [r.method for r in stage.relay.requests if r.path == "/v1/track"]
    assert methods[-1] == "POST"
    stage.sandbox.faults = Faults()
    arrived = stage.sandbox.events
    last = f"Clicked while full {clicks}".encode()
    await stage.until(
        lambda: any(last in arrival.event for arrival in arrived), "the event that was refused"
    )
    assert len(stage.arrivals) == taken + clicks


async def _wait_at_most(event, seconds):
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _fill(stage) -> int:
    """Send until not even a small event has room: how many events it took."""
    taken = 0
    async with aiohttp.ClientSession() as session:
        for size in (20_000, 1):
            while await _takes(session, stage, size):
                taken += 1
                assert taken < 50_000, "the buffer never filled up"
    return taken


async def _takes(session, stage, size) -> bool:
    event = {"userId": "u", "event": "Filler", "properties": {"text": "x" * size}}
    body = {"writeKey": stage.key, "batch": [{"type": "track", **event}]}
    async with session.post(f"{stage.url}/v1/batch", json=body) as answer:
        if answer.status == 503:
            assert (await answer.json())["code"] == "buffer_full"
            assert int(answer.headers["Retry-After"]) > 0
            return False
        assert answer.status == 200
        return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_identity_survives_the_loss_of_what_scripts_stored(stage, visit, host):
    async with Site().serve(host) as site:
        proxy = stage.relay.url.replace("127.0.0.1", host)
        service = {"renewUrl": f"{proxy}/ht/renew", "clearUrl": f"{proxy}/ht/clear"}
        address = site.add_hightouch("/", proxy, stage.key, httpCookieServiceOptions=service)
        await _open(visit, address)
        await visit.page.evaluate("htevents.identify('user-1')")
        before = await _identity(visit)
        assert before[1] == "user-1"
        await _server_copies(visit, {"htjs_anonymous_id_srvr", "htjs_user_id_srvr"})
        assert "_srvr" not in await visit.page.evaluate("document.cookie")

        await _forget_what_scripts_stored(visit)
        await visit.page.reload()
        await visit.page.wait_for_function("window.htevents && window.htevents.initialized")
        assert await _identity(visit) == before

        await visit.page.evaluate("htevents.reset()")
        await _server_copies(visit, set())
        visit.asked_only(site.url, proxy)


async def _identity(visit) -> list[str]:
    return await visit.page.evaluate("[htevents.user().anonymousId(), htevents.user().id()]")


async def _server_copies(visit, names: set[str]) -> None:
    """Wait until exactly these server cookies are there; the SDK asks for them once a second."""
    async with asyncio.timeout(10):
        while True:
            cookies = await visit.page.context.cookies()
            found = {c["name"] for c in cookies if c["name"].endswith("_srvr")}
            if found == names:
                assert all(c["httpOnly"] for c in cookies if c["name"] in found)
                return
            await asyncio.sleep(0.1)  # the browser tells nobody when a cookie changes


async def _forget_what_scripts_stored(visit) -> None:
    await visit.page.evaluate("localStorage.clear(); sessionStorage.clear()")
    for cookie in await visit.page.context.cookies():
        if not cookie["httpOnly"]:
            await visit.page.context.clear_cookies(name=cookie["name"])


@pytest.fixture(scope="session")
def scripts(tmp_path_factory):
    """Where the SDKs are bundled to, each once."""
    return tmp_path_factory.mktemp("scripts")


@pytest.mark.parametrize("batching", [False, True])
async def test_every_event_of_segment_s_browser_sdk_arrives(
    stage, site, visit, node, node_modules, scripts, batching
):
    script = await _bundled("segment", node, node_modules, scripts)
    options = {"deliveryStrategy": {"strategy": "batching"}} if batching else {}
    await visit.page.goto(site.add_segment("/", stage.relay.url, stage.key, script, **options))
    await visit.page.evaluate(f"({EVERY_CALL})(segment)")
    if batching:
        await visit.page.goto("about:blank")  # Segment's batches wait ten seconds otherwise
    await _arrives(stage, 6)
    assert {arrival.type for arrival in stage.sandbox.events} == ALL_TYPES
    visit.asked_only(site.url, stage.relay.url, "about:blank")


@pytest.mark.parametrize("beacon", [False, True])
async def test_every_event_of_rudderstack_s_browser_sdk_arrives(
    stage, site, visit, node, node_modules, scripts, beacon
):
    script = await _bundled("rudderstack", node, node_modules, scripts)
    await visit.page.goto(
        site.add_rudderstack("/", stage.relay.url, stage.key, script, useBeacon=beacon)
    )
    await visit.page.evaluate("new Promise(ready => rudder.ready(ready)).then(() => null)")
    await visit.page.evaluate(
        """() => {
          rudder.page('Docs', 'Start', {n: 1})
          rudder.identify('user-1', {email: 'zoe@example.com', logins: 7})
          rudder.track('Order Completed', {total: 12.5, tax: 1e-7, name: 'Zoë ☕'})
          rudder.group('group-1', {employees: 42})
          rudder.alias('user-2', 'user-1')
        }"""
    )
    if beacon:
        await visit.page.goto("about:blank")  # beacons leave with the page
    await _arrives(stage, 5)
    assert {arrival.type for arrival in stage.sandbox.events} == ALL_TYPES - {"screen"}
    beacons = [r.path for r in stage.relay.requests if r.path == "/beacon/v1/batch"]
    assert bool(beacons) == beacon
    visit.asked_only(site.url, stage.relay.url, "about:blank")


async def _bundled(sdk: str, node: Path, node_modules: Path, folder: Path) -> Path:
    """The SDK as one script."""
    out = folder / f"{sdk}.js"
    if not out.exists():
        code, output = await finish(
            node,
            node_modules / "esbuild" / "bin" / "esbuild",
            HERE / "node" / f"{sdk}_browser.mjs",
            *("--bundle", "--minify", "--format=iife", f"--outfile={out}"),
        )
        assert code == 0, output
    return out
