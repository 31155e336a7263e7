"""Everything that is counted, by the names of the contract; totals for `/status` come from here."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate
from math import inf

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from edgeproxy.events.verdicts import TYPES

__all__ = ["Metrics", "Times", "gauge", "lane_states", "mapping_families"]

# From a commit on an NVMe disk to a request that waited for a slow one.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
# Delivery and lag: from a healthy second to an outage of days.
_LONG_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600, 3600, 21600, 86400, 604800)


class Times:
    """A histogram that is observed for every request: one look-up, two additions, no lock."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        """Begin with nothing observed; `bounds` are the buckets' upper ends in seconds."""
        self._name = name
        self._text = text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def so_far(self) -> tuple[tuple[float, float], ...]:
        """Upper bounds in seconds and how many were at most that."""
        return tuple(zip((*self._bounds, inf), accumulate(self._counts), strict=True))

    def family(self) -> Metric:
        """In the form that is scraped."""
        buckets = [
            ("+Inf" if bound == inf else str(float(bound)), count) for bound, count in self.so_far()
        ]
        return HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


class _AtScrape(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def gauge(name: str, text: str, value: float) -> Metric:
    """One number as it is when somebody asks."""
    return GaugeMetricFamily(f"edgeproxy_{name}", text, value=value)


_STATES = {"ok": 0, "backing_off": 1, "parked": 2}


def lane_states(states: Mapping[str, str]) -> Metric:
    """Each lane's state as a number that alerts can compare."""
    family = GaugeMetricFamily(
        "edgeproxy_lane_state",
        "0 delivers, 1 backing off, 2 parked: only an operator can mend it.",
        labels=["lane"],
    )
    for lane, state in states.items():
        family.add_metric([lane], _STATES[state])
    return family


def mapping_families(revision: str, counts: Mapping[str, Mapping[str, int]]) -> Iterable[Metric]:
    """The mapping in force and what it did: counts by what happened, then by output key."""
    info = GaugeMetricFamily("edgeproxy_mapping_info", "Mapping in force.", labels=["revision"])
    info.add_metric([revision], 1)
    yield info
    fields = CounterMetricFamily(
        "edgeproxy_mapping_fields",
        "Fields coerced, left as they came, left out, or whose expression failed; since the"
        " mapping was compiled.",
        labels=["what", "key"],
    )
    for what, keys in counts.items():
        for key, count in keys.items():
            fields.add_metric([what, key], count)
    yield fields


class Metrics:
    """Counters of one process. Amounts are added per request or batch, never per event."""

    def __init__(self) -> None:
        """Begin at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        # What every request counts is noted here, and added up when somebody asks: a counter takes
        # a lock. This collector comes first, so that the counters behind it are complete.
        self._noted: dict[tuple[Counter, tuple[str, ...]], int] = {}
        self.registry.register(_AtScrape(self._add_up))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"edgeproxy_{name}", text, labels, registry=self.registry)

        self._received = counter(
            "events_received_total", "Events in requests with a known key.", "source", "type"
        )
        self._accepted = counter("events_accepted_total", "Events stored.", "source")
        self._quarantined = counter(
            "events_quarantined_total", "Events that became dead letters.", "source", "code"
        )
        self._duplicate = counter(
            "events_duplicate_total", "Repeats of an accepted messageId.", "source"
        )
        self._filtered = counter(
            "events_filtered_total", "Events that a filter removed.", "source", "rule"
        )
        self._delivered = counter(
            "events_delivered_total", "Events that Hightouch answered 2xx.", "lane"
        )
        self._expired = counter(
            "events_expired_total",
            "Dead letters removed by their limits, and events that aged in the buffer.",
            "source",
        )
        self._purged = counter(
            "events_purged_total", "Events and dead letters that the operator removed.", "source"
        )
        self._refused = counter("requests_refused_total", "Requests refused as a whole.", "code")
        self._skewed = counter(
            "events_skewed_total",
            "Events from clients whose clock is off by more than five minutes.",
            "source",
        )
        self._skew = Gauge(
            "edgeproxy_client_clock_skew_seconds",
            "How far ahead the clock was of the last client that was off by so much.",
            ("source",),
            registry=self.registry,
        )
        self._attempts = counter(
            "delivery_attempts_total", "Batches sent, by what came of it.", "lane", "outcome"
        )
        self._begin_times()
        # Children are looked up once: labels() takes a lock and builds a tuple of strings.
        self._child: Callable[..., Counter] = cache(
            lambda counter, *labels: counter.labels(*labels)
        )

    def _begin_times(self) -> None:
        def times(name: str, text: str, bounds: tuple[float, ...]) -> Times:
            return Times(f"edgeproxy_{name}", text, bounds)

        self.commit_seconds = times("commit_seconds", "One transaction and its sync.", _SECONDS)
        self.request_seconds = times(
            "request_seconds", "From a request's head to its answer.", _SECONDS
        )
        self.delivery_seconds = times("delivery_seconds", "One attempt.", _LONG_SECONDS)
        self.delivery_lag_seconds = times(
            "delivery_lag_seconds",
            "From receipt to delivery, of a batch's first event.",
            _LONG_SECONDS,
        )
        self._times = {
            "answer": self.request_seconds,
            "commit": self.commit_seconds,
            "delivery": self.delivery_seconds,
            "lag": self.delivery_lag_seconds,
        }
        self.at_scrape(lambda: [times.family() for times in self._times.values()])

    def _note(self, counter: Counter, labels: tuple[str, ...], events: int) -> None:
        key = counter, labels
        self._noted[key] = self._noted.get(key, 0) + events

    def _add_up(self) -> Iterable[Metric]:
        noted, self._noted = self._noted, {}
        for (counter, labels), events in noted.items():
            counter.labels(*labels).inc(events)
        return ()

    def received(self, source: str, type_: object, events: int = 1) -> None:
        """Count events that came in; unknown types together, as `other`."""
        known = type_ if isinstance(type_, str) and type_ in TYPES else "other"
        self._note(self._received, (source, known), events)

    def accepted(self, source: str, events: int) -> None:
        """Count events that were stored."""
        self._note(self._accepted, (source,), events)

    def quarantined(self, source: str, code: str, events: int = 1) -> None:
        """Count events that became dead letters."""
        self._child(self._quarantined, source, code).inc(events)

    def duplicates(self, source: str, events: int) -> None:
        """Count repeats."""
        self._child(self._duplicate, source).inc(events)

    def filtered(self, source: str, rule: str, events: int = 1) -> None:
        """Count events that a rule removed."""
        self._child(self._filtered, source, rule).inc(events)

    def delivered(self, lane: str, events: int) -> None:
        """Count events that arrived."""
        self._child(self._delivered, lane).inc(events)

    def refused(self, code: str) -> None:
        """Count a request that was refused as a whole."""
        self._child(self._refused, code).inc()

    def skewed(self, source: str, events: int, seconds: float) -> None:
        """Count events of clients with a wrong clock; `seconds` is how far one of them is ahead."""
        self._child(self._skewed, source).inc(events)
        self._skew.labels(source).set(seconds)

    def expired(self, source: str, events: int) -> None:
        """Count what a limit removed."""
        self._child(self._expired, source).inc(events)

    def attempted(self, lane: str, outcome: str) -> None:
        """Count one batch sent."""
        self._child(self._attempts, lane, outcome).inc()

    def purged(self, source: str, events: int) -> None:
        """Count what the operator removed."""
        self._child(self._purged, source).inc(events)

    def delivered_by(self, lane: str) -> int:
        """Events delivered by one lane so far."""
        return int(self._child(self._delivered, lane)._value.get())  # no public way

    def totals(self) -> dict[str, int]:
        """The sums that `/status` shows."""
        self._add_up()
        return {
            "received": _sum(self._received),
            "accepted": _sum(self._accepted),
            "duplicates": _sum(self._duplicate),
            "quarantined": _sum(self._quarantined),
            "filtered": _sum(self._filtered),
            "delivered": _sum(self._delivered),
            "expired": _sum(self._expired),
            "purged": _sum(self._purged),
        }

    def causes(self) -> dict[tuple[str, ...], float]:
        """What was refused, set aside or wrongly dated so far: by what happened and its labels."""
        found: dict[tuple[str, ...], float] = {}
        for what, counter in (
            ("quarantined", self._quarantined),
            ("refused", self._refused),
            ("skewed", self._skewed),
        ):
            for sample in _totals(counter):
                found[what, *sample.labels.values()] = sample.value
        return found

    def clock_skews(self) -> dict[str, float]:
        """By source: how many seconds ahead the clock was of the last client that was off."""
        return {s.labels["source"]: s.value for m in self._skew.collect() for s in m.samples}

    def times(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """Each histogram so far: upper bounds in seconds and how many were at most that."""
        return {name: times.so_far() for name, times in self._times.items()}

    def at_scrape(self, families: Callable[[], Iterable[Metric]]) -> None:
        """Read further metrics when somebody asks for them."""
        self.registry.register(_AtScrape(families))


def _sum(counter: Counter) -> int:
    return int(sum(sample.value for sample in _totals(counter)))


def _totals(counter: Counter) -> Iterator[Sample]:
    for metric in counter.collect():
        yield from (sample for sample in metric.samples if sample.name.endswith("_total"))
