"""Starting programs, and finding free ports for them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def environment() -> dict[str, str]:
    """This process's, without what would configure the proxy or send traffic elsewhere."""
    ours = ("EDGEPROXY_", "PROJECT_WRITEKEY", "WORKSPACE_REGION")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return kept | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run to the end, at most five minutes."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


async def finish(*command: str | Path, cwd: Path | None = None) -> tuple[int, str]:
    """Run to the end while this loop goes on serving: the exit code and all output."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 45)
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()
