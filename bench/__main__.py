"""`make bench`: see the package's docstring, and `--help`."""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import table
from bench.cases import CASES, Case
from bench.disk import fdatasync_ms
from bench.drive import Driver
from bench.measure import Bench
from bench.profiling import lines, profile


def _arguments() -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the proxy.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each load (default 8)")
    parser.add_argument("--case", action="append", choices=names, help="only this one")
    parser.add_argument("--drain", type=int, default=1_000_000, help="events; 0 leaves it out")
    parser.add_argument("--idle", type=int, default=10_000, help="connections; 0 leaves it out")
    parser.add_argument("--backlog", type=int, default=0, help="events, for example 10000000")
    parser.add_argument("--load", choices=["wrk", "own"], default="", help="wrk if installed")
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder on the disk")
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    parser.add_argument("--profile", action="store_true", help="where the CPU time goes, instead")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = _arguments()
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("two cores are needed: one for the server, one for the load")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = [case for case in CASES if not options.case or case.name in options.case]
    options.data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.data.resolve()) as scratch:
        driver = Driver(options.load, Path(scratch))
        bench = Bench(Path(scratch), driver, options.seconds)
        if options.profile:
            for case in chosen:
                print("\n".join(lines(profile(bench, case))), end="\n\n")
            return
        results = _measure(bench, chosen, options)
    rows = table.rows(results)
    about = _about(driver.tool, options)
    print("\n".join(f"{key}: {value}" for key, value in about.items()), end="\n\n")
    print(table.text(rows))
    if options.json is not None:
        options.json.write_text(
            json.dumps({"about": about, "rounds": results, "rows": rows}, indent=1) + "\n"
        )


def _measure(
    bench: Bench, chosen: list[Case], options: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {}

    def add(name: str, figures: dict[str, Any]) -> None:
        results.setdefault(name, []).append(figures)
        shown = figures.get("events_per_second", figures.get("p99"))
        print(f"{time.strftime('%H:%M:%S')} {name}: {shown:,.1f}", file=sys.stderr, flush=True)

    for _ in range(options.rounds):
        add("disk", fdatasync_ms(bench.scratch))
        if any(case.baseline == "floor" for case in chosen):
            add("floor", bench.floor())
        for case in chosen:
            if case.baseline == "http":
                add(table.baseline_name(case), bench.http_baseline(case))
            add(case.name, bench.ingest(case))
    single, batch = CASES[0], CASES[1]
    if options.drain:
        add("drain", bench.drain(options.drain))
    if options.idle:
        add("idle", bench.idle(single, options.idle))
    if options.backlog:
        add("backlog", bench.backlog(batch, options.backlog))
    return results


def _about(tool: str, options: argparse.Namespace) -> dict[str, str]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "commit": commit or "unknown",
        "machine": f"{os.cpu_count()} x {model}, Linux {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "load": f"{tool}, {options.rounds} rounds of {options.seconds:g} s",
    }


if __name__ == "__main__":
    main()
