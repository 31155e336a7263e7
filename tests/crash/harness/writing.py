"""Events and requests as clients write them: every spelling that JSON has, every encoding, each
path and place for the key. All of it comes from one random generator, so a seed repeats it.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import sys
import zlib
from datetime import UTC, datetime, timedelta

import brotli
import msgspec

from tests.crash.harness.ledger import Sent

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Request", "Writer"]

_VALUES = (
    "1.10", "12345678901234567890", "1e400", "-0", "-0.0", "1E+2", "0.1000000000000000055511151231",
    "true", "false", "null", "[]", "{}", '""', '"\\u00e9\\ud83d\\ude00"', '"é😀"', '"\\/\\"\\\\\\n"',
    '"\\u0000"', '[1, 2 ,3]', '{"a":1,"a":2}', '{"nested":{"deep":[{"x":null}]}}', '"\u2028\u2029"',
    '"<script>&amp;"', "9007199254740993", '[[[[[[1]]]]]]',
)  # fmt: skip
_TYPES = {
    "track": "t", "identify": "i", "page": "p", "screen": "s", "group": "g", "alias": "a",
}  # fmt: skip
_ENCODINGS = {
    "": lambda body: body,
    "identity": lambda body: body,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": zlib.compress,
    "br": lambda body: brotli.compress(body, quality=1),
    "zstd": zstd.compress,
}


class Request(msgspec.Struct):
    """One request, ready to be written, and what is in it."""

    events: list[Sent]
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    chunked: bool

    def bytes(self, *, close: bool) -> bytes:
        head = [f"POST {self.path} HTTP/1.1", "Host: edge.test"]
        head += [f"{name}: {value}" for name, value in self.headers]
        head.append("Connection: close" if close else "Connection: keep-alive")
        if not self.chunked:
            head.append(f"Content-Length: {len(self.body)}")
            return "\r\n".join([*head, "", ""]).encode() + self.body
        head.append("Transfer-Encoding: chunked")
        middle = len(self.body) // 2
        parts = [part for part in (self.body[:middle], self.body[middle:]) if part]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        return "\r\n".join([*head, "", ""]).encode() + chunks + b"0\r\n\r\n"


class Writer:
    """Writes one sender's events: some users, one source."""

    def __init__(
        self, rng: random.Random, name: str, *, source: str, key: str, users: int, padding: int = 0
    ) -> None:
        self._rng = rng
        self._name = name
        self._source = source
        self._key = key
        self._users = [f"{name}-{'ü' * (n % 2)}{n}" for n in range(users)]
        self._padding = padding
        self._count = 0

    def request(self, most: int, now: datetime | None = None) -> Request:
        """Write a request of one to `most` new events."""
        rng = self._rng
        now = now or datetime.now(UTC)
        single = most == 1 or rng.random() < 0.3
        if single:
            type_ = rng.choice(list(_TYPES))
            with_type = rng.random() < 0.7
            event = self._event(now, type_, batch_sent_at=None, with_type=with_type)
            word = type_ if rng.random() < 0.7 else _TYPES[type_]
            return self._enveloped([event], f"/v1/{word}", event.text)
        return self.batch(rng.randint(1, most), now)

    def batch(self, count: int, now: datetime | None = None) -> Request:
        """Write a batch of so many new events."""
        rng = self._rng
        now = now or datetime.now(UTC)
        sent_at = _stamp(now) if rng.random() < 0.7 else None
        events = [
            self._event(now, rng.choice(list(_TYPES)), batch_sent_at=sent_at, with_type=True)
            for _ in range(count)
        ]
        batch = b"[" + rng.choice([b",", b" ,\n "]).join(e.text for e in events) + b"]"
        fields = {"batch": batch}
        if sent_at is not None:
            fields["sentAt"] = json.dumps(sent_at).encode()
        word = rng.choice(["batch", "b", "import"])
        return self._enveloped(events, f"/v1/{word}", _object(fields, rng))

    def _event(
        self, now: datetime, type_: str, *, batch_sent_at: str | None, with_type: bool
    ) -> Sent:
        rng = self._rng
        self._count += 1
        ref = f"{self._name}.{self._count}"
        user = rng.choice(self._users)
        fields = {"ref": json.dumps(ref), "anonymousId": json.dumps(user)}
        if rng.random() < 0.2:  # the other way to name the same user
            fields["userId"] = fields.pop("anonymousId")
            fields["anonymousId"] = rng.choice(["null", '""'])
        if with_type:
            fields["type"] = json.dumps(type_)
        if type_ == "track":
            fields["event"] = rng.choice(['"Ordered"', '"Bestellt\\u00fc"', '"é"'])
        has_id = rng.random() < 0.9
        if has_id:
            fields["messageId"] = json.dumps(f"id-{ref}")
        for key in ("timestamp", "originalTimestamp", "sentAt"):
            if rng.random() < 0.4:
                fields[key] = json.dumps(_stamp(now - timedelta(seconds=rng.uniform(0, 3))))
        if rng.random() < 0.5:
            fields["context"] = rng.choice(['{"ip":"203.0.113.9"}', '{"library":{"name":"x"}}'])
        fields["properties" if type_ in {"track", "page", "screen"} else "traits"] = (
            "{" + ",".join(f'"k{n}":{rng.choice(_VALUES)}' for n in range(rng.randint(0, 5))) + "}"
        )
        if self._padding:
            size = rng.randint(0, self._padding)
            fields["padding"] = json.dumps(rng.randbytes(size // 2).hex())
        text = _object({k: v.encode() for k, v in fields.items()}, rng)
        return Sent(ref, self._source, user, text, type_, has_id, batch_sent_at)

    def _enveloped(self, events: list[Sent], path: str, body: bytes) -> Request:
        rng = self._rng
        encoding = rng.choice(list(_ENCODINGS))
        headers = [("Content-Type", rng.choice(["application/json", "text/plain"]))]
        if encoding:
            headers.append(("Content-Encoding", encoding))
        place = rng.choice(["basic", "body", "query"])
        if place == "basic":
            basic = base64.b64encode(f"{self._key}:".encode()).decode()
            headers.append(("Authorization", f"Basic {basic}"))
        elif place == "body":
            body = b'{"writeKey":%b,%b' % (json.dumps(self._key).encode(), body.lstrip()[1:])
        else:
            path += f"?writeKey={self._key}"
        if rng.random() < 0.2:
            path = "/some/prefix" + path
        packed = _ENCODINGS[encoding](body)
        return Request(events, path, headers, packed, chunked=rng.random() < 0.2)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _object(fields: dict[str, bytes], rng: random.Random) -> bytes:
    """Write an object with its members in any order, with blanks or without."""
    members = [b'"%b":%b' % (key.encode(), text) for key, text in fields.items()]
    rng.shuffle(members)
    if rng.random() < 0.8:
        return b"{" + b",".join(members) + b"}"
    return b" { " + b" ,\n\t".join(members) + b" } "
