"""Misbehaviour on request: what `PUT /faults` may hold. Pure."""

import re
from typing import Literal

import msgspec

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


class FaultsError(Exception):
    """The faults asked for make no sense; the message says which key and what would be right."""


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the sandbox misbehaves until told otherwise. The default is not at all."""

    status: int | None = None
    """Answer with this status. 2xx keeps the events, anything else does not."""
    retry_after: float | str | None = None
    """Send `Retry-After` with `status`: seconds, or the header's text as it is."""
    rate: float = 1.0
    """Share of requests that misbehave, 0 to 1. `poison` is not a matter of chance."""
    latency: float | str = 0.0
    """Time before the answer: seconds, or "250ms", "5s", "1m". The events are kept at once."""
    drop: Literal["before", "after"] | None = None
    """Close the connection before reading the body, or after the events were kept."""
    blackhole: bool = False
    """Never answer, keep nothing, hold the connection open until the next `PUT /faults`."""
    poison: str | list[str] = ""
    """Refuse with 400 every request that holds an event with (one of) this `messageId`."""

    @property
    def delay(self) -> float:
        """`latency` in seconds."""
        return duration(self.latency)

    @property
    def poisoned(self) -> frozenset[str]:
        """The messageIds that make a request be refused."""
        ids = [self.poison] if isinstance(self.poison, str) else self.poison
        return frozenset(filter(None, ids))


def parse_faults(body: bytes) -> Faults:
    """Read and check the body of `PUT /faults`.

    Raises:
        FaultsError: not JSON, an unknown key, a wrong type or a value out of range.

    """
    try:
        faults = msgspec.json.decode(body or b"{}", type=Faults)
    except msgspec.ValidationError as error:
        names = ", ".join(Faults.__struct_fields__)
        raise FaultsError(f"{error} (the keys are: {names})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FaultsError(f"not JSON: {error}") from None
    if faults.status is not None and not 200 <= faults.status <= 599:
        raise FaultsError(f"status {faults.status}: give one from 200 to 599")
    if faults.retry_after is not None and faults.status is None:
        raise FaultsError("retry_after goes with an answer: give status too, for example 429")
    if isinstance(faults.retry_after, float) and faults.retry_after < 0:
        raise FaultsError(f"retry_after {faults.retry_after}: give 0 or more seconds")
    if isinstance(faults.retry_after, str) and not re.fullmatch(r"[ -~]*", faults.retry_after):
        raise FaultsError("retry_after: give printable ASCII text or a number of seconds")
    if not 0 <= faults.rate <= 1:
        raise FaultsError(f"rate {faults.rate}: give a share from 0 to 1")
    duration(faults.latency)
    return faults


def duration(value: float | str) -> float:
    """Seconds from a number or from text such as "250ms".

    Raises:
        FaultsError: negative, or not a duration.

    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise FaultsError(f'latency "{value}": give seconds, or text such as "250ms" or "5s"')
        return float(match[1]) * _UNITS[match[2]]
    if value < 0:
        raise FaultsError(f"latency {value}: give 0 or more seconds")
    return float(value)
