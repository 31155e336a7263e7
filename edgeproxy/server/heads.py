"""Heads of requests, parsed once: a client's differ in nothing but the length of their bodies.

aiohttp's parser says what a head means; here only its answer is remembered. What it is asked is the
head with a length of 0, so that it expects no body and is ready for the next.
"""

import asyncio
import re
from collections import OrderedDict

from aiohttp import HttpVersion11, hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from msgspec import Struct
from multidict import MultiMapping

__all__ = ["MAX_HEAD_LINE", "Head", "Heads"]

MAX_HEAD_LINE = 16_384
"""Bytes of one line of a head, for all parsers of the listener."""

#: So many heads are remembered, and no larger ones: 4 MB in all.
_REMEMBERED, _REMEMBERED_SIZE = 1024, 2048
# A length of more digits is more than a request may have.
_LENGTH = re.compile(rb"\r\nContent-Length: ?(\d{1,9})\r\n", re.IGNORECASE)


class Head(Struct):
    """A POST of HTTP/1.1 after which the connection stays open, with a body of a length it tells."""

    path: str
    """Without the query."""
    headers: MultiMapping[str]
    """Their `Content-Length` is not the request's."""
    seen: object = None
    """What whoever takes such requests made of it, for the next one with this head."""


class Heads:
    """Finds what heads mean."""

    def __init__(self) -> None:
        """Begin with none known; needs a running loop."""
        self._known: OrderedDict[bytes, Head | None] = OrderedDict()
        self._begin()

    def look(self, text: bytes) -> tuple[Head, int] | None:
        """What a head means, up to its empty line, and its body's length; None if it is unusual."""
        length = _LENGTH.search(text)
        if length is None:
            return None
        start, end = length.span(1)
        key = b"%b0%b" % (text[:start], text[end:])
        known = self._known
        if key in known:
            head = known[key]
        else:
            head = self._parse(key)
            if len(key) <= _REMEMBERED_SIZE:
                known[key] = head
                if len(known) > _REMEMBERED:
                    known.popitem(last=False)
        return None if head is None else (head, int(length[1]))

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(
            BaseProtocol(loop),
            loop,
            2**16,
            max_line_size=MAX_HEAD_LINE,
            max_field_size=MAX_HEAD_LINE,
            auto_decompress=False,
        )

    def _parse(self, text: bytes) -> Head | None:
        try:
            messages, upgraded, tail = self._parser.feed_data(text)
        except HttpProcessingError:
            self._begin()  # it is of no use after an error
            return None
        if len(messages) != 1 or upgraded or tail:
            self._begin()
            return None
        self._parser.message_consumed()
        message = messages[0][0]
        if message.should_close:
            self._begin()  # it takes nothing after that
        usual = (
            message.method == "POST"
            and message.version == HttpVersion11
            and not message.should_close
            and not message.upgrade
            and not message.chunked
            and hdrs.EXPECT not in message.headers
        )
        return Head(message.url.raw_path, message.headers) if usual else None
