"""Requests that nobody would write: what SDKs send, mutated without mercy.

Six seconds by default; CRASH_FUZZ_SECONDS (`make fuzz`: a minute) says otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.harness.senders import Answer, Patience, answer
from tests.crash.harness.world import World

_SECONDS = float(os.environ.get("CRASH_FUZZ_SECONDS", "6"))
_CAPTURES = Path(__file__).parents[1] / "captures"
#: Every answer that the contract knows, and what its body must be.
_REFUSALS = {
    400: None, 401: "unknown_key", 403: "origin_not_allowed", 404: "not_found",
    405: "method_not_allowed", 413: "request_too_large", 415: "unsupported_encoding",
}  # fmt: skip
_CODES_400 = {
    "invalid_json", "invalid_envelope", "bad_request", "invalid_event", "not_an_object",
    "missing_type", "unknown_type", "missing_identity", "missing_event", "event_too_large",
    "too_old", "bad_type", "bad_timestamp",
}  # fmt: skip
_TOKENS = [
    b"null", b"true", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"01", b"1.", b".5",
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b"\x00", b"\xff\xfe", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"{}", b"[]", b'""',
    b'{"batch":[]}', b'"batch":', b'"writeKey":"key-web",', b'"type":"track",', b'"context":[],',
    b'"context":{"library":[]},', b'"messageId":{},', b'"sentAt":{},', b'"timestamp":1e300,',
    b'"anonymousId":[1],', b'"userId":1e5,', b'"event":"",', b"9" * 5000, b"[" * 200, b'{"a":' * 200,
    "\u2028".encode(), b"/*x*/", b"\r\n", b'"a":1,"a":2,', b'"sentAt":"2100-01-01T00:00:00Z",',
    b'"originalTimestamp":"1970-01-01",', b'"__proto__":{},', b'"properties":"x",',
]  # fmt: skip
_HEADERS = [
    b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Encoding: zstd",
    b"Content-Encoding: deflate", b"Content-Encoding: gzip, br", b"Content-Encoding: \xff",
    b"Authorization: Basic", b"Authorization: Basic !!!!", b"Authorization: Bearer x",
    b"Authorization: Basic /////w==", b"Origin: null", b"Origin: http://a.example", b"Origin: \xff",
    b"Content-Type: application/json; charset=utf-16", b"Content-Type: \x7f", b"Cookie: a=\xff",
    b"X-Forwarded-For: 1.2.3.4, , unknown, ::1%eth0", b"User-Agent: \xf0\x9f\x98\x80", b"Expect: 100-continue",
    b"Transfer-Encoding: chunked", b"Content-Length: 3", b"Connection: upgrade", b"Upgrade: websocket",
    b"Range: bytes=0-", b"If-None-Match: *", b"Host: [::1", b"X: " + b"y" * 9000,
]  # fmt: skip
_PATHS = [
    b"/v1/batch", b"/v1/b/", b"/v1/track", b"/v1/t", b"/v1/import", b"/v1/m", b"//v1//batch", b"/v1/",
    b"/x/../v1/batch", b"/v1/batch?writeKey=key-web", b"/v1/batch?writeKey=%ff&writeKey=%00", b"/v1/%62atch",
    b"/v1/projects/key-web/settings", b"/v1/projects/%2e%2e/settings", b"/sourceConfig/?writeKey=key-web",
    b"/ht/renew", b"/ht/clear", b"/browser/release/v1-latest/events.min.js", b"/healthz", b"/readyz", b"*",
    b"http://other/v1/batch", b"/v1/batch#x", b"/\xff", b"/" + b"a/" * 3000 + b"v1/batch", b"?", b"/v1/batch;a=b",
]  # fmt: skip


def _corpus() -> list[tuple[str, bytes]]:
    found = []
    for file in sorted(_CAPTURES.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            capture = json.loads(line)
            if capture["method"] == "POST" and capture.get("body"):
                body = re.sub(r'"writeKey":"[^"]*"', '"writeKey":"key-web"', capture["body"])
                found.append((capture["path"], body.encode()))
    return found


class Fuzzer:
    """Writes requests; every choice comes from one generator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._corpus = _corpus()

    def request(self) -> bytes:
        rng = self._rng
        path, body = rng.choice(self._corpus)
        target = rng.choice(_PATHS) if rng.random() < 0.3 else path.encode()
        for _ in range(rng.choice([0, 1, 1, 2, 4, 16])):
            body = self._mutated(body)
        basic = base64.b64encode(b"key-web:")
        headers = [b"Host: x", b"Authorization: Basic " + basic]
        if rng.random() < 0.2:
            headers.pop()
        if rng.random() < 0.3:
            body = gzip.compress(body, 1)
            headers.append(b"Content-Encoding: gzip")
            if rng.random() < 0.3:
                body = self._mutated(body)
        headers.append(b"Content-Length: %d" % len(body))
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            headers.insert(rng.randrange(len(headers) + 1), rng.choice(_HEADERS))
        method = rng.choice(
            [b"POST"] * 12 + [b"GET", b"OPTIONS", b"PUT", b"HEAD", b"post", b"\x00"]
        )
        head = b"\r\n".join([method + b" " + target + b" HTTP/1.1", *headers, b"", b""])
        if rng.random() < 0.03:
            head = self._mutated(head)
        return head + body

    def _mutated(self, body: bytes) -> bytes:
        rng = self._rng
        at = rng.randrange(len(body) + 1)
        match rng.randrange(8):
            case 0:
                return body[:at] + rng.choice(_TOKENS) + body[at:]
            case 1:  # where a value or a key can be
                places = [m.end() for m in re.finditer(rb"[{\[,:]", body)] or [at]
                place = rng.choice(places)
                return body[:place] + rng.choice(_TOKENS) + body[place:]
            case 2:  # instead of a value
                values = list(
                    re.finditer(rb'(?<=:)("[^"]*"|[\d.]+|true|false|null|\{\}|\[\])', body)
                )
                if not values:
                    return body
                value = rng.choice(values)
                return body[: value.start()] + rng.choice(_TOKENS) + body[value.end() :]
            case 3:
                end = min(at + rng.choice([1, 2, 8, 64]), len(body))
                return body[:at] + body[end:]
            case 4:
                end = min(at + rng.choice([4, 32, 256]), len(body))
                return body[:end] + body[at:end] * rng.randint(1, 4) + body[end:]
            case 5 if body:
                at = min(at, len(body) - 1)
                return body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :]
            case 6:
                return body[:at]
            case _:
                other = rng.choice(self._corpus)[1]
                return body[:at] + other[rng.randrange(len(other)) :]


def _judge(status: int, body: bytes) -> str | None:
    """What is wrong with an answer, if anything."""
    if status in {204, 304} or (status == 200 and not body.startswith(b"{")):
        return None  # preflights, HEAD, the script
    try:
        answer = json.loads(body)
    except ValueError:
        return f"{status} without JSON: {body[:100]!r}"
    if status == 200:
        return None
    if status not in _REFUSALS:
        return f"status {status}: {body[:200]!r}"
    if set(answer) != {"success", "error", "code", "message"} or answer["success"] is not False:
        return f"{status} in another shape: {body[:200]!r}"
    wanted = _REFUSALS[status]
    if answer["code"] != wanted and not (wanted is None and answer["code"] in _CODES_400):
        return f"{status} with code {answer['code']}"
    return None


async def _answered(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[Answer, bool]:
    """Read an answer; where the request says that more comes, say that nothing does."""
    answering = asyncio.ensure_future(answer(reader))
    await asyncio.wait([answering], timeout=1.0)
    if not answering.done():
        writer.write_eof()
    return await asyncio.wait_for(answering, 10)


async def _fuzz(world: World, fuzzer: Fuzzer, until: float, seen: Counter[int]) -> None:
    while time.monotonic() < until:
        request = fuzzer.request()
        reader, writer = await asyncio.open_connection(*world.proxy.address)
        try:
            writer.write(request)
            (status, body), _ = await _answered(reader, writer)
        except (OSError, EOFError):
            seen[0] += 1  # half a request, and the end of it: the connection is closed
            continue
        except TimeoutError:
            raise AssertionError(f"no answer to {request[:3000]!r}") from None
        finally:
            writer.close()
        seen[status] += 1
        wrong = None if request.startswith((b"HEAD", b"OPTIONS")) else _judge(status, body)
        assert wrong is None, f"CRASH_SEED={world.seed}: {wrong}\n{request[:3000]!r}"


@pytest.mark.timeout(1.2 * _SECONDS + 60)  # what a long run sent takes a while to judge
@pytest.mark.settings(flush={"interval": "20ms"}, retry={"initial": "20ms", "max": "100ms"})
async def test_mutated_requests_are_answered_and_what_is_sent_can_be_read(world: World):
    await world.proxy.start()
    world.load(1, patience=Patience(pause=0.05))  # a good client meanwhile
    until = time.monotonic() + _SECONDS
    seen: Counter[int] = Counter()
    fuzzers = [Fuzzer(random.Random(world.rng.random())) for _ in range(6)]
    await asyncio.gather(*[_fuzz(world, fuzzer, until, seen) for fuzzer in fuzzers])
    print(dict(seen))
    assert seen[200] > 50
    assert seen[400] > 50
    for text in world.ledger.strays:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # no lone surrogates
        assert isinstance(value, dict)
        assert {"type", "messageId", "originalTimestamp", "sentAt"} <= value.keys(), text[:500]
        assert "writeKey" not in value
    world.ledger.strays.clear()
    figures = await world.settle()
    assert figures.accepted == figures.sent > 5
    assert world.proxy.peak_memory_mb < 250


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} was sent")
