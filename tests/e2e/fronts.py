"""nginx and Caddy with the configurations of ops/, changed only where a test has to: ports of
loopback, a certificate of its own, what is behind them, and how long idle connections are kept.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import trustme
from aiohttp.abc import AbstractResolver

from tests.e2e.conftest import missing
from tests.e2e.processes import environment, free_ports

OPS = Path(__file__).parents[2] / "ops"
NAME = "events.example.com"


class Certificate:
    """For `NAME`, and what trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(NAME)
        self.chain, self.key = folder / "front.crt", folder / "front.key"
        self.chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)


class Front:
    """A running one. Send to `url`, with a session of `client`."""

    def __init__(self, certificate: Certificate, port: int, plain_port: int) -> None:
        self.certificate = certificate
        self.port, self.plain_port = port, plain_port
        self.url = f"https://{NAME}:{port}"

    def client(self, address: str = "127.0.0.1") -> aiohttp.ClientSession:
        """Connects from an address of loopback."""
        connector = aiohttp.TCPConnector(
            ssl=self.certificate.trust, resolver=_Loopback(), local_addr=(address, 0)
        )
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20))


class _Loopback(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict]:
        address = {"host": "127.0.0.1", "port": port, "family": socket.AF_INET}
        return [address | {"hostname": host, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


def changed(text: str, *changes: tuple[str, str]) -> str:
    """A shipped configuration with changes, each of which must find its place exactly once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the configuration"
        text = text.replace(old, new)
    return text


def nginx_files(folder: Path, front: Front, behind: Sequence[int], idle: str) -> list[str]:
    """Writes nginx's configuration; the command that runs it."""
    servers = "\n    ".join(f"server 127.0.0.1:{port};" for port in behind)
    text = changed(
        (OPS / "nginx.conf").read_text(),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{front.port} ssl http2;"),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("server 127.0.0.1:8080;", servers),
        ("keepalive_timeout 60s;", f"keepalive_timeout {idle};"),
        (f"/etc/ssl/{NAME}.crt", str(front.certificate.chain)),
        (f"/etc/ssl/private/{NAME}.key", str(front.certificate.key)),
    )
    (folder / "edgeproxy.conf").write_text(text)
    # Debian's nginx.conf includes such a file from its http block, as this does.
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\n{temporary}include {folder}/edgeproxy.conf;\n}}\n"
    )
    as_root = "user root root;" if Path("/proc/self").owner() == "root" else ""
    return ["-e", "stderr", "-c", str(main), "-g", as_root]


def caddy_files(folder: Path, front: Front, behind: Sequence[int], idle: str) -> list[str]:
    """Writes Caddy's configuration; the command that runs it."""
    certificate = front.certificate
    text = changed(
        (OPS / "Caddyfile").read_text(),
        (
            "\tauto_https disable_redirects\n",
            "\tauto_https disable_redirects\n\tadmin off\n\tdefault_bind 127.0.0.1\n"
            f"\thttps_port {front.port}\n\thttp_port {front.plain_port}\n"
            f"\tstorage file_system {folder}\n",
        ),
        (f"\n{NAME} {{\n", f"\n{NAME} {{\n\ttls {certificate.chain} {certificate.key}\n"),
        ("127.0.0.1:8080 {", " ".join(f"127.0.0.1:{port}" for port in behind) + " {"),
        ("keepalive 60s", f"keepalive {idle}"),
    )
    (folder / "Caddyfile").write_text(text)
    return ["run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


CONFIGURATION = {"nginx": "nginx.conf", "caddy": "Caddyfile"}
FILES: dict[str, Callable[[Path, Front, Sequence[int], str], list[str]]] = {
    "nginx": nginx_files,
    "caddy": caddy_files,
}


@asynccontextmanager
async def open_front(kind: str, folder: Path, *behind: int, idle: str = "60s"):
    """Run one in front of these ports, until the block ends."""
    program = shutil.which(kind) or shutil.which(kind, path="/usr/sbin")
    if program is None:
        missing(f"{kind} is needed (apt-get install {kind})")
    folder = folder / kind
    folder.mkdir()
    front = Front(Certificate(folder), *free_ports(2))
    process = await asyncio.create_subprocess_exec(
        *(program, *FILES[kind](folder, front, behind, idle)),
        env=environment() | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    log = asyncio.create_task(process.stderr.read())
    try:
        await _until_it_listens(front, process, log)
        yield front
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        said = (await log).decode(errors="replace")
    assert process.returncode == 0, said
    assert not re.search(r"\[(emerg|alert|warn)\]|\bWARN\b", said), said


async def _until_it_listens(
    front: Front, process: asyncio.subprocess.Process, log: asyncio.Task[bytes]
) -> None:
    for _ in range(400):
        assert process.returncode is None, (await log).decode()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        except OSError:
            await asyncio.sleep(0.025)  # another process: there is nothing to wait on
        else:
            writer.transport.abort()
            return
    raise AssertionError("it does not listen")
