"""What a run measured. Pure."""

import math
from array import array
from collections import Counter
from collections.abc import Sequence

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


class Report:
    """Counts answers and keeps every latency (8 bytes each), for exact percentiles."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sent = 0
        self.events_accepted = 0
        self.events_rejected = 0
        self.bytes_sent = 0
        self.answers: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self._latencies = array("d")

    def answered(self, status: int, events: int, rejected: int, latency: float) -> None:
        """Count an answer. `rejected` of its `events` were not accepted; `latency` in seconds."""
        self.answers[status] += 1
        self._latencies.append(latency)
        if 200 <= status < 300:
            self.events_accepted += events - rejected
            self.events_rejected += rejected
        else:
            self.events_rejected += events

    @property
    def failed(self) -> int:
        """Requests that got no answer, or another than 2xx."""
        refused = sum(n for status, n in self.answers.items() if not 200 <= status < 300)
        return refused + self.errors.total()

    def summary(self) -> dict[str, object]:
        """The figures, as `--json` prints them. Latencies are in milliseconds."""
        requests = self.answers.total()
        seconds = max(self.seconds, 1e-9)
        ordered = sorted(self._latencies)
        return {
            "seconds": round(self.seconds, 3),
            "requests": requests,
            "requests_per_second": round(requests / seconds, 1),
            "events_accepted": self.events_accepted,
            "events_rejected": self.events_rejected,
            "events_per_second": round(self.events_accepted / seconds, 1),
            "bytes_sent": self.bytes_sent,
            "answers": {str(status): n for status, n in sorted(self.answers.items())},
            "errors": dict(self.errors),
            "failed": self.failed,
            "latency_ms": {
                name: round(1000 * quantile(ordered, share), 3) if ordered else None
                for name, share in QUANTILES.items()
            },
        }

    def lines(self) -> list[str]:
        """The figures for a person."""
        summary = self.summary()
        answers = ", ".join(f"{n} x {status}" for status, n in sorted(self.answers.items()))
        lines = [
            f"{summary['requests']} requests in {summary['seconds']} s: "
            f"{summary['requests_per_second']} requests/s, {summary['events_per_second']} events/s",
            f"answers: {answers or 'none'}",
        ]
        if self.events_rejected:
            lines.append(f"events rejected: {self.events_rejected}")
        lines.extend(f"failed: {n} x {reason}" for reason, n in sorted(self.errors.items()))
        if self._latencies:
            ordered = sorted(self._latencies)
            parts = (f"{k} {1000 * quantile(ordered, q):.2f}" for k, q in QUANTILES.items())
            lines.append(f"latency in ms: {', '.join(parts)}")
        return lines


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of values in ascending order (at least one)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
