"""edgeproxy.cli.probe: each way a probe can end, against real listeners."""

import asyncio
import gzip
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from edgeproxy.cli.probe import Result, probe_all
from edgeproxy.cli.verdicts import answered
from edgeproxy.config import Settings, Source, load
from edgeproxy.sandbox import Sandbox

KEY = "the-write-key"


def settings_for(endpoint: str, **hightouch: object) -> Settings:
    settings = load(None, {"PROJECT_WRITEKEY": KEY, "EDGEPROXY_HIGHTOUCH__ENDPOINT": endpoint})
    replace = msgspec.structs.replace
    return replace(
        settings,
        hightouch=replace(settings.hightouch, **hightouch),
        flush=replace(settings.flush, timeout=0.5),
    )


async def only(settings: Settings) -> Result:
    (result,) = await probe_all(settings)
    assert KEY not in "\n".join(result.lines())
    return result


@asynccontextmanager
async def server(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answering(status: int, **headers: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(
            status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    return handler


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_a_probe_is_one_identify_event_that_arrives():
    sandbox = Sandbox(KEY)
    async with sandbox.serve() as url:
        result = await only(settings_for(url))
    assert result.ok
    assert result.status == 200
    assert "region" not in result.remedy  # the address was named
    assert str(result.message_id) in result.remedy
    (arrival,) = sandbox.events
    assert arrival.blocked is None
    event = json.loads(arrival.event)
    assert event["type"] == "identify"
    assert event["messageId"] == result.message_id


@pytest.mark.parametrize(
    ("endpoint", "warns"),
    [("https://eu-west-1.hightouch-events.com", True), ("https://edge.example.com", False)],
)
def test_the_region_is_in_question_only_where_it_made_the_address(endpoint: str, warns: bool):
    source = Source("web", (KEY,), KEY, "eu-west-1", endpoint)
    verdict = answered(source, cast("Any", SimpleNamespace(status=200)), "m1")
    assert verdict.code == "ok"
    assert ("wrong region" in verdict.remedy) is warns
    assert "messageId m1" in verdict.remedy


async def test_a_probe_is_sent_as_batches_are():
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, dict(request.headers), await request.read()))
        return web.Response()

    async with server(handler) as url:
        assert (await only(settings_for(url))).ok
    ((path, headers, body),) = seen
    assert path == "/v1/batch"
    assert headers["Authorization"] == "Basic dGhlLXdyaXRlLWtleTo="
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Encoding"] == "gzip"
    # aiohttp's server has taken the compression off.
    envelope = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
    assert list(envelope) == ["batch", "sentAt", "writeKey"]
    assert envelope["writeKey"] == KEY
    assert envelope["batch"][0]["sentAt"] == envelope["sentAt"]


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (401, "wrong_key", "[hightouch] write_key"),
        (403, "wrong_key", "[hightouch] write_key"),
        (404, "wrong_address", "region and endpoint"),
        (400, "refused", "events API"),
        (429, "busy", "tries again"),
        (503, "busy", "tries again"),
    ],
)
async def test_each_refusal_says_what_to_do(status: int, code: str, remedy: str):
    async with server(answering(status)) as url:
        result = await only(settings_for(url))
    assert not result.ok
    assert result.code == code
    assert f"answered {status}" in result.message
    assert remedy in result.remedy


async def test_a_redirect_is_named_and_not_followed():
    async with server(answering(302, Location="https://login.example/x?y")) as url:
        result = await only(settings_for(url))
    assert result.code == "redirect"
    assert "login.example," in result.message


async def test_a_clock_that_is_off_is_reported():
    theirs = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
    async with server(answering(200, Date=theirs)) as url:
        result = await only(settings_for(url))
    assert result.clock_skew_seconds == pytest.approx(3600, abs=5)
    assert any("s ahead of Hightouch's" in line for line in result.lines())


async def test_an_endpoint_where_nothing_listens():
    result = await only(settings_for(f"http://127.0.0.1:{free_port()}"))
    assert result.code == "connection"
    assert "firewall" in result.remedy


async def test_a_name_that_does_not_exist():
    result = await only(settings_for("http://edgeproxy.invalid"))
    assert result.code == "dns"
    assert "edgeproxy.invalid" in result.message


async def test_an_endpoint_that_does_not_answer():
    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with server(handler) as url:
        result = await only(settings_for(url))
    assert result.code == "timeout"
    assert "no answer within 0.5 s" in result.message


@asynccontextmanager
async def saying(text: bytes) -> AsyncIterator[str]:
    """A listener that says one thing to everybody and hangs up."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def test_an_endpoint_that_speaks_no_http():
    async with saying(b"220 mail.example ESMTP\r\n") as url:
        result = await only(settings_for(url))
    assert result.code == "broken_answer"


async def test_an_endpoint_that_hangs_up():
    async with saying(b"") as url:
        result = await only(settings_for(url))
    assert result.code == "broken_answer"


async def test_a_proxy_that_cannot_be_reached():
    proxy = f"http://me:hush@127.0.0.1:{free_port()}"
    result = await only(settings_for("http://hightouch.example", proxy=proxy))
    assert result.code == "proxy"
    assert "the proxy 127.0.0.1 cannot be reached" in result.message
    assert "hush" not in "\n".join(result.lines())


async def test_a_proxy_that_refuses():
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with saying(refusal) as proxy:
        result = await only(settings_for("https://hightouch.example", proxy=proxy))
    assert result.code == "proxy"
    assert "407" in result.message
    assert "hightouch.example port 443" in result.remedy


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        assert not os.environ.get("CI"), "openssl is missing: apt-get install openssl"
        pytest.skip("openssl is not installed (apt-get install openssl)")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=edgeproxy test"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def test_a_certificate_is_trusted_through_ca_file_alone(certificate: tuple[Path, Path]):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    async with server(answering(200), tls) as url:
        stranger = await only(settings_for(url))
        trusted = await only(settings_for(url, ca_file=certificate[0]))
    assert stranger.code == "tls"
    assert "ca_file" in stranger.remedy
    assert trusted.ok


async def test_tls_where_none_is_spoken():
    async with server(answering(200)) as url:
        result = await only(settings_for(url.replace("http:", "https:")))
    assert result.code == "tls"
    assert "scheme" in result.remedy


async def test_a_ca_file_that_holds_no_certificate(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("nothing")
    result = await only(settings_for("https://127.0.0.1:1", ca_file=tmp_path / "ca.pem"))
    assert result.code == "tls"
    assert "PEM" in result.remedy
