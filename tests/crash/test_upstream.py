"""What Hightouch, or the way to it, can do."""

from __future__ import annotations

import asyncio
import signal
import ssl

import msgspec
import pytest
import trustme

from tests.crash.harness.ledger import Ledger, fields
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import FINE, Plan, Upstream
from tests.crash.harness.world import World

_OK = b"HTTP/1.1 200 OK\r\n"

#: What is no answer, or barely one.
_GARBAGE = [
    b"",
    b"\r\n\r\n",
    b"HTTP/1.1 200",
    b"HTTP/9.9 abc\r\n\r\n",
    b"HTTP/1.1 99999 Odd\r\n\r\n",
    b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 -1 Odd\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 4096,
    b"A" * 300_000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 503 Busy\r\nSet-Cookie: \xff\xfe=1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 99999999999999999999999\r\n\r\nx",
    b"HTTP/1.1 503 Busy\r\nContent-Type: text/plain; charset=nonsense\r\nContent-Length: 2\r\n\r\n\xff\xfe",
]
#: May pass for 200 or for nothing; both are right.
_UNSURE = [
    _OK + b"Content-Length: -1\r\n\r\n",
    _OK + b"Content-Length: 100\r\n\r\n{",
    _OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    _OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    _OK + b"\r\nnot JSON, until the connection ends",
    b"HTTP/1.0 200\r\n\r\n",
    b"HTTP/1.1 204 Nothing\r\n\r\nsurplus",
]
_RETRY_AFTER = ["0", "-5", "yesterday", "Thu, 01 Jan 1970 00:00:00 GMT", "NaN", "1e400", "²", ""]
_RESETS = [Plan("reset", when) for when in ("head", "body", "read", "answering")]
_STATUSES = [
    *(Plan(status=status, body=b"") for status in (408, 425, 500, 502, 503, 504, 599)),
    *(Plan(status=429, headers=(f"Retry-After: {value}",)) for value in _RETRY_AFTER),
]
_FAILURES = {
    "resets": _RESETS,
    "drips": [Plan("drip", delay=0.001), Plan("drip", delay=0.2)],
    "blackholes": [Plan("blackhole")],
    "garbage": [Plan("garbage", body=body, status=0) for body in _GARBAGE]
    + [Plan("garbage", body=body, unsure=True) for body in _UNSURE],
    "statuses": _STATUSES,
}
_QUICK = {"interval": "20ms", "timeout": "300ms"}


async def _failing(world: World, plans: list[Plan], seconds: float) -> None:
    def choose(_: str) -> Plan:
        return world.rng.choice(plans) if world.rng.random() < 0.7 else FINE

    world.upstream.choose = choose
    await world.proxy.start()
    world.load(6)
    await world.pass_time(seconds)
    figures = await world.settle()
    assert figures.dead == 0, "nothing here is an event's own fault"


@pytest.mark.settings(flush=_QUICK)
async def test_failing_in_every_way_seven_times_in_ten_it_loses_nothing(world: World):
    await _failing(world, [plan for plans in _FAILURES.values() for plan in plans], 4.0)


@pytest.mark.torture
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", _FAILURES)
@pytest.mark.settings(flush=_QUICK)
async def test_failing_in_one_way_for_half_a_minute_it_loses_nothing(world: World, kind: str):
    await _failing(world, _FAILURES[kind], 30.0)


async def test_an_upstream_that_refuses_connections_for_a_while_gets_everything(world: World):
    await world.proxy.start()
    world.load(6)
    await world.pass_time(0.3)
    await world.upstream.close()
    await world.pass_time(1.0)
    assert (await world.proxy.status())["buffer"]["events"] > 0
    await world.upstream.listen()
    await world.settle()


@pytest.mark.settings(retry={"initial": "5ms", "max": "50ms"})
async def test_wrong_addresses_lose_nothing_and_a_corrected_one_resumes_without_a_restart(
    world: World,
):
    # Each answers, but is not where the events should go.
    untrusted, elsewhere = Upstream(Ledger()), Upstream(Ledger())
    elsewhere.choose = lambda _: Plan(status=404, body=b"")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with untrusted.serve(tls), elsewhere.serve():
        settings = world.settings()
        await world.proxy.start()
        world.load(4, patience=Patience(pause=0.05))
        for endpoint, state, reason in (
            ("http://events.invalid", "backing_off", "dns"),
            (untrusted.url.replace("http:", "https:"), "backing_off", "tls"),
            (elsewhere.url, "parked", "http_404"),
        ):
            settings["hightouch"] = {"write_key": "at-hightouch", "endpoint": endpoint}
            world.proxy.write_config(settings)
            world.proxy.signal(signal.SIGHUP)
            await world.until_lane("web", state, reason)
            await world.until_lane("app", state, reason)
        world.proxy.write_config(world.settings())
        world.proxy.signal(signal.SIGHUP)
        figures = await world.settle()
    assert figures.starts == 1
    assert figures.failed_requests == figures.refused_requests == figures.dead == 0


async def test_a_dead_lane_holds_back_no_other_and_resumes_once_its_key_is_corrected(world: World):
    settings = world.settings()
    right = settings["sources"]
    settings["sources"] = [{**right[0], "hightouch_write_key": "wrong"}, right[1]]
    world.proxy.write_config(settings)
    world.upstream.choose = lambda key: Plan(status=401, body=b"") if key == "wrong" else FINE
    await world.proxy.start()
    world.load(4)
    await world.pass_time(1.0)
    lanes = {lane["name"]: lane for lane in (await world.proxy.status())["lanes"]}
    assert lanes["web"]["state"] == "parked"
    assert lanes["web"]["delivered"] == 0
    assert lanes["app"]["state"] == "ok"
    assert lanes["app"]["delivered"] > 50
    world.proxy.write_config(world.settings())
    world.proxy.signal(signal.SIGHUP)
    await world.until(lambda: bool(world.proxy.logged("reloaded")), "the reload")
    figures = await world.settle()
    assert figures.dead == 0
    assert figures.starts == 1


def _number(text: bytes) -> int:
    """Of an event among those of its sender, from 1."""
    ref = msgspec.json.decode(bytes(fields(text)["ref"]), type=str)
    return int(ref.rpartition(".")[2])


def _is_poison(text: bytes) -> bool:
    return _number(text) % 97 == 13


async def test_poison_events_become_dead_letters_and_all_others_arrive(world: World):
    refused = Plan(status=400, body=b"{}")
    world.upstream.judge = lambda _, texts: refused if any(map(_is_poison, texts)) else None
    await world.proxy.start()
    world.load(4)
    await world.pass_time(2.0)
    await world.stop_senders()
    await world.empty()
    figures = await world.settle()
    poison = [sent for sent in world.ledger.sent.values() if _is_poison(sent.text)]
    assert figures.dead == len(poison) > 0
    assert not any(world.ledger.delivered(sent.ref) for sent in poison)


@pytest.mark.parametrize(
    "poisoned", [*(pytest.param(n, marks=pytest.mark.torture) for n in (1, 10)), 500]
)
@pytest.mark.settings(
    flush={"interval": "50ms", "max_in_flight": 1}, retry={"initial": "5ms", "max": "50ms"}
)
async def test_poison_among_500_events_is_found_and_where_all_are_refused_none_is_buried(
    world: World, poisoned: int
):
    poison = set(world.rng.sample(range(1, 501), poisoned))
    refused = Plan(status=400, body=b"{}")
    world.upstream.judge = lambda _, texts: (
        refused if not poison.isdisjoint(map(_number, texts)) else None
    )
    await world.proxy.start()
    await world.send_batch(500, users=20)
    if poisoned == 500:
        await world.until_lane("web", "parked", "refuses_everything")
    else:
        await world.empty()
    figures = await world.settle()
    assert figures.dead == (0 if poisoned == 500 else poisoned)


@pytest.mark.settings(retry={"initial": "5ms", "max": "50ms"})
async def test_an_event_that_breaks_the_upstream_holds_back_only_its_user(world: World):
    broken = Plan(status=500, body=b"")
    world.upstream.judge = lambda _, texts: broken if any(map(_is_poison, texts)) else None
    await world.proxy.start()
    world.load(4, users=40)
    await world.pass_time(1.5)
    await world.stop_senders()
    sent = world.ledger.sent.values()
    held = {(s.source, s.user) for s in sent if _is_poison(s.text)}
    free = [s.ref for s in sent if (s.source, s.user) not in held]
    assert held
    await world.until(lambda: all(map(world.ledger.delivered, free)), "the events of other users")
    figures = await world.settle()
    assert figures.dead == 0


async def test_an_upstream_that_refuses_everything_buries_nothing(world: World):
    world.upstream.choose = lambda _: Plan(status=400, body=b"{}")
    await world.proxy.start()
    world.load(4)
    await world.pass_time(1.5)
    assert {lane["state"] for lane in (await world.proxy.status())["lanes"]} == {"parked"}
    figures = await world.settle()
    assert figures.dead == 0


@pytest.mark.torture
async def test_the_proxy_lives_on_when_many_answers_are_slow(world: World):
    world.upstream.choose = lambda _: Plan(delay=world.rng.choice([0, 0, 0.3, 1.0]))
    await world.proxy.start()
    world.load(6)
    await asyncio.sleep(2.0)
    await world.settle()
