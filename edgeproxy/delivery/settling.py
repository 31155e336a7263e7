"""How a lane's batches leave the buffer: acknowledged, or turned into dead letters with the reason."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from edgeproxy.buffer.base import Buffer, BufferFaultError, Claimed, DeadLetter
from edgeproxy.delivery.outcome import Answer
from edgeproxy.events.event import read, read_object
from edgeproxy.metrics import Metrics

__all__ = ["BUFFER_PAUSE", "Settling"]

_log = structlog.get_logger("edgeproxy.delivery")

#: Seconds after which reading or settling is tried again when the buffer's disk fails.
BUFFER_PAUSE = 1.0


class Settling:
    """Settles one lane's events.

    Every method returns when the buffer took it, and tries until then: what was delivered must not
    be sent again for a full disk. Cancelling does not undo what is on its way to the disk.
    """

    def __init__(
        self,
        name: str,
        buffer: Buffer,
        metrics: Metrics,
        *,
        now: Callable[[], int],
        revision: Callable[[], str],
    ) -> None:
        """Take what it works with; see `Lane`."""
        self._name = name
        self._buffer = buffer
        self._metrics = metrics
        self._now = now
        self._revision = revision

    async def delivered(self, events: Sequence[Claimed]) -> None:
        """Forget what Hightouch took."""
        await self._until_taken(lambda: self._buffer.ack(self._name, events))
        self._metrics.delivered(self._name, len(events))
        lag = max(self._now() - events[0].received, 0)
        self._metrics.delivery_lag_seconds.observe(lag / 1000)

    async def refused(self, events: Sequence[Claimed], answer: Answer) -> None:
        """Bury what Hightouch refused, with its answer."""
        letters = [
            self._letter(
                event,
                "rejected_upstream",
                f"Hightouch answered {answer.status}",
                status=answer.status,
                answer=answer.detail,
            )
            for event in events
        ]
        await self._until_taken(lambda: self._buffer.bury(self._name, events, letters))
        self._metrics.quarantined(self._name, "rejected_upstream", len(letters))
        _log.warning("events_rejected", lane=self._name, events=len(letters), status=answer.status)

    async def aged(self, events: Sequence[Claimed]) -> None:
        """Bury what grew too old in the buffer."""
        message = "grew older than validation.max_age in the buffer"
        letters = [self._letter(event, "too_old", message) for event in events]
        await self._until_taken(lambda: self._buffer.bury(self._name, events, letters))
        self._metrics.quarantined(self._name, "too_old", len(letters))
        self._metrics.expired(self._name, len(letters))
        _log.warning("events_expired", lane=self._name, events=len(letters))

    async def _until_taken(self, settle: Callable[[], "asyncio.Future[None]"]) -> None:
        while True:
            try:
                await asyncio.shield(settle())
            except BufferFaultError as error:
                _log.error("settling_failed", lane=self._name, reason=str(error))
                await asyncio.sleep(BUFFER_PAUSE)
            else:
                return

    def _letter(
        self, event: Claimed, code: str, message: str, status: int | None = None, answer: str = ""
    ) -> DeadLetter:
        fields = read_object(event.body) or {}
        id_ = read(fields["messageId"]) if "messageId" in fields else ""
        return DeadLetter(
            lane=self._name,
            code=code,
            message=message,
            form="sent",
            received=event.received,
            died=self._now(),
            body=event.body,
            message_id=str(id_),
            revision=self._revision(),
            status=status,
            answer=answer,
            skew=event.skew,
            age=event.age,
        )
