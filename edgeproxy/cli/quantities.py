"""Numbers as people read them."""

from datetime import UTC, datetime

__all__ = ["counted", "duration", "latency", "moment", "size"]


def counted(number: int, thing: str) -> str:
    """`1 event`, `12,345 events`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def size(number: float) -> str:
    """Bytes: `512 B`, `1.3 KiB`, `1.0 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def duration(seconds: float) -> str:
    """The two largest units: `0.3 s`, `12 s`, `3 min 4 s`, `2 h 5 min`, `4 d 3 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, length, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def latency(seconds: float) -> str:
    """To two digits: `0.38 ms`, `3.8 ms`, `38 ms`, `0.4 s`."""
    ms = seconds * 1000
    if ms >= 100:
        return duration(seconds)
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms"


def moment(ms: int) -> str:
    """A time in ms since 1970, in UTC to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
