"""Heads of requests: parsed once, whatever the length of the body; only the usual ones are taken."""

import pytest

from edgeproxy.server.heads import Heads

HEAD = b"POST /v1/track?x=1 HTTP/1.1\r\nHost: x\r\nX-A: b\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
async def heads():
    return Heads()


async def test_a_head_means_the_same_with_every_length(heads):
    first, length = heads.look(HEAD % 7)
    again, other = heads.look(HEAD % 123_456)
    assert again is first
    assert (length, other) == (7, 123_456)
    assert (first.path, first.headers["x-a"]) == ("/v1/track", "b")


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"POST", b"GET") % 5,
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") % 5,
        HEAD.replace(b"X-A: b", b"Connection: close") % 5,
        HEAD.replace(b"X-A: b", b"Expect: 100-continue") % 5,
        HEAD.replace(b"X-A: b", b"Transfer-Encoding: chunked") % 5,
        HEAD.replace(b"X-A: b", b"Content-Length: 5") % 5,
        HEAD.replace(b"X-A: b", b"Content-Length: 0") % 0,
        HEAD.replace(b"X-A: b", b"Connection: upgrade\r\nUpgrade: websocket") % 5,
        HEAD.replace(b"X-A: b", b"X-A : b") % 5,
        HEAD.replace(b"%d", b"-5"),
        HEAD.replace(b"%d", b"5, 5"),
        HEAD.replace(b"%d", b"9999999999"),
        HEAD.replace(b"Content-Length: %d\r\n", b""),
        b"hello\r\nContent-Length: 5\r\n\r\n",
    ],
)
async def test_what_is_unusual_is_left_to_aiohttp_and_spoils_nothing(heads, head):
    assert heads.look(head) is None
    assert heads.look(head) is None, "also the second time"
    found = heads.look(HEAD.replace(b"X-A: b", b"X-New: b") % 5)
    assert found is not None
    assert found[1] == 5


async def test_what_is_remembered_is_bounded(heads):
    for number in range(3000):
        assert heads.look(HEAD.replace(b"X-A: b", b"X-A: %d" % number) % 5) is not None
    assert heads.look(HEAD.replace(b"X-A: b", b"X-A: " + b"b" * 10_000) % 5) is not None
    assert len(heads._known) == 1024
    assert max(map(len, heads._known)) < 200
