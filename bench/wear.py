"""What events cost the disk: bytes that they take while they wait, bytes and syncs that they cause.

`python -m bench.wear --folder FOLDER`, a folder on a disk that nothing else uses: its device is
asked, too, what was written to it (the file system's own writes included) and how often flushed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.drive import KEY
from bench.servers import Proxy, Upstream

_SECTOR = 512
_SETTLE_SECONDS = 3.0
#: Events per second, events per request.
_SHAPES = ((1, 1), (10, 1), (100, 1), (1000, 1), (1000, 10), (5000, 50))


class _Counts:
    """Everything counted so far; the difference of two is what happened between them."""

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self.at = time.monotonic()
        self.accepted = proxy.totals()["accepted"]
        self.delivered = proxy.totals()["delivered"]
        self.commits = _commits(proxy)
        self.written = _written(proxy.pid)
        self.sectors, self.flushes = _device(folder)


def _commits(proxy: Proxy) -> int:
    with urllib.request.urlopen(f"{proxy.admin_url}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("edgeproxy_commit_seconds_count"):
                return int(float(line.split()[1]))
    return 0


def _written(pid: int) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def _device(folder: Path) -> tuple[int, int]:
    """Sectors written to the folder's device and flushes of it, both since boot."""
    device = os.stat(folder).st_dev  # noqa: PTH116 - of the folder, not of a link
    stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    fields = stat.read_text().split() if stat.exists() else []
    return (int(fields[6]), int(fields[15])) if len(fields) > 15 else (0, 0)


def _sync(folder: Path) -> None:
    subprocess.run(["sync", "-f", folder], check=True)


def _load(port: int, rate: float, batch: int, size: int, seconds: float) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "edgeproxy", "load", f"http://127.0.0.1:{port}"),
            *("--write-key", KEY, "--rate", str(rate), "--batch", str(batch)),
            *("--size", str(size), "--duration", str(seconds), "--users", "100000"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _wear(scratch: Path, rate: float, batch: int, options: argparse.Namespace) -> str:
    """One line of the table: what a steady rate writes, per event and per day."""
    with Upstream(scratch) as upstream:
        endpoint = "http://127.0.0.1:9" if options.outage else upstream.url
        with (
            tempfile.TemporaryDirectory(dir=scratch) as folder,
            Proxy(scratch, Path(folder), endpoint, options.toml) as proxy,
        ):
            _load(proxy.port, rate, batch, options.size, 2)
            time.sleep(_SETTLE_SECONDS)
            _sync(Path(folder))
            before = _Counts(proxy, Path(folder))
            _load(proxy.port, rate, batch, options.size, options.seconds)
            time.sleep(_SETTLE_SECONDS)
            _sync(Path(folder))
            after = _Counts(proxy, Path(folder))
            held = proxy.status()["buffer"]
    events = after.accepted - before.accepted
    waiting = f"{held['bytes'] / held['events']:.0f}" if held["events"] else "-"
    per_day = 86400 / options.seconds
    return (
        f"{rate:>6g}/s in {batch:>2}: {events} events, {after.delivered - before.delivered} sent;"
        f" written by the process {(after.written - before.written) / events:,.0f} B/event,"
        f" to the device {(after.sectors - before.sectors) * _SECTOR / events:,.0f} B/event,"
        f" {(after.sectors - before.sectors) * _SECTOR * per_day / 1e9:,.1f} GB/day;"
        f" {(after.commits - before.commits) / options.seconds:,.1f} commits/s,"
        f" {(after.flushes - before.flushes) / options.seconds:,.1f} flushes/s;"
        f" on disk {waiting} B/event"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.wear", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"), help="on a disk of its own")
    parser.add_argument("--seconds", type=float, default=30, help="of each rate (default 30)")
    parser.add_argument("--size", type=int, default=1300, help="bytes of an event")
    parser.add_argument("--rate", type=float, action="append", help="only this one")
    parser.add_argument("--outage", action="store_true", help="nothing can be delivered")
    parser.add_argument("--toml", default="", help="added to the proxy's configuration")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wear-", dir=options.folder.resolve()) as scratch:
        for rate, batch in _SHAPES:
            if not options.rate or rate in options.rate:
                print(_wear(Path(scratch), rate, batch, options), flush=True)


if __name__ == "__main__":
    main()
