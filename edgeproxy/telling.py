"""The one line about a proxy that `systemctl status` shows."""

import asyncio
from collections.abc import Callable, Sequence

from edgeproxy.delivery.lane import LaneStatus
from edgeproxy.systemd import Notifier

__all__ = ["state_line", "tell_systemd"]

#: Seconds between two looks.
_LOOKS = 5.0


def state_line(not_ready: str | None, events: int, lanes: Sequence[LaneStatus]) -> str:
    """Whether events are accepted, how many wait, and which lanes are in trouble."""
    troubled = [f"{lane.name} {lane.state} ({lane.reason})" for lane in lanes if lane.state != "ok"]
    parts = (
        "accepting events" if not_ready is None else f"accepts no events: {not_ready}",
        f"{events:,} to deliver" if events else "all delivered",
        f"in trouble: {', '.join(troubled)}" if troubled else "",
    )
    return "; ".join(part for part in parts if part)


async def tell_systemd(
    notifier: Notifier, line: Callable[[], str], *, told: str, seconds: float = _LOOKS
) -> None:
    """Send the line whenever it is another than was told, until cancelled."""
    while notifier.is_heard:
        await asyncio.sleep(seconds)
        now = line()
        if now != told and notifier.status(now):
            told = now
