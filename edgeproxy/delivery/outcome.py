"""What an answer means for a batch: the contract's table, as data and one pure function."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from msgspec import Struct

__all__ = ["RETRY_AFTER_CAP", "Answer", "Outcome", "Verdict", "judge", "retry_after_seconds"]

#: Longest pause that Hightouch may ask for; more is taken for a mistake (the contract).
RETRY_AFTER_CAP = 3600.0

Verdict = Literal["delivered", "retry", "park", "refuse"]


class Answer(Struct, frozen=True):
    """What came back for one batch; `status` None: nothing that could be read."""

    status: int | None
    reason: str  # a code for logs and metrics: "http_503", "timeout", "connect", …
    detail: str = ""  # for people: the body's beginning, or the error's words
    retry_after: str | None = None
    reached: bool = True  # False: Hightouch cannot have seen the batch


class Outcome(Struct, frozen=True):
    """What to do with the batch, and why."""

    verdict: Verdict
    answer: Answer
    retry_after: float | None = None  # seconds


_RETRY = frozenset({408, 425, 429})
# Nobody but the operator can mend these: a wrong key, a wrong address, a redirect (never followed).
_PARK = frozenset({401, 403, 404, 405, 410})


def judge(answer: Answer, now: datetime) -> Outcome:
    """Decide what an answer means; `now` is for a Retry-After that is a date."""
    status = answer.status
    if status is not None and 200 <= status < 300:
        return Outcome("delivered", answer)
    if status is None or status < 200 or status >= 500 or status in _RETRY:
        return Outcome("retry", answer, retry_after_seconds(answer.retry_after, now))
    if status in _PARK or 300 <= status < 400:
        return Outcome("park", answer)
    return Outcome("refuse", answer)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Read Retry-After (RFC 9110, 10.2.3): seconds or a date, between 0 and RETRY_AFTER_CAP."""
    if value is None:
        return None
    value = value.strip()
    try:
        seconds = float(value) if value.isdecimal() else _until(value, now)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP)


def _until(value: str, now: datetime) -> float:
    moment = parsedate_to_datetime(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()
