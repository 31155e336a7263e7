"""`edgeproxy check --probe`: one identify event for each source, sent as `run` would send it."""

import asyncio
import base64
import gzip
import os
import ssl
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
from msgspec.structs import asdict

from edgeproxy import __version__
from edgeproxy.cli.verdicts import Verdict, answered, unanswered
from edgeproxy.config import Settings, Source

__all__ = ["Result", "probe", "probe_all"]

_SKEW_WORTH_A_WORD = 60.0
"""Seconds. The Date header has whole seconds, and an answer may take some on its way."""


class Result(msgspec.Struct, frozen=True):
    """What came of one probe."""

    source: str
    endpoint: str
    ok: bool
    code: str
    message: str
    remedy: str
    status: int | None = None
    milliseconds: int | None = None
    clock_skew_seconds: float | None = None
    """How far this machine's clock is ahead of Hightouch's; None when it cannot be told."""
    message_id: str | None = None

    def lines(self) -> Iterator[str]:
        """For people."""
        took = f" ({self.milliseconds} ms)" if self.milliseconds is not None else ""
        yield f"{self.source} → {self.endpoint}: {self.message}{took}"
        if self.remedy:
            yield f"  {self.remedy}"
        skew = self.clock_skew_seconds
        if skew is not None and abs(skew) >= _SKEW_WORTH_A_WORD:
            way = "ahead of" if skew > 0 else "behind"
            yield (
                f"  This machine's clock is {abs(skew):.0f} s {way} Hightouch's. Times that the "
                "proxy adds are wrong by that much: set the clock (timedatectl set-ntp true)."
            )


async def probe_all(settings: Settings) -> list[Result]:
    """Probe every source's endpoint, all at the same time."""
    try:
        trust = _trust(settings)
    except (OSError, ssl.SSLError) as error:
        verdict = Verdict(
            "tls",
            f"[hightouch] ca_file cannot be used ({error})",
            "Name a PEM file of certificate authorities.",
        )
        return [
            Result(source.name, source.endpoint, ok=False, **asdict(verdict))
            for source in settings.sources
        ]
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        return list(
            await asyncio.gather(*(probe(source, settings, session) for source in settings.sources))
        )


async def probe(source: Source, settings: Settings, session: aiohttp.ClientSession) -> Result:
    """Send one identify event. Failures of the network are results, too."""
    message_id = str(uuid.uuid4())
    content, headers = _request(source, message_id, settings.flush.compression)
    started = time.monotonic()
    try:
        async with session.post(
            f"{source.endpoint}/v1/batch",
            data=content,
            headers=headers,
            allow_redirects=False,
            proxy=settings.hightouch.proxy or None,
            timeout=aiohttp.ClientTimeout(total=settings.flush.timeout),
        ) as response:
            await response.read()
            took = time.monotonic() - started
            skew = _skew(response.headers.get("Date", ""), took)
            verdict = answered(source, response, message_id)
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        verdict = unanswered(source, settings, error)
        return Result(source.name, source.endpoint, ok=False, **asdict(verdict))
    return Result(
        source.name,
        source.endpoint,
        ok=verdict.code == "ok",
        **asdict(verdict),
        status=response.status,
        milliseconds=round(took * 1000),
        clock_skew_seconds=skew,
        message_id=message_id,
    )


def _trust(settings: Settings) -> ssl.SSLContext:
    return ssl.create_default_context(
        cafile=os.fspath(settings.hightouch.ca_file) if settings.hightouch.ca_file else None
    )


def _request(source: Source, message_id: str, compression: str) -> tuple[bytes, dict[str, str]]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {
        "sentAt": now,
        "type": "identify",
        "anonymousId": "edgeproxy-probe",
        "messageId": message_id,
        "timestamp": now,
        "originalTimestamp": now,
        "traits": {},
        "context": {"library": {"name": "edgeproxy", "version": __version__}},
    }
    key = source.hightouch_write_key
    content = msgspec.json.encode({"batch": [event], "sentAt": now, "writeKey": key})
    headers = {
        "Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode(),
        "Content-Type": "application/json",
        "User-Agent": f"edgeproxy/{__version__}",
    }
    if compression == "gzip":
        return gzip.compress(content), headers | {"Content-Encoding": "gzip"}
    return content, headers


def _skew(date: str, took: float) -> float | None:
    """Seconds that this clock is ahead. The header has no fraction: half a second in the mean."""
    try:
        theirs = parsedate_to_datetime(date).timestamp() + 0.5
    except (ValueError, TypeError):
        return None
    return round(time.time() - took / 2 - theirs, 1)
