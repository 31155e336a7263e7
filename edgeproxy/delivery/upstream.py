"""HTTP out: one batch, one request, one answer. Foreign errors are translated here and only here."""

import asyncio
import base64
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
from isal import igzip
from msgspec import Struct
from msgspec.json import encode

from edgeproxy.buffer.base import Claimed
from edgeproxy.delivery.outcome import Answer
from edgeproxy.events.intake import dated
from edgeproxy.events.times import rfc3339

__all__ = ["EVENT_OVERHEAD", "Destination", "Upstream", "envelope", "envelope_overhead"]

#: Bytes of an answer that are kept for people, and how much more is read so that the connection
#: can be used again.
_ANSWER_BYTES = 2_000
_MOST_READ = 65_536
#: Seconds to wait for an answer's body once its status is known: only the status decides.
_BODY_SECONDS = 2.0
#: Seconds to wait for a connection (TCP and TLS); what fails here never reached Hightouch.
_CONNECT_SECONDS = 10.0
#: From this size on compressing leaves the loop: a thread costs less than what others would wait.
_COMPRESS_IN_THREAD = 1_000_000


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
    parts: list[bytes] = []
    received: int | None = None
    skew: int | None = None
    head = b""
    for event in events:
        # The events of a request share both.
        if event.received != received or event.skew != skew:
            received, skew = event.received, event.skew
            here = max(now - received, 0)
            head = b"," + dated(now if skew is None else received + skew + here)
        parts.append(head)
        parts.append(event.body[1:])
    parts[0] = b'{"batch":[' + parts[0][1:]
    parts += (b'],"sentAt":"', rfc3339(now), b'","writeKey":', encode(write_key), b"}")
    return b"".join(parts)


#: Bytes that sending adds to each event: its `sentAt`, and the comma between two.
EVENT_OVERHEAD = len(dated(0)) - len(b"{") + len(b",")


def envelope_overhead(write_key: str) -> int:
    """Bytes of a batch that are not its events."""
    around = b'{"batch":[],"sentAt":"","writeKey":}'
    return len(around) + len(rfc3339(0)) + len(encode(write_key))


class Upstream:
    """Connections to Hightouch, kept alive; one pool a certificate file."""

    def __init__(self, *, timeout: float, compression: str, user_agent: str) -> None:
        """`timeout` in seconds bounds a whole attempt; `compression` is gzip or none."""
        self.timeout = timeout
        self.compression = compression
        self._user_agent = user_agent
        self._sessions: dict[tuple[Path, int] | None, aiohttp.ClientSession] = {}
        # Of its own: the loop's default threads may all wait for a name server.
        self._threads = ThreadPoolExecutor(1, "edgeproxy-gzip")

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
                loop = asyncio.get_running_loop()
                body = await loop.run_in_executor(self._threads, igzip.compress, body, 1)
        started = time.monotonic()
        try:
            session = self._session(destination.ca_file)
        except OSError as error:
            detail = f"[hightouch] ca_file cannot be used: {error}"
            return Answer(None, "tls", detail, reached=False)
        try:
            async with session.post(
                f"{destination.endpoint}/v1/batch",
                data=body,
                headers=headers,
                proxy=destination.proxy or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=self.timeout, sock_connect=min(_CONNECT_SECONDS, self.timeout * 0.9)
                ),
            ) as response:
                return await _read(response)
        except aiohttp.ConnectionTimeoutError:
            waited = time.monotonic() - started
            return Answer(None, "connect", f"no connection within {waited:.1f} s", reached=False)
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
        self._threads.shutdown(wait=False)

    def _session(self, ca_file: Path | None) -> aiohttp.ClientSession:
        # A file that was replaced is read again.
        key = None if ca_file is None else (ca_file, ca_file.stat().st_mtime_ns)
        session = self._sessions.get(key)
        if session is None:
            context = ssl.create_default_context(cafile=ca_file)
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=_socket),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            self._sessions[key] = session
        return session


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that forgets what it has not sent when it is closed (socket(7), SO_LINGER).

    The kernel would go on for minutes to send a request that was given up: where packets were lost
    for a while, a copy would arrive behind what was sent again, and behind later events.
    """
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return made


def _basic(write_key: str) -> str:
    return "Basic " + base64.b64encode(f"{write_key}:".encode()).decode()


async def _read(response: aiohttp.ClientResponse) -> Answer:
    """Take the status, and of the body what comes: a body that breaks off changes nothing."""
    status = response.status
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MOST_READ:
                    break
    except (TimeoutError, aiohttp.ClientError, OSError):
        response.close()
    detail = bytes(body[:_ANSWER_BYTES]).decode("utf-8", "replace")
    if 300 <= status < 400:
        detail = f"redirected to {response.headers.get('Location', 'nowhere')}; never followed"
    return Answer(status, f"http_{status}", detail, response.headers.get("Retry-After"))


def _failure(error: Exception) -> Answer:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Answer(None, "dns", str(error), reached=False)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return Answer(None, "tls", str(error), reached=False)
        case aiohttp.ClientHttpProxyError():  # its words hold the proxy's password
            detail = f"the proxy answered {error.status} {error.message}"
            return Answer(None, "proxy", detail, reached=False)
        case aiohttp.ClientProxyConnectionError():
            return Answer(None, "proxy", str(error), reached=False)
        case aiohttp.ClientConnectorError():
            return Answer(None, "connect", str(error), reached=False)
        case aiohttp.ServerDisconnectedError() | ConnectionResetError() | BrokenPipeError():
            return Answer(None, "disconnected", "the connection closed before an answer came")
        case aiohttp.InvalidURL():
            return Answer(None, "address", "the endpoint is no address", reached=False)
        case _:
            return Answer(None, "unreadable", f"{type(error).__name__}: {error}")
