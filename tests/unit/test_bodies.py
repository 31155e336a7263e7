"""Bodies within bounds: what is declared, what arrives, what it decompresses to."""

import gzip
import os
import struct
import subprocess
import sys
import zlib

import brotli
import pytest

from edgeproxy.server.answers import RefusedError
from edgeproxy.server.bodies import decompress
from tests.listening import KEY, basic, track

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def raw_deflate(data):
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


WAYS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
}
ways = pytest.mark.parametrize(("encoding", "compress"), WAYS.values(), ids=WAYS.keys())


def refusal(body, encoding, bound=10**6):
    with pytest.raises(RefusedError) as caught:
        decompress(body, encoding, bound)
    return caught.value.status, caught.value.code


@ways
@pytest.mark.parametrize("size", [0, 1, 4096, 99_999, 100_000])
def test_what_was_compressed_comes_back(encoding, compress, size):
    for data in (b"a" * size, os.urandom(size)):
        assert decompress(compress(data), encoding, 100_000) == data


@ways
def test_one_byte_too_many_is_refused(encoding, compress):
    assert decompress(compress(b"a" * 1000), encoding, 1000) == b"a" * 1000
    assert refusal(compress(b"a" * 1001), encoding, 1000) == (413, "request_too_large")
    assert refusal(compress(b"a" * 10**7), encoding, 1000) == (413, "request_too_large")


@ways
@pytest.mark.parametrize("size", [10, 100_000])
def test_truncated_data_is_refused(encoding, compress, size):
    whole = compress(os.urandom(size))
    for cut in (1, 3, 8, len(whole) // 2):
        assert refusal(whole[:-cut], encoding) == (400, "invalid_json")


@ways
def test_broken_data_is_refused(encoding, compress):
    assert refusal(b"this is not compressed", encoding) == (400, "invalid_json")
    assert refusal(compress(b"abc") + b"trailing", encoding) == (400, "invalid_json")


def test_a_wrong_checksum_is_refused():
    assert refusal(gzip.compress(b"abc")[:-8] + b"\0" * 8, "gzip") == (400, "invalid_json")
    assert refusal(zlib.compress(b"abc")[:-4] + b"\0" * 4, "deflate") == (400, "invalid_json")


def test_several_members_are_one_body():
    assert decompress(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 10) == b"ab"
    assert decompress(zstd.compress(b"a") + zstd.compress(b"b"), "zstd", 10) == b"ab"
    assert refusal(gzip.compress(b"abc") * 4, "gzip", 10) == (413, "request_too_large")


def test_a_skippable_frame_is_skipped():
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"abcd"
    assert decompress(skippable + zstd.compress(b"b"), "zstd", 10) == b"b"


@pytest.mark.timeout(5)
def test_a_body_of_empty_members_is_refused_at_once():
    assert refusal(gzip.compress(b"") * 200_000, "gzip") == (400, "invalid_json")
    assert refusal(zstd.compress(b"") * 400_000, "zstd") == (400, "invalid_json")


def test_a_zstd_window_of_gigabytes_is_refused():
    huge = zstd.compress(b"a" * 100, options={zstd.CompressionParameter.window_log: 27})
    header = bytearray(huge)
    # Magic, a descriptor without single segment, then a window of 2 GiB.
    frame = bytes(header[:4]) + bytes([0x00, (31 - 10) << 3]) + bytes(8)
    assert refusal(frame, "zstd") == (400, "invalid_json")


def test_no_encoding_and_identity_leave_a_body_alone():
    assert decompress(b"abc", "identity", 10) == b"abc"
    assert decompress(b"abc", "", 10) == b"abc"


@ways
async def test_compressed_requests_are_read(proxy, encoding, compress):
    event = track(note="x" * 5000)
    data = compress(__import__("json").dumps(event).encode())
    answer = await proxy.post("/v1/track", data, {"Content-Encoding": encoding.upper()})
    assert answer.status == 200
    assert proxy.events()[0]["note"] == "x" * 5000


@pytest.fixture
async def small(proxy_factory):
    return await proxy_factory(server={"max_request": 2000})


async def test_a_declared_size_beyond_the_bound_is_refused_before_the_body(small):
    answer = await small.raw(
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 2001\r\n\r\n"
    )  # fmt: skip
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert answer.headers["connection"] == "close"


async def test_a_body_that_grows_beyond_the_bound_is_refused(small):
    connection = await small.connect()
    await connection.send(
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"400\r\n%b\r\n" % (b"a" * 1024) * 2
    )
    answer = await connection.answer()
    assert (answer.status, answer.code) == (413, "request_too_large")
    await connection.close()


async def test_a_compressed_body_beyond_the_bound_is_refused(small):
    bomb = gzip.compress(b"a" * 10**6)
    assert len(bomb) < 2000
    answer = await small.post("/v1/track", bomb, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.code) == (413, "request_too_large")


async def test_a_body_at_the_bound_is_read(small):
    event = track(note="")
    import json

    event["note"] = "x" * (2000 - len(json.dumps(event)))
    assert (await small.post("/v1/track", event)).status == 200


async def test_a_chunked_body_without_length_is_read(proxy):
    import json

    data = json.dumps(track()).encode()
    head = f"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(KEY)}\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (data[:7], data[7:50], data[50:]))
    answer = await proxy.raw(
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    )
    assert answer.status == 200
    assert len(proxy.events()) == 1


_BOMB = """
import gzip, resource, sys, brotli
from backports import zstd
from edgeproxy.server.answers import RefusedError
from edgeproxy.server.bodies import decompress
bound = 4 * 2**20
bombs = {"gzip": gzip.compress(bytes(200 * 2**20), 6), "br": brotli.compress(bytes(200 * 2**20), quality=2),
         "zstd": zstd.compress(bytes(200 * 2**20))}
decompress(gzip.compress(b"x"), "gzip", bound)
# Making the bombs took memory of its own, which is free again: fork to measure from here.
import os
for name, bomb in bombs.items():
    pid = os.fork()
    if pid == 0:
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * 4096
        before = resident()
        try:
            decompress(bomb, name, bound)
        except RefusedError as refused:
            assert refused.status == 413
        peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
        os._exit(0 if peak - before < 10 * bound else 1)
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"{name} took too much memory")
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="uses backports.zstd")
def test_a_bomb_costs_the_bound_and_a_window_not_its_size():
    done = subprocess.run(
        [sys.executable, "-c", _BOMB], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_decoder_without_memory_does_not_call_the_data_broken():
    script = """
import resource, brotli
from edgeproxy.server.bodies import decompress
body = brotli.compress(bytes(3_000_000) + bytes(range(256)) * 1000)
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if "VmData" in line)
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**20, used + 2**20))
try:
    decompress(body, "br", 2**22)
except MemoryError:
    print("MemoryError")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "MemoryError\n", done.stderr


@pytest.mark.parametrize("rest", [b"\0", b"x", gzip.compress(b"more")[:-1]])
def test_what_follows_the_end_is_not_called_an_end_too_early(rest):
    with pytest.raises(RefusedError, match="what follows its end is no part"):
        decompress(gzip.compress(b"{}") + rest, "gzip", 1000)
    with pytest.raises(RefusedError, match="it ends too early"):
        decompress(gzip.compress(b"{}")[:-1], "gzip", 1000)
