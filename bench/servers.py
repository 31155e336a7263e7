"""The processes under measurement, each pinned to a core, and what the kernel says of them."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.drive import KEY, LOAD_CORE

SERVER_CORE = 0
_TICK = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 60.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get_json(url: str) -> Any:
    """The JSON of a GET."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def _cpu_seconds(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


class Process:
    """A process pinned to a core, ended with its context."""

    def __init__(self, core: int, *arguments: str, log: Path, cwd: Path | None = None) -> None:
        self._log = log
        self._command = ["taskset", "-c", str(core), sys.executable, *arguments]
        self._cwd = cwd
        self.started = time.perf_counter()

    def __enter__(self) -> Self:
        self.started = time.perf_counter()
        with self._log.open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._cwd, env=environment
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, url: str) -> float:
        """Seconds from the start until `url` gives any answer below 500."""
        while time.perf_counter() - self.started < _START_SECONDS:
            if self._process.poll() is not None:
                break
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    return time.perf_counter() - self.started
            except OSError:
                pass
            else:
                return time.perf_counter() - self.started
            time.sleep(0.01)
        raise SystemExit(f"it did not start: {' '.join(self._command)}\n{self._log.read_text()}")

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        return _cpu_seconds(Path(f"/proc/{self.pid}/stat"))

    def thread_cpu_seconds(self) -> dict[int, float]:
        """The same for each thread, by its id."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return {int(task.name): _cpu_seconds(task / "stat") for task in tasks}

    def memory_mb(self, *, peak: bool = False) -> float:
        """Resident memory now, or the most it ever was, in MB (10^6 bytes)."""
        name = "VmHWM:" if peak else "VmRSS:"
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 / 1e6
        raise SystemExit("the server has ended")


class Upstream(Process):
    """The trivial upstream, on the load's core."""

    def __init__(self, scratch: Path, status: int = 200) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        arguments = ("-m", "bench.upstream", port, str(status))
        super().__init__(LOAD_CORE, *arguments, log=scratch / "upstream.log")

    def __enter__(self) -> Self:
        super().__enter__()
        self.wait_for(self.url)
        return self

    def counts(self) -> dict[str, int]:
        """Requests, bytes and bytes before compression so far."""
        return dict(get_json(self.url))


class Baseline(Process):
    """The aiohttp handler that only reads and answers."""

    def __init__(self, scratch: Path) -> None:
        self.port = free_port()
        arguments = ("-m", "bench.baseline", str(self.port))
        super().__init__(SERVER_CORE, *arguments, log=scratch / "baseline.log")

    def __enter__(self) -> Self:
        super().__enter__()
        self.wait_for(f"http://127.0.0.1:{self.port}/")
        return self


class Proxy(Process):
    """`edgeproxy run` on a buffer folder, delivering to `endpoint`."""

    def __init__(self, scratch: Path, buffer: Path, endpoint: str, config: str = "") -> None:
        self.port, admin = free_port(), free_port()
        self.admin_url = f"http://127.0.0.1:{admin}"
        self.start_seconds = 0.0
        path = scratch / f"proxy-{self.port}.toml"
        path.write_text(
            f'[hightouch]\nwrite_key = "{KEY}"\nendpoint = "{endpoint}"\n'
            f'[server]\nhost = "127.0.0.1"\nport = {self.port}\n'
            f"[admin]\nport = {admin}\n"
            f'[buffer]\npath = "{buffer}"\nmax_size = "64GiB"\n'
            f'[log]\nlevel = "warning"\n{config}'
        )
        arguments = ("-m", "edgeproxy", "run", "--config", str(path))
        super().__init__(SERVER_CORE, *arguments, log=scratch / "proxy.log")

    def __enter__(self) -> Self:
        super().__enter__()
        self.start_seconds = self.wait_for(f"{self.admin_url}/readyz")
        return self

    def status(self) -> dict[str, Any]:
        """`GET /status`."""
        return dict(get_json(f"{self.admin_url}/status"))

    def totals(self) -> dict[str, int]:
        """The totals of `/status`."""
        return dict(self.status()["totals"])
