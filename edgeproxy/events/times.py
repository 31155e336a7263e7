"""Times as SDKs write them, in whole milliseconds since 1970 (UTC)."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

__all__ = ["parse_time", "rfc3339"]

# Epochs below this are seconds, above it milliseconds: as seconds it is the year 5138, as
# milliseconds it is 1973. Events of either are refused as too old or kept as they are anyway.
_SECONDS_BELOW = 100_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last that RFC 3339 can write


def parse_time(value: object) -> int | None:
    """Read RFC 3339 with 0-9 fraction digits, any offset or none (read as UTC), or an epoch number.

    Returns:
        Milliseconds since 1970, or None when `value` is no such time.
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    ms = value * 1000 if abs(value) < _SECONDS_BELOW else value
    return int(ms) if -_LAST_MS <= ms <= _LAST_MS else None


def _parse_text(text: str) -> int | None:
    # fromisoformat also reads week dates and compact forms that nobody means as a timestamp.
    if text[4:5] != "-" or text[7:8] != "-":
        if text.isdecimal() and text.isascii() and len(text) <= 15:
            return parse_time(int(text))
        return _parse_text_again(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _parse_text_again(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def _parse_text_again(text: str) -> int | None:
    """RFC 3339 also allows lower case `t` and `z`, and some senders leave blanks around."""
    tidy = text.strip().upper()
    return None if tidy == text else _parse_text(tidy)


def rfc3339(ms: int) -> bytes:
    """Write a time as `2026-11-23T15:36:34.379Z`; times past the year 9999 or before 1 are clamped."""
    seconds, fraction = divmod(min(max(ms, -62_135_596_800_000), _LAST_MS), 1000)
    return b"%b.%03dZ" % (_whole_seconds(seconds), fraction)


@lru_cache(maxsize=1024)  # the events of a batch share a few seconds
def _whole_seconds(seconds: int) -> bytes:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19].encode()
