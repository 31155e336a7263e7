"""Reading request bodies within bounds: what is declared, what arrives, what it decompresses to."""

import asyncio
import sys
from collections.abc import Callable

import brotli
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.web_protocol import RequestPayloadError
from isal import isal_zlib
from isal.igzip_lib import IsalError

from edgeproxy.server.answers import RefusedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["BODY_TIMEOUT", "decompress", "read_body"]

#: Seconds that a body may take once its head has arrived.
BODY_TIMEOUT = 30.0
# Nobody sends many members or frames, and each costs memory and time before it holds anything.
_MOST_MEMBERS = 64
# A zstd frame may ask its reader for a window of gigabytes; RFC 8878 recommends to support 8 MiB.
_ZSTD_WINDOW_LOG = 23
_LARGEST_WINDOW = 2**24  # bytes: brotli's (RFC 7932, 9.1)


class _TooLargeError(Exception):
    pass


class _BrokenError(Exception):
    pass


# isal's stubs declare its error as an instance.
_ISAL_ERROR: type[Exception] = IsalError  # type: ignore[assignment]
_BROKEN = (_BrokenError, _ISAL_ERROR, brotli.error, zstd.ZstdError, EOFError)


async def read_body(
    request: web.BaseRequest, max_size: int, *, timeout: float = BODY_TIMEOUT
) -> bytes:
    """Read a body within `timeout` seconds and decompress it.

    Raises:
        RefusedError: with the contract's code.
    """
    declared = request.content_length
    if declared is not None and declared > max_size:
        raise _too_large(max_size)
    content = request.content
    if content.is_eof():
        body = content.read_nowait()  # all of it is here, as it is for most requests
        if len(body) > max_size:
            raise _too_large(max_size)
    else:
        body = await _receive(request, max_size, timeout)
    encoding = request.headers.get("Content-Encoding")
    return body if encoding is None else decompress(body, encoding.strip().lower(), max_size)


async def _receive(request: web.BaseRequest, max_size: int, timeout: float) -> bytes:
    """Read a body that is still on its way."""
    if request.transport is None:  # it went before aiohttp got to it, which then tells nobody
        raise _broken_off()
    try:
        async with asyncio.timeout(timeout):
            # Some clients wait a second for this before they send the body (RFC 9110, 10.1.1).
            expected = request.headers.get(hdrs.EXPECT, "").lower()
            if expected == "100-continue" and request.version >= HttpVersion11:
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0
            return await _read(request.content, max_size)
    except TimeoutError:
        raise RefusedError(
            408, "request_timeout", f"the body took longer than {timeout:.0f} s"
        ) from None
    except (RequestPayloadError, ConnectionError):
        raise _broken_off() from None


async def _read(content: object, max_size: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await content.readany():  # type: ignore[attr-defined]
        size += len(part)
        if size > max_size:
            raise _too_large(max_size)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def decompress(body: bytes, encoding: str, max_size: int) -> bytes:
    """Undo a Content-Encoding; never more than `max_size` bytes are made.

    Raises:
        RefusedError: `unsupported_encoding`, `request_too_large`, or `invalid_json` where the
            compressed data is broken.
        MemoryError: there is not enough to tell.
    """
    if encoding in {"", "identity"}:
        return body
    expand = _DECODERS.get(encoding)
    if expand is None:
        known = ", ".join(sorted(_DECODERS))
        raise RefusedError(
            415, "unsupported_encoding", f"Content-Encoding must be one of {known}, identity"
        )
    try:
        return expand(body, max_size)
    except _TooLargeError:
        raise _too_large(max_size) from None
    except _BROKEN as error:
        # Decoders call data broken, too, when they do not get memory; a client that is told 400
        # throws its events away.
        bytearray(_LARGEST_WINDOW)
        raise RefusedError(400, "invalid_json", f"the {encoding} data is broken: {error}") from None


def _broken_off() -> RefusedError:
    # Also where the client has gone: nobody reads the answer then.
    return RefusedError(400, "bad_request", "the body broke off or is badly framed")


def _too_large(max_size: int) -> RefusedError:
    return RefusedError(413, "request_too_large", f"a request may be at most {max_size} bytes")


def _members(body: bytes, max_size: int, open_member: Callable[[], object]) -> bytes:
    """Decompress concatenated members or frames (RFC 1952, 2.2 and RFC 8878, 3)."""
    made: list[bytes] = []
    size = 0
    while body:
        if len(made) == _MOST_MEMBERS:
            raise _BrokenError(f"it has more than {_MOST_MEMBERS} parts")
        decoder = open_member()
        part = decoder.decompress(body, max_size - size + 1)  # type: ignore[attr-defined]
        size += len(part)
        if size > max_size:
            raise _TooLargeError
        made.append(part)
        if not decoder.eof:  # type: ignore[attr-defined]
            first = len(made) == 1
            raise _BrokenError("it ends too early" if first else "what follows its end is no part")
        body = decoder.unused_data  # type: ignore[attr-defined]
    return b"".join(made)


def _gzip(body: bytes, max_size: int) -> bytes:
    return _members(body, max_size, lambda: isal_zlib.decompressobj(31))


def _deflate(body: bytes, max_size: int) -> bytes:
    # RFC 9110 means zlib's format; some senders leave its two header bytes out.
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _members(body, max_size, lambda: isal_zlib.decompressobj(15 if has_header else -15))


def _brotli(body: bytes, max_size: int) -> bytes:
    decoder = brotli.Decompressor()
    made = [decoder.process(body, output_buffer_limit=max_size + 1)]
    size = len(made[0])
    while size <= max_size and not decoder.is_finished():
        if decoder.can_accept_more_data():
            raise _BrokenError("it ends too early")
        made.append(decoder.process(b"", output_buffer_limit=max_size + 1 - size))
        size += len(made[-1])
    if size > max_size:
        raise _TooLargeError
    return b"".join(made)


def _zstd(body: bytes, max_size: int) -> bytes:
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    return _members(body, max_size, lambda: zstd.ZstdDecompressor(options=options))


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
