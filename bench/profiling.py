"""Where the server's CPU time goes.

How much each thread used is the kernel's word. What it did with it is py-spy's samples of that
thread, less those in which a pool's thread waits for work. py-spy sees Python frames only, so the
time of C code (SQLite, gzip, sockets) is its caller's.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from bench.cases import Case
from bench.measure import Bench, Figures
from bench.servers import Proxy, Upstream

_RATE = 200
_SHOWN = 30
_WAITS = "_worker (concurrent/futures/thread.py)"
_THREAD = re.compile(r"thread \((\d+)\): (\S+)")


def profile(bench: Bench, case: Case) -> Figures:
    """CPU microseconds per event: of each thread, by function and by who asked for it."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise SystemExit("py-spy is not installed: pip install py-spy")
    folded = bench.scratch / "profile.folded"
    with (
        bench.buffer() as folder,
        Upstream(bench.scratch) as upstream,
        Proxy(bench.scratch, folder, upstream.url, case.config) as proxy,
    ):
        bench.load(proxy.port, case, 1)
        events, cpu = proxy.totals()["accepted"], proxy.thread_cpu_seconds()
        bench.load(proxy.port, case)
        events = proxy.totals()["accepted"] - events
        threads = {
            thread: 1e6 * (seconds - cpu.get(thread, 0.0)) / max(1, events)
            for thread, seconds in proxy.thread_cpu_seconds().items()
        }
        command = [spy, "record", "--pid", str(proxy.pid), "--format", "raw", "--threads"]
        command += ["--rate", str(_RATE), "--duration", str(int(bench.seconds))]
        command += ["--output", str(folded)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            bench.load(proxy.port, case, bench.seconds + 1)
    return {"case": case.name, "cpu_us_per_event": sum(threads.values()), **_split(folded, threads)}


def _split(folded: Path, cpu: dict[int, float]) -> Figures:
    """Microseconds per event: by thread, by innermost frame, by every function of ours above it."""
    stacks = list(_stacks(folded))
    samples = Counter[int]()
    names: dict[int, str] = {}
    for thread, name, _, count in stacks:
        samples[thread] += count
        names[thread] = name
    threads: dict[str, float] = defaultdict(float)
    own: dict[str, float] = defaultdict(float)
    within: dict[str, float] = defaultdict(float)
    for thread, spent in cpu.items():
        threads[names.get(thread, "others")] += spent
    for thread, _, frames, count in stacks:
        spent = cpu.get(thread, 0.0) * count / samples[thread]
        own[frames[-1]] += spent
        for frame in {frame for frame in frames if "edgeproxy/" in frame}:
            within[frame] += spent
    return {
        "samples": samples.total(),
        "threads": _most(threads),
        "within": _most(within),
        "own": _most(own),
    }


def _most(spent: dict[str, float]) -> dict[str, float]:
    return dict(sorted(spent.items(), key=lambda item: -item[1])[:_SHOWN])


def _stacks(folded: Path) -> Iterator[tuple[int, str, list[str], int]]:
    """Thread, its name, frames from the outermost in, number of samples."""
    for line in folded.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        head, *frames = stack.split(";")
        found = _THREAD.match(head)
        shown = [_short(frame) for frame in frames]
        if found is not None and shown and shown[-1] != _WAITS:
            yield int(found[1]), re.sub(r"_\d+$", "", found[2]), shown, int(count)


def _short(frame: str) -> str:
    """`name (path/file.py:12)` without the line and the path's beginning."""
    name, _, place = frame.partition(" (")
    place = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({place})" if place else name


def lines(figures: Figures) -> list[str]:
    """The profile for a person."""
    cpu = figures["cpu_us_per_event"]
    out = [f"{figures['case']}: {cpu:.1f} CPU us per event ({figures['samples']} samples)"]
    for title in ("threads", "within", "own"):
        out.append(f"  {title}")
        out.extend(
            f"    {spent / cpu:6.1%} {spent:7.2f} us  {name}"
            for name, spent in figures[title].items()
        )
    return out
