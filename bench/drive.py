"""Puts load on a server: with wrk where it is installed, else with the project's own `load`."""

import base64
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.cases import EVENT_BYTES, USERS
from edgeproxy.load import Shape
from edgeproxy.load.traffic import templates, timestamp

KEY = "bench-key"
LOAD_CORE = 1
_SCRIPT = Path(__file__).with_name("events.lua")


@dataclass(frozen=True)
class Load:
    """What one run of load saw."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    core_busy: float
    """Share of the load's core that was in use: near 1, the load was the bottleneck."""


class Driver:
    """Runs loads of a given shape. `tool` is "wrk" or "own"."""

    def __init__(self, tool: str, scratch: Path) -> None:
        if tool == "wrk" and shutil.which("wrk") is None:
            raise SystemExit("wrk is not installed: apt-get install wrk, or --load own")
        self.tool = tool or ("wrk" if shutil.which("wrk") else "own")
        self._scratch = scratch

    def run(self, port: int, batch: int, connections: int, seconds: float) -> Load:
        """Load the server on `port` for `seconds`."""
        busy, total = _core_ticks()
        if self.tool == "wrk":
            result = self._wrk(port, batch, connections, seconds)
        else:
            result = self._own(port, batch, connections, seconds)
        busy_after, total_after = _core_ticks()
        share = (busy_after - busy) / max(1, total_after - total)
        return Load(*result, core_busy=share)

    def _wrk(
        self, port: int, batch: int, connections: int, seconds: float
    ) -> tuple[float, float, float, int]:
        traffic = self._scratch / "traffic.lua"
        traffic.write_bytes(_lua_traffic(batch))
        out = _pinned(
            *("wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "30s"),
            *("-s", str(_SCRIPT), f"http://127.0.0.1:{port}"),
            env={"BENCH_TRAFFIC": str(traffic)},
        )
        line = next(line for line in out.splitlines() if line.startswith("JSON "))
        seen = json.loads(line[5:])
        rate = seen["requests"] / seen["seconds"]
        return rate, seen["p50_ms"], seen["p99_ms"], seen["failed"]

    def _own(
        self, port: int, batch: int, connections: int, seconds: float
    ) -> tuple[float, float, float, int]:
        out = _pinned(
            *(sys.executable, "-m", "edgeproxy", "load", f"http://127.0.0.1:{port}", "--json"),
            *("--write-key", KEY, "--batch", str(batch), "--connections", str(connections)),
            *("--duration", str(seconds), "--size", str(EVENT_BYTES), "--users", str(USERS)),
        )
        seen = json.loads(out)
        latency = seen["latency_ms"]
        return seen["requests_per_second"], latency["p50"], latency["p99"], seen["failed"]


def _pinned(*command: str, env: dict[str, str] | None = None) -> str:
    """Run on the load's core; its output. Failed requests are in what it reports."""
    ran = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *command],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if "requests" not in ran.stdout:
        raise SystemExit(f"{command[0]} failed: {ran.stderr or ran.stdout}")
    return ran.stdout


def _lua_traffic(batch: int) -> bytes:
    shape = Shape(batch=batch, size=EVENT_BYTES, users=USERS)
    now = timestamp(time.time())
    quoted = []
    for _, template in templates(shape, random.Random(1)):
        filled = template % (b"\0", b"\0", now)
        if batch == 1:
            filled = filled[:-1] + b',"sentAt":"' + now + b'"}'
        pieces = filled.split(b"\0")
        quoted.append(b"{" + b",".join(_lua_quote(piece) for piece in pieces) + b"}")
    return b"return {batch=%d,users=%d,run=%b,authorization=%b,tail=%b,templates={\n%b}}\n" % (
        batch,
        USERS,
        _lua_quote(b"%016x" % random.SystemRandom().getrandbits(64)),
        _lua_quote(b"Basic " + base64.b64encode(f"{KEY}:".encode())),
        _lua_quote(b'],"sentAt":"' + now + b'"}'),
        b",\n".join(quoted),
    )


def _lua_quote(text: bytes) -> bytes:
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _core_ticks() -> tuple[int, int]:
    """Busy and all clock ticks of the load's core since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{LOAD_CORE}":
            ticks = [int(field) for field in fields[:8]]
            return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    return 0, 1
