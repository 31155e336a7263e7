"""One round of each measurement. Every function returns plain figures, ready for JSON."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cases import EVENT_BYTES, Case
from bench.drive import Driver, Load
from bench.servers import SERVER_CORE, Baseline, Proxy, Upstream

_WARM_UP_SECONDS = 1.0
_SETTLE_SECONDS = 2.0
_DRAIN_PATIENCE_SECONDS = 600.0

Figures = dict[str, Any]


class Bench:
    """What every measurement needs: a folder on the disk that is measured, and load."""

    def __init__(self, scratch: Path, driver: Driver, seconds: float) -> None:
        self.scratch = scratch
        self.driver = driver
        self.seconds = seconds

    @contextmanager
    def buffer(self) -> Iterator[Path]:
        """An empty buffer folder, removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="buffer-", dir=self.scratch))
        try:
            yield folder / "buffer"
        finally:
            shutil.rmtree(folder)

    def load(self, port: int, case: Case, seconds: float | None = None) -> Load:
        """Load a server in the shape of a case."""
        return self.driver.run(port, case.batch, case.connections, seconds or self.seconds)

    def http_baseline(self, case: Case) -> Figures:
        """The aiohttp handler under the same load."""
        with Baseline(self.scratch) as server:
            self.load(server.port, case, _WARM_UP_SECONDS)
            cpu, started = server.cpu_seconds(), time.perf_counter()
            load = self.load(server.port, case)
            taken = time.perf_counter() - started
            cpu = server.cpu_seconds() - cpu
            figures = _of_load(load, case)
            return {
                **figures,
                "cpu_us_per_event": 1e6 * cpu / (figures["events_per_second"] * taken),
                "server_core_used": cpu / taken,
            }

    def floor(self) -> Figures:
        """The single loop without HTTP."""
        command = [sys.executable, "-m", "bench.floor", str(self.scratch), str(self.seconds)]
        ran = subprocess.run(
            ["taskset", "-c", str(SERVER_CORE), *command], capture_output=True, check=True
        )
        return dict(json.loads(ran.stdout))

    def ingest(self, case: Case) -> Figures:
        """The proxy under load, delivering meanwhile."""
        with (
            self.buffer() as folder,
            Upstream(self.scratch) as upstream,
            Proxy(self.scratch, folder, upstream.url, case.config) as proxy,
        ):
            self.load(proxy.port, case, _WARM_UP_SECONDS)
            load, used = self._watched(proxy, case)
            time.sleep(_SETTLE_SECONDS)
            totals = proxy.totals()
            delivered, accepted = totals["delivered"], totals["accepted"]
            _compare(delivered, upstream.counts()["plain_bytes"])
            return {
                **_of_load(load, case),
                "accepted": accepted,
                "delivered_share": delivered / max(1, accepted),
                **used,
                "memory_mb": proxy.memory_mb(peak=True),
            }

    def drain(self, events: int) -> Figures:
        """Deliver a backlog, from the first event to the last."""
        with self.buffer() as folder, Upstream(self.scratch) as upstream:
            self.fill(folder, events)
            with Proxy(self.scratch, folder, upstream.url) as proxy:
                began, first = _delivered(proxy, 1)
                cpu = proxy.cpu_seconds()
                ended, last = _delivered(proxy, events)
                _compare(last, upstream.counts()["plain_bytes"])
                return {
                    "events": events,
                    "events_per_second": (last - first) / max(ended - began, 1e-9),
                    "start_seconds": proxy.start_seconds,
                    "cpu_us_per_event": 1e6 * (proxy.cpu_seconds() - cpu) / max(1, last - first),
                    "memory_mb": proxy.memory_mb(peak=True),
                }

    def idle(self, case: Case, connections: int) -> Figures:
        """What idle connections cost, on top of a load."""
        with (
            self.buffer() as folder,
            Upstream(self.scratch) as upstream,
            Proxy(self.scratch, folder, upstream.url) as proxy,
        ):
            without = self.load(proxy.port, case)
            before = proxy.memory_mb(peak=True)
            held = [_idle_connection(proxy.port) for _ in range(connections)]
            with_them = self.load(proxy.port, case)
            after = proxy.memory_mb(peak=True)
            lost = sum(_is_closed(connection) for connection in held)
            for connection in held:
                connection.close()
            return {
                "connections": connections,
                "closed_by_server": lost,
                "memory_mb_more": after - before,
                "memory_mb": after,
                "events_per_second_without": _of_load(without, case)["events_per_second"],
                "events_per_second": _of_load(with_them, case)["events_per_second"],
            }

    def backlog(self, case: Case, events: int) -> Figures:
        """Ingest while nothing can be delivered, on top of a backlog and into an empty buffer.

        The backlog's files stay until both are done: in a virtual machine, memory that the page
        cache takes for the first time is slower, and both have to take it.
        """
        with Upstream(self.scratch, status=503) as upstream, self.buffer() as folder:
            self.fill(folder, events)
            figures = self._ingest_only(case, folder, upstream)
            with self.buffer() as empty:
                without = self._ingest_only(case, empty, upstream)
        return {
            **figures,
            "events": events,
            "events_per_second_without": without["events_per_second"],
            "start_seconds_without": without["start_seconds"],
            "memory_mb_without": without["memory_mb"],
            "cpu_us_per_event_without": without["cpu_us_per_event"],
        }

    def _ingest_only(self, case: Case, folder: Path, upstream: Upstream) -> Figures:
        with Proxy(self.scratch, folder, upstream.url) as proxy:
            self.load(proxy.port, case, _WARM_UP_SECONDS)
            load, used = self._watched(proxy, case)
            return {
                **_of_load(load, case),
                **used,
                "start_seconds": proxy.start_seconds,
                "memory_mb": proxy.memory_mb(peak=True),
            }

    def _watched(self, proxy: Proxy, case: Case) -> tuple[Load, Figures]:
        """Load the proxy; what it used meanwhile.

        A busy server that got less than its whole core shared it with something else.
        """
        before, cpu = proxy.totals()["accepted"], proxy.cpu_seconds()
        started = time.perf_counter()
        load = self.load(proxy.port, case)
        taken = time.perf_counter() - started
        cpu, accepted = proxy.cpu_seconds() - cpu, proxy.totals()["accepted"] - before
        return load, {
            "cpu_us_per_event": 1e6 * cpu / max(1, accepted),
            "server_core_used": cpu / taken,
        }

    def fill(self, folder: Path, events: int) -> None:
        """Put events into a buffer, directly."""
        command = [sys.executable, "-m", "bench.fill", str(folder), str(events)]
        subprocess.run(command, check=True)


def _of_load(load: Load, case: Case) -> Figures:
    return {
        "requests_per_second": load.requests_per_second,
        "events_per_second": load.requests_per_second * case.batch,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "failed": load.failed,
        "load_core_busy": load.core_busy,
    }


def _compare(delivered: int, plain_bytes: int) -> None:
    """The proxy's own count must agree with what the upstream saw."""
    if plain_bytes < delivered * EVENT_BYTES * 0.95:
        raise SystemExit(
            f"the proxy counts {delivered} events as delivered, "
            f"but the upstream received only {plain_bytes} bytes"
        )


def _delivered(proxy: Proxy, at_least: int) -> tuple[float, int]:
    """When that many events were delivered, and how many it were by then."""
    deadline = time.perf_counter() + _DRAIN_PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        delivered = proxy.totals()["delivered"]
        if delivered >= at_least:
            return time.perf_counter(), delivered
        time.sleep(0.02)
    raise SystemExit(f"only {delivered} events were delivered in {_DRAIN_PATIENCE_SECONDS:g} s")


def _idle_connection(port: int) -> socket.socket:
    """A kept-alive connection that has had one answer."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
        raise SystemExit("GET /healthz was not answered 200")
    return connection


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
