"""Requests captured from real SDKs, replayed byte for byte over a raw socket.

The compressed ones go as they were sent. A second run moves every time to today, as if the SDKs
had sent them just now.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.oracle import Request, sent_events, write_key

CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("*.jsonl"))
# RFC 3339 as the SDKs spell it: up to nine digits of a second; Z or an offset.
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)")
YEARS = "36500d"


class Capture:
    """One captured request, and its bytes on the wire."""

    def __init__(self, line: str) -> None:
        entry = json.loads(line)
        self.headers = [(name, value) for name, value in entry["headers"]]
        self.method, self.path, self.query = entry["method"], entry["path"], entry.get("query", "")
        self.body = entry["body"].encode()
        wire = entry.get("body_b64_wire")
        self.wire = b64decode(wire) if wire else self.body

    @property
    def request(self) -> Request:
        return Request(self.method, self.path, self.query, self.headers, self.body)

    def header(self, name: str) -> str | None:
        return self.request.header(name)

    def moved(self, by: timedelta) -> Capture:
        """The same request `by` later, every time spelled as it was."""
        later = Capture.__new__(Capture)
        later.__dict__.update(self.__dict__)
        later.body = TIME.sub(lambda found: _moved(found, by), self.body.decode()).encode()
        compressed = self.header("Content-Encoding") == "gzip"
        later.wire = gzip.compress(later.body) if compressed else later.body
        later.headers = [
            (name, str(len(later.wire)) if name.lower() == "content-length" else value)
            for name, value in self.headers
        ]
        return later

    def bytes(self) -> bytes:
        target = f"{self.path}?{self.query}" if self.query else self.path
        lines = [f"{self.method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if (self.header("Transfer-Encoding") or "").lower() == "chunked":
            return head + _chunked(self.wire)
        return head + self.wire


def _moved(found: re.Match[str], by: timedelta) -> str:
    moment = datetime.fromisoformat(found[1]) + by
    return f"{moment.isoformat()}{found[2] or ''}{found[3]}"


def _chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


def captures(path: Path) -> list[Capture]:
    return [Capture(line) for line in path.read_text().splitlines()]


async def replay(capture: Capture, url: str) -> tuple[int, dict[str, str], bytes]:
    """Send the very bytes on a connection of their own: status, headers and body of the answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(capture.bytes())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(status.split(" ")[1]), headers, body
    finally:
        writer.transport.abort()


def sources(requests: list[Capture]) -> list[dict[str, object]]:
    """A source for the key that these requests carry."""
    keys = {write_key(capture.request) for capture in requests if capture.method == "POST"}
    return [{"name": f"source-{n}", "write_key": key} for n, key in enumerate(sorted(keys))]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("when", ["as captured", "moved to today"])
async def test_every_captured_request_arrives_with_nothing_lost_or_changed(
    stage_factory, path, when
):
    requests = captures(path)
    validation = {}
    if when == "as captured":
        validation = {"max_age": YEARS}
    else:
        requests = _today(requests)
    stage = await stage_factory(sources=sources(requests), validation=validation)
    for capture in requests:
        status, headers, body = await replay(capture, stage.url)
        _answered(capture, status, headers, body)
    await stage.everything_arrives(sent_events([capture.request for capture in requests]))


def _today(requests: list[Capture]) -> list[Capture]:
    times = [found[1] for c in requests for found in TIME.finditer(c.body.decode())]
    newest = datetime.fromisoformat(max(times)).replace(tzinfo=UTC)
    by = datetime.now(UTC).replace(microsecond=0) - newest - timedelta(seconds=1)
    return [capture.moved(by) for capture in requests]


def _answered(capture: Capture, status: int, headers: dict[str, str], body: bytes) -> None:
    origin = capture.header("Origin")
    if origin:
        assert headers["access-control-allow-origin"] == origin
        assert headers["access-control-allow-credentials"] == "true"
    match capture.method:
        case "OPTIONS":
            assert status in {200, 204}
            asked = capture.header("Access-Control-Request-Headers") or ""
            assert headers.get("access-control-allow-headers", "") == asked
            assert "POST" in headers["access-control-allow-methods"]
        case "POST":
            assert (status, json.loads(body)) == (200, {"success": True})
        case _:
            assert status == 200
            assert json.loads(body), "the settings that the SDK waits for"
