"""The load generator: its HTTP, its traffic, its figures and its command."""

import asyncio
import gzip
import json
import signal
import sys
from contextlib import asynccontextmanager

import msgspec
import pytest
from click.testing import CliRunner

from edgeproxy.cli.load import command
from edgeproxy.load import Plan, Report, Shape, Target, from_lines, run, synthetic
from edgeproxy.load.client import MAX_ANSWER, AnswerReader, Connection, UnreadableAnswerError
from edgeproxy.load.report import quantile
from edgeproxy.load.traffic import TYPES
from edgeproxy.sandbox import Faults, Sandbox

KEY = "key-1"
TARGET = Target("http://127.0.0.1:1/prefix/", KEY)


def body_of(wire):
    return wire.partition(b"\r\n\r\n")[2]


def events_of(request):
    decoded = msgspec.json.decode(body_of(request.wire))
    return decoded.get("batch", [decoded])


ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True)),
    (b"HTTP/1.1 503 No\r\nconnection: Close\r\ncontent-length:0\r\n\r\n", (503, b"", False)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: 1\r\n\r\n",
        (200, b"abcde", True),
    ),
]


@pytest.mark.parametrize(("wire", "expected"), ANSWERS)
def test_an_answer_is_read_however_the_bytes_are_cut(wire, expected):
    for size in (1, 7, len(wire)):
        reader = AnswerReader()
        found = []
        for start in range(0, len(wire), size):
            reader.feed(wire[start : start + size])
            found.append(reader.answer())
        assert found[-1] == expected
        assert found[:-1] == [None] * (len(found) - 1)


def test_an_answer_without_a_length_ends_with_its_connection():
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    assert reader.answer() is None
    reader.close()
    assert reader.answer() == (200, b"all of it", False)


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_answer_is_refused(wire):
    reader = AnswerReader()
    reader.feed(wire)
    with pytest.raises(UnreadableAnswerError):
        reader.answer()


def test_an_answer_too_large_is_refused():
    with pytest.raises(UnreadableAnswerError, match="too large"):
        AnswerReader().feed(b"x" * (MAX_ANSWER + 1))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_synthetic_events_have_the_size_asked_for_and_what_the_proxy_asks_of_them(kind, batch):
    shape = Shape(batch=batch, size=1300, types=(kind,), users=5)
    request = next(synthetic(TARGET, shape, clock=lambda: 1_789_995_200.0))
    path = b"batch" if batch > 1 else kind.encode()
    assert request.wire.startswith(b"POST /prefix/v1/" + path + b" HTTP/1.1\r\n")
    assert request.events == batch
    for event in events_of(request):
        assert event["type"] == kind
        assert event["timestamp"] == "2026-09-21T12:53:20.000Z"
        assert event["anonymousId"].startswith("load-")
        assert ("event" in event) == (kind == "track")
    if batch == 1:
        assert len(body_of(request.wire)) == 1300
    else:
        raw = msgspec.json.decode(body_of(request.wire), type=dict[str, msgspec.Raw])
        assert [len(r) for r in msgspec.json.decode(raw["batch"], type=list[msgspec.Raw])] == [
            1300
        ] * 3


def test_message_ids_are_unique_across_runs_of_the_same_seed():
    shape = Shape(batch=50, seed=7)
    runs = [synthetic(TARGET, shape), synthetic(TARGET, shape)]
    events = [event for source in runs for _ in range(20) for event in events_of(next(source))]
    assert len({event["messageId"] for event in events}) == 2000
    users = [event["anonymousId"] for event in events]
    assert users[:1000] == users[1000:]
    assert len(set(users)) > 500


def test_bodies_are_compressed_on_request():
    target = Target("http://127.0.0.1:1", KEY, gzip=True)
    wire = next(synthetic(target, Shape(batch=10))).wire
    assert b"Content-Encoding: gzip\r\n" in wire
    assert len(json.loads(gzip.decompress(body_of(wire)))["batch"]) == 10


def test_lines_of_a_file_are_sent_as_they_are():
    lines = [b'{"type":"page","n":1.10}\n', b"\n", b'{"type":"odd"}\n', b'{"type":"track"}']
    single = list(from_lines(TARGET, lines, batch=1))
    assert [r.wire.split()[1] for r in single] == [
        b"/prefix/v1/page",
        b"/prefix/v1/batch",
        b"/prefix/v1/track",
    ]
    assert body_of(single[0].wire) == b'{"type":"page","n":1.10}'
    batches = list(from_lines(TARGET, lines, batch=2))
    assert [r.events for r in batches] == [2, 1]
    assert b'"n":1.10' in batches[0].wire


@pytest.mark.parametrize("line", [b"{", b"[1]", b"[" * 5000])
def test_a_line_that_is_no_event_is_named(line):
    with pytest.raises(ValueError, match="line 2 is not an event"):
        list(from_lines(TARGET, [b"{}", line], batch=1))


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="give an address"):
        Target(url, KEY)


def test_quantiles_are_of_the_nearest_rank():
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, q) for q in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert quantile([3.0], 0.5) == 3.0


def test_a_report_without_answers_can_be_printed():
    assert Report().lines()
    assert Report().summary()["latency_ms"]["p50"] is None


async def measured(sandbox, plan, shape=None, url_suffix=""):
    report = Report()
    async with sandbox.serve() as url:
        target = Target(url + url_suffix, KEY)
        await run(target, synthetic(target, shape or Shape()), plan, report)
    return report


async def test_a_run_sends_the_number_of_events_asked_for():
    sandbox = Sandbox(KEY)
    report = await measured(sandbox, Plan(count=200, connections=4), Shape(batch=10), "/a/prefix")
    assert len({arrival.message_id for arrival in sandbox.events}) == 200
    assert report.answers == {200: 20}
    assert (report.events_accepted, report.failed) == (200, 0)
    assert report.summary()["latency_ms"]["max"] > 0


async def test_a_run_keeps_the_rate_asked_for():
    report = await measured(Sandbox(KEY), Plan(rate=200, duration=0.5, connections=2))
    assert 90 <= report.events_accepted <= 100
    assert report.seconds > 0.4


async def test_answers_other_than_2xx_and_dropped_connections_count_as_failed():
    sandbox = Sandbox(KEY)
    sandbox.faults = Faults(status=503)
    report = await measured(sandbox, Plan(count=5, connections=1))
    assert (report.answers, report.failed, report.events_accepted) == ({503: 5}, 5, 0)
    sandbox = Sandbox(KEY)
    sandbox.faults = Faults(drop="before")
    report = await measured(sandbox, Plan(count=2, connections=2))
    assert report.failed == 2
    assert not report.answers


async def test_a_request_without_an_answer_is_given_up_after_the_timeout():
    sandbox = Sandbox(KEY)
    sandbox.faults = Faults(blackhole=True)
    report = await measured(sandbox, Plan(count=1, connections=1, timeout=0.1))
    assert report.errors == {"timeout": 1}


@asynccontextmanager
async def serve_answers(answer):
    """A server that gives every request the same answer; yields its port."""
    ended = []

    async def answer_each(reader, writer):
        ended.append(asyncio.Event())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                await reader.readexactly(length)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.transport.abort()
            ended[-1].set()

    async with await asyncio.start_server(answer_each, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for connection in ended:
            await connection.wait()


async def test_events_that_a_200_says_were_rejected_are_counted():
    body = b'{"success":true,"accepted":1,"rejected":[{"index":0},{"index":2}]}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with serve_answers(answer) as port:
        target = Target(f"http://127.0.0.1:{port}", KEY)
        report = Report()
        await run(target, synthetic(target, Shape(batch=3)), Plan(count=6, connections=1), report)
    assert (report.events_accepted, report.events_rejected, report.failed) == (2, 4, 0)


async def test_a_connection_the_server_means_to_close_is_not_used_again():
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with serve_answers(answer) as port:
        connection = await Connection.open("127.0.0.1", port, None)
        wire = next(synthetic(TARGET, Shape())).wire
        assert (await connection.request(wire)).status == 200
        assert not connection.usable
        with pytest.raises(ConnectionResetError):
            await connection.request(wire)


async def test_cancelling_a_run_leaves_what_was_measured():
    report = Report()
    enough = asyncio.Event()
    sandbox = Sandbox(KEY, on_event=lambda _: enough.set())
    async with sandbox.serve() as url:
        target = Target(url, KEY)
        sending = asyncio.create_task(run(target, synthetic(target, Shape()), Plan(), report))
        await enough.wait()
        while not report.answers:  # noqa: ASYNC110  # the answer follows the event
            await asyncio.sleep(0.001)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert report.answers[200] >= 1
    assert report.seconds > 0


async def load(*arguments):
    code = "from edgeproxy.cli.load import command; command()"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", code, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_command_reports_as_json_and_exits_0():
    sandbox = Sandbox(KEY)
    async with sandbox.serve() as url:
        process = await load(url, "--write-key", KEY, "--count", "20", "--json")
        out, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["answers"] == {"200": 20}


async def test_the_command_exits_1_when_a_request_failed():
    async with Sandbox("another").serve() as url:
        process = await load(url, "--write-key", KEY, "--count", "3")
        out, err = await process.communicate()
    assert process.returncode == 1
    assert b"3 x 401" in out
    assert b"name a write key of the proxy's with --write-key" in err


async def test_the_command_reports_what_it_has_when_interrupted():
    enough = asyncio.Event()
    sandbox = Sandbox(KEY, on_event=lambda _: enough.set())
    async with sandbox.serve() as url:
        process = await load(url, "--write-key", KEY, "--duration", "50", "--json")
        await enough.wait()
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert json.loads(out)["requests"] >= 0
    assert process.returncode == 0


async def test_the_command_sends_a_file(tmp_path):
    path = tmp_path / "events.ndjson"
    path.write_bytes(b'{"type":"page"}\n{"type":"track"}\n')
    sandbox = Sandbox(KEY)
    async with sandbox.serve() as url:
        process = await load(url, "--write-key", KEY, "--file", str(path))
        await process.communicate()
    assert process.returncode == 0
    assert sorted(arrival.type for arrival in sandbox.events) == ["page", "track"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 2, "give an address"),
        (["http://127.0.0.1:1", "--types", "purchase"], 2, "choose from"),
        (["http://127.0.0.1:1"], 1, "Cannot connect"),
    ],
)
def test_the_command_says_what_is_wrong_with_what_it_was_asked(arguments, code, says):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == code
    assert says in result.output
