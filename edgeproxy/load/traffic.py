"""What is sent: requests as bytes, made of synthetic events or of a file's lines. Pure.

An event is a template with holes for what has to differ (messageId, user, time), so that making
one costs about a microsecond and the traffic can saturate a server from one core.
"""

import base64
import random
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec
from isal import igzip

TYPES = ("track", "page", "identify", "screen", "group", "alias")

_TEMPLATES = 64
_HOLES = {b"@messageId": b"%b", b"@user": b"%b", b"@time": b"%b"}
_WORDS = (
    *("amber", "birch", "cedar", "dune", "ember", "fern", "grove", "harbor", "island"),
    *("juniper", "kettle", "lantern", "meadow", "north", "orchard", "pebble", "quartz"),
    *("river", "stone", "timber", "umber", "valley", "willow", "yarrow", "zephyr"),
)
_STORY = ("Product Viewed", "Product Added", "Cart Viewed", "Checkout Started", "Order Completed")


class Request(msgspec.Struct, frozen=True):
    """One request as it goes over the wire, and how many events it holds."""

    wire: bytes
    events: int


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What synthetic traffic looks like."""

    batch: int = 1
    """Events per request; 1 means one event on its own path, without an envelope."""
    size: int = 1300
    """Bytes of one event. A type's smallest event may be larger."""
    users: int = 1000
    types: tuple[str, ...] = ("track",)
    seed: int | None = None
    """The same seed gives the same users, types and texts; messageIds and times stay new."""


class Target:
    """Where requests go and how they are wrapped. `url` is the base, any prefix included."""

    def __init__(self, url: str, write_key: str, *, gzip: bool = False) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url}: give an address such as http://127.0.0.1:8080")
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self._prefix = parts.path.rstrip("/").removesuffix("/v1/batch").encode()
        self._gzip = gzip
        key = base64.b64encode(f"{write_key}:".encode())
        self._fields = b"".join(
            [
                b"Host: " + parts.netloc.rpartition("@")[2].encode() + b"\r\n",
                b"Authorization: Basic " + key + b"\r\n" if write_key else b"",
                b"Content-Type: application/json\r\n",
                b"Content-Encoding: gzip\r\n" if gzip else b"",
            ]
        )

    def request(self, path: bytes, body: bytes, events: int) -> Request:
        """Wrap a body for `path` (`batch`, `track`, …)."""
        if self._gzip:
            body = igzip.compress(body, 1)
        head = b"POST %b/v1/%b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n"
        return Request(head % (self._prefix, path, self._fields, len(body)) + body, events)


def synthetic(
    target: Target, shape: Shape, clock: Callable[[], float] = time.time
) -> Iterator[Request]:
    """Requests without end. Every event is new: its messageId is unique, its time is now."""
    chance = random.Random(shape.seed)  # noqa: S311  # traffic, not secrets
    choice = templates(shape, chance)
    run_id = random.SystemRandom().getrandbits(64)
    number = 0
    while True:
        now = timestamp(clock())
        events = []
        path = b"batch"
        for _ in range(shape.batch):
            path, template = choice[int(chance.random() * len(choice))]
            user = b"load-%08d" % int(chance.random() * shape.users)
            events.append(template % (b"%016x%016x" % (run_id, number), user, now))
            number += 1
        if shape.batch == 1:
            body = events[0][:-1] + b',"sentAt":"' + now + b'"}'
            yield target.request(path, body, 1)
        else:
            yield target.request(b"batch", _envelope(events, now), len(events))


def from_lines(
    target: Target,
    lines: Iterable[bytes],
    batch: int,
    clock: Callable[[], float] = time.time,
) -> Iterator[Request]:
    """The events of NDJSON lines, each once, as they are; blank lines are passed over.

    Raises:
        ValueError: a line is not a JSON object; the message has its number.

    """
    pending: list[bytes] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        pending.append(text)
        kind = _type_of(text, number)
        if len(pending) == batch:
            yield _request_of(target, pending, kind, clock())
            pending = []
    if pending:
        yield _request_of(target, pending, "", clock())


def _request_of(target: Target, events: list[bytes], kind: str, now: float) -> Request:
    if len(events) == 1 and kind in TYPES:
        return target.request(kind.encode(), events[0], 1)
    return target.request(b"batch", _envelope(events, timestamp(now)), len(events))


class _Typed(msgspec.Struct):
    type: object = None


def _type_of(text: bytes, number: int) -> str:
    try:
        kind = msgspec.json.decode(text, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"line {number} is not an event: {error}") from None
    return kind if isinstance(kind, str) else ""


def _envelope(events: list[bytes], now: bytes) -> bytes:
    return b'{"batch":[' + b",".join(events) + b'],"sentAt":"' + now + b'"}'


def timestamp(seconds: float) -> bytes:
    """RFC 3339 in UTC with milliseconds: 24 bytes."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text[:-6].encode() + b"Z"


def templates(shape: Shape, chance: random.Random) -> list[tuple[bytes, bytes]]:
    """Each a type, as bytes, and an event of it with `%b` for messageId, user and time.

    Filled with 32, 13 and 24 bytes, the event has the shape's size, `sentAt` included where it
    travels alone.
    """
    return [_template(shape, n, chance) for n in range(max(_TEMPLATES, len(shape.types)))]


def _template(shape: Shape, number: int, chance: random.Random) -> tuple[bytes, bytes]:
    kind = shape.types[number % len(shape.types)]
    text = msgspec.json.encode(_event(kind, chance))
    holes = len("@messageId@user@time")
    filled = 32 + len("load-00000000") + len("2026-01-01T00:00:00.000Z")
    if shape.batch == 1:
        filled += len(',"sentAt":"2026-01-01T00:00:00.000Z"')
    padding = shape.size - (len(text) - holes + filled + len(',"note":""'))
    if padding > 0:
        words = " ".join(chance.choices(_WORDS, k=padding // 4 + 1))[:padding].encode()
        text = text[:-2] + b',"note":"' + words + b'"}}'
    text = text.replace(b"%", b"%%")
    for hole, code in _HOLES.items():
        text = text.replace(hole, code, 1)
    return kind.encode(), text


def _event(kind: str, chance: random.Random) -> dict[str, object]:
    """An event as the browser SDK would send it, the holes first and in their order."""
    slug = "-".join(chance.choices(_WORDS, k=2))
    event: dict[str, object] = {
        "messageId": "@messageId",
        "anonymousId": "@user",
        "timestamp": "@time",
        "type": kind,
        "userId": None,
    }
    if kind == "track":
        event["event"] = chance.choice(_STORY)
        event["properties"] = {
            "cart_id": f"c-{chance.randrange(10**6)}",
            "currency": "EUR",
            "value": chance.randrange(100, 20000) / 100,
            "products": [{"product_id": slug, "quantity": 1, "price": 12.5}],
        }
    elif kind in {"page", "screen"}:
        event["name"] = slug
        event["properties"] = {"path": f"/{slug}", "title": slug.title()}
    elif kind in {"identify", "group"}:
        event["traits"] = {"name": slug.title(), "plan": chance.choice(["basic", "plus"])}
    if kind == "group":
        event["groupId"] = f"g-{slug}"
    if kind == "alias":
        event["previousId"] = f"p-{slug}"
    # Last, so that what fills an event up to its size can be added to it.
    event["context"] = {
        "page": {"path": f"/{slug}", "url": f"https://shop.example/{slug}", "title": slug},
        "locale": "en-US",
        "library": {"name": "events-sdk-js-browser", "version": "1.5.1"},
    }
    return event
