"""HTTP out: one batch, one request, one answer. Foreign errors are translated here and only here."""

import asyncio
import base64
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from isal import igzip
from msgspec import Struct
from msgspec.json import encode

from edgeproxy.buffer.base import Claimed
from edgeproxy.delivery.outcome import Answer
from edgeproxy.events.intake import dated
from edgeproxy.events.times import rfc3339

__all__ = ["Destination", "Upstream", "envelope"]

#: Bytes of an answer that are kept for people; of the rest only the connection's good is thought.
_ANSWER_BYTES = 2_000
#: From this size on compressing leaves the loop: a thread costs less than what others would wait.
_COMPRESS_IN_THREAD = 65_536


class Destination(Struct, frozen=True):
    """Where a lane's events go; read from the settings whenever a batch is sent."""

    endpoint: str
    write_key: str
    proxy: str = ""
    ca_file: Path | None = None


def envelope(events: Sequence[Claimed], write_key: str, now: int) -> bytes:
    """Write a batch as Hightouch takes it; every event dated anew (SDKS.md, fact 7).

    `now` is in ms since 1970. An event's `sentAt` is the one it came with plus the time it spent
    here, never negative; without one it is now.
    """
    bodies = [
        dated(
            event.body,
            now
            if event.skew is None
            else event.received + event.skew + max(now - event.received, 0),
        )
        for event in events
    ]
    head = b'{"batch":[%b],"sentAt":"%b"' % (b",".join(bodies), rfc3339(now))
    return b'%b,"writeKey":%b}' % (head, encode(write_key))


class Upstream:
    """Connections to Hightouch, kept alive; one pool a certificate file."""

    def __init__(self, *, timeout: float, compression: str, user_agent: str) -> None:
        """`timeout` in seconds bounds a whole attempt; `compression` is gzip or none."""
        self.timeout = timeout
        self.compression = compression
        self._user_agent = user_agent
        self._sessions: dict[Path | None, aiohttp.ClientSession] = {}

    async def send(self, destination: Destination, events: Sequence[Claimed], now: int) -> Answer:
        """Send one batch. Never raises for what the network or Hightouch does.

        Cancelling drops the connection; whether Hightouch took the batch is then unknown.
        """
        body = envelope(events, destination.write_key, now)
        headers = {
            "Authorization": _basic(destination.write_key),
            "Content-Type": "application/json",
        }
        if self.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
            if len(body) < _COMPRESS_IN_THREAD:
                body = igzip.compress(body, 1)
            else:
                body = await asyncio.to_thread(igzip.compress, body, 1)
        started = time.monotonic()
        try:
            session = self._session(destination.ca_file)
            async with session.post(
                f"{destination.endpoint}/v1/batch",
                data=body,
                headers=headers,
                proxy=destination.proxy or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.timeout),
            ) as response:
                return await _read(response)
        except TimeoutError:
            waited = time.monotonic() - started
            return Answer(None, "timeout", f"no answer within {waited:.1f} s")
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
            return _failure(error)

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _session(self, ca_file: Path | None) -> aiohttp.ClientSession:
        session = self._sessions.get(ca_file)
        if session is None:
            context = ssl.create_default_context(cafile=ca_file)
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=context),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            self._sessions[ca_file] = session
        return session


def _basic(write_key: str) -> str:
    return "Basic " + base64.b64encode(f"{write_key}:".encode()).decode()


async def _read(response: aiohttp.ClientResponse) -> Answer:
    status = response.status
    detail = (await response.content.read(_ANSWER_BYTES)).decode("utf-8", "replace")
    if response.content.at_eof() or response.content.is_eof():
        await response.read()
    if 300 <= status < 400:
        detail = f"redirected to {response.headers.get('Location', 'nowhere')}; never followed"
    return Answer(status, f"http_{status}", detail, response.headers.get("Retry-After"))


def _failure(error: Exception) -> Answer:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Answer(None, "dns", str(error), reached=False)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return Answer(None, "tls", str(error), reached=False)
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return Answer(None, "proxy", str(error), reached=False)
        case aiohttp.ClientConnectorError():
            return Answer(None, "connect", str(error), reached=False)
        case aiohttp.ServerDisconnectedError() | ConnectionResetError() | BrokenPipeError():
            return Answer(None, "disconnected", "the connection closed before an answer came")
        case aiohttp.InvalidURL():
            return Answer(None, "address", "the endpoint is no address", reached=False)
        case _:
            return Answer(None, "unreadable", f"{type(error).__name__}: {error}")
