"""What must arrive at Hightouch, worked out from what was sent, without the proxy's code.

Values are compared as JSON text, so the spelling of numbers and strings counts. Times are the
exception: those that the contract shifts are compared as instants.
"""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

LETTERS = {
    "t": "track",
    "i": "identify",
    "p": "page",
    "s": "screen",
    "g": "group",
    "a": "alias",
}
BATCHES = {"batch", "b", "import"}
# What runs in a browser, on a phone or on a TV; every other library runs on somebody's server.
CLIENT_LIBRARIES = {
    "events-sdk-js",
    "@ht-sdks/events-sdk-react-native",
    "events-sdk-swift",
    "events-sdk-kotlin",
    "events-sdk-android",
    "events-sdk-flutter",
    "analytics.js",
    "RudderLabs JavaScript SDK",
}

Raw = dict[str, msgspec.Raw]
_fields = msgspec.json.Decoder(Raw)


class Request(msgspec.Struct):
    """One request as it was sent, its body decompressed."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None

    @property
    def kind(self) -> str:
        """The last part of the path, spelled out: `batch`, `track`…"""
        last = self.path.rstrip("/").rsplit("/", 1)[-1]
        return LETTERS.get(last, last)


class Sent(msgspec.Struct):
    """One event as it was sent, with what its request adds."""

    fields: Raw
    envelope: Raw
    request: Request
    peer: str = "127.0.0.1"

    @property
    def message_id(self) -> str | None:
        raw = self.fields.get("messageId")
        return None if raw is None else json.loads(bytes(raw))


def fields(text: bytes) -> Raw:
    return _fields.decode(text)


def sent_events(requests: list[Request]) -> list[Sent]:
    """Every event of these requests in order; of several with one `messageId` the first."""
    found: list[Sent] = []
    for request in requests:
        if request.method != "POST" or "/v1/" not in request.path:
            continue
        if request.kind in BATCHES:
            envelope = fields(request.body)
            texts = msgspec.json.decode(bytes(envelope["batch"]), type=list[msgspec.Raw])
            found += [Sent(fields(bytes(text)), envelope, request) for text in texts]
        elif request.kind in LETTERS.values():
            found.append(Sent(fields(request.body), {}, request))
    first: dict[object, Sent] = {}
    for event in found:
        first.setdefault(event.message_id or id(event), event)
    return list(first.values())


def check(event: Sent, arrived: bytes, *, within: float = 60.0) -> None:
    """Raise AssertionError unless `arrived` is `event` with what the contract adds, no more.

    `within` bounds the seconds that the event may have spent in the proxy.
    """
    got = fields(arrived)
    want = dict(event.fields)
    want.pop("writeKey", None)
    if _missing(want.get("messageId")):
        assert len(_value(got["messageId"])) == 36, "the proxy gives a UUID"
        want["messageId"] = got["messageId"]
    if "type" not in want:
        want["type"] = msgspec.Raw(json.dumps(event.request.kind).encode())
    _check_original(event, want, got)
    _check_sent_at(event, want, got, within)
    _check_context(event, want, got)
    different = {
        key: (_text(want.get(key)), _text(got.get(key)))
        for key in want.keys() | got.keys()
        if _text(want.get(key)) != _text(got.get(key))
    }
    assert not different, f"{event.message_id}: (sent, arrived) differ: {different}"


def _check_original(event: Sent, want: Raw, got: Raw) -> None:
    """`originalTimestamp`: its own, else `timestamp`, else the event's or the batch's `sentAt`."""
    candidates = [
        want.get("originalTimestamp"),
        want.get("timestamp"),
        want.get("sentAt"),
        event.envelope.get("sentAt"),
    ]
    known = [raw for raw in candidates if not _missing(raw)]
    assert known, "these tests send no event without any time"
    assert _time(got["originalTimestamp"]) == _time(known[0])
    want["originalTimestamp"] = got["originalTimestamp"]


def _check_sent_at(event: Sent, want: Raw, got: Raw, within: float) -> None:
    own = want.get("sentAt")
    given = event.envelope.get("sentAt") if _missing(own) else own
    shifted = _time(got["sentAt"])
    if _missing(given):
        spent = (datetime.now(UTC) - shifted).total_seconds()
    else:
        spent = (shifted - _time(given)).total_seconds()
    assert -0.002 <= spent <= within, f"sentAt moved by {spent} s"
    want["sentAt"] = got["sentAt"]


def _check_context(event: Sent, want: Raw, got: Raw) -> None:
    """The batch's context fills in; address and user agent only for what runs at the user's."""
    own = _object(want.get("context"))
    merged = {**_object(event.envelope.get("context")), **own}
    origin = event.request.header("Origin")
    library = _value(merged["library"]).get("name") if "library" in merged else None
    if "ip" not in merged and (origin or library in CLIENT_LIBRARIES):
        merged["ip"] = msgspec.Raw(json.dumps(event.peer).encode())
    agent = event.request.header("User-Agent")
    if "userAgent" not in merged and origin and agent:
        merged["userAgent"] = msgspec.Raw(json.dumps(agent).encode())
    there = _object(got.get("context"))
    texts = {key: _text(raw) for key, raw in merged.items()}
    assert {key: _text(raw) for key, raw in there.items()} == texts
    if "context" in got:
        want["context"] = got["context"]


def write_key(request: Request) -> str:
    """The key by the order of the contract: Basic, body, first batch item, query."""
    basic = request.header("Authorization") or ""
    if basic.startswith("Basic "):
        return b64decode(basic[6:]).decode().partition(":")[0]
    body = fields(request.body) if request.body else {}
    if "writeKey" in body:
        return _value(body["writeKey"])
    if "batch" in body:
        first = msgspec.json.decode(bytes(body["batch"]), type=list[Raw])[0]
        if "writeKey" in first:
            return _value(first["writeKey"])
    return parse_qs(request.query).get("writeKey", [""])[0]


def _missing(raw: msgspec.Raw | None) -> bool:
    return raw is None or bytes(raw) in {b"null", b'""'}


def _text(raw: msgspec.Raw | None) -> str | None:
    return None if raw is None else bytes(raw).decode()


def _value(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw))


def _object(raw: msgspec.Raw | None) -> Raw:
    return fields(bytes(raw)) if raw is not None and bytes(raw).startswith(b"{") else {}


def _time(raw: msgspec.Raw) -> datetime:
    # Python reads six digits of a second; Go sends nine.
    moment = datetime.fromisoformat(_value(raw))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
