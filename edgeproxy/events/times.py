"""Times as SDKs write them, in whole milliseconds since 1970 (UTC)."""

from datetime import UTC, datetime

__all__ = ["parse_time", "rfc3339"]

# Epochs below this are seconds, above it milliseconds: as seconds it is the year 5138, as
# milliseconds it is 1973. Events of either are refused as too old or kept as they are anyway.
_SECONDS_BELOW = 100_000_000_000
_LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last that RFC 3339 can write


def parse_time(value: object) -> int | None:
    """Read RFC 3339 with 0-9 fraction digits, any offset or none (read as UTC), or an epoch number.

    Returns:
        Milliseconds since 1970, or None when `value` is no such time.
    """
    if isinstance(value, str):
        return _parse_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    ms = value * 1000 if abs(value) < _SECONDS_BELOW else value
    return int(ms) if -_LAST_MS <= ms <= _LAST_MS else None


def _parse_text(text: str) -> int | None:
    if text.isdecimal():
        return parse_time(int(text)) if len(text) <= 15 else None
    # fromisoformat also reads week dates and compact forms that nobody means as a timestamp.
    if len(text) < 10 or text[4] != "-" or text[7] != "-":
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000 + 0.0005)


def rfc3339(ms: int) -> bytes:
    """Write a time as `2026-11-23T15:36:34.379Z`; times past the year 9999 or before 1 are clamped."""
    ms = min(max(ms, -62_135_596_800_000), _LAST_MS)
    seconds, fraction = divmod(ms, 1000)
    whole = datetime.fromtimestamp(seconds, UTC)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (
        whole.year,
        whole.month,
        whole.day,
        whole.hour,
        whole.minute,
        whole.second,
        fraction,
    )
