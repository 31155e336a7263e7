"""Where the server's CPU time goes: py-spy's samples of the proxy under a case's load."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bench.cases import Case
from bench.measure import Bench, Figures
from bench.servers import Proxy, Upstream

_RATE = 250
_SHOWN = 25


def profile(bench: Bench, case: Case) -> Figures:
    """CPU microseconds per event, by the code that spends them and by who asked for it."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise SystemExit("py-spy is not installed: pip install py-spy")
    figures = bench.ingest(case)
    folded = bench.scratch / "profile.folded"
    with (
        bench.buffer() as folder,
        Upstream(bench.scratch) as upstream,
        Proxy(bench.scratch, folder, upstream.url, case.config) as proxy,
    ):
        bench.load(proxy.port, case, 1)
        command = [spy, "record", "--pid", str(proxy.pid), "--format", "raw", "--native"]
        command += ["--rate", str(_RATE), "--duration", str(int(bench.seconds))]
        command += ["--threads", "--output", str(folded)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            bench.load(proxy.port, case, bench.seconds + 1)
    return {"case": case.name, "cpu_us_per_event": figures["cpu_us_per_event"], **_split(folded)}


def _split(folded: Path) -> Figures:
    """Shares of the samples: by innermost frame, and by every function of ours on the stack."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    total = 0
    for line in folded.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        samples = int(count)
        total += samples
        threads[frames[0]] += samples
        own[_short(frames[-1])] += samples
        for frame in {_short(frame) for frame in frames if "edgeproxy/" in frame}:
            within[frame] += samples
    return {
        "samples": total,
        "threads": _shares(threads, total),
        "own": _shares(own, total),
        "within": _shares(within, total),
    }


def _shares(counts: Counter[str], total: int) -> dict[str, float]:
    return {name: n / max(1, total) for name, n in counts.most_common(_SHOWN)}


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
            f"    {share:6.1%} {share * cpu:7.2f} us  {name}"
            for name, share in figures[title].items()
        )
    return out
