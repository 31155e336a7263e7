"""Medians over the rounds, held against the bounds, as a table."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bench import cases
from bench.cases import CASES, Case

Row = tuple[str, str, str, str]
Rounds = Mapping[str, list[dict[str, Any]]]

_UNDISTURBED = 0.9
"""A baseline that saturates its core gets at least this share of it on a machine left alone."""

_HEAD: Row = ("measured", "value", "bound", "")


def middle(rounds: Sequence[Mapping[str, Any]], key: str) -> float:
    """The median of a figure over the rounds."""
    return median(float(figures[key]) for figures in rounds)


def rows(results: Rounds) -> list[Row]:
    """One row for each figure that has a bound, and some that explain it."""
    out: list[Row] = []
    sync = middle(results["disk"], "p99")
    sync_half = middle(results["disk"], "p50")
    out.append(("disk: fdatasync of 16 KiB", f"p50 {sync_half:.2f} ms, p99 {sync:.2f} ms", "", ""))
    for case in CASES:
        if case.name in results:
            out.extend(_case_rows(case, results, sync))
    if "drain" in results:
        out.extend(_drain_rows(results))
    if "idle" in results:
        out.extend(_idle_rows(results["idle"]))
    if "backlog" in results:
        out.extend(_backlog_rows(results["backlog"]))
    return out


def _case_rows(case: Case, results: Rounds, sync_p99: float) -> Iterable[Row]:
    name, rounds = case.name, results[case.name]
    rate = middle(rounds, "events_per_second")
    yield (f"{name}: events/s", f"{rate:,.0f}", "", "")
    used, busy = middle(rounds, "server_core_used"), middle(rounds, "load_core_busy")
    yield (f"{name}: cores in use", f"server's {used:.0%}, load's {busy:.0%}", "", "")
    baseline = results.get(baseline_name(case))
    if baseline:
        base = middle(baseline, "events_per_second")
        ratio = median(
            mine["events_per_second"] / theirs["events_per_second"]
            for mine, theirs in zip(rounds, baseline, strict=True)
        )
        bound = f"at least {case.least:.2f}, aim {case.aim:.2f}"
        label = f"{name}: share of {case.baseline} ({base:,.0f})"
        yield _judged(label, f"{ratio:.2f}", bound, ratio >= case.least)
    p99 = middle(rounds, "p99_ms")
    if case.bounds_p99 and baseline:
        allowed = middle(baseline, "p99_ms") + cases.P99_SYNCS * sync_p99
        yield _judged(f"{name}: p99", f"{p99:.1f} ms", f"at most {allowed:.1f}", p99 <= allowed)
    else:
        yield (f"{name}: p99", f"{p99:.1f} ms", "", "")
    share = min(figures["delivered_share"] for figures in rounds)
    yield _judged(
        f"{name}: delivered 2 s after",
        f"{share:.3f}",
        f"at least {cases.MIN_DELIVERED}",
        share >= cases.MIN_DELIVERED,
    )
    yield _memory(name, rounds)
    cpu = f"{middle(rounds, 'cpu_us_per_event'):.1f} us"
    if case.baseline == "http" and baseline:
        cpu += f" (http {middle(baseline, 'cpu_us_per_event'):.1f} us)"
        given = min(figures["server_core_used"] for figures in baseline)
        if given < _UNDISTURBED:
            yield (
                f"{name}: http's share of its core",
                f"{given:.0%}: the machine was busy",
                "",
                "",
            )
    yield (f"{name}: CPU per event", cpu, "", "")
    failed = sum(figures["failed"] for figures in rounds)
    yield _judged(f"{name}: failed requests", str(failed), "none", failed == 0)


def _drain_rows(results: Rounds) -> Iterable[Row]:
    rounds = results["drain"]
    rate = middle(rounds, "events_per_second")
    label = f"drain of {rounds[0]['events']:,}: events/s"
    if "batch" in results:
        least = middle(results["batch"], "events_per_second")
        yield _judged(label, f"{rate:,.0f}", f"at least {least:,.0f} (batch)", rate >= least)
    else:
        yield (label, f"{rate:,.0f}", "", "")
    yield ("drain: CPU per event", f"{middle(rounds, 'cpu_us_per_event'):.1f} us", "", "")
    yield _memory("drain", rounds)


def _idle_rows(rounds: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    more = max(figures["memory_mb_more"] for figures in rounds)
    lost = sum(figures["closed_by_server"] for figures in rounds)
    label = f"{rounds[0]['connections']:,} idle connections"
    yield _judged(
        f"{label}: more memory",
        f"{more:.0f} MB",
        f"at most {cases.MAX_IDLE_MB:g} MB",
        more <= cases.MAX_IDLE_MB,
    )
    with_them = middle(rounds, "events_per_second")
    without = middle(rounds, "events_per_second_without")
    yield (f"{label}: events/s", f"{with_them:,.0f} (without {without:,.0f})", "", "")
    yield _judged(f"{label}: closed by the server", str(lost), "none", lost == 0)


def _backlog_rows(rounds: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    label = f"backlog of {rounds[0]['events']:,}"
    ratio = median(f["events_per_second"] / f["events_per_second_without"] for f in rounds)
    yield _judged(
        f"{label}: ingest, share of that without",
        f"{ratio:.2f} ({middle(rounds, 'events_per_second'):,.0f} events/s)",
        f"at least {1 - cases.MAX_BACKLOG_COST:.2f}",
        ratio >= 1 - cases.MAX_BACKLOG_COST,
    )
    cpu, alone = (middle(rounds, f"cpu_us_per_event{end}") for end in ("", "_without"))
    yield (f"{label}: CPU per event", f"{cpu:.1f} us (empty {alone:.1f} us)", "", "")
    start = middle(rounds, "start_seconds")
    yield _judged(
        f"{label}: start-up",
        f"{start:.2f} s (empty {middle(rounds, 'start_seconds_without'):.2f} s)",
        f"at most {cases.MAX_START_SECONDS:g} s",
        start <= cases.MAX_START_SECONDS,
    )
    yield _memory(label, rounds)


def _memory(name: str, rounds: Sequence[Mapping[str, Any]]) -> Row:
    most = max(figures["memory_mb"] for figures in rounds)
    bound = f"below {cases.MAX_MEMORY_MB:g} MB"
    return _judged(f"{name}: memory, peak", f"{most:.0f} MB", bound, most < cases.MAX_MEMORY_MB)


def _judged(label: str, value: str, bound: str, good: bool) -> Row:
    return (label, value, bound, "ok" if good else "MISSED")


def baseline_name(case: Case) -> str:
    """Where a case's baseline is among the results."""
    return f"http {case.name}" if case.baseline == "http" else case.baseline


def text(table: list[Row]) -> str:
    """The rows in columns."""
    table = [_HEAD, *table]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
