"""What docs/deploying.md and docs/operations.md show, run: TLS and a renewal, two instances on one
port, a buffer restored from a copy.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import socket
import ssl
import sys
import tomllib
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from edgeproxy.sandbox import Sandbox
from edgeproxy.sandbox.faults import Faults
from tests.e2e.conftest import missing
from tests.e2e.processes import environment, finish, free_ports
from tests.e2e.proxy import HIGHTOUCH_KEY, KEY, Proxy, event
from tests.e2e.test_process import arrived, until

PAGE = (Path(__file__).parents[2] / "docs/deploying.md").read_text()
NAME = "events.example.com"
#: sd_listen_fds(3), as systemd would do it: descriptor 3, LISTEN_PID the process's own.
_ACTIVATED = 'exec 3<&"$HELD"; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'


def shown(language: str, containing: str) -> str:
    """The page's one block of code with some text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block


@pytest.fixture
async def sandbox():
    return Sandbox(HIGHTOUCH_KEY)


@pytest.fixture
async def proxy(tmp_path, sandbox):
    async with sandbox.serve() as endpoint:
        proxy = Proxy(tmp_path, endpoint)
        yield proxy
        await proxy.close()


@asynccontextmanager
async def running(proxy: Proxy, *arguments: str, held: socket.socket | None = None):
    """`edgeproxy run` on the proxy's configuration, with the socket that is held for it, if any."""
    command = [sys.executable, "-m", "edgeproxy", "run", "--config", str(proxy.config), *arguments]
    if held is not None:
        command = ["bash", "-c", _ACTIVATED, "bash", *command]
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment() | ({} if held is None else {"HELD": str(held.fileno())}),
        pass_fds=() if held is None else (held.fileno(),),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ready(proxy: Proxy, port: int) -> None:
    """Wait for an admin port."""
    for _ in range(400):
        try:
            async with proxy.session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.025)  # another process
    raise AssertionError("it did not become ready")


async def made_certificate(folder: Path) -> None:
    for program in ("openssl", "curl"):
        if shutil.which(program) is None:
            missing(f"{program} is needed (apt-get install {program})")
    code, output = await finish("bash", "-ec", shown("sh", "openssl req"), cwd=folder)
    assert code == 0, output


async def test_tls_as_shown_and_a_renewal_that_refuses_no_connection(proxy, sandbox):
    """One held socket over two processes; a client on new connections all the while."""
    folder = proxy.folder
    await made_certificate(folder)
    tables = tomllib.loads(shown("toml", "tls_cert"))
    assert tables["server"].pop("port") == 8443
    proxy.change(**tables)
    asking = shown("sh", "--resolve").replace("8443", str(proxy.port))
    sent: list[int] = []
    failed: list[Exception] = []

    async def client(trusted: ssl.SSLContext) -> None:
        while True:
            url, number = f"https://127.0.0.1:{proxy.port}/v1/batch", len(sent) + len(failed)
            body = {"batch": [event(number)], "writeKey": KEY}
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.post(url, json=body, ssl=trusted, server_hostname=NAME) as answer,
                ):
                    assert answer.status == 200
            except (aiohttp.ClientError, AssertionError) as error:
                failed.append(error)
            else:
                sent.append(number)
            await asyncio.sleep(0.01)

    with socket.create_server(("127.0.0.1", proxy.port), backlog=4096) as held:
        trusted = ssl.create_default_context(cafile=folder / "tls_cert.pem")
        async with running(proxy, held=held):
            await ready(proxy, proxy.admin_port)
            _, output = await finish("bash", "-c", asking, cwd=folder)
            assert '{"status":"ready"}' in output
            assert re.search(rf"subject=CN ?= ?{NAME}", output)
            sending = asyncio.create_task(client(trusted))
            await made_certificate(folder)
            trusted.load_verify_locations(folder / "tls_cert.pem")
            await until(lambda: len(sent) > 10, "requests")
        first = len(sent)
        async with running(proxy, held=held):
            await until(lambda: len(sent) > first + 10, "requests after the restart")
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            old_is_gone = ssl.create_default_context(cafile=folder / "tls_cert.pem")
            async with proxy.session.get(
                f"https://127.0.0.1:{proxy.port}/readyz", ssl=old_is_gone, server_hostname=NAME
            ) as answer:
                assert answer.status == 200, "the new certificate is in use"
            await until(
                lambda: {f"m{n}" for n in sent} <= set(arrived(sandbox)), "all that was sent"
            )
    assert failed == []


def two_ports() -> int:
    """The first of two free ports in a row."""
    while True:
        (first,) = free_ports(1)
        with suppress(OSError), socket.create_server(("127.0.0.1", first + 1)):
            return first


async def test_two_instances_share_a_port_and_one_goes_on_without_the_other(proxy, sandbox):
    numbers = iter(range(100_000))
    first_admin = two_ports()
    proxy.change(admin={"port": first_admin})

    async def post(times: int) -> None:
        for _ in range(times):
            async with aiohttp.ClientSession() as session:  # a connection each
                body = {"batch": [event(next(numbers))], "writeKey": KEY}
                async with session.post(f"{proxy.url}/v1/batch", json=body) as answer:
                    assert answer.status == 200

    async def accepted(instance: int) -> int:
        url = f"http://127.0.0.1:{first_admin + instance - 1}/status"
        async with proxy.session.get(url) as answer:
            return (await answer.json())["totals"]["accepted"]

    async with running(proxy, "--instance", "1"):
        async with running(proxy, "--instance", "2"):
            for number in (1, 2):
                await ready(proxy, first_admin + number - 1)
            await post(40)
            shares = await accepted(1), await accepted(2)
            assert sum(shares) == 40
            assert min(shares) > 0
            assert sorted(path.name for path in (proxy.folder / "buffer").iterdir()) == ["1", "2"]
        await post(20)
        assert await accepted(1) == shares[0] + 20
        await until(lambda: len(set(arrived(sandbox))) == 60, "all events")
    assert len(arrived(sandbox)) == 60


async def test_a_restored_copy_sends_everything_in_it_again_with_the_same_ids(proxy, sandbox):
    sandbox.faults = Faults(status=503)
    await proxy.start()
    assert await proxy.send(*[event(n) for n in range(5)]) == 200
    assert await proxy.send({"type": "track", "userId": "u"}) == 200, "a dead letter"
    assert await proxy.stop() == 0
    buffer, copy = proxy.folder / "buffer", proxy.folder / "copy"
    shutil.copytree(buffer, copy, ignore=shutil.ignore_patterns("reserve"))
    sandbox.faults = Faults()
    await proxy.start()
    assert await proxy.send(event(5)) == 200
    await until(lambda: len(arrived(sandbox)) == 6, "delivery")
    assert await proxy.stop() == 0
    shutil.rmtree(buffer)
    copy.rename(buffer)
    await proxy.start()
    await until(lambda: len(arrived(sandbox)) == 11, "the copy's events once more")
    assert sorted(arrived(sandbox)[6:]) == [f"m{n}" for n in range(5)]
    assert (await proxy.status())["dead_letters"]["count"] == 1
    assert await proxy.stop() == 0
